"""Which processes a run has on the cluster, by kind, and the choice of the next one to kill."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import psutil

from tests.chaos.cluster import ChaosCluster, OneMachine
from tests.chaos.raylets import START_S

KINDS = ("driver", "watcher", "recipe worker", "GPU actor", "trial", "raylet")
# How the titles of Ray's processes begin; what runs in them follows after a dot.
_TITLES = {
    "watcher": ("ray::_WatcherActor", "ray::WatcherHub", "ray::watcher-"),
    "recipe worker": ("ray::MapBatches", "ray::MapWorker"),
    "GPU actor": ("ray::_Worker", "ray::UnitActor"),
    "trial": ("ray::ResourceTrainable", "ray::TrialRunner", "ray::SandboxTrial"),
}
_RARE_S = 5.0  # how long a kill waits for a kind that lives for moments only


def kind_of(arguments: list[str]) -> str | None:
    """The kind of a process by its command line; None for those that are no target."""
    if arguments[1:4] == ["-m", "raysandbox", "run"]:
        return "driver"
    title = arguments[0] if arguments else ""
    return next((kind for kind, starts in _TITLES.items() if title.startswith(starts)), None)


@dataclass(frozen=True)
class Kill:
    """One kill: seconds after the start of the round, kind, and whom it met."""

    at: float
    kind: str
    whom: str


@dataclass
class Killer:
    """Kills one process after the other, each kind as often as the others as far as there are any.

    Attributes:
        cluster: where.
        every: seconds between two kills.
        chance: what chooses.
        counts: kills by kind, over all rounds.
        kills: of this round.
    """

    cluster: ChaosCluster | OneMachine
    every: float
    chance: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    kills: list[Kill] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _due: float = 0.0
    _returning: threading.Thread | None = None

    def begin(self) -> None:
        """Starts the clock of a round."""
        self.kills, self._began = [], time.monotonic()
        self._due = self.every

    def targets(self) -> dict[str, list[psutil.Process]]:
        """What there is to kill, by kind; raylets are none of these."""
        found: dict[str, list[psutil.Process]] = {}
        for process in self.cluster.marked():
            with contextlib.suppress(psutil.Error):
                kind = kind_of(process.cmdline())
                if kind:
                    found.setdefault(kind, []).append(process)
        return found

    def tick(self) -> Kill | None:
        """Kills a process if it is time; returns what was killed."""
        now = time.monotonic() - self._began
        if now < self._due:
            return None
        targets = self.targets()
        standing: list[int] = [] if self._returning and self._returning.is_alive() else [*self.cluster.others]
        there = [kind for kind in KINDS if kind in targets] + ["raylet"] * bool(standing)
        if "driver" in there and self.kills and set(targets) == {"driver"}:
            there.remove("driver")  # it is starting, after the last kill or since; else it might do so for ever
        if not there or ("driver" not in targets and now < self._due + self.every):
            return None  # nothing runs: it is on its way
        fewest = min(self.counts[kind] for kind in KINDS)
        least = min(self.counts[kind] for kind in there)
        if least > fewest and now < self._due + _RARE_S:
            return None
        kind = self.chance.choice([each for each in there if self.counts[each] == least])
        whom = self._kill_raylet(standing) if kind == "raylet" else self._kill(targets[kind])
        self._due = now + self.every
        if whom is None:  # it ended meanwhile
            return None
        self.counts[kind] += 1
        kill = Kill(round(now, 1), kind, whom)
        self.kills.append(kill)
        return kill

    def _kill(self, processes: list[psutil.Process]) -> str | None:
        process = self.chance.choice(processes)
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline())[:60]
            process.kill()
            return f"{process.pid} {title}"
        return None

    def _kill_raylet(self, standing: list[int]) -> str:
        """A raylet alone, or its whole machine; either comes back."""
        number, whole = self.chance.choice(standing), self.chance.random() < 0.5
        self._returning = threading.Thread(target=self._return, args=(number, whole))
        self._returning.start()
        return f"127.0.0.{number}" + (" with all of its processes" if whole else "")

    def _return(self, number: int, whole: bool) -> None:
        (self.cluster.kill if whole else self.cluster.kill_raylet)(number)
        self.cluster.start(number)

    def end(self) -> None:
        """Waits until every node is back."""
        if self._returning:
            self._returning.join(2 * START_S)
            assert not self._returning.is_alive(), "a node did not come back"
