"""Refinement by feedback as a job: statistics that rows bring or lack, what it leaves, whole experiments."""

import json
import logging
import random
from pathlib import Path

import numpy as np
import pytest
import yaml

from raysandbox.api import check, run
from raysandbox.core.errors import JobFailed, UserError
from raysandbox.core.progress import Progress
from raysandbox.hooks.base import Job, JobContext
from raysandbox.hooks.refine_recipe_via_model_feedback import RefineRecipeViaModelFeedbackHook
from raysandbox.recipe.measuring import measure
from raysandbox.runtime.placement import Resources
from tests.executors.conftest import WORDS, write_jsonl
from tests.executors.tiny_language_models import llama

ROOT = Path(__file__).parents[2]
STATS = "__dj__stats__"
LENGTH = {"process": [{"text_length_filter": {"min_len": 5, "max_len": 10_000}}]}


def documents(number, *, effect=1.0, seed=0):
    """Texts of which the long ones have a high loss."""
    chance = random.Random(seed)
    rows = []
    for index in range(number):
        text = " ".join(chance.choices(WORDS, k=chance.randint(2, 40)))
        rows.append(
            {"id": index, "text": text, "score": {"loss": 2 + chance.gauss(0, 0.3) + effect * (len(text) > 160)}}
        )
    return rows


@pytest.fixture
def job(workspace):
    reported = {}

    def start(recipe, probe=None, **extra):
        extra = {"path_refined_recipe": "new/refined.yaml", "feedback_key": "score.loss", **extra}
        (workspace / "artifacts").mkdir(exist_ok=True)
        context = JobContext(
            workspace / "artifacts",
            workspace / "quarantine",
            workspace / "job.log",
            lambda values, step=None: reported.update(values),
            Progress(),
            probe,
            workspace / "cache",
        )
        job = Job("anonymous.refine#0", "refine", recipe, extra, Resources())
        assert RefineRecipeViaModelFeedbackHook().run(job, context) == ["new/refined.yaml"]
        return yaml.safe_load((workspace / "new" / "refined.yaml").read_text(encoding="utf-8"))

    start.reported = reported
    start.artifacts = workspace / "artifacts"
    return start


def test_statistics_that_rows_lack_are_computed(job, workspace, caplog):
    caplog.set_level(logging.INFO)
    write_jsonl(workspace / "rows.jsonl", documents(400))
    recipe = {"dataset_path": "elsewhere.jsonl", "export_path": "out.jsonl", **LENGTH}
    refined = job(recipe, feedback="rows.jsonl", retention=0.4)
    assert 140 < refined["process"][0]["text_length_filter"]["max_len"] <= 165
    assert {**refined, "process": []} == {**recipe, "process": []}
    text = (job.artifacts / "changes.md").read_text(encoding="utf-8")
    assert "- text_length_filter.max_len: 10000 → " in text
    assert "![feedback" in text
    assert "statistics computed, since the rows have none to go by: text_length_filter" in text
    assert "text_length_filter.max_len: 10000 → " in caplog.text
    assert (job.artifacts / "feedback.png").stat().st_size > 5000
    record = json.loads((job.artifacts / "feedback.json").read_text(encoding="utf-8"))
    assert record["rows"] == 400
    assert record["changes"][0]["new"] == refined["process"][0]["text_length_filter"]["max_len"]
    assert record["gain"]["low"] > 0
    assert job.reported["changes"] == 1
    assert job.reported["gain"] == record["gain"]["value"]
    assert job.reported["kept_before"] == 1 > job.reported["kept_after"] >= 0.4


def test_noise_leaves_the_recipe_and_says_so(job, workspace):
    write_jsonl(workspace / "rows.jsonl", documents(300, effect=0))
    assert job(LENGTH, feedback="rows.jsonl") == LENGTH
    text = (job.artifacts / "changes.md").read_text(encoding="utf-8")
    assert "Nothing changes: no cut" in text
    assert not (job.artifacts / "feedback.png").exists()
    assert job.reported["changes"] == job.reported["gain"] == 0


