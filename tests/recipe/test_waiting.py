"""Runs at the same time that need the same statistics: they are computed once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from raysandbox.core.locks import KeyLocks
from raysandbox.core.progress import Progress
from raysandbox.recipe.api import process

_OPERATORS = """
import os, time
from typing import ClassVar
import pyarrow as pa
from raysandbox.core.registry import register
from raysandbox.ops.base import Filter, Mapper, Stat

def note(name, rows):
    with open(os.environ["NOTES"], "a") as notes:
        notes.writelines(f"{name}\\n" for _ in range(rows))
    time.sleep(0.3)

@register("noting_filter")
class NotingFilter(Filter):
    stats: ClassVar[tuple[Stat, ...]] = (Stat("noted", "low", "high"),)
    low: float = 0
    high: float = 1e9

    def compute(self, batch, state):
        note("first", batch.num_rows)
        return {"noted": pa.array([len(text) for text in batch.texts], pa.int64())}

@register("noting_second_filter")
class NotingSecondFilter(Filter):
    stats: ClassVar[tuple[Stat, ...]] = (Stat("second", "low", None),)
    power: int = 1
    low: float = 0

    def compute(self, batch, state):
        note(f"second {self.power}", batch.num_rows)
        return {"second": pa.array([len(text) ** self.power for text in batch.texts], pa.int64())}
"""
_RUN = """
import json, sys
from pathlib import Path
from raysandbox.recipe.api import analyze, process
print("ready", flush=True)
for line in sys.stdin:
    verb, recipe, folder = json.loads(line)
    shared = Path(folder) / "cache"
    if verb == "process":
        process(recipe, shared=shared, allow_user_code=True, engine="local")
    else:
        analyze(recipe, shared=shared, allow_user_code=True, engine="local", out_dir=Path(folder) / "analysis")
    print("done", flush=True)
"""
ROWS = 40


@pytest.fixture
def run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Counter[str]]:
    """Starts processes, gives each its recipe at the same moment, and counts the rows that operators computed."""
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    (tmp_path / "operators.py").write_text(_OPERATORS)
    lines = [json.dumps({"text": "x" * (number + 1)}) + "\n" for number in range(ROWS)]
    (tmp_path / "in.jsonl").write_text("".join(lines))

    def run(*works: tuple[str, Sequence[dict[str, Any]]]) -> Counter[str]:
        command = [sys.executable, "-c", _RUN]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen(command, **pipes) for _ in works]
        assert [started.stdout.readline() for started in processes if started.stdout] == ["ready\n"] * len(works)
        for started, (verb, steps) in zip(processes, works, strict=True):
            assert started.stdin is not None
            started.stdin.write(json.dumps([verb, recipe(tmp_path, steps), str(tmp_path)]) + "\n")
            started.stdin.flush()
        outputs = [started.communicate(timeout=60)[0] for started in processes]
        assert outputs == ["done\n"] * len(works)
        return Counter((tmp_path / "notes").read_text().splitlines())

    return run


def recipe(folder: Path, steps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    name = "-".join(str(value) for step in steps for values in step.values() for value in values.values())
    return {
        "dataset_path": str(folder / "in.jsonl"),
        "export_path": str(folder / f"out-{name}.jsonl"),
        "custom_operator_paths": [str(folder / "operators.py")],
        "process": list(steps),
    }


def kept(folder: Path, steps: Sequence[dict[str, Any]]) -> list[int]:
    """Lengths of the texts that a run kept."""
    lines = Path(recipe(folder, steps)["export_path"]).read_text().splitlines()
    return [len(json.loads(line)["text"]) for line in lines]


def test_other_thresholds_wait_and_replay(run_at_once: Callable[..., Counter[str]], tmp_path: Path) -> None:
    works = [[{"noting_filter": {"low": 1, "high": 30}}], [{"noting_filter": {"low": 5, "high": 20}}]]
    assert run_at_once(*[("process", steps) for steps in works]) == {"first": ROWS}
    assert kept(tmp_path, works[0]) == [*range(1, 31)]
    assert kept(tmp_path, works[1]) == [*range(5, 21)]


def test_an_analysis_and_a_run_share_statistics(run_at_once: Callable[..., Counter[str]]) -> None:
    steps = [{"noting_filter": {"low": 5}}]
    assert run_at_once(("process", steps), ("analyze", steps)) == {"first": ROWS}


def test_an_operator_of_ones_own_is_all_that_is_computed(run_at_once: Callable[..., Counter[str]]) -> None:
    works = [[{"noting_filter": {"low": 0}}, {"noting_second_filter": {"power": power}}] for power in (1, 2)]
    found = run_at_once(*[("process", steps) for steps in works])
    assert found == {"first": ROWS, "second 1": ROWS, "second 2": ROWS}


class _Heard(Progress):
    def __init__(self) -> None:
        self.begun: list[str] = []

    def begin(self, description: str, total: float | None = None, unit: str = "rows") -> None:
        self.begun.append(description)


def test_nothing_is_locked_where_all_is_known(
    run_at_once: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    before = KeyLocks.lease

    def lease(self: KeyLocks, keys: Any, *more: Any) -> Any:
        taken.extend(keys)
        return before(self, keys, *more)

    monkeypatch.setattr(KeyLocks, "lease", lease)
    heard = _Heard()
    for low in (10, 20):
        steps = [{"text_length_filter": {"min_len": low}}]
        process({**recipe(tmp_path, steps), "custom_operator_paths": []}, shared=tmp_path / "cache", progress=heard)
        assert len(taken) == 2  # the statistic and the rows, once
    assert list((tmp_path / "cache" / "locks").iterdir()) == []
    assert not any("waiting" in text for text in heard.begun)
