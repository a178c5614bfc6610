"""The quality classifier's scores are kept by text, under everything else that they depend on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from raysandbox.api import run
from raysandbox.core import keys
from raysandbox.core.keys import DigestMemo
from raysandbox.core.runner import CachedScorer
from raysandbox.evaluators._quality_training import train
from raysandbox.evaluators._spark_writer import write_pipeline
from raysandbox.evaluators.dj_text_quality_classifier import QualityScorer
from raysandbox.recipe.scoring import DatasetScorers

GOOD = [f"the river {word} science" for word in ("one", "two", "three", "four", "five", "six", "seven", "eight")]
POOR = [f"click buy {word} now" for word in ("one", "two", "three", "four", "five", "six", "seven", "eight")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality") / "model"
    write_pipeline(train(GOOD, POOR, num_features=4096)[0], folder)
    return folder


@pytest.fixture
def scorer(model):
    return QualityScorer(str(model), None, "gpt3", "text", 42)


def write(path, texts, key="text"):
    path.write_text("".join(json.dumps({key: text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def count(monkeypatch):
    """The texts that are scored from now on."""
    scored, plain = [], QualityScorer.score

    def score(self, table, state):
        scored.extend(table.column(self.text_key).to_pylist())
        return plain(self, table, state)

    monkeypatch.setattr(QualityScorer, "score", score)
    return scored


def test_it_is_a_scorer_whose_scores_are_kept(scorer):
    assert isinstance(scorer, CachedScorer)
    assert scorer.cache_columns() == ("text",)
    assert replace(scorer, text_key="body").cache_columns() == ("body",)


def test_the_identity_is_all_that_scores_depend_on(tmp_path, model, scorer, monkeypatch):
    memo = DigestMemo(tmp_path / "digests")
    copy = shutil.copytree(model, tmp_path / "copy")
    same = replace(scorer, model=str(copy), text_key="body").cache_identity(memo)
    assert same == scorer.cache_identity(memo)
    (tmp_path / "a.model").write_bytes(b"a")
    (tmp_path / "b.model").write_bytes(b"b")
    others = [
        replace(scorer, keep_method="label"),
        replace(scorer, seed=43),
        replace(scorer, tokenizer=str(tmp_path / "a.model")),
        replace(scorer, tokenizer=str(tmp_path / "b.model")),
    ]
    identities = [same, *(other.cache_identity(memo) for other in others)]
    changed = next(path for path in sorted(copy.rglob("*.parquet")) if not path.name.startswith("."))
    changed.write_bytes(changed.read_bytes() + b" ")
    identities.append(replace(scorer, model=str(copy)).cache_identity(memo))
    plain = keys._source_digest
    for module in ("dj_text_quality_classifier", "_spark_features", "_spark_model", "_java_text", "_word_hash"):

        def source(name, module=module):
            return "changed" if name == f"raysandbox.evaluators.{module}" else plain(name)

        monkeypatch.setattr(keys, "_source_digest", source)
        identities.append(scorer.cache_identity(memo))
    monkeypatch.setattr(keys, "_source_digest", plain)
    assert scorer.cache_identity(memo) == same
    assert len({keys.digest(identity) for identity in identities}) == len(identities) == 11


@settings(max_examples=10)
@given(st.lists(st.sampled_from([*GOOD, *POOR, "", "Éa\u2003b", "x " * 300])), st.randoms(use_true_random=False))
def test_known_scores_are_those_that_are_computed(tmp_path_factory, model, texts, random):
    folder = tmp_path_factory.mktemp("data")
    scorer = QualityScorer(str(model), None, "gpt3", "text", 42)
    scorers = DatasetScorers("local", shared=folder / "cache", block_bytes=100)
    part, whole = write(folder / "a.jsonl", random.sample(texts, len(texts) // 2)), write(folder / "b.jsonl", texts)
    expected = DatasetScorers("local").score(whole, scorer, folder / "plain.jsonl")
    scorers.score(part, scorer)
    for path in (folder / "kept.jsonl", None, None, None):
        assert scorers.score(whole, scorer, path).equals(expected)
    assert (folder / "kept.jsonl").read_bytes() == (folder / "plain.jsonl").read_bytes()


def test_other_columns_of_equal_text_are_known(tmp_path, scorer, monkeypatch):
    scored = count(monkeypatch)
    scorers = DatasetScorers("local", shared=tmp_path / "cache")
    scorers.score(write(tmp_path / "a.jsonl", GOOD), scorer)
    scorers.score(write(tmp_path / "b.jsonl", GOOD, "body"), replace(scorer, text_key="body"))
    assert scored == GOOD


def sandbox(model, least, work_dir):
    recipe = {
        "dataset_path": "data.jsonl",
        "export_path": f"{work_dir}/out.jsonl",
        "process": [{"text_length_filter": {"min_len": least}}],
    }
    quality = {"type": "dj_text_quality_classifier", "model": str(model), "compare_with": "data.jsonl"}
    jobs = {
        "execution_job_configs": [
            {"hook": "ProcessDataHook", "meta_name": "process", "output": ["path"], "dj_configs": recipe}
        ],
        "evaluation_job_configs": [
            {
                "hook": "EvaluateDataHook",
                "meta_name": "quality",
                "input": {"extra_configs.dataset_path": "-1.path"},
                "output": ["score"],
                "extra_configs": quality,
            }
        ],
    }
    path = Path(f"{work_dir}.yaml")
    path.write_text(yaml.safe_dump({"work_dir": work_dir, **jobs}))
    return str(path)


def metrics(work_dir):
    rows = map(json.loads, Path(work_dir, "metrics.jsonl").read_text().splitlines())
    return {row["name"]: row["value"] for row in rows}


def test_runs_with_other_thresholds_score_nothing_twice(workspace, model, monkeypatch):
    write(Path("data.jsonl"), GOOD + POOR)
    scored = count(monkeypatch)
    run(sandbox(model, 21, "first"))
    assert sorted(scored) == sorted(GOOD + POOR)
    scored.clear()
    run(sandbox(model, 5, "second"))
    assert scored == []
    found = metrics("second")
    assert found["quality.doc_score"] == found["quality.compared_doc_score"]
    assert metrics("first")["quality.compared_doc_score"] == found["quality.compared_doc_score"]
    run(sandbox(model, 5, "third"), use_cache=False)
    assert len(scored) == 32
    assert metrics("third")["quality.doc_score"] == found["quality.doc_score"]
