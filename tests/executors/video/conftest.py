"""Tiny video models, made once per test process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.executors.video.tiny_pipelines import tiny_model

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads are slower for models of this size


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """From the name of a family to the folder of its tiny model."""
    pytest.importorskip("diffusers")
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tiny_model(name, tmp_path_factory.mktemp("models") / name)
        return made[name]

    return folder


@pytest.fixture(scope="session")
def tiny_easyanimate(tiny_models: Callable[[str], Path]) -> Path:
    """Folder of a tiny EasyAnimate."""
    return tiny_models("easyanimate")


@pytest.fixture(scope="session")
def tiny_cogvideox(tiny_models: Callable[[str], Path]) -> Path:
    """Folder of a tiny CogVideoX."""
    return tiny_models("cogvideox")


@pytest.fixture(scope="session")
def tiny_wan(tiny_models: Callable[[str], Path]) -> Path:
    """Folder of a tiny Wan."""
    return tiny_models("wan")


@pytest.fixture(scope="session")
def tiny_ltx(tiny_models: Callable[[str], Path]) -> Path:
    """Folder of a tiny LTX."""
    return tiny_models("ltx")
