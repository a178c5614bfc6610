"""Rounds of the chaos suite: a demo from its submission to its end while processes are killed."""

from __future__ import annotations

import fcntl
import json
import random
import shutil
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raysandbox.core.files import atomic_write
from tests.chaos.cluster import ChaosCluster, OneMachine
from tests.chaos.demos import ROOT, Demo, differences, outputs
from tests.chaos.killing import KINDS, Kill, Killer

LEAST_EVERY_S = 20.0
SHARE_OF_RUN = 0.15
_MOST_TIMES = 15.0  # a round that takes this many times as long as an undisturbed run has failed
_LEAST_LIMIT_S = 600.0
_GIVEN_UP = 5  # times that a driver may end with an error of its own
_CLEAN_S = 75.0  # Ray's agents notice the end of their raylet after a minute


@dataclass
class Round:
    """What became of a round.

    Attributes:
        number: of the round; 0 is the undisturbed run.
        demo: its name.
        seconds: from the first submission to the end of the last driver.
        kills: in their order.
        submissions: how often it was submitted.
        errors: what drivers said that ended by themselves, but not well.
        unequal: what differs from the undisturbed run.
        left: processes, actors, placement groups, half-written files, locks.
        ended: whether the demo ended with exit 0.
    """

    number: int
    demo: str
    seconds: float = 0.0
    kills: list[Kill] = field(default_factory=list)
    submissions: int = 0
    errors: list[str] = field(default_factory=list)
    unequal: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    ended: bool = False

    @property
    def good(self) -> bool:
        """Whether nothing was hurt."""
        return self.ended and not (self.unequal or self.left or self.errors)


