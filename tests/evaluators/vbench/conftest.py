"""The stand-in for VBench, videos for it, and a session without a cluster."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evaluators.vbench.standin import PROMPTS, RecordingSession, make_stack, write_video


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the stand-in, importable here and in what this process starts."""
    folder = tmp_path / "stack"
    make_stack(folder)
    weights = tmp_path / "weights"
    weights.mkdir()
    for name, value in {
        "PYTHONPATH": str(folder),
        "VBENCH_CACHE_DIR": str(weights),
        "TORCH_HOME": str(tmp_path / "torch"),
        "HF_HUB_OFFLINE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] in ("vbench", "decord")]:
        del sys.modules[name]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Five videos of every prompt of the stand-in's suite, all different."""
    folder = tmp_path / "videos"
    for row, prompt in enumerate(PROMPTS):
        for index in range(5):
            write_video(
                folder / f"{prompt['prompt_en']}-{index}.mp4", 0.1 + 0.17 * index + row / 7, 3 + row + 2 * index
            )
    return folder


@pytest.fixture
def session(tmp_path: Path) -> RecordingSession:
    return RecordingSession(tmp_path / "cache")