def test_statistics_that_rows_bring_are_taken(job, workspace):
    rows = [{"score": row["score"], STATS: {"text_len": len(row["text"])}} for row in documents(300)]
    write_jsonl(workspace / "rows.jsonl", rows)  # without texts there is nothing to compute them of
    refined = job(LENGTH, feedback="rows.jsonl", retention=0.4)
    assert refined["process"][0]["text_length_filter"]["max_len"] <= 165
    assert "statistics computed" not in (job.artifacts / "changes.md").read_text(encoding="utf-8")


def test_rows_without_feedback_are_counted(job, workspace):
    rows = documents(400)
    for row in rows[::4]:
        row["score"] = None
    write_jsonl(workspace / "rows.jsonl", rows)
    job(LENGTH, feedback="rows.jsonl", retention=0.4)
    text = (job.artifacts / "changes.md").read_text(encoding="utf-8")
    assert "100 of 400 rows have no score.loss and were left out" in text


def test_what_is_missing_is_said(job, workspace):
    write_jsonl(workspace / "rows.jsonl", documents(200))
    with pytest.raises(
        JobFailed, match=r"none of the 200 rows of rows.jsonl has a number under 'loss': set feedback_key"
    ):
        job(LENGTH, feedback="rows.jsonl", feedback_key="loss")
    with pytest.raises(JobFailed, match=r"no earlier probe has its meta_name.*set `feedback`"):
        job(LENGTH)
    with pytest.raises(JobFailed, match=r"left no rows with scores.*input: \{extra_configs.feedback: -1.probed\}"):
        job(LENGTH, probe=workspace)
    with pytest.raises(UserError, match=r"no filter 'text_len_filter'; did you mean 'text_length_filter'"):
        job(LENGTH, feedback="rows.jsonl", operators=["text_len_filter"])


def measured(workspace, rows, process, **recipe):
    write_jsonl(workspace / "rows.jsonl", rows)
    return measure(
        {**recipe, "process": process},
        "rows.jsonl",
        "y",
        quarantine_dir=workspace / "quarantine",
        shared=workspace / "cache",
    )


def test_mappers_come_before_as_the_recipe_has_them(workspace):
    rows = [{"text": f"a{' ' * n}b", "y": n, STATS: {"text_len": 999, "alnum_ratio": 0.5}} for n in range(1, 5)]
    process = ["alphanumeric_filter", "whitespace_normalization_mapper", "text_length_filter"]
    process.insert(2, {"remove_specific_chars_mapper": {"chars_to_remove": " "}})
    found = measured(workspace, rows, process)
    (first, _, alnum), (last, _, length) = found.filters
    assert (first, last) == (0, 3)
    assert alnum["alnum_ratio"].to_pylist() == [0.5] * 4  # before any mapper: what the rows bring holds
    assert length["text_len"].to_pylist() == [2] * 4  # behind two: computed of what they make
    assert found.numbers.to_pylist() == [1, 2, 3, 4]
    assert found.computed == ("text_length_filter",)


def test_what_goes_along_stays_with_its_row_where_rows_become_several(workspace):
    rows = [{"text": "one two three four", "y": 1.5}, {"text": "five", "y": None}]
    chunks = {"text_chunk_mapper": {"max_len": 9, "split_pattern": None}}
    found = measured(workspace, rows, [chunks, "text_length_filter"])
    lengths = found.filters[0][2]["text_len"].to_pylist()
    assert len(lengths) == len(found.numbers) > 2
    assert found.numbers.to_pylist()[-1] is None
    assert set(found.numbers.to_pylist()[:-1]) == {1.5}


def test_two_filters_with_a_statistic_of_one_name_have_their_own(workspace):
    rows = [{"text": "abcabcabcabc xyz", "y": 1, STATS: {"char_rep_ratio": 0.9}} for _ in range(3)]
    process = [{"character_repetition_filter": {"rep_len": length}} for length in (2, 8)]
    found = measured(workspace, rows, process)
    first, second = (stats["char_rep_ratio"].to_pylist() for _, _, stats in found.filters)
    assert first != second
    assert 0.9 not in first + second


def test_operators_that_decide_over_all_rows_are_left_out(workspace):
    found = measured(workspace, [{"text": "same", "y": 1}] * 3, ["document_deduplicator", "text_length_filter"])
    assert found.left_out == ("document_deduplicator",)
    assert len(found.numbers) == 3


def test_numbers_of_any_kind(workspace):
    rows = [{"text": "a", "y": value} for value in (1, 2.5, "3", None, "x", True)]
    found = measured(workspace, rows, ["text_length_filter"])
    assert found.numbers.to_pylist()[:5] == [1, 2.5, 3, None, None]