@dataclass
class Suite:
    """The rounds of some demos on one cluster.

    Attributes:
        cluster: where.
        demos: which.
        out: for logs and the table.
        every: seconds between kills; 20 by default.
        share: of the undisturbed time, where that is longer.
        seed: of the choices.
        say: told what happens.
        keep: whether the files of good rounds stay.
    """

    cluster: ChaosCluster | OneMachine
    demos: Mapping[str, Demo]
    out: Path
    every: float | None = None
    share: float = SHARE_OF_RUN
    seed: int = 0
    say: Callable[[str], None] = print
    keep: bool = False
    undisturbed: dict[str, Round] = field(default_factory=dict)
    expected: dict[str, dict[str, Any]] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def place(self) -> None:
        """Fills the folder that is submitted: the demos, and the package as it is now."""
        shutil.copytree(
            ROOT / "raysandbox",
            self.cluster.submitted / "raysandbox",
            ignore=shutil.ignore_patterns("__pycache__"),
            dirs_exist_ok=True,
        )
        for demo in self.demos.values():
            demo.place(self.cluster.submitted)

    def run_undisturbed(self) -> None:
        """Runs each demo once; what it makes is what every round has to make."""
        for name, demo in self.demos.items():
            done = self._play(Round(0, name), demo, None)
            if not done.ended:
                raise RuntimeError(f"{name} fails undisturbed: {done.errors} (logs in {self.out})")
            self.undisturbed[name] = done
            self.say(f"{name} undisturbed: {done.seconds:.0f} s, {len(self.expected[name])} outputs")
            for line in done.left:
                self.say(f"  left by {name}: {line}")

    def run_round(self, name: str) -> Round:
        """Runs a demo while processes of it are killed."""
        number = len(self.rounds) + 1
        every = max(self.every or LEAST_EVERY_S, self.share * self.undisturbed[name].seconds)
        killer = Killer(self.cluster, every, random.Random(f"{self.seed} {number}"), self.counts)
        done = self._play(Round(number, name), self.demos[name], killer)
        self.rounds.append(done)
        self.write()
        return done

    def _play(self, round_: Round, demo: Demo, killer: Killer | None) -> Round:
        root = self.cluster.shared / f"{demo.name}-{round_.number}"
        log = self.out / f"{demo.name}-{round_.number}.log"
        log.unlink(missing_ok=True)
        began = time.monotonic()
        try:
            self._until_done(round_, demo, killer, root, log)
        finally:
            round_.seconds = round(time.monotonic() - began, 1)
            if killer:
                killer.end()
                round_.kills = killer.kills
        found = outputs(root, demo.work_dir, self.cluster.submitted) if round_.ended else {}
        if killer is None:
            self.expected[demo.name] = found
        elif round_.ended:
            round_.unequal = differences(self.expected[demo.name], found)
        round_.left = [*self._left_over(), *_left_files(root)]
        if round_.good and not self.keep:
            shutil.rmtree(root)
        return round_

    def _until_done(self, round_: Round, demo: Demo, killer: Killer | None, root: Path, log: Path) -> None:
        """Submits, kills and submits again until a driver ends with exit 0."""
        usual = self.undisturbed[demo.name].seconds if killer else _LEAST_LIMIT_S / _MOST_TIMES
        limit = time.monotonic() + max(_LEAST_LIMIT_S, _MOST_TIMES * usual)
        killed = 0
        if killer:
            killer.begin()
        client = self._submit(round_, demo, root, log)
        while time.monotonic() < limit:
            status = client.poll()
            if status == 0:
                state = json.loads((root / demo.work_dir / "status.json").read_text())
                if (state["state"], state["exit"]) != ("done", 0):
                    round_.errors.append(f"the driver ended well, but status.json says {state}")
                round_.ended = True
                return
            if status is not None:
                drivers = sum(kill.kind == "driver" for kill in killer.kills) if killer else 0
                if drivers == killed:
                    round_.errors.append(_last_error(log))
                    self.say(f"  {round_.demo} {round_.number}: {round_.errors[-1]}")
                    if killer is None or len(round_.errors) > _GIVEN_UP:
                        return
                killed = drivers
                client = self._submit(round_, demo, root, log)
            if killer and (kill := killer.tick()):
                self.say(f"  {round_.demo} {round_.number}: {kill.at:6.1f} s killed {kill.kind}: {kill.whom}")
            time.sleep(0.1)
        client.kill()
        client.wait()
        round_.errors.append(f"did not end within {max(_LEAST_LIMIT_S, _MOST_TIMES * usual):.0f} s")
        self.cluster.stop(_submission(round_))

    def _submit(self, round_: Round, demo: Demo, root: Path, log: Path) -> subprocess.Popen[bytes]:
        resume = ["--resume"] if round_.submissions else []
        round_.submissions += 1
        arguments = [*demo.arguments(root / "cache"), *resume]
        return self.cluster.submit(log, _submission(round_), root, *arguments)

    def _left_over(self) -> list[str]:
        """Processes, actors and placement groups that outlive the run, when Ray had time to notice."""
        end = time.monotonic() + _CLEAN_S
        while True:
            left = [f"process {each}" for each in self.cluster.orphans()] + self.cluster.left_in_ray()
            if not left or time.monotonic() > end:
                return left
            time.sleep(3)

    def table(self) -> str:
        """What became of the rounds, as text."""
        rows = [("round", "demo", "kills", "submitted", "seconds", "overhead", "outcome")]
        for done in self.rounds:
            usual = self.undisturbed[done.demo].seconds
            kinds = Counter(kill.kind for kill in done.kills)
            told = ", ".join(f"{kind} {kinds[kind]}" for kind in KINDS if kinds[kind])
            cells = (str(done.number), done.demo, told or "none", str(done.submissions), f"{done.seconds:.0f}")
            rows.append((*cells, f"{done.seconds / usual:.2f}", _outcome(done)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([*(line.rstrip() for line in lines), self._sums()])

    def _sums(self) -> str:
        good = sum(done.good for done in self.rounds)
        kills = ", ".join(f"{kind} {self.counts[kind]}" for kind in KINDS)
        text = f"{good} of {len(self.rounds)} rounds unhurt; kills: {kills}"
        for name in dict.fromkeys(done.demo for done in self.rounds):
            usual = self.undisturbed[name].seconds
            ratios = [done.seconds / usual for done in self.rounds if done.demo == name]
            text += f"\n{name}: {usual:.0f} s undisturbed, overhead (median) {statistics.median(ratios):.2f}"
        return text

    def write(self) -> None:
        """Writes what is known so far to `chaos.json`."""
        known = {
            "seed": self.seed,
            "undisturbed": {name: done.seconds for name, done in self.undisturbed.items()},
            "kills": dict(self.counts),
            "rounds": [{**asdict(done), "good": done.good} for done in self.rounds],
        }
        atomic_write(self.out / "chaos.json", json.dumps(known, indent=1))


def _submission(round_: Round) -> str:
    return f"{round_.demo}-{round_.number}-{round_.submissions}"


def _outcome(done: Round) -> str:
    if not done.ended:
        return "FAILED: " + done.errors[-1][:80]
    parts = [
        f"UNEQUAL: {len(done.unequal)}" if done.unequal else "",
        f"LEFT: {len(done.left)}" if done.left else "",
        f"GAVE UP: {len(done.errors)}" if done.errors else "",
    ]
    return ", ".join(filter(None, parts)) or "equal"


def _last_error(log: Path) -> str:
    """What a driver said last, without what the job server adds."""
    lines = log.read_text(errors="replace").splitlines()
    told = [line for line in lines if line.startswith("error:")] or [line for line in lines if "Error" in line]
    return (told or lines or ["it said nothing"])[-1][:500]


def _left_files(root: Path) -> Iterable[str]:
    """Half-written files, and locks that somebody holds."""
    for path in root.rglob("*"):
        if ".tmp-" in path.name:
            yield f"half-written {path.relative_to(root)}"
        elif path.name == ".lock" or path.suffix == ".lock":
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    yield f"held lock {path.relative_to(root)}: {path.read_text()}"
