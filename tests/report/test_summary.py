from __future__ import annotations

import json
from pathlib import Path

from raysandbox.core.files import atomic_write
from raysandbox.report.markdown import write_report
from raysandbox.report.summary import collect, show_number


def lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"t": 1, "seq": seq, "run": "r", **row}) + "\n" for seq, row in enumerate(rows)))


def metric(name: str, value: object, job: str, unit: str, step: int | None = None) -> dict:
    return {"name": name, "value": value, "step": step, "job": job, "unit": unit}


def a_run(work_dir: Path) -> None:
    jobs = {"p.a#0": "done", "p.train#1": "done", "p.b.c#2": "cached"}
    atomic_write(work_dir / "status.json", json.dumps({"state": "done", "exit": 0, "jobs": jobs, "notes": ["said"]}))
    journal = [
        {"event": "job_started", "job": "p.a#0", "key": "ka"},
        {"event": "job_done", "job": "p.a#0", "key": "ka", "seconds": 1.25},
        {"event": "job_started", "job": "p.train#1", "key": "old"},
        {"event": "job_started", "job": "p.train#1", "key": "kt"},
        {"event": "job_cached", "job": "p.b.c#2", "key": "kb"},
    ]
    lines(work_dir / "journal.jsonl", journal)
    metrics = [metric("a.rows", 100, "p.a#0", "ka"), metric("b.c.rows", 70, "p.b.c#2", "another key")]
    metrics += [metric("train.loss", 99.0, "p.train#1", "old", step) for step in range(50)]
    metrics += [metric("other.rows", 80, "p.other#9", "kb")]  # reported by an equal job that ran
    metrics += [metric("train.loss", 55.0, "p.train#1", "kt", step) for step in range(30)]  # killed, then again:
    metrics += [metric("train.loss", 10.0 - step / 10, "p.train#1", "kt", step) for step in range(40)]
    metrics += [metric("b.c.text", "no number", "p.b.c#2", "kb")]
    lines(work_dir / "metrics.jsonl", metrics)
    counts = [{"name": "f", "rows_in": 100, "rows_out": 80, "failed": 5, "seconds": 0.5}]
    atomic_write(work_dir / "artifacts/02-b/operators.json", json.dumps(counts))


def test_what_a_run_found(tmp_path: Path) -> None:
    a_run(tmp_path)
    summary = collect(tmp_path)
    assert summary.scores == {"rows": {"a": 100.0, "b.c": 80.0}}
    (curve,) = summary.curves
    assert (curve.name, len(curve.values)) == ("train.loss", 40)  # of the work that counted
    first, last = curve.tenths()
    assert (round(first, 6), round(last, 6)) == (9.85, 6.25)
    tables = {table.title: table.rows for table in summary.tables()}
    assert tables["Jobs"][0] == ("p.a#0", "done", "1.2")
    assert tables["Operators of 02-b"] == (("f", "100", "15", "80", "5", "0.50"),)
    assert tables["Statistics and scores"] == (("rows", "100", "80", "-20.0%"),)


def test_jobs_that_share_a_name_are_told_apart(tmp_path: Path) -> None:
    jobs = ("first.m#0", "second.m#0", "anonymous.m#1")
    atomic_write(tmp_path / "status.json", json.dumps({"jobs": dict.fromkeys(jobs, "done")}))
    lines(tmp_path / "journal.jsonl", [{"event": "job_started", "job": job, "key": job} for job in jobs])
    lines(tmp_path / "metrics.jsonl", [metric("m.rows", n, job, job) for n, job in enumerate(jobs)])
    assert collect(tmp_path).scores == {"rows": {"first.m#0": 0.0, "second.m#0": 1.0, "m#1": 2.0}}


def test_the_report_holds_tables_notes_and_curves(tmp_path: Path) -> None:
    a_run(tmp_path)
    text = write_report(tmp_path).read_text()
    assert "- said" in text
    assert "| rows | 100 | 80 | -20.0% |" in text
    assert "(artifacts/curves.png)" in text
    assert (tmp_path / "artifacts/curves.png").read_bytes().startswith(b"\x89PNG")


def test_numbers_as_a_person_reads_them() -> None:
    assert [show_number(value) for value in (5, 5500.0, 0.77112, 3.99969, None)] == [
        "5",
        "5,500",
        "0.7711",
        "4.000",
        "",
    ]


def test_an_empty_folder_has_an_empty_report(tmp_path: Path) -> None:
    assert collect(tmp_path).tables() == []
    assert write_report(tmp_path).exists()