EXPERIMENT = {
    "work_dir": "out",
    "refine_recipe_job_configs": [
        {
            "hook": "RefineRecipeViaModelFeedbackHook",
            "meta_name": "look",
            "dj_configs": "recipe.yaml",
            "extra_configs": {
                "path_refined_recipe": "out/refined.yaml",
                "feedback": "rows.jsonl",
                "feedback_key": "score.loss",
                "retention": 0.4,
            },
            "output": ["recipe"],
        }
    ],
    "execution_job_configs": [
        {"hook": "ProcessDataHook", "meta_name": "process", "dj_configs": "out/refined.yaml", "output": ["path"]}
    ],
}


def write_experiment(workspace, config):
    recipe = {"dataset_path": "rows.jsonl", "export_path": "out/kept.jsonl", **LENGTH}
    (workspace / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (workspace / "config.yaml").write_text(yaml.safe_dump(config))
    return workspace / "config.yaml"


def test_an_experiment_refines_and_processes(workspace):
    write_jsonl(workspace / "rows.jsonl", documents(400))
    path = write_experiment(workspace, EXPERIMENT)
    assert check(path) == []
    run(path)
    kept = [json.loads(line) for line in (workspace / "out" / "kept.jsonl").read_text().splitlines()]
    limit = yaml.safe_load((workspace / "out" / "refined.yaml").read_text())
    limit = limit["process"][0]["text_length_filter"]["max_len"]
    assert len(kept) == sum(len(row["text"]) <= limit for row in documents(400)) < 400
    assert np.mean([row["score"]["loss"] for row in kept]) < 2.1
    infos = json.loads((workspace / "out" / "context_infos.json").read_text())
    assert "out/refined.yaml" in json.dumps(infos)
    before = (workspace / "out" / "journal.jsonl").read_text().count("job_done")
    run(path, resume=True)  # nothing changed: nothing runs
    assert (workspace / "out" / "journal.jsonl").read_text().count("job_done") == before


def test_the_worked_example_is_valid(monkeypatch):
    monkeypatch.chdir(ROOT)
    problems = check(ROOT / "configs" / "feedback" / "sandbox.yaml")
    assert [problem for problem in problems if not problem.missing_path] == []  # its data is made by a script


def test_without_a_probe_the_feedback_must_be_named(workspace):
    write_jsonl(workspace / "rows.jsonl", documents(10))
    config = json.loads(json.dumps(EXPERIMENT))
    del config["refine_recipe_job_configs"][0]["extra_configs"]["feedback"]
    (problem,) = check(write_experiment(workspace, config))
    assert "no earlier probe has the meta_name 'look'" in str(problem)


@pytest.mark.parametrize("by_input", [False, True])
def test_what_a_model_probe_found_is_taken(workspace, cluster, by_input):
    rows = documents(120)
    write_jsonl(workspace / "rows.jsonl", [{"id": row["id"], "text": row["text"]} for row in rows])
    model = str(llama(workspace / "llama", WORDS))
    config = json.loads(json.dumps(EXPERIMENT))
    probe = {
        "hook": "ProbeViaModelInferHook",
        "meta_name": "look",
        "dj_configs": {"dataset_path": "rows.jsonl"},
        "extra_configs": {"type": "huggingface", "model": model},
    }
    (refinement,) = config["refine_recipe_job_configs"]
    refinement["extra_configs"] = {"path_refined_recipe": "out/refined.yaml"}
    if by_input:
        probe["dj_configs"]["export_path"] = "out/probed.jsonl"
        probe["output"] = ["probed"]
        refinement["input"] = {"extra_configs.feedback": "-1.probed"}
    path = write_experiment(workspace, {**config, "probe_job_configs": [probe]})
    assert check(path) == []
    run(path)
    (record,) = (workspace / "out" / "artifacts").glob("*/feedback.json")
    found = json.loads(record.read_text())
    assert found["rows"] == 120
    assert found["settings"]["feedback_key"] == f"{STATS}.model_loss"
    assert found["settings"]["feedback"].endswith("probed.jsonl" if by_input else "probe.jsonl")
    assert (workspace / "out" / "kept.jsonl").exists()
