"""A tiny model and small data sets, made once, and a session that records what is reported."""

import importlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

WORDS = [
    "the",
    "data",
    "of",
    "a",
    "sandbox",
    "flows",
    "through",
    "filters",
    "and",
    "mappers",
    "into",
    "the",
    "model",
    "which",
    "learns",
    "to",
    "write",
    "it",
]


@dataclass
class RecordingSession:
    """A TrainSession that keeps the reports."""

    log_dir: Path
    device: str = "cpu"
    reports: list[tuple[int | None, dict[str, float]]] = field(default_factory=list)

    def report(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.reports.append((step, dict(metrics)))

    def series(self, name: str) -> list[tuple[int | None, float]]:
        return [(step, metrics[name]) for step, metrics in self.reports if name in metrics]


@pytest.fixture
def session(tmp_path) -> RecordingSession:
    return RecordingSession(tmp_path)


def texts(number: int, offset: int = 0) -> list[str]:
    """Sentences with a pattern that a model can learn."""
    return [
        " ".join(WORDS[(index + offset + position * 5) % len(WORDS)] for position in range(14))
        for index in range(number)
    ]


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def train_file(tmp_path_factory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "train.jsonl", [{"text": text} for text in texts(48)])


@pytest.fixture(scope="session")
def eval_file(tmp_path_factory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "eval.jsonl", [{"text": text} for text in texts(10, 3)])


@pytest.fixture(scope="session")
def modelscope_stack() -> None:
    """Imports ModelScope once, without the deprecation warnings of its own imports."""
    pytest.importorskip("modelscope")
    from raysandbox.executors.train._megatron_shim import import_plain_gpt3

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_plain_gpt3()
        for name in ("hub.snapshot_download", "trainers", "pipelines", "msdatasets"):
            importlib.import_module(f"modelscope.{name}")


@pytest.fixture(scope="session")
def tiny_model(modelscope_stack, tmp_path_factory) -> Path:
    from raysandbox.executors._tiny_gpt3 import TinyGpt3, build_tiny_gpt3

    size = TinyGpt3(layers=1, hidden=16, heads=2, vocab_size=120, max_length=24)
    return build_tiny_gpt3(tmp_path_factory.mktemp("models") / "tiny", texts(48), size)
