"""Of `scale`: what a run finds again when it goes on, and what it writes down while it works."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from _scale_parts import Rows

from raysandbox.core.events import Journal, read_events
from raysandbox.core.keys import DigestMemo
from raysandbox.executors._video.generation.records import Record, VideoFolder
from raysandbox.executors._video.generation.units import VideoUnit, units_of
from raysandbox.sandbox.manifest import Manifest, Marker

VIDEOS, FEW_VIDEOS = 1_000_000, 2_000
WRITERS = 64  # files of records, one per worker
PER_PROMPT = 5
RESUME_S = 10.0
EVENTS_PER_S = 10_000
IDENTITY = ["scale"]


def _units(small: bool) -> list[VideoUnit]:
    prompts = {f"a video of number {n}": PER_PROMPT for n in range((FEW_VIDEOS if small else VIDEOS) // PER_PROMPT)}
    return units_of(prompts, 42, IDENTITY)


def prepare_resume(folder: Path, small: bool) -> None:
    """Empty files in place of finished videos, and the records of the workers that made them."""
    videos, memo = folder / "generated_videos", DigestMemo(folder / "digests")
    notes = videos / ".records"
    notes.mkdir(parents=True)
    units = _units(small)
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for writer in range(WRITERS):
        with (notes / f"node-{writer}.jsonl").open("w") as lines:
            for unit in units[writer::WRITERS]:
                descriptor = os.open(videos / unit.file, os.O_CREAT | os.O_WRONLY)
                mtime_ns = os.fstat(descriptor).st_mtime_ns
                os.close(descriptor)
                record = Record(unit.key, unit.file, empty, 0, mtime_ns, 49, 31.5)
                lines.write(json.dumps(record._asdict()) + "\n")
    manifest = Manifest(folder / "markers", memo)
    digests = manifest.digests([str(videos)], ())
    manifest.write(Marker("key", "bench.generate#0", {"videos": str(videos)}, (), str(videos), digests, 1.0))


def measure_resume(folder: Path, rows: Rows) -> None:
    """A generation that goes on when all of its videos are there."""
    amount = FEW_VIDEOS if rows.small else VIDEOS
    with rows.timed("units of a generation, named and numbered", amount, "videos") as row:
        units = _units(rows.small)
    with rows.timed("resume scan of a generation", amount, "videos", most_s=RESUME_S) as row:
        found = VideoFolder(folder / "generated_videos").finished(units)
        assert len(found) == amount
    row.facts["record_files"] = WRITERS


def measure_marker(folder: Path, rows: Rows) -> None:
    """A finished job with as many files: its marker is read, and each file looked at."""
    amount = FEW_VIDEOS if rows.small else VIDEOS
    manifest = Manifest(folder / "markers", DigestMemo(folder / "digests"))
    with rows.timed("marker of a finished job found, every file looked at", amount, "files", most_s=RESUME_S) as row:
        marker = manifest.find("key")
        assert marker is not None
    assert len(marker.digests) >= amount
    row.facts["marker_mb"] = round((folder / "markers/key.json").stat().st_size / 1e6, 1)
    del marker
    memo = DigestMemo(folder / "digests")
    with rows.timed("key of a job that reads the folder", amount, "files", most_s=RESUME_S):
        assert memo.of(folder / "generated_videos")


def measure_journal(folder: Path, rows: Rows) -> None:
    """Events of finished units, as one driver writes them, and its journal read again."""
    seconds = 0.3 if rows.small else 5.0
    path = folder / "journal.jsonl"
    journal = Journal(path, "bench")
    event: dict[str, Any] = {"job": "bench.generate#0", "index": 0, "seed": 1, "seconds": 31.5, "worker": "node:17"}
    with rows.timed("journal: events of finished units", 0, "events", least_rate=EVENTS_PER_S) as row:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for _ in range(100):
                journal.emit("unit_done", file=f"a video of number {row.amount}-0.mp4", **event)
                row.amount += 1
        journal.close()
    assert sum(1 for _ in read_events(path)) == row.amount
    count, size = row.amount, path.stat().st_size
    with rows.timed("journal: read again by the run that goes on", count, "events") as row:
        Journal(path, "again").close()
    row.facts["mb"] = round(size / 1e6, 1)
