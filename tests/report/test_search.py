from __future__ import annotations

import csv
import json
import math
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raysandbox.core.events import Journal
from raysandbox.core.files import atomic_write
from raysandbox.report import importance as importance_module
from raysandbox.report.markdown import write_report
from raysandbox.report.search import best_trial, collect_search, search_tables, write_search_report
from raysandbox.report.summary import collect
from raysandbox.sandbox.trials import SearchLog, TrialRecord

FORMS: dict[str, Any] = {
    "filter.rep_len": {"values": [3, 5, 7]},
    "filter.max_ratio": {"distribution": "uniform", "min": 0.0, "max": 1.0},
    "train.lr": {"distribution": "log_uniform_values", "min": 1e-6, "max": 1e-2},
    "flag": {"values": [True, False]},
    "mix": {"values": [[1, 2], [2, 1]]},
    "value": {"value": 3},
}


def params(number: int) -> dict[str, Any]:
    return {
        "filter.rep_len": (3, 5, 7)[number % 3],
        "filter.max_ratio": (number * 7 % 10) / 10,
        "train.lr": 10.0 ** -(2 + number % 5),
        "flag": number % 2 == 0,
        "mix": [1, 2] if number % 4 < 2 else [2, 1],
        "value": 3,
    }


def done(number: int, value: float | None, **more: Any) -> TrialRecord:
    record = TrialRecord(number, number, params(number), state="done", value=value, seconds=1.5, cached=(1, 3))
    return replace(record, metrics={"score": value, "state": "kept"}, **more)


def a_search(
    work_dir: Path, records: list[TrialRecord], forms: dict[str, Any] = FORMS, goal: str = "maximize", **more: Any
) -> Path:
    told = {"name": "quality", "metric": {"name": "score", "goal": goal, "target": None}, "method": "bayes"}
    told |= {"parameters": forms, "num_trials": 20, "seeds": [], **more}
    atomic_write(work_dir / "artifacts/search/search.json", json.dumps(told))
    atomic_write(work_dir / "status.json", json.dumps({"state": "done", "exit": 0, "jobs": {}, "notes": ["said <b>"]}))
    journal = Journal(work_dir / "journal.jsonl", "run")
    log = SearchLog(journal, work_dir / "journal.jsonl")
    for record in records:
        log.started(record)
        if record.state != "running":
            log.ended(record)
    journal.close()
    return work_dir


def tables(work_dir: Path) -> dict[str, tuple[tuple[str, ...], ...]]:
    return {table.title.split(",")[0].split(" of ")[0]: table.rows for table in search_tables(work_dir)}


def twelve() -> list[TrialRecord]:
    """Where only the learning rate counts; trial 4 failed, 5 was stopped, 12 still runs."""
    records = [done(number, 1 - (math.log10(params(number)["train.lr"]) + 4) ** 2 / 10) for number in range(12)]
    reason = "job p.train#1 failed: out of memory |\n<script>alert(1)</script>"
    records[4] = replace(records[4], state="failed", value=None, metrics={}, reason=reason)
    records[5] = replace(records[5], state="stopped", value=2.0, reason="by the scheduler")
    return [*records, TrialRecord(12, 12, params(12))]


def test_the_best_trial_is_done() -> None:
    trials = [done(0, 0.5), done(1, 0.7), done(2, 0.7), replace(done(3, 0.9), state="stopped"), done(4, math.nan)]
    best = {goal: best_trial(trials, goal) for goal in ("maximize", "minimize")}
    assert {goal: trial and trial.number for goal, trial in best.items()} == {"maximize": 1, "minimize": 0}


def test_when_none_is_done_the_best_of_the_stopped_ones() -> None:
    stopped = [replace(done(number, value), state="stopped") for number, value in enumerate((0.2, 0.4, 0.3))]
    failed = replace(done(5, 0.9), state="failed")
    best = best_trial([*stopped, failed], "maximize")
    assert best is not None
    assert best.number == 1
    assert best_trial([failed, done(6, None), TrialRecord(7, 7, {})], "maximize") is None


def test_with_repeats_the_point_with_the_best_mean_wins() -> None:
    values = {0: (0.9, 0.1), 1: (0.6, 0.7), 2: (0.95, None)}
    trials = []
    for point, pair in values.items():
        for seed, value in enumerate(pair):
            state = "failed" if value is None else "done"
            trials.append(TrialRecord(len(trials), point, {}, seed=seed, state=state, value=value))
    best = best_trial(trials, "maximize")
    assert best is not None
    assert (best.point, best.value) == (1, 0.7)


