"""Of `scale`: a search of thousands of trials, as its driver writes it down and as people look at it."""

from __future__ import annotations

import io
import json
import random
import types
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from _scale_parts import Rows

from raysandbox.cli.console import print_table
from raysandbox.core.events import Journal
from raysandbox.hpo.recorder import Recorder
from raysandbox.hpo.trial import OUTCOME
from raysandbox.report.search import collect_search, search_tables, write_search_report
from raysandbox.sandbox.state import Status
from raysandbox.sandbox.trials import SearchLog
from raysandbox.sandbox.view import RunView

TRIALS, FEW_TRIALS = 2_000, 60
EVERY_FAILED = 50
STEPS = 20  # values of the metric of each trial
VIEWS_S = 60.0
PAGE_MB = 5.0
FORMS = {
    "anonymous.train.extra_configs.lr": {"min": 1e-5, "max": 1e-2, "distribution": "log_uniform_values"},
    "anonymous.train.extra_configs.rank": {"values": [4, 8, 16, 32, 64]},
    "anonymous.train.extra_configs.schedule": {"values": ["constant", "cosine", "linear"]},
    "anonymous.process.video_aesthetics_filter.min_score": {"min": 0.0, "max": 1.0},
    "anonymous.process.video_motion_score_filter.min_score": {"min": 0.0, "max": 20.0},
    "anonymous.generate.guidance_scale": {"min": 1.0, "max": 12.0},
}


def measure_search(folder: Path, rows: Rows) -> None:
    """The driver's notes of all trials, without the trials."""
    trials = FEW_TRIALS if rows.small else TRIALS
    work = folder / "search"
    (work / "artifacts/search").mkdir(parents=True)
    told = {"name": "scale", "metric": {"name": "eval.score", "goal": "maximize"}, "method": "random"}
    content = {**told, "num_trials": trials, "parameters": FORMS}
    (work / "artifacts/search/search.json").write_text(json.dumps(content))
    journal = Journal(work / "journal.jsonl", "bench")
    search: Any = types.SimpleNamespace(metric=types.SimpleNamespace(goal="maximize"), rerun_failed=False)
    nobody: Any = types.SimpleNamespace(ended=lambda *_: None, report=lambda *_, **__: None)
    status = Status(work / "status.json")
    recorder = Recorder(search, SearchLog(journal, work / "journal.jsonl"), nobody, nobody, status, RunView(), "bench")
    drawn = random.Random(0)
    with rows.timed("notes of trials: journal, status, the best so far", trials, "trials") as row:
        for number in range(trials):
            if number == trials // 2:
                row.facts["first_half_s"] = round(row.elapsed, 2)
            _trial(recorder, number, drawn)
        row.facts["second_half_s"] = round(row.elapsed - row.facts["first_half_s"], 2)
    status.end("done", 0)
    journal.close()


def _trial(recorder: Recorder, number: int, drawn: random.Random) -> None:
    """A trial that reports a metric that comes closer to a value of its own."""
    params = {name: _value(form, drawn) for name, form in FORMS.items()}
    suggestion: Any = types.SimpleNamespace(number=number, point=number, params=params, seed=None, sampled=None)
    recorder.suggested(suggestion)
    score = 1 - abs(params["anonymous.process.video_aesthetics_filter.min_score"] - 0.4) + drawn.gauss(0, 0.05)
    for step in range(1, STEPS + 1):
        recorder.reading(number, step, score * (1 - 0.5**step))
    failed = number % EVERY_FAILED == 7
    told = {
        "state": "failed" if failed else "done",
        "value": None if failed else score,
        "metrics": {f"eval.metric_{n}": score * n for n in range(10)},
        "cached": [2, 4],
        "reason": "job anonymous.train#0 failed: the loss is NaN at step 17" if failed else "",
    }
    recorder.end({"number": number, "params": params}, {OUTCOME: told})


def _value(form: dict[str, Any], drawn: random.Random) -> Any:
    if "values" in form:
        return drawn.choice(form["values"])
    if form.get("distribution"):
        return 10 ** drawn.uniform(-5, -2)
    return drawn.uniform(form["min"], form["max"])


def measure_views(folder: Path, rows: Rows) -> None:
    """What people see of the search."""
    trials = FEW_TRIALS if rows.small else TRIALS
    work = folder / "search"
    with rows.timed("the search is read", trials, "trials"):
        assert len(collect_search(work).trials) == trials
    with rows.timed("tables for the console", trials, "trials", most_s=VIEWS_S), redirect_stdout(io.StringIO()):
        for table in search_tables(work):
            print_table(table)
    with rows.timed("trials.csv, pictures, page and report.md", trials, "trials", most_s=VIEWS_S) as row:
        write_search_report(work)
    views = [work / "trials.csv", work / "report.md", *sorted((work / "artifacts/search").iterdir())]
    row.facts = {f"{path.name} MB": round(path.stat().st_size / 1e6, 2) for path in views}
    assert (work / "artifacts/search/search.html").stat().st_size < PAGE_MB * 1e6, "the page is too large"
