"""Context infos: what every job of every iteration returned, in the original's format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysandbox.config.schema import JobEntry
from raysandbox.core.errors import JobFailed
from raysandbox.core.files import atomic_write

__all__ = ["ContextInfos", "plain", "read_context_infos"]


@dataclass
class ContextInfos:
    """Outputs of the jobs, by iteration; on disk after every job.

    Attributes:
        path: `context_infos.json` of the run; None keeps them in memory.
        pipelines: names of the pipelines, in order.
    """

    path: Path | None
    pipelines: tuple[str, ...]
    _iterations: list[dict[JobEntry, dict[str, Any]]] = field(default_factory=list)

    def begin_iteration(self) -> None:
        """Starts the infos of the next iteration."""
        self._iterations.append({})

    @property
    def iteration(self) -> int:
        """Number of the current iteration, from 1."""
        return len(self._iterations)

    def record(self, entry: JobEntry, outputs: Mapping[str, Any]) -> None:
        """Files a job's outputs and replaces the file atomically."""
        self._iterations[-1][entry] = dict(outputs)
        if self.path is not None:
            atomic_write(self.path, json.dumps(self.to_list(), indent=2, ensure_ascii=False) + "\n")

    def outputs(self, entry: JobEntry) -> Mapping[str, Any]:
        """Outputs of a job in this iteration; empty when it has not run."""
        return self._iterations[-1].get(entry, {}) if self._iterations else {}

    def to_list(self) -> list[dict[str, Any]]:
        """`[{"iter": 1, "pipeline_infos": [{"pipeline_name", "job_infos": [{"meta_name", …}]}]}]`."""
        return [
            {
                "iter": number,
                "pipeline_infos": [
                    {
                        "pipeline_name": name,
                        "job_infos": [
                            {"meta_name": entry.config.meta_name, **outputs}
                            for entry, outputs in sorted(infos.items(), key=lambda item: item[0].index)
                            if entry.pipeline == name
                        ],
                    }
                    for name in self.pipelines
                ],
            }
            for number, infos in enumerate(self._iterations, start=1)
        ]


def read_context_infos(path: Path) -> list[dict[str, Any]]:
    """Reads `context_infos.json`; empty when there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def plain(value: Any, job: str) -> Any:
    """A value as JSON keeps it: NumPy scalars become numbers, paths strings, tuples lists.

    Raises:
        JobFailed: the value has no such form.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, job) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, job) for item in value]
    if hasattr(value, "item"):
        return plain(value.item(), job)
    raise JobFailed(
        f"job {job} returned a {type(value).__name__}, which cannot be kept; return numbers, strings or paths"
    )
