"""A run whose three elements wait for a long time: it is ended from outside."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from raysandbox.config.documents import Document
from raysandbox.config.load import parse_config
from raysandbox.core.component import OutputPath
from raysandbox.core.errors import RunInterrupted
from raysandbox.core.registry import register
from raysandbox.hooks.base import Hook, Job, JobContext, NoSettings
from raysandbox.sandbox.experiment import run_experiment

CONFIG = """
work_dir: work
max_parallel_jobs: 3
probe_job_configs:
  - {hook: SlowHook, meta_name: list, output: [value], extra_configs: {values: [0.0, 0.1, SECONDS]}}
execution_job_configs:
  - {hook: SlowHook, meta_name: each, foreach: anonymous.list.value, input: {extra_configs.seconds: item},
     output: [value], extra_configs: {path: work/seconds.txt}}
"""


class SlowSettings(NoSettings):
    values: list[float] | None = None
    seconds: float = 0.0
    path: OutputPath | None = None


@register("SlowHook")
class SlowHook(Hook):
    """Waits, and writes down how long."""

    settings = SlowSettings
    returns = ("value",)

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        """Waits in small steps."""
        settings = SlowSettings.model_validate(job.extra)
        if settings.values is not None:
            return [settings.values]
        end = time.monotonic() + settings.seconds
        while time.monotonic() < end:
            time.sleep(0.05)
        Path(str(settings.path)).parent.mkdir(parents=True, exist_ok=True)
        Path(str(settings.path)).write_text(str(settings.seconds))
        with Path("runs.txt").open("a") as file:
            file.write(f"{settings.seconds}\n")
        return [settings.seconds]


def main(seconds: str, resume: bool) -> None:
    """Runs; ends with the status of the command line."""
    config, _ = parse_config(Document(yaml.safe_load(CONFIG.replace("SECONDS", seconds)), "test.yaml"))
    assert config is not None
    try:
        run_experiment(config, resume=resume)
    except RunInterrupted as error:
        sys.exit(128 + error.signum)


if __name__ == "__main__":
    main(sys.argv[1], "--resume" in sys.argv)
