"""Videos are generated: what a worker does for one, and what comes of all of them."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from raysandbox.core.errors import JobFailed
from raysandbox.core.keys import digest
from raysandbox.core.runner import UnitFailed, WorkSession
from raysandbox.executors._video.clips import encode_mp4
from raysandbox.executors._video.generation.records import Record, VideoCache, VideoFolder
from raysandbox.executors._video.generation.units import VideoUnit
from raysandbox.executors.infer._rows import write_rows

__all__ = ["TRIES", "Failed", "Generation", "GenerationWork", "Made", "Prepare", "VideoMaker", "appears"]

logger = logging.getLogger(__name__)

TRIES = 3  # of a unit, each by another worker where there is one
_REPORT_S = 5.0
_RATE_S = 120.0  # what the rate is a mean over, so that it follows a cluster that grows or shrinks
_HOPELESS = 10  # videos that fail in a row: then the others would too, e.g. on a full disk
_SHOWN = 5  # failures in a message
_PATIENCE_S, _LOOK_S = 10.0, 0.2  # for a file to be seen that another node wrote


@dataclass(frozen=True)
class Made:
    """What a maker made of a unit.

    Attributes:
        frames: uint8 array of shape (n, height, width, 3).
        measured: numbers about the making, e.g. the GPU memory that it took.
    """

    frames: np.ndarray
    measured: Mapping[str, float] = field(default_factory=dict)


class VideoMaker(Protocol):
    """Makes videos in a worker; pickled to it."""

    def load(self, device: str) -> Any:
        """Loads the model."""
        ...

    def make(self, unit: VideoUnit, state: Any) -> Made:
        """Makes a video, the same in every worker and after every other one."""
        ...


class Failed(NamedTuple):
    """A unit without a video, and why."""

    unit: VideoUnit
    reason: str


class Prepare(Protocol):
    """Does for units what comes before the videos."""

    def __call__(self, units: Sequence[VideoUnit]) -> tuple[Sequence[VideoUnit], Sequence[Failed]]:
        """Returns the units that are ready, in the same order, and those that failed."""
        ...


class _State(NamedTuple):
    model: Any
    folder: VideoFolder
    cache: VideoCache


@dataclass(frozen=True)
class GenerationWork:
    """`core.runner.UnitWork`: a video per unit, with its record.

    Attributes:
        maker: makes the frames.
        folder: where the videos go, the same folder on all nodes.
        cache: where further names of them are kept.
        fps: frames per second of the files.
    """

    maker: VideoMaker
    folder: Path
    cache: Path
    fps: int

    @property
    def shared_folders(self) -> tuple[Path, ...]:
        """Where workers leave files."""
        return (self.folder,)

    def load(self, device: str) -> _State:
        """Loads the model, and PyAV, whose time then does not count for the first video."""
        importlib.import_module("av")
        return _State(self.maker.load(device), VideoFolder(self.folder), VideoCache(self.cache))

    def run(self, unit: VideoUnit, state: _State) -> dict[str, Any]:
        """Makes a video; returns its record, who made it and what was measured."""
        measured: Mapping[str, float] = {}

        def write(path: Path) -> tuple[int, float]:
            nonlocal measured
            began = time.monotonic()
            made = self.maker.make(unit, state.model)
            encode_mp4(path, made.frames, self.fps)
            measured = made.measured
            return len(made.frames), time.monotonic() - began

        record = state.folder.add(unit, write)
        state.cache.put(self.folder / unit.file, record)
        return {"record": record, "worker": f"{socket.gethostname()}:{os.getpid()}", "measured": dict(measured)}


@dataclass(frozen=True)
class Generation:
    """Makes those of the videos that are not there yet.

    Attributes:
        units: all videos.
        work: how one is made.
        max_failed: how many may fail, or below 1 which share of them.
        description: what a progress bar says.
        prepare: what comes before, for the videos that are to be made.
        stall_timeout_s: after how long at one video, or at loading, a worker counts as lost; None for never.
    """

    units: Sequence[VideoUnit]
    work: GenerationWork
    max_failed: float
    description: str
    prepare: Prepare | None = None
    stall_timeout_s: float | None = None

    def run(self, session: WorkSession) -> dict[str, Record]:
        """Returns the records of all videos by file.

        Events: `units_found` with the numbers of videos that are there already and of those that were removed
        since they are not wanted any more, and a `unit_done` or `unit_failed` for each other one. What fails is
        in `generation.jsonl` of the job's quarantine.

        Raises:
            JobFailed: more videos failed than may, after all others were made; or the first video that a worker made
                is not in the folder here.
            UserError: the folder holds files of others with names of videos.
        """
        folder = VideoFolder(self.work.folder)
        done = folder.finished(self.units)
        reused = self._from_cache(folder, done, session)
        folder.close()
        self._tell_of(folder.removed)
        counts = {"units": len(self.units), "found": len(done), "cached": reused, "removed": len(folder.removed)}
        session.emit("units_found", **counts, digest=digest(sorted(record.key for record in done.values())))
        meter = _Meter(session, total=len(self.units), found=len(done))
        missing: Sequence[VideoUnit] = [unit for unit in self.units if unit.file not in done]
        failed: list[Failed] = []
        if missing and self.prepare is not None:
            missing, unprepared = self.prepare(missing)
            for each in unprepared:
                self._fail(each, failed, session)
        try:
            self._make(missing, done, failed, meter, session)
        finally:
            self._quarantine(failed, session)
        meter.end(failed=len(failed), reused=reused)
        VideoCache(self.work.cache).prune(unit.key for unit in self.units)
        self._judge(failed, session)
        return done

    def _tell_of(self, removed: Sequence[str]) -> None:
        if removed:
            shown = ", ".join(map(repr, removed[:_SHOWN])) + (" …" if len(removed) > _SHOWN else "")
            logger.warning(
                "%d videos of an earlier generation (other prompts, seed, model or settings) are removed from %s: %s",
                *(len(removed), self.work.folder, shown),
            )

    def _from_cache(self, folder: VideoFolder, done: dict[str, Record], session: WorkSession) -> int:
        """Puts videos in place that other runs made; returns how many."""
        cache = VideoCache(self.work.cache, readable=session.use_cache)
        before = len(done)
        for unit in self.units:
            if unit.file in done or (known := cache.get(unit.key)) is None:
                continue
            if (record := folder.adopt(unit, *known)) is not None:
                done[unit.file] = record
        return len(done) - before

    def _make(
        self,
        missing: Sequence[VideoUnit],
        done: dict[str, Record],
        failed: list[Failed],
        meter: _Meter,
        session: WorkSession,
    ) -> None:
        results = session.workers.map(
            self.work,
            missing,
            description=self.description,
            noun="videos",
            elastic=True,
            tries=TRIES,
            stall_timeout_s=self.stall_timeout_s,
        )
        in_a_row = 0
        with contextlib.closing(results) as results:  # its workers end with it
            for index, result in results:
                unit = missing[index]
                if isinstance(result, UnitFailed):
                    self._fail(Failed(unit, result.reason), failed, session)
                    in_a_row += 1
                    if in_a_row >= _HOPELESS and len(failed) > self._allowed:
                        self._judge(failed, session, f", and {in_a_row} failed in a row; the rest was not tried")
                    continue
                in_a_row = 0
                record: Record = result["record"]
                self._check_stands(record)
                done[unit.file] = record
                session.emit(
                    "unit_done",
                    file=unit.file,
                    index=unit.index,
                    seed=unit.seed,
                    seconds=record.seconds,
                    worker=result["worker"],
                )
                meter.add(record.seconds, result["measured"])

    def _fail(self, each: Failed, failed: list[Failed], session: WorkSession) -> None:
        failed.append(each)
        logger.warning("no video %s: %s", each.unit.file, each.reason)
        session.emit("unit_failed", file=each.unit.file, index=each.unit.index, seed=each.unit.seed, error=each.reason)

    def _quarantine(self, failed: Sequence[Failed], session: WorkSession) -> None:
        target = session.quarantine / "generation.jsonl"
        if failed:
            write_rows(
                target,
                (
                    {"prompt": unit.prompt, "index": unit.index, "seed": unit.seed, "file": unit.file, "reason": reason}
                    for unit, reason in failed
                ),
            )
        else:
            target.unlink(missing_ok=True)

    @property
    def _allowed(self) -> int:
        return int(self.max_failed * (len(self.units) if 0 < self.max_failed < 1 else 1))

    def _judge(self, failed: Sequence[Failed], session: WorkSession, more: str = "") -> None:
        if len(failed) <= self._allowed:
            return
        first = [(unit.file, reason.partition("\n")[0]) for unit, reason in failed[:_SHOWN]]
        shown = "".join(f"\n  {file}: {reason}" for file, reason in first)
        raise JobFailed(
            f"{len(failed)} of {len(self.units)} videos could not be made, max_failed allows "
            f"{self._allowed}{more}:{shown}\n"
            f"(all reasons are in {session.quarantine / 'generation.jsonl'}; the other videos are kept, and with "
            f"--resume only these are tried again)"
        )

    def _check_stands(self, record: Record) -> None:
        """What a worker wrote must be what this process sees: else all that follows would be made for nothing."""
        if not appears(self.work.folder / record.file, record.bytes):
            raise JobFailed(
                f"a video that a worker made is not in {self.work.folder} here ({record.file!r}): on several nodes "
                f"the work_dir and output_dir must lie on storage that all of them share"
            )


def appears(path: Path, size: int | None = None) -> bool:
    """Whether a file that another process wrote is here, or comes in some seconds, as on network storage.

    Args:
        path: the file.
        size: its bytes; None for any number.
    """
    until = time.monotonic() + _PATIENCE_S
    while not _has_size(path, size):
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_S)
        with contextlib.suppress(OSError), os.scandir(path.parent):
            pass  # opening a folder makes NFS ask the server, and not its memory of names that are not there
    return True


def _has_size(path: Path, size: int | None) -> bool:
    try:
        return path.stat().st_size == size or size is None
    except OSError:
        return False


class _Meter:
    """How fast it goes, to the watcher every few seconds.

    Args:
        session: receives it.
        total: number of videos.
        found: how many were there already.
    """

    def __init__(self, session: WorkSession, total: int, found: int) -> None:
        self._session, self._total, self._found = session, total, found
        self._made, self._spent = 0, 0.0
        self._first = self._last = self._reported = time.monotonic()
        self._recent: deque[float] = deque()
        self._highest: dict[str, float] = {}

    def add(self, seconds: float, measured: Mapping[str, float]) -> None:
        """Counts a video."""
        self._last = now = time.monotonic()
        if not self._made:
            self._first = now - max(seconds, 1e-3)  # without the start of the workers
        self._made, self._spent = self._made + 1, self._spent + seconds
        self._recent.append(now)
        while self._recent[0] < now - _RATE_S:
            self._recent.popleft()
        for name, value in measured.items():
            self._highest[name] = max(value, self._highest.get(name, value))
        if now > self._reported + _REPORT_S:
            self._reported = now
            rate = len(self._recent) / (now - max(self._first, now - _RATE_S))
            self._report(rate, self._found + self._made)

    def end(self, failed: int, reused: int) -> None:
        """Reports the whole."""
        if self._made:
            self._report(self._made / (self._last - self._first), None)
        counts = {"made": self._made, "found": self._found - reused, "reused": reused, "failed": failed}
        self._session.report({f"videos_{name}": float(count) for name, count in counts.items()})

    def _report(self, rate: float, step: int | None) -> None:
        done = self._found + self._made
        numbers = {
            "videos_done": float(done),
            "videos_per_s": rate,
            "seconds_per_video": self._spent / self._made,
            "eta_s": (self._total - done) / rate,
        }
        self._session.report({**numbers, **self._highest}, step)
