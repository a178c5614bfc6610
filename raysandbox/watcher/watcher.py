"""The watcher of a run: the four methods of the sandbox's watcher, on a file of our own."""

from __future__ import annotations

import importlib.util
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from raysandbox.core.keys import canonical_json, digest
from raysandbox.core.redact import redact
from raysandbox.watcher.config import WatchConfig
from raysandbox.watcher.metrics import Metric, MetricsLog, flatten
from raysandbox.watcher.sinks import NullSink, Sink, SinkState
from raysandbox.watcher.wandb import WandbRun, WandbSink, connect, silence_of_server

__all__ = ["SandboxWatcher", "WatchConfig"]

logger = logging.getLogger(__name__)


def sweep_id(hpo_config: Mapping[str, Any], project: str) -> str:
    """A stable id of a search."""
    return f"sweep-{digest([project, canonical_json(redact(hpo_config))])[:8]}"


class SandboxWatcher:
    """Records the metrics of a run: `metrics.jsonl` first, wandb second. Safe to use from threads.

    Args:
        config: names and places.
        make_sink: makes the second sink, wandb's unless a test gives another.
    """

    def __init__(self, config: WatchConfig, make_sink: Callable[[MetricsLog], Sink] | None = None) -> None:
        self._log = MetricsLog(config.work_dir / "metrics.jsonl", config.run_id)
        self._sink = (make_sink or partial(make_wandb_sink, config))(self._log)
        self._lock = threading.Lock()
        self._client = uuid.uuid4().hex[:8]
        self._sent = 0
        if self._log.size:
            self._sink.wake()  # an earlier life may have left metrics that wandb does not have

    def append(self, client: str, first: int, metrics: Sequence[Metric]) -> int:
        """Records a client's batch; what was recorded before is passed over (see `MetricsLog.append`).

        Returns:
            how many were new: the last ones.

        Raises:
            OSError: the file could not be written; the batch may be sent again.
        """
        with self._lock:
            new = self._log.append(client, first, metrics)
            if new:
                self._sink.wake()
            return new

    def watch(self, value: Any, name: str, step: int | None = None) -> None:
        """Records a number, or the leaves of a mapping under `name.key`."""
        now = time.time()
        metrics = [Metric(key, item, step, now) for key, item in flatten(name, value)]
        with self._lock:
            self._log.append(self._client, self._sent, metrics)
            self._sent += len(metrics)
            self._sink.wake()

    def query(self, name: str) -> Any:
        """The last value of a metric, None when there is none; also of the run that this one resumes."""
        return self._log.last.get(name)

    def watch_cfgs(self, cfgs: Sequence[tuple[Mapping[str, Any], str]]) -> None:
        """Shows configurations, redacted, in wandb: pairs of (configuration, name)."""
        self._sink.configure({name: redact(config) for config, name in cfgs})

    def setup_sweep(self, hpo_config: Mapping[str, Any], project: str) -> str:
        """Makes the run a part of a search in wandb; returns the search's id, to be its trials' group."""
        group = sweep_id(hpo_config, project)
        self._sink.configure({"sweep": {"id": group, "project": project, **redact(hpo_config)}}, group)
        return group

    def sync(self) -> None:
        """Returns once everything recorded is on the disk; called when a stage ends."""
        with self._lock:
            self._log.sync()

    def finish(self, timeout: float = 30.0) -> SinkState:
        """Ends the watching; wandb gets at most `timeout` seconds for what is left."""
        self.sync()
        state = self._sink.close(timeout)
        self._log.close()
        return state


def make_wandb_sink(config: WatchConfig, log: MetricsLog) -> Sink:
    """The sink for wandb, as the configuration and this machine have it."""
    mode = config.resolve_wandb()
    if mode == "disabled":
        return NullSink()
    if importlib.util.find_spec("wandb") is None:
        logger.warning("wandb is not installed: metrics are in %s only (pip install 'raysandbox[wandb]')", log.path)
        return NullSink("not installed")
    mark = config.work_dir / "metrics.wandb.json"

    def start(group: str | None) -> WandbRun:
        return connect(config, mode, group)

    if mode == "offline":
        return WandbSink(log, mark, mode, start, config.group)

    def start_offline(group: str | None) -> WandbRun:
        return connect(config, "offline", group)

    return WandbSink(log, mark, mode, start, config.group, silence_of_server, start_offline)
