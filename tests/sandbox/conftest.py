"""Hooks that stand in for real work: quick, and they count how often they ran."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from raysandbox.config.documents import Document
from raysandbox.config.load import parse_config
from raysandbox.config.schema import SandboxConfig
from raysandbox.core.component import InputPath, OutputPath
from raysandbox.core.errors import JobFailed
from raysandbox.core.registry import register
from raysandbox.hooks.base import Hook, Job, JobContext

RUNS: Counter[str] = Counter()


class WriteSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reads: InputPath | None = None
    path: OutputPath | None = None
    text: str = "x"
    value: Any = None
    fail_times: int = 0
    sleep_s: float = 0.0


@register("WriteHook")
class WriteHook(Hook):
    """Writes a file; returns its path and a value."""

    settings = WriteSettings
    returns = ("path", "value")

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        RUNS[job.name] += 1
        settings = WriteSettings.model_validate(job.extra)
        if RUNS[job.name] <= settings.fail_times:
            raise JobFailed("asked to fail")
        time.sleep(settings.sleep_s)
        read = Path(settings.reads).read_text() if settings.reads else ""
        if settings.path:
            Path(settings.path).parent.mkdir(parents=True, exist_ok=True)
            Path(settings.path).write_text(read + settings.text)
        context.report({"length": float(len(read + settings.text))})
        return [settings.path, settings.value]


@register("BreakHook")
class BreakHook(Hook):
    """Raises an error that is no user's."""

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        raise ZeroDivisionError("a defect")


@pytest.fixture(autouse=True)
def _no_runs_yet() -> None:
    RUNS.clear()


@pytest.fixture
def runs() -> Counter[str]:
    """How often the job of each name ran."""
    return RUNS


@pytest.fixture
def make_config(workspace: Path) -> Callable[[str], SandboxConfig]:
    """Parses a configuration given as YAML text."""

    def make(text: str) -> SandboxConfig:
        config, problems = parse_config(Document(yaml.safe_load(text), "test.yaml"))
        assert not problems, problems
        assert config is not None
        return config

    return make
