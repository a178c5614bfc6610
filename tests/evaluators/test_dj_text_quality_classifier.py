import json
import math
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import mmh3
import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from raysandbox.api import run
from raysandbox.core.component import PathRole, path_refs
from raysandbox.core.errors import JobFailed, UserError
from raysandbox.evaluators import dj_text_quality_classifier as module
from raysandbox.evaluators._quality_training import train
from raysandbox.evaluators._spark_model import HashedRegression
from raysandbox.evaluators._spark_writer import write_pipeline
from raysandbox.evaluators.base import DATA_EVALUATORS
from raysandbox.evaluators.dj_text_quality_classifier import QualityScorer, TextQualityClassifier
from raysandbox.provision.weights import files_of

GOOD = [f"the river {word} science" for word in ["one", "two", "three", "four", "five", "six", "seven", "eight"]]
POOR = [f"click buy {word} now" for word in ["one", "two", "three", "four", "five", "six", "seven", "eight"]]


class InProcess:
    """Scores a table at once, or in blocks."""

    def __init__(self, table, block=None):
        self.table, self.block = table, block or max(1, table.num_rows)
        self.paths, self.exports = [], []

    def score(self, dataset_path, scorer, export_path=None):
        self.paths.append(dataset_path)
        self.exports.append(export_path)
        scorer = pickle.loads(pickle.dumps(scorer))
        state = scorer.load()
        starts = range(0, max(1, self.table.num_rows), self.block)
        return pa.concat_tables(pa.table(scorer.score(self.table.slice(i, self.block), state)) for i in starts)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality") / "model"
    write_pipeline(train(GOOD, POOR, num_features=4096)[0], folder)
    return str(folder)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "cache_dir", lambda: tmp_path)
    return tmp_path / "models" / "quality"


def evaluate(texts, block=None, **config):
    reported = {}
    scorers = InProcess(pa.table({"text": pa.array(texts, pa.string())}), block)
    evaluator = TextQualityClassifier(dataset_path="data.jsonl", **config)
    session = SimpleNamespace(scorers=scorers, report=lambda metrics, step=None: reported.update(metrics))
    score = evaluator.evaluate(session)
    return score, reported, scorers


def test_the_result_is_the_mean_score(model):
    score, reported, scorers = evaluate(GOOD + POOR, model=model, export_path="out.jsonl")
    assert reported == {"doc_score": score, "kept_share": 0.5, "rows": 16.0}
    assert 0.4 < score < 0.6
    assert evaluate(GOOD, model=model)[0] > 0.8
    assert evaluate(POOR, model=model)[0] < 0.2
    assert scorers.exports == [Path("out.jsonl")]


def test_blocks_do_not_change_the_result(model):
    for keep_method in ("label", "gpt3"):
        whole = evaluate(GOOD + POOR, model=model, keep_method=keep_method)[:2]
        assert evaluate(GOOD + POOR, block=3, model=model, keep_method=keep_method)[:2] == whole


def test_another_data_set_is_reported_beside(model):
    score, reported, scorers = evaluate(GOOD, model=model, compare_with="before.jsonl", export_path="out.jsonl")
    assert reported["doc_score"] == reported["compared_doc_score"] == score
    assert (reported["compared_kept_share"], reported["compared_rows"]) == (1.0, 8.0)
    assert scorers.paths == ["data.jsonl", "before.jsonl"]
    assert scorers.exports == [Path("out.jsonl"), None]


@pytest.mark.parametrize(
    ("texts", "message"),
    [([], "has no rows"), (["good", None], "1 of 2 rows .* have no score: their 'text' is missing")],
)
def test_without_a_score_the_job_fails(model, texts, message):
    with pytest.raises(JobFailed, match=message):
        evaluate(texts, model=model)


def test_a_model_without_numbers_fails(tmp_path):
    write_pipeline(HashedRegression(np.full(16, np.nan), 0.0), tmp_path / "m")
    with pytest.raises(JobFailed, match="holds values that are no numbers"):
        evaluate(["good"], model=str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"content": ["x"]}, "no column 'text' .it has content.: set `text_key`"),
        ({"text": [1]}, "column 'text' holds int64, not text"),
    ],
)
def test_a_wrong_column_is_named(model, table, message):
    scorer = TextQualityClassifier(dataset_path="x", model=model).scorer()
    with pytest.raises(UserError, match=message):
        scorer.score(pa.table(table), scorer.load())


