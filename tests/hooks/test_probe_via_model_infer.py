"""A model probe: sampling, scores in the statistics, the summary that refinements use, the hardest rows."""

import json
import logging
import math
import random
from pathlib import Path

import pytest
import yaml

from raysandbox.analysis.export import load
from raysandbox.api import run
from raysandbox.core.errors import JobFailed, UserError
from raysandbox.core.progress import Progress
from raysandbox.executors.base import MODEL_PROBES
from raysandbox.hooks.base import HOOKS, Job, JobContext
from raysandbox.hooks.probe_via_model_infer import ProbeViaModelInferHook
from raysandbox.runtime.placement import Resources
from tests.executors.conftest import WORDS, write_jsonl
from tests.executors.tiny_language_models import classifier, llama

STATS = "__dj__stats__"


def sentences(number):
    chance = random.Random(0)
    return [" ".join(chance.choices(WORDS, k=chance.randint(2, 20))) for _ in range(number)]


TEXTS = sentences(40)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("models") / "llama", WORDS)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rows = [{"text": text, "n": n, "source": "ab"[n % 5 == 0]} for n, text in enumerate(TEXTS)]
    return str(write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", rows))


class Prober:
    """Runs the hook as a job does."""

    def __init__(self, folder):
        self.folder = folder
        self.reported = {}
        self.artifacts = folder / "artifacts"

    def report(self, metrics, step=None):
        self.reported.update(metrics)

    def __call__(self, recipe, *, allow_user_code=False, **extra):
        job = Job("anonymous.probe#0", "probe", recipe, extra, Resources())
        self.artifacts.mkdir(exist_ok=True)
        context = JobContext(
            self.artifacts,
            self.folder / "quarantine",
            self.folder / "job.log",
            self.report,
            Progress(),
            None,
            self.folder / "cache",
            allow_user_code=allow_user_code,
        )
        (path,) = ProbeViaModelInferHook().run(job, context)
        return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


class InProcess:
    """Stands for a job's workers: does units in this process, the last first."""

    def __init__(self, job, log, progress, emit, report, models):
        pass

    def map(self, work, units, *, description="", python=None):
        state = work.load("cpu")
        yield from ((index, work.run(units[index], state)) for index in reversed(range(len(units))))


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr("raysandbox.hooks._session.JobWorkers", InProcess)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # put back what the work sets


@pytest.fixture
def probe(tmp_path, in_process):
    return Prober(tmp_path)


def losses(folder):
    """Mean loss per token of every text, by transformers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    encoded = [tokenizer(text, return_tensors="pt")["input_ids"] for text in TEXTS]
    return [model(ids, labels=ids).loss.item() for ids in encoded]


def test_every_row_gets_the_loss_that_transformers_computes(probe, model, data, caplog):
    caplog.handler.setLevel(logging.INFO)
    rows = probe({"dataset_path": data}, type="huggingface", model=model, num_hardest=3, batch_size=5)
    expected = losses(model)
    assert [row["n"] for row in rows] == list(range(40))
    assert [row[STATS]["model_loss"] for row in rows] == pytest.approx(expected, rel=1e-6)
    assert [row[STATS]["model_tokens"] for row in rows] == [len(text.split()) for text in TEXTS]
    hardest = [json.loads(line) for line in (probe.artifacts / "hardest.jsonl").read_text().splitlines()]
    assert [row["n"] for row in hardest] == sorted(range(40), key=expected.__getitem__, reverse=True)[:3]
    assert f'model_loss {max(expected):.4f}: {{"text":"' in caplog.text
    summary = load(probe.artifacts).numeric["model_loss"]
    assert summary.mean == pytest.approx(sum(expected) / 40)
    assert probe.reported["rows"] == probe.reported["rows_in"] == 40
    assert probe.reported["model_loss.mean"] == summary.mean
    assert probe.reported["model_loss.std"] == summary.std
    assert probe.reported["model_loss.p75"] == summary.percentiles[2]
    assert sorted(path.name for path in probe.artifacts.glob("*.jsonl")) == ["hardest.jsonl", "probe.jsonl"]
    assert (probe.artifacts / "model_loss.png").stat().st_size > 5000


def test_several_workers_give_the_same_rows(cluster, model, data, tmp_path, monkeypatch):
    monkeypatch.setattr("raysandbox.hooks.probe_via_model_infer._UNIT_BYTES", 500)
    recipe = {"dataset_path": data, "export_path": str(tmp_path / "out" / "scored.parquet")}
    extra = {"type": "huggingface", "model": model, "task": "text-generation"}
    job = Job("anonymous.probe#0", "probe", recipe, extra, Resources(num_workers=2))
    report = Prober(tmp_path).report
    context = JobContext(tmp_path, tmp_path, tmp_path / "job.log", report, Progress(), None, tmp_path / "cache")
    assert ProbeViaModelInferHook().run(job, context) == [recipe["export_path"]]
    import pyarrow.parquet as pq

    rows = pq.read_table(recipe["export_path"]).to_pylist()
    assert [row["n"] for row in rows] == list(range(40))
    assert [row[STATS]["model_loss"] for row in rows] == pytest.approx(losses(model), rel=1e-6)


def test_uniform_samples_and_statistics_that_were_there_stay(probe, model, tmp_path):
    rows = [{"text": text, STATS: {"text_len": len(text)}} for text in TEXTS]
    path = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    recipe = {"dataset_path": path, "data_probe_ratio": 0.25, "percentiles": [0.5]}
    found = probe(recipe, type="huggingface", model=model)
    assert len(found) == 10
    assert all(row[STATS]["text_len"] == len(row["text"]) for row in found)
    assert probe.reported["rows_in"] == 40
    assert {"text_len", "model_loss", "model_tokens"} == set(load(probe.artifacts).numeric)
    assert "model_loss.p50" in probe.reported
    assert found == probe(recipe, type="huggingface", model=model)  # the seed's choice


def test_selectors_take_their_parameters_from_the_process_list(probe, model, data, caplog):
    selector = {"field_key": "n", "reverse": False}
    recipe = {"dataset_path": data, "data_probe_algo": "topk_specified_field_selector", "data_probe_ratio": 0.1}
    steps = [{"text_length_filter": {}}, {"topk_specified_field_selector": selector}]
    rows = probe({**recipe, "process": steps}, type="huggingface", model=model)
    assert [row["n"] for row in rows] == [0, 1, 2, 3]
    assert "a model probe applies no operators; left out: text_length_filter" in caplog.text
    rows = probe(
        {**recipe, "process": [{"topk_specified_field_selector": {**selector, "topk": 2}}]},
        type="huggingface",
        model=model,
    )
    assert [row["n"] for row in rows] == [0, 1]
    assert "data_probe_ratio (0.1) has no effect" in caplog.text
    frequent = {"frequency_specified_field_selector": {"field_key": "source", "topk": 1}}
    recipe = {"dataset_path": data, "data_probe_algo": "frequency_specified_field_selector", "process": [frequent]}
    assert {row["source"] for row in probe(recipe, type="huggingface", model=model)} == {"a"}
    with pytest.raises(UserError, match=r"data_probe_algo is topk.*add `- topk_specified_field_selector"):
        probe(
            {"dataset_path": data, "data_probe_algo": "topk_specified_field_selector"}, type="huggingface", model=model
        )


def test_a_classifier_gives_labels_and_the_loss_of_each_rows_own(probe, tmp_path):
    model = classifier(tmp_path / "bert", WORDS, ["good", "bad", "ugly"])
    labels = ["good", 1, "ugly", None]
    rows = [{"text": text, "meta": {"label": labels[n % 4]}} for n, text in enumerate(TEXTS)]
    path = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    found = probe({"dataset_path": path}, type="huggingface", model=model)
    for row in found:
        assert row[STATS]["model_loss"] == pytest.approx(-math.log(row[STATS]["model_score"]))
        assert row[STATS]["model_label"] in ("good", "bad", "ugly")
        assert 1 / 3 <= row[STATS]["model_score"] <= 1
    own = probe({"dataset_path": path}, type="huggingface", model=model, label_key="meta.label")
    for row, before in zip(own, found, strict=True):
        label = {1: "bad"}.get(row["meta"]["label"], row["meta"]["label"])
        if label is None:
            assert row[STATS]["model_loss"] is None
        elif label == row[STATS]["model_label"]:
            assert row[STATS]["model_loss"] == pytest.approx(before[STATS]["model_loss"])
        else:
            assert row[STATS]["model_loss"] > before[STATS]["model_loss"]
    with pytest.raises(UserError, match=r"label_key: 'text' is .*, which is no label of the model \(good, bad, ugly\)"):
        probe({"dataset_path": path}, type="huggingface", model=model, label_key="text")


def test_rows_without_text_have_no_loss_and_are_counted(probe, model, tmp_path, caplog):
    rows = [{"text": TEXTS[0]}, {"text": " "}, {"text": None}, {"other": 1}]
    found = probe(
        {"dataset_path": str(write_jsonl(tmp_path / "rows.jsonl", rows))},
        type="huggingface",
        model=model,
        num_hardest=9,
    )
    assert [row[STATS]["model_loss"] is None for row in found] == [False, True, True, True]
    assert "3 of 4 rows have no loss" in caplog.text
    assert len((probe.artifacts / "hardest.jsonl").read_text().splitlines()) == 1


def test_the_text_is_in_the_recipes_first_text_key_unless_the_probe_names_another(probe, model, tmp_path):
    rows = [{"question": text, "answer": TEXTS[0]} for text in TEXTS[:6]]
    path = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    recipe = {"dataset_path": path, "text_keys": ["question", "answer"]}
    tokens = [row[STATS]["model_tokens"] for row in probe(recipe, type="huggingface", model=model)]
    assert tokens == [len(text.split()) for text in TEXTS[:6]]
    rows = probe(recipe, type="huggingface", model=model, text_key="answer")
    assert {row[STATS]["model_tokens"] for row in rows} == {len(TEXTS[0].split())}


def test_texts_are_cut_at_what_model_and_tokenizer_see(probe, tmp_path):
    from transformers import AutoTokenizer

    model = classifier(tmp_path / "bert", WORDS, ["good", "bad"])
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.model_max_length = 3  # RoBERTa has two positions more than tokens
    tokenizer.save_pretrained(model)
    rows = [{"text": " ".join(WORDS[:length])} for length in (3, 6)]
    path = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    short, long = probe({"dataset_path": path}, type="huggingface", model=model)
    assert long[STATS]["model_score"] == pytest.approx(short[STATS]["model_score"])


def test_what_cannot_be_probed_is_named(probe, model, data, tmp_path):
    with pytest.raises(JobFailed, match=r"the huggingface model gives none of the 40 rows a loss: set text_key"):
        probe({"dataset_path": data}, type="huggingface", model=model, text_key="content")
    with pytest.raises(UserError, match="'n' holds int, not text"):
        probe({"dataset_path": data}, type="huggingface", model=model, text_key="n")
    with pytest.raises(JobFailed, match=r"none of the 40 rows was chosen: raise data_probe_ratio \(0\.01\)"):
        probe({"dataset_path": data, "data_probe_ratio": 0.01}, type="huggingface", model=model)
    with pytest.raises(UserError, match="allow it with --allow-user-code"):
        probe({"dataset_path": data}, type="huggingface", model=model, trust_remote_code=True)
    with pytest.raises(UserError, match="a model probe writes to a file"):
        probe({"dataset_path": data, "export_path": "s3://bucket/x.jsonl"}, type="huggingface", model=model)
    with pytest.raises(UserError, match="model: there is no folder /no/model"):
        probe({"dataset_path": data}, type="huggingface", model="/no/model")
    broken = llama(tmp_path / "broken", WORDS, scale=float("nan"))
    with pytest.raises(JobFailed, match="the loss of 40 of 40 rows is not a number"):
        probe({"dataset_path": data}, type="huggingface", model=broken)
    assert not list(probe.artifacts.glob("sample*"))


def test_its_paths_are_known_before_it_runs():
    assert HOOKS.get("ProbeViaModelInferHook") is ProbeViaModelInferHook
    MODEL_PROBES.get("huggingface").model_validate(MODEL_PROBES.get("huggingface").example)
    extra = {"type": "huggingface", "model": "m"}
    paths = ProbeViaModelInferHook.paths({"dataset_path": "in.jsonl", "export_path": "out.jsonl"}, extra)
    assert (paths.reads, paths.models, paths.writes) == (("in.jsonl",), ("m",), ("out.jsonl",))
    assert ProbeViaModelInferHook.paths({"dataset_path": "in.jsonl"}, extra).writes == ()


def test_a_refinement_uses_its_summary(cluster, in_process, model, workspace):
    rows = [{"text": text, STATS: {"text_len": len(text)}} for text in TEXTS]
    write_jsonl(workspace / "rows.jsonl", rows)
    recipe = {"dataset_path": "rows.jsonl", "process": [{"text_length_filter": {"min_len": 1, "max_len": 9000}}]}
    config = {
        "work_dir": "out",
        "probe_job_configs": [
            {
                "hook": "ProbeViaModelInferHook",
                "meta_name": "look",
                "dj_configs": recipe,
                "extra_configs": {"type": "huggingface", "model": model},
                "output": ["scored_path"],
            }
        ],
        "refine_recipe_job_configs": [
            {
                "hook": "RefineRecipeViaKSigmaHook",
                "meta_name": "look",
                "dj_configs": recipe,
                "extra_configs": {"path_k_sigma_recipe": "refined.yaml"},
            }
        ],
    }
    (workspace / "config.yaml").write_text(yaml.safe_dump(config))
    run(workspace / "config.yaml")
    refined = yaml.safe_load((workspace / "refined.yaml").read_text())
    assert 1 < refined["process"][0]["text_length_filter"]["max_len"] < 9000
    outputs = json.loads((workspace / "out" / "context_infos.json").read_text())
    assert "probe.jsonl" in json.dumps(outputs)
    log = workspace / "out" / "logs" / "00-look.log"
    assert log.read_text().count("model_loss ") == 20
