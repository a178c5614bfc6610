from __future__ import annotations

import json
from pathlib import Path

from raysandbox.core.files import atomic_write
from raysandbox.report.markdown import write_report
from raysandbox.report.summary import collect, show_number


def lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def a_run(work_dir: Path) -> None:
    atomic_write(
        work_dir / "status.json", json.dumps({"state": "done", "exit": 0, "jobs": {"p.a#0": "done"}, "notes": ["said"]})
    )
    started = [("p.a#0", 10.0), ("p.train#1", 20.0), ("p.b#2", 30.0), ("p.train#1", 40.0)]
    journal = [{"t": t, "event": "job_started", "job": job} for job, t in started]
    lines(work_dir / "journal.jsonl", [*journal, {"t": 50, "event": "job_done", "job": "p.a#0", "seconds": 1.25}])
    metrics = [{"t": 11, "name": "a.rows", "value": 100, "step": None}]
    metrics += [{"t": 21, "name": "train.loss", "value": 99.0, "step": step} for step in range(50)]  # killed
    metrics += [{"t": 31, "name": "b.rows", "value": 80, "step": None}]
    metrics += [{"t": 41, "name": "train.loss", "value": 10.0 - step / 10, "step": step} for step in range(40)]
    metrics += [{"t": 42, "name": "b.text", "value": "no number", "step": None}]
    lines(work_dir / "metrics.jsonl", metrics)
    counts = [{"name": "f", "rows_in": 100, "rows_out": 80, "failed": 5, "seconds": 0.5}]
    atomic_write(work_dir / "artifacts/02-b/operators.json", json.dumps(counts))


def test_what_a_run_found(tmp_path: Path) -> None:
    a_run(tmp_path)
    summary = collect(tmp_path)
    assert summary.scores == {"rows": {"a": 100.0, "b": 80.0}}
    (curve,) = summary.curves
    assert len(curve.values) == 40  # of the last attempt only
    first, last = curve.tenths()
    assert (round(first, 6), round(last, 6)) == (9.85, 6.25)
    tables = {table.title: table.rows for table in summary.tables()}
    assert tables["Jobs"] == (("p.a#0", "done", "1.2"),)
    assert tables["Operators of 02-b"] == (("f", "100", "15", "80", "5", "0.50"),)
    assert tables["Statistics and scores"] == (("rows", "100", "80", "-20.0%"),)


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
