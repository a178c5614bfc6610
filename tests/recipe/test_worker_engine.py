"""The recipe engine's units in a job's workers: results in input order, errors as they were raised."""

import os
import pickle
import random

import pyarrow as pa
import pytest

from raysandbox.core.errors import BadRowsError, UserError
from raysandbox.recipe.scoring import DatasetScorers
from raysandbox.recipe.worker_engine import WorkerEngine


class Scorer:
    def load(self):
        return os.environ["CUDA_VISIBLE_DEVICES"]

    def score(self, table, state):
        texts = table.column("text").to_pylist()
        if "bad" in texts:
            raise UserError("the text is bad")
        return {"length": pa.array(map(len, texts)), "gpus": pa.array([state] * len(texts))}


class Shuffled:
    """Stands for workers: units go there and back as bytes, in an order of their own."""

    def __init__(self, device="cpu"):
        self.device = device
        self.count = 0

    def map(self, work, units, *, description="", python=None):
        work = pickle.loads(pickle.dumps(work))
        state = work.load(self.device)
        self.count = len(units)
        for index in random.Random(0).sample(range(len(units)), len(units)):
            yield index, pickle.loads(pickle.dumps(work.run(pickle.loads(pickle.dumps(units[index])), state)))


@pytest.fixture
def gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")


def test_results_come_in_input_order(gpus, tmp_path, write_jsonl, read_jsonl):
    texts = ["x" * (n % 37) for n in range(500)]
    path = write_jsonl([{"text": text} for text in texts])
    workers = Shuffled()
    scorers = DatasetScorers(WorkerEngine(workers), block_bytes=1000)
    table = scorers.score(str(path), Scorer(), tmp_path / "out.jsonl")
    assert workers.count > 10
    assert table.column("length").to_pylist() == [len(text) for text in texts]
    assert [row["text"] for row in read_jsonl(tmp_path / "out.jsonl")] == texts
    assert set(table.column("gpus").to_pylist()) == {""}  # a worker without a GPU of its own sees none


def test_a_worker_with_a_gpu_keeps_it(gpus, write_jsonl):
    table = DatasetScorers(WorkerEngine(Shuffled("cuda"))).score(str(write_jsonl([{"text": "a"}])), Scorer())
    assert table.column("gpus").to_pylist() == ["0,1"]


def test_errors_and_bad_lines_are_those_of_the_other_engines(gpus, tmp_path, write_jsonl):
    scorers = DatasetScorers(WorkerEngine(Shuffled()), tmp_path / "quarantine")
    with pytest.raises(UserError, match=r"^the text is bad$"):
        scorers.score(str(write_jsonl([{"text": "bad"}])), Scorer())
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{')
    with pytest.raises(BadRowsError, match=r"broken\.jsonl:2"):
        scorers.score(str(tmp_path / "broken.jsonl"), Scorer())