def test_pareto_draws_follow_seed_and_text_only():
    scorer = QualityScorer("", None, "gpt3", "text", seed=1)
    texts = [f"text {number}" for number in range(20_000)]
    limits = scorer._limits(texts)
    assert np.array_equal(scorer._limits(texts[::-1]), limits[::-1])
    assert not np.array_equal(QualityScorer("", None, "gpt3", "text", seed=2)._limits(texts), limits)
    draws = 1 - limits  # Lomax of shape 9: P(x > t) = (1 + t) ** -9, mean 1 / 8
    assert draws.min() >= 0
    assert np.mean(draws) == pytest.approx(1 / 8, rel=0.03)
    assert np.mean(draws > 0.5) == pytest.approx(1.5**-9, rel=0.15)


@given(st.floats(0, 1))
def test_label_keeps_above_one_half(score):
    assert (score > QualityScorer("", None, "label", "text", 0)._limits([""])) == (score > 0.5)


@pytest.mark.parametrize(
    ("model", "method"), [("gpt3", "gpt3"), ("chinese", "label"), ("code", "label"), (None, "label")]
)
def test_keep_method_is_the_models_own_by_default(cache, model, method):
    for name in ("gpt3", "chinese", "code", "own"):
        (cache / f"{name}_quality_model").mkdir(parents=True)
    for name in ("zh", "code"):
        (cache / f"{name}.sp.model").touch()
    path = model or str(cache / "own_quality_model")
    assert TextQualityClassifier(dataset_path="x", model=path).scorer().keep_method == method
    other = "label" if method == "gpt3" else "gpt3"
    assert TextQualityClassifier(dataset_path="x", model=path, keep_method=other).scorer().keep_method == other


def test_a_missing_published_model_says_where_it_belongs(cache):
    with pytest.raises(UserError) as caught:
        TextQualityClassifier(dataset_path="x").scorer()
    message = str(caught.value)
    assert str(cache / "gpt3_quality_model.zip") in message
    assert str(cache / "gpt3_quality_model") in message
    (cache / "chinese_quality_model").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no sentencepiece model at .*zh\.sp\.model"):
        TextQualityClassifier(dataset_path="x", model="chinese").scorer()


def test_a_published_model_is_found_as_archive(cache):
    cache.mkdir(parents=True)
    (cache / "gpt3_quality_model.zip").touch()
    assert TextQualityClassifier(dataset_path="x").scorer().model == str(cache / "gpt3_quality_model.zip")


def test_the_content_of_a_published_model_is_part_of_a_jobs_key(cache):
    assert TextQualityClassifier.surroundings({}) == []
    (cache / "chinese_quality_model").mkdir(parents=True)
    found = []
    for model, tokenizer in (("a", "a"), ("a", "b"), ("b", "b")):
        (cache / "chinese_quality_model" / "part").write_text(model)
        (cache / "zh.sp.model").write_text(tokenizer)
        found.append(TextQualityClassifier.surroundings({"model": "chinese"}))
    assert len({json.dumps(item) for item in found}) == 3
    assert TextQualityClassifier.surroundings({"model": "./own"}) is None


def test_a_missing_model_path_is_named():
    with pytest.raises(UserError, match="no quality model at nowhere/model: `model` is gpt3, chinese, code"):
        TextQualityClassifier(dataset_path="x", model="nowhere/model").scorer()


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory):
    sentencepiece = pytest.importorskip("sentencepiece")
    prefix = tmp_path_factory.mktemp("pieces") / "tiny"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter((GOOD + POOR) * 4), model_prefix=str(prefix), vocab_size=30, minloglevel=2
    )
    return f"{prefix}.model"


def test_a_sentencepiece_model_splits_the_text(sentencepiece_model, tmp_path):
    coefficients = np.zeros(64)
    write_pipeline(HashedRegression(coefficients, 0.0, splits_text=False), tmp_path / "m")
    config = {"model": str(tmp_path / "m"), "tokenizer": sentencepiece_model}
    assert evaluate(GOOD, **config)[0] == 0.5


