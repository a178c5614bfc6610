"""Perplexity over a job's workers: equal to transformers', for any sharding; what cannot be measured is named."""

import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from raysandbox.core.errors import ConfigError, JobFailed, MissingExtraError, UserError
from raysandbox.core.progress import Progress
from raysandbox.executors.base import MODEL_EVALUATORS
from raysandbox.executors.evaluate import perplexity as module
from raysandbox.executors.evaluate.perplexity import Perplexity
from raysandbox.recipe.scoring import DatasetScorers
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.unit_workers import JobWorkers
from tests.executors.conftest import texts, write_jsonl
from tests.executors.tiny_language_models import llama

HELD_OUT = [" ".join(texts(5, row)[: 1 + row % 5]) for row in range(30)]


@dataclass
class InProcess:
    """Does units in this process, the last first; notes what was asked."""

    units: list = field(default_factory=list)

    def map(self, work, units, *, description="", python=None, elastic=False):
        self.units.append(len(units))
        state = work.load("cpu")
        yield from ((index, work.run(units[index], state)) for index in reversed(range(len(units))))


@dataclass
class Session:
    workers: object = field(default_factory=InProcess)
    scorers: object = field(default_factory=lambda: DatasetScorers("local"))
    allow_user_code: bool = False
    reported: dict = field(default_factory=dict)

    def report(self, metrics, step=None):
        self.reported.update(metrics)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("models") / "llama", HELD_OUT)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(write_jsonl(tmp_path_factory.mktemp("data") / "held_out.jsonl", [{"text": text} for text in HELD_OUT]))


def evaluate(session=None, **config):
    return Perplexity.model_validate(config).evaluate(session or Session())


def by_transformers(folder):
    """exp of the token-weighted mean of `model(input_ids, labels).loss`; no text is longer than a window."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    total, tokens = 0.0, 0
    for text in HELD_OUT:
        ids = tokenizer(text, return_tensors="pt")["input_ids"][:, :]
        count = ids.shape[1] - 1
        total += model(ids, labels=ids).loss.item() * count
        tokens += count
    return math.exp(total / tokens), tokens


def test_it_is_registered_and_its_example_holds():
    assert MODEL_EVALUATORS.get("perplexity") is Perplexity
    Perplexity.model_validate(Perplexity.example)


def test_it_equals_transformers_own(tmp_path, data):
    model = llama(tmp_path / "wide", HELD_OUT, context=128)
    expected, tokens = by_transformers(model)
    for batch_size in (1, 8, 100):
        session = Session()
        found = evaluate(session, model=model, dataset_path=data, dtype="float32", batch_size=batch_size)
        assert found == pytest.approx(expected, rel=1e-6)
        assert session.reported == {
            "perplexity": found,
            "loss": pytest.approx(math.log(expected), rel=1e-6),
            "tokens": tokens,
            "rows": 30,
            "rows_without_text": 0,
        }


def test_any_number_of_workers_gives_the_same_bits(cluster, model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_UNIT_TEXTS", 4)
    job = SimpleNamespace(id="job", resources=Resources(num_workers=2), runtime_env={})
    workers = JobWorkers(job, tmp_path / "job.log", Progress())
    found = evaluate(Session(workers), model=model, dataset_path=data)
    in_process = Session()
    assert found == evaluate(in_process, model=model, dataset_path=data)
    assert in_process.workers.units == [8]


def test_units_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "_UNIT_TEXTS", 3)
    monkeypatch.setattr(module, "_UNIT_CHARACTERS", 10)
    edges = list(module._edges(iter([1, 1, 1, 1, 50, 4, 6, 1])))
    assert edges == [3, 4, 5, 7, 8]
    assert list(module._edges(iter([]))) == []


def test_rows_without_text_are_counted_and_named(model, tmp_path, caplog):
    rows = [{"a": {"text": text}} for text in HELD_OUT[:3]] + [{"a": {"text": "  "}}, {"a": {}}, {"b": 1}]
    path = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    session = Session()
    evaluate(session, model=model, dataset_path=path, text_key="a.text")
    assert session.reported["rows"] == 6
    assert session.reported["rows_without_text"] == 3
    assert "3 of 6 rows of" in caplog.text
    assert "row 4, 5, 6" in caplog.text


def test_what_cannot_be_measured_is_named(model, data, tmp_path):
    empty, numbers = tmp_path / "empty.jsonl", tmp_path / "numbers.jsonl"
    empty.write_text("")
    numbers.write_text(json.dumps({"text": 1}))
    with pytest.raises(JobFailed, match=r"empty\.jsonl has no rows"):
        evaluate(model=model, dataset_path=str(empty))
    with pytest.raises(JobFailed, match=r"no row of .* has text in 'content': set text_key"):
        evaluate(model=model, dataset_path=data, text_key="content")
    with pytest.raises(UserError, match="'text' holds int, not text"):
        evaluate(model=model, dataset_path=str(numbers))
    with pytest.raises(ConfigError, match="absent"):
        evaluate(model=model, dataset_path="absent.jsonl")
    with pytest.raises(UserError, match="allow it with --allow-user-code"):
        evaluate(model=model, dataset_path=data, trust_remote_code=True)
    with pytest.raises(ValidationError, match=r"stride \(9\) is more than max_length \(8\)"):
        evaluate(model=model, dataset_path=data, stride=9, max_length=8)


def test_nothing_to_predict_is_named(tmp_path, caplog):
    model = llama(tmp_path / "model", HELD_OUT)
    tokenizer = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps({**tokenizer, "post_processor": None}))
    one = str(write_jsonl(tmp_path / "one.jsonl", [{"text": "the"}]))
    with pytest.raises(JobFailed, match="have one token at most"):
        evaluate(model=model, dataset_path=one)
    two = str(write_jsonl(tmp_path / "two.jsonl", [{"text": "the"}, {"text": "the data"}]))
    with caplog.at_level(logging.WARNING):
        evaluate(model=model, dataset_path=two)
    assert "1 texts of" in caplog.text


def test_a_loss_that_is_no_number_fails(tmp_path, data):
    broken = llama(tmp_path / "broken", HELD_OUT, scale=float("nan"))
    with pytest.raises(JobFailed, match="the loss of 30 of 30 texts is not a number under"):
        evaluate(model=broken, dataset_path=data)


def test_without_transformers_it_says_what_to_install(model, data, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"raysandbox\[models\]"):
        evaluate(model=model, dataset_path=data)


def test_a_model_of_modelscope(tiny_model, train_file):
    session = Session()
    found = evaluate(session, model=str(tiny_model), hub="modelscope", dataset_path=str(train_file))
    assert 1 < found < math.inf
    assert Path(train_file).exists()
    assert session.reported["rows"] == 48
