"""Units that end the worker that does them: named after a few tries; what only died once is done again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from raysandbox.core.errors import JobFailed
from raysandbox.ops.base import OpResources
from raysandbox.recipe.inputs import InputFile, ReadTask, Span
from raysandbox.recipe.parts import Unit, UnitReport
from raysandbox.recipe.ray_data import RayDataEngine

pytestmark = pytest.mark.usefixtures("cluster")


@dataclass(frozen=True)
class Deadly:
    """Work that ends its process on one unit, the first so many times."""

    staging: Path
    deaths: Path
    unit: int
    times: int
    resources: tuple[OpResources, ...] = ()

    def run(self, unit: Unit) -> UnitReport:
        if unit.index == self.unit:
            number = len(list(self.deaths.iterdir()))
            if number < self.times:
                (self.deaths / str(number)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return UnitReport(unit.index, [], [], rows_in=unit.index + 1)


def units(folder: Path, number: int) -> list[Unit]:
    source = folder / "in.jsonl"
    source.write_text("{}\n" * number)
    file = InputFile(str(source), "jsonl", None, source.stat().st_size, str(folder))
    return [Unit(n, ReadTask((Span(file, 3 * n, 3 * n + 3, 3),))) for n in range(number)]


def deadly(folder: Path, times: int, pool: bool) -> Deadly:
    for name in ("staging", "deaths"):
        (folder / name).mkdir()
    return Deadly(folder / "staging", folder / "deaths", 2, times, (OpResources(1, 0, 1 << 20, 1),) if pool else ())


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.timeout(300)
def test_a_unit_that_kills_its_worker_every_time_is_named(tmp_path: Path, pool: bool) -> None:
    work = deadly(tmp_path, 1000, pool)
    reports = RayDataEngine().run(work, units(tmp_path, 5))
    assert [next(reports).index, next(reports).index] == [0, 1]
    with pytest.raises(JobFailed, match=r"a worker died 3 times on unit 2 \(.*in.jsonl, 6 to 9\)"):
        next(reports)
    assert len(list(work.deaths.iterdir())) < 20


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.timeout(300)
def test_a_worker_that_dies_some_times_costs_its_unit_only(tmp_path: Path, pool: bool) -> None:
    reports = list(RayDataEngine().run(deadly(tmp_path, 2, pool), units(tmp_path, 5)))
    assert [report.rows_in for report in reports] == [1, 2, 3, 4, 5]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_memory_monitor_of_ray_ends_the_work_with_a_clear_failure(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "tests.faults.memory_monitor", str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "a worker died 3 times on unit 0 (rows that an earlier part" in done.stdout
    assert "it ran out of memory and Ray ended it" in done.stdout