def test_points_with_mean_and_standard_error(tmp_path: Path) -> None:
    trials = [replace(done(n, 1.0 + n), point=n // 3, seed=n % 3, params=params(n // 3)) for n in range(6)]
    summary = collect_search(a_search(tmp_path, trials, goal="minimize", seeds=[0, 1, 2]))
    first = summary.points[0]
    assert (first.number, first.mean, first.error) == (0, 2.0, pytest.approx(1 / math.sqrt(3)))
    rows = next(table for table in search_tables(tmp_path) if "repeats" in table.title).rows
    assert rows[0] == ("0", "3", "0", "0.01", "true", "[1, 2]", "2 ± 0.58", "3 of 3")
    assert "2 ± 0.58 over 3 repeats" in write_search_report(tmp_path).read_text()


def test_the_tables_of_a_search(tmp_path: Path) -> None:
    found = tables(a_search(tmp_path, twelve()))
    assert found["Trials by state"] == (
        ("done", "10", "15.0", "10 of 30"),
        ("stopped", "1", "1.5", "1 of 3"),
        ("failed", "1", "1.5", "1 of 3"),
        ("running", "1", "0.0", "0 of 0"),
    )
    reason = "job p.train#1 failed: out of memory | <script>alert(1)</script>"
    assert found["Failed trials"] == (("0004", reason, "1"),)
    best = found["Best 10"][0]  # constant parameters are left out
    assert best == ("0002", "done", "7", "0.4", "0.0001", "true", "[2, 1]", "1", "1.5", "1 of 3")
    assert {row[0] for row in found["Importance"]} == set(FORMS) - {"value"}


def test_many_parameters_share_a_column(tmp_path: Path) -> None:
    forms = {f"op{number}.x": {"min": 0.0, "max": 1.0} for number in range(9)}
    records = [replace(done(number, number / 10), params=dict.fromkeys(forms, 0.5)) for number in range(2)]
    row = next(iter(search_tables(a_search(tmp_path, records, forms)))).rows[0]
    assert row[2].startswith("op0.x=0.5, op1.x=0.5, ")


def test_trials_csv(tmp_path: Path) -> None:
    write_search_report(a_search(tmp_path, twelve()))
    with (tmp_path / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == [f"{number:04d}" for number in range(13)]
    assert list(rows[0])[:9] == ["trial", "state", "value", *list(FORMS)[:-1], "param.value"]
    assert (rows[0]["mix"], rows[0]["flag"], rows[0]["param.value"]) == ("[1, 2]", "True", "3")
    assert (rows[0]["score"], rows[0]["metric.state"]) == (rows[0]["value"], "kept")
    assert rows[4]["reason"] == twelve()[4].reason
    assert (rows[4]["value"], rows[12]["state"], rows[12]["seed"]) == ("", "running", "")


def test_the_report_and_its_pictures(tmp_path: Path) -> None:
    atomic_write(a_search(tmp_path, twelve()) / "best_config.yaml", "{}")
    text = write_search_report(tmp_path).read_text()
    assert "13 of 20 trials (10 done, 1 stopped, 1 failed, 1 running) · maximize `score` (bayes)" in text
    assert "## Best trial: 0002" in text
    assert "| train.lr | 0.0001 |" in text
    assert "(best_config.yaml)" in text
    assert "said &lt;b&gt;" in text
    assert "<script>" not in text
    for name in ("history", "parallel_coordinates", "importance"):
        assert f"(artifacts/search/{name}.png)" in text
        assert (tmp_path / f"artifacts/search/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_holds_texts_as_data_and_loads_nothing(tmp_path: Path) -> None:
    write_search_report(a_search(tmp_path, twelve(), name="</script><script>alert(1)</script>"))
    page = (tmp_path / "artifacts/search/search.html").read_text()
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert data["name"] == "</script><script>alert(1)</script>"
    assert [column["name"] for column in data["columns"]] == list(FORMS)[:-1]
    assert data["constants"] == {"value": "3"}
    assert (data["best"], data["trials"][4]["place"], len(data["trials"])) == (2, None, 13)
    assert all(0 <= place <= 1 for trial in data["trials"] for place in trial["places"])


@pytest.mark.parametrize(
    "records",
    [
        [],
        [done(0, 0.5)],
        [TrialRecord(0, 0, params(0))],
        [replace(done(n, None), state="failed", reason="no metric") for n in range(3)],
        [done(n, math.nan) for n in range(3)],
        [done(n, 0.5) for n in range(9)],
        [done(n, 1e-9 * 10 ** (2 * n)) for n in range(9)],
    ],
    ids=["none", "one", "running", "failed", "nan", "equal", "diverged"],
)
def test_any_search_has_a_report(tmp_path: Path, records: list[TrialRecord]) -> None:
    assert write_search_report(a_search(tmp_path, records)).exists()
    assert len((tmp_path / "trials.csv").read_text().splitlines()) == len(records) + 1
    summary = collect_search(tmp_path)
    assert not summary.importance.shares or len(records) >= 8
    assert "Importance" not in tables(tmp_path) or summary.importance.shares
    missing = "No trial has" in (tmp_path / "report.md").read_text()
    assert missing == (summary.best is None)


def test_a_torn_journal_and_no_search_json(tmp_path: Path) -> None:
    a_search(tmp_path, twelve())
    (tmp_path / "artifacts/search/search.json").unlink()
    journal = tmp_path / "journal.jsonl"
    journal.write_text(journal.read_text()[:-20])
    summary = collect_search(tmp_path)
    assert (summary.metric, summary.planned, len(summary.trials)) == ("objective", None, 12)
    assert [column.name for column in summary.columns] == list(FORMS)[:-1]  # one value everywhere: constant
    assert write_search_report(tmp_path).exists()
    assert collect_search(tmp_path / "nothing").trials == ()


def test_a_picture_with_nothing_to_show_is_removed(tmp_path: Path) -> None:
    write_search_report(a_search(tmp_path, twelve()))
    (tmp_path / "journal.jsonl").unlink()
    write_search_report(tmp_path)
    assert not list(tmp_path.glob("artifacts/search/*.png"))


@pytest.mark.parametrize(
    ("records", "note"),
    [
        ([done(n, float(n)) for n in range(7)], "needs 8 finished points; there are 7"),
        ([done(n, 1.0) for n in range(9)], "all 9 finished points have the same value"),
        ([replace(done(n, float(n)), params=params(0)) for n in range(9)], "no parameter has different values"),
    ],
)
def test_when_nothing_can_be_said_of_importance(tmp_path: Path, records: list[TrialRecord], note: str) -> None:
    importance = collect_search(a_search(tmp_path, records)).importance
    assert note in importance.note
    assert not importance.shares
    assert note in write_search_report(tmp_path).read_text()


def test_importance_without_optuna_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance_module.importlib.util, "find_spec", lambda name: None)
    assert "raysandbox[hpo]" in collect_search(a_search(tmp_path, twelve())).importance.note


@pytest.mark.parametrize("forest", [True, False])
def test_the_importance_of_the_one_parameter_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forest: bool
) -> None:
    monkeypatch.setattr(importance_module, "_MOST_POINTS_OF_A_FOREST", 400 if forest else 0)
    chance = random.Random(3)
    forms = {name: {"min": 0.0, "max": 1.0} for name in ("a", "b")} | {"c": {"values": ["x", "y"]}}
    records = []
    for number in range(60):
        values = {"a": chance.random(), "b": chance.random(), "c": chance.choice("xy")}
        records.append(replace(done(number, -abs(values["b"] - 0.3)), params=values))
    importance = collect_search(a_search(tmp_path, records, forms)).importance
    assert importance.note == f"by {'fANOVA' if forest else 'PED-ANOVA'} over 60 finished points"
    name, share = next(iter(importance.shares.items()))
    assert name == "b"
    assert share > 0.5
    assert sum(importance.shares.values()) == pytest.approx(1)
    assert collect_search(tmp_path).importance == importance  # the same every time


def test_importance_with_many_categories_does_not_take_for_ever(tmp_path: Path) -> None:
    names = [f"/data/{number}.jsonl" for number in range(25)]
    records = [replace(done(n, float(n % 5)), params={"path": names[n % 25]}) for n in range(50)]
    importance = collect_search(a_search(tmp_path, records, {"path": {"values": names}})).importance
    assert importance.note.startswith("by PED-ANOVA")
    assert importance.shares == {"path": pytest.approx(1)}


def test_the_report_of_a_run_reads_a_search_and_its_trials(tmp_path: Path) -> None:
    a_search(tmp_path, twelve())
    assert collect(tmp_path).tables() == []
    assert write_report(tmp_path).exists()


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = "import sys, raysandbox.report.search\nprint({'optuna', 'matplotlib', 'ray', 'torch'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
