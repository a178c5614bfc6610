"""Mutated configurations: each is accepted or refused with a message, whatever it holds, and starts nothing.

The long forms, which print what they counted:

    pytest -m slow -s tests/fuzz/test_configs.py
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysandbox.api import check
from raysandbox.core.errors import Problem
from tests.fuzz import mutations, seeds
from tests.fuzz.mutations import Case
from tests.fuzz.watching import watched

CASES, COMMANDS, FEW_COMMANDS = 10_000, 200, 5
CPU_S = 5.0  # of the processor, since a busy machine takes its time
LIMIT_S = 60.0


@pytest.fixture
def project(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with the side files that configurations name, and no data."""
    shutil.copytree(seeds.ROOT / "configs", "configs", ignore=shutil.ignore_patterns("data"))
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    return workspace


def write(case: Case) -> None:
    Path("case.yaml").write_bytes(case.content)
    if case.sweep is not None:
        Path("sweep.yaml").write_bytes(case.sweep)


def checked(case: Case) -> tuple[list[Problem], float]:
    """What `check` finds, and the seconds of the processor that it takes; it may only look."""
    write(case)
    began = time.process_time()
    with watched() as events:
        problems = check("case.yaml", case.overrides)
    seconds = time.process_time() - began
    assert not events
    for problem in problems:
        text = str(problem)
        assert problem.message
        assert text.encode("utf-8")
        assert "\x1b" not in text
    return problems, seconds


def status(problems: list[Problem]) -> int:
    return 2 if any(problem.severity == "error" for problem in problems) else 0


@given(chance=st.randoms(use_true_random=False))
@settings(
    max_examples=150,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_check_answers_whatever_a_configuration_holds(project: Path, chance: random.Random) -> None:
    _, seconds = checked(mutations.drawn(chance))
    assert seconds < CPU_S


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_configurations(project: Path) -> None:
    counts: Counter[int] = Counter()
    times: list[tuple[float, int, tuple[str, ...]]] = []
    wrong: list[str] = []
    for number in range(CASES):
        case = mutations.case(number)
        try:
            problems, seconds = checked(case)
        except Exception as error:  # noqa: BLE001  # every one is a finding
            wrong.append(f"case {number} {case.what}: {type(error).__name__}: {error!s:.300}")
            continue
        counts[status(problems)] += 1
        times.append((seconds, number, case.what))
    slowest = max(times)
    print(f"\n{CASES} configurations: {counts[0]} with 0, {counts[2]} with 2; slowest {slowest}")
    assert not wrong, "\n".join(wrong)
    assert slowest[0] < CPU_S
    assert sum(counts.values()) == CASES


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status, output, and seconds of the processor and of the clock."""

    status: int
    output: str
    cpu_s: float
    wall_s: float


def arguments_of(verb: str, case: Case) -> list[str]:
    return [verb, "case.yaml", *(part for override in case.overrides for part in ("-o", override))]


def surroundings(mark: str) -> dict[str, str]:
    """The environment of a command: a mark by which what it starts is known, and a place for a Ray that it may not."""
    return {**os.environ, "FUZZ_MARK": mark, "RAY_TMPDIR": str(Path.cwd() / "ray"), "PYTHONPATH": str(seeds.ROOT)}


def command(verb: str, case: Case) -> Ended:
    """Runs a verb; nothing that it started may be left."""
    mark = uuid.uuid4().hex
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "raysandbox", *arguments_of(verb, case)],
        env=surroundings(mark),
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert not processes_with(mark)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ended(ended.returncode, (ended.stdout + ended.stderr).decode("utf-8"), cpu, wall)


def processes_with(mark: str) -> list[str]:
    """Processes that were started with a mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:  # ended meanwhile, or of somebody else
            continue
    return found


def verb_for(number: int, case: Case) -> str:
    """check, plan or run in turn; run only for what it must refuse, since it would start the rest."""
    problems, _ = checked(case)
    refused = any(problem.severity == "error" or problem.missing_path for problem in problems)
    verbs = ("run", "plan", "check") if refused else ("plan", "check")
    return verbs[number % len(verbs)]


class Server:
    """Commands in forks of a process that has imported what they need, which costs them most of their time."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.command_server"],
            env=surroundings(self.mark),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def command(self, verb: str, case: Case) -> Ended:
        """Runs a verb; nothing that it started may be left."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"arguments": arguments_of(verb, case), "output": "output.txt"}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert processes_with(self.mark) == [str(self.process.pid)]
        output = Path("output.txt").read_bytes().decode("utf-8")
        Path("output.txt").unlink()
        return Ended(answer["status"], output, answer["cpu_s"], answer["wall_s"])

    def close(self) -> None:
        """Ends the process."""
        self.process.communicate(timeout=LIMIT_S)


def run_one(number: int, run: Callable[[str, Case], Ended]) -> tuple[str, Ended]:
    case = mutations.case(number)
    verb = verb_for(number, case)
    files = {path for path in Path().rglob("*") if path.is_file()}
    ended = run(verb, case)
    new = {path.name for path in Path().rglob("*") if path.is_file()} - {path.name for path in files}
    text = f"case {number} {case.what} {verb}: {ended.status} {ended.output[-1500:]}"
    assert ended.status in (0, 2), text
    assert ended.output.strip(), text
    assert "Traceback" not in ended.output, text
    assert verb != "run" or ended.status == 2, text
    assert new <= ({"status.json", ".lock"} if verb == "run" else set()), f"{text}\n{new}"
    return verb, ended


def test_commands_refuse_with_a_message(project: Path) -> None:
    for number in range(FEW_COMMANDS):
        _, ended = run_one(number, command)
        assert ended.cpu_s < CPU_S


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_commands(project: Path) -> None:
    counts: Counter[tuple[str, int]] = Counter()
    times: list[tuple[float, float, int]] = []
    wrong: list[str] = []
    server = Server()
    for number in range(CASES, CASES + COMMANDS):
        try:
            verb, ended = run_one(number, command if number % 10 == 0 else server.command)
        except (AssertionError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
            wrong.append(str(error)[:2000])
            continue
        counts[verb, ended.status] += 1
        times.append((ended.cpu_s, ended.wall_s, number))
    server.close()
    print(f"\n{COMMANDS} commands: {dict(counts)}; slowest {max(times)} s of the processor, of the clock, case")
    assert not wrong, "\n\n".join(wrong)
    assert max(times)[0] < CPU_S
