import os

import pyarrow as pa
import pytest

from raysandbox.core.errors import BadRowsError, UserError
from raysandbox.ops.base import OpResources
from raysandbox.recipe.scoring import DatasetScorers


class LengthScorer:
    loads = 0

    def load(self):
        LengthScorer.loads += 1
        return 10

    def score(self, table, state):
        lengths = [len(text) / state for text in table.column("text").to_pylist()]
        return {"score": pa.array(lengths), "old": pa.array(["new"] * len(lengths))}


def test_scores_in_order_and_rows_with_scores(tmp_path, write_jsonl, read_jsonl):
    source = write_jsonl([{"text": "abc", "old": 1}, {"text": "abcdef"}])
    table = DatasetScorers("local").score(str(source), LengthScorer(), tmp_path / "out.jsonl")
    assert table.to_pydict() == {"score": [0.3, 0.6], "old": ["new", "new"]}
    assert read_jsonl(tmp_path / "out.jsonl") == [
        {"text": "abc", "old": "new", "score": 0.3},
        {"text": "abcdef", "score": 0.6, "old": "new"},
    ]
    assert LengthScorer.loads == 1


def test_without_output_nothing_is_written(tmp_path, write_jsonl):
    source = write_jsonl([{"text": "abc"}])
    assert DatasetScorers().score(str(source), LengthScorer()).num_rows == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_no_rows_no_columns(write_jsonl):
    assert DatasetScorers().score(str(write_jsonl([])), LengthScorer()).num_columns == 0


def test_a_broken_line_is_an_error(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{')
    with pytest.raises(BadRowsError, match=r"in\.jsonl:2"):
        DatasetScorers().score(str(tmp_path / "in.jsonl"), LengthScorer(), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


class WhereScorer:
    """Tells which GPUs its worker sees, and how many rows it was given at once."""

    def load(self):
        return os.environ.get("CUDA_VISIBLE_DEVICES", "all")

    def score(self, table, state):
        return {"sees": pa.array([state] * table.num_rows), "rows": pa.array([table.num_rows] * table.num_rows)}


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("gpus", "seen"), [(0, {""}), (1, {"0", "1"})])
def test_a_scorer_with_a_model_runs_in_workers_of_the_job(write_jsonl, gpus, seen):
    source = write_jsonl([{"text": "abc"}] * 40)
    scorers = DatasetScorers(device=OpResources(num_cpus=1, num_gpus=gpus, workers=2))
    table = scorers.score(str(source), WhereScorer(), on_device=True).to_pydict()
    assert len(table["sees"]) == 40
    assert set(table["sees"]) <= seen
    assert set(table["rows"]) == {1}
    with pytest.raises(UserError, match="ask for 9 workers"):
        DatasetScorers(device=OpResources(workers=9)).score(str(source), WhereScorer(), on_device=True)
