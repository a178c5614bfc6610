"""Fixtures that every test may use."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # a busy one may take long for the first example
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a home of its own, so that caches of the user's are neither read nor written."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    for name in ("RAYSANDBOX_ROOT", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    yield
    os.chdir(Path(__file__).parents[1])


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """The one local Ray of a test process: 3 CPUs, and 2 GPUs that exist in name only.

    It starts before a test gets its own home: a process reads Ray's token once.
    """
    from raysandbox.runtime.session import ensure_ray, shutdown_ray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        ensure_ray(num_cpus=3, num_gpus=2)
    yield
    shutdown_ray()


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