CHINESE = [f"这条河流{word}，科学研究" for word in ["很长", "很短", "清澈", "浑浊", "宽阔", "平静", "湍急", "古老"]]
SPAM = [f"点击购买{word}优惠" for word in ["手机", "电脑", "衣服", "鞋子", "食品", "机票", "酒店", "课程"]]
CODE = [f"def {name}(x):\n    return x + {number}" for number, name in enumerate("abcdefgh")]
NOISE = [f"0x{number:04x} ;; @@ {number} %%" for number in range(100, 108)]


@pytest.mark.parametrize(
    ("model", "good", "poor"), [("chinese", CHINESE, SPAM), ("code", CODE, NOISE)], ids=["chinese", "code"]
)
def test_published_models_with_a_tokenizer_run_from_a_configuration(workspace, model, good, poor):
    """A tokenizer and a model where the published ones belong; the score by hand agrees."""
    sentencepiece = pytest.importorskip("sentencepiece")
    archive, tokenizer = (file.target() for file in files_of("dj_text_quality_classifier", [model]))
    archive.parent.mkdir(parents=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter((good + poor) * 4),
        model_prefix=str(tokenizer).removesuffix(".model"),
        vocab_size=90,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer)).encode_as_pieces
    coefficients = np.zeros(4096)
    for sign, texts in ((0.1, good), (-0.1, poor)):
        for piece in (piece for text in texts for piece in pieces(text)):
            coefficients[mmh3.hash(piece, 42) % 4096] += sign
    write_pipeline(HashedRegression(coefficients, 0.25, splits_text=False), workspace / "made")
    shutil.make_archive(str(archive.with_suffix("")), "zip", workspace / "made")

    texts = good + poor
    Path("data.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    extra = {"dataset_path": "data.jsonl", "model": model, "export_path": "scored.jsonl"}
    job = {"hook": "EvaluateDataHook", "meta_name": "quality", "output": ["score"]}
    job["extra_configs"] = {"type": "dj_text_quality_classifier", **extra}
    Path("sandbox.yaml").write_text(yaml.safe_dump({"work_dir": "work", "evaluation_job_configs": [job]}))
    run("sandbox.yaml")

    sums = [0.25 + sum(coefficients[mmh3.hash(piece, 42) % 4096] for piece in pieces(text)) for text in texts]
    expected = [1 / (1 + math.exp(-value)) for value in sums]
    rows = [json.loads(line) for line in Path("scored.jsonl").read_text().splitlines()]
    assert [row["doc_score"] for row in rows] == pytest.approx(expected, abs=1e-12)
    assert [row["should_keep"] for row in rows] == [int(score > 0.5) for score in expected]
    assert np.mean(expected[:8]) > np.mean(expected[8:]) + 0.2
    found = json.loads(Path("work/context_infos.json").read_text())[0]["pipeline_infos"][0]["job_infos"][0]["score"]
    assert found == pytest.approx(sum(expected) / 16, abs=1e-12)


def test_tokenizer_and_pipeline_must_fit(model, sentencepiece_model, tmp_path):
    with pytest.raises(UserError, match="splits texts by itself: remove `tokenizer`"):
        TextQualityClassifier(dataset_path="x", model=model, tokenizer=sentencepiece_model).scorer().load()
    write_pipeline(HashedRegression(np.zeros(8), 0.0, splits_text=False), tmp_path / "m")
    with pytest.raises(UserError, match="needs the sentencepiece model"):
        TextQualityClassifier(dataset_path="x", model=str(tmp_path / "m")).scorer().load()


def test_every_data_evaluator_keeps_the_contract():
    for name in DATA_EVALUATORS.names():
        cls = DATA_EVALUATORS.get(name)
        evaluator = cls.model_validate(cls.example)
        assert cls.type_name == name
        assert pickle.loads(pickle.dumps(evaluator)) == evaluator
        assert cls.model_validate(yaml.safe_load(yaml.safe_dump(evaluator.model_dump()))) == evaluator
        assert all(field.description for field in cls.model_fields.values())
        with pytest.raises(ValidationError):
            cls.model_validate({**cls.example, "no_such_key": 1})


def test_paths_have_their_roles():
    refs = {ref.key[0]: ref.role for ref in path_refs(TextQualityClassifier, {"dataset_path": "a", "export_path": "b"})}
    assert refs == {"dataset_path": PathRole.INPUT, "export_path": PathRole.OUTPUT, "model": PathRole.MODEL}
