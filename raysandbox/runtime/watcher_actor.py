"""The watcher as an actor beside the driver, and the client that jobs report through."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from raysandbox.core.errors import WriteFailed
from raysandbox.core.redact import redact
from raysandbox.runtime.polling import result_of
from raysandbox.watcher.metrics import Metric, flatten
from raysandbox.watcher.sinks import SinkState
from raysandbox.watcher.watcher import SandboxWatcher, WatchConfig

__all__ = ["Reporter", "WatcherClient", "actor_beside", "call_actor", "start_watcher"]

logger = logging.getLogger(__name__)
NAMESPACE = "raysandbox"
_BATCH = 100  # metrics that are sent without waiting for more
_BATCH_S = 0.2  # how long a metric may wait for others
_MAX_BATCH = 5000
_CALL_S = 30.0  # patience with one call to the actor, which may be restarting
_RETRY_S = 0.5
_FLUSH_S = 30.0
_MOST_WAITING = 100_000  # metrics in a client's memory, some 30 MB; who reports more is held up
_HELD_UP_S = 60.0  # at most, while the watcher takes nothing; then metrics are passed over, aloud


class Transport(Protocol):
    """What a client needs from a watcher, in process or as an actor. May raise `OSError`."""

    def append(self, client: str, first: int, metrics: Sequence[Metric]) -> object:
        """Records a batch; a batch that is sent again is recorded once."""
        ...

    def query(self, name: str) -> Any:
        """The last value of a metric, or None."""
        ...

    def watch_cfgs(self, cfgs: Sequence[tuple[Mapping[str, Any], str]]) -> None:
        """Shows configurations."""
        ...

    def setup_sweep(self, hpo_config: Mapping[str, Any], project: str) -> str:
        """Makes the run a part of a search."""
        ...

    def sync(self) -> None:
        """Returns once everything recorded is on the disk."""
        ...

    def finish(self, timeout: float = ...) -> SinkState:
        """Ends the watching."""
        ...


class WatcherClient:
    """Sends metrics to the watcher of a run, from any process of the cluster; never raises, never blocks on sinks.

    Metrics are sent in batches by a thread, and sent again when the watcher had to restart; the
    watcher knows by client and number what it has. Pickled, it becomes a client of its own there.

    Args:
        transport: the way to the watcher.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._outbox = _Outbox(transport)

    def __reduce__(self) -> tuple[type[WatcherClient], tuple[Transport]]:
        return WatcherClient, (self._transport,)

    def report(self, metrics: Mapping[str, Any], step: int | None = None, job: str = "", unit: str = "") -> None:
        """Records named values that belong together, of a job's unit of work where there is one."""
        now = time.time()
        named = [pair for name, value in metrics.items() for pair in flatten(name, value)]
        self._outbox.put([Metric(name, value, step, now, job, unit) for name, value in named])

    def watch(self, value: Any, name: str, step: int | None = None) -> None:
        """Records a number, or the leaves of a mapping under `name.key`."""
        self.report({name: value}, step)

    def scoped(self, name: str, job: str = "", unit: str = "") -> Reporter:
        """A reporter whose metrics are named `name.key`."""
        return Reporter(self, name, job, unit)

    def query(self, name: str) -> Any:
        """The last value of a metric, None when there is none.

        Raises:
            OSError: the watcher cannot be reached.
        """
        self.flush()
        return self._transport.query(name)

    def watch_cfgs(self, cfgs: Sequence[tuple[Mapping[str, Any], str]]) -> None:
        """Shows configurations, redacted, in wandb: pairs of (configuration, name)."""
        try:
            self._transport.watch_cfgs([(redact(config), name) for config, name in cfgs])
        except OSError as error:
            logger.warning("the watcher did not take the configuration: %s", error)

    def setup_sweep(self, hpo_config: Mapping[str, Any], project: str) -> str:
        """Makes the run a part of a search in wandb; returns the search's id.

        Raises:
            OSError: the watcher cannot be reached.
        """
        return self._transport.setup_sweep(redact(hpo_config), project)

    def flush(self, timeout: float = _FLUSH_S) -> bool:
        """Sends everything and has it on the disk; returns whether that succeeded in time.

        Raises:
            WriteFailed: the disk does not take it; what waits is sent again until the end.
        """
        sent = self._outbox.flush(timeout)
        try:
            self._transport.sync()
        except OSError as error:
            logger.warning("metrics are not surely on the disk: %s", error)
            return False
        return sent

    def finish(self, timeout: float = _FLUSH_S) -> SinkState:
        """Sends everything and ends the watcher; wandb gets at most `timeout` seconds for what is left."""
        unsent = self._outbox.close(timeout)
        if unsent:
            logger.warning("%d metrics could not be recorded", unsent)
        try:
            return self._transport.finish(timeout)
        except OSError as error:
            return SinkState("unreachable", failures=1, error=str(error))


@dataclass(frozen=True)
class Reporter:
    """Reports under a name; what components get as `report`. Picklable.

    Attributes:
        client: the way to the watcher.
        name: first part of the metrics' names.
        job: id of the job that reports.
        unit: key of its work.
    """

    client: WatcherClient
    name: str
    job: str = ""
    unit: str = ""

    def __call__(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Records named values, at a step when they belong to one."""
        named = {f"{self.name}.{key}": value for key, value in metrics.items()}
        self.client.report(named, step, self.job, self.unit)


class _Outbox:
    """Metrics on their way, in order; one thread sends them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._client = uuid.uuid4().hex[:8]
        self._waiting: list[Metric] = []
        self._first = 0  # number of _waiting[0]
        self._hurry = 0  # how many wait for everything to be sent
        self._closed = False
        self._passed_over = 0
        self._taken_at = 0.0  # when the watcher last took something, or a queue began to be full
        self._refused: WriteFailed | None = None  # why the disk did not take the last batch
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, metrics: Sequence[Metric]) -> None:
        """Takes metrics; what comes after the end is too late and passed over.

        Where the watcher is slower than whoever reports, this waits for it, so that memory stays bounded.
        """
        with self._change:
            self._wait_for_room()
            if self._closed:
                return
            if len(self._waiting) >= _MOST_WAITING:
                self._pass_over(len(metrics))
                return
            self._waiting.extend(metrics)
            if self._thread is None:
                self._thread = threading.Thread(target=self._send_all, name="metrics", daemon=True)
                self._thread.start()
                atexit.register(self.close, 1.0)
            self._change.notify_all()

    def _wait_for_room(self) -> None:
        """Waits, in short waits that can be interrupted, until less waits or nothing was taken for long."""
        if len(self._waiting) >= _MOST_WAITING and not self._passed_over:
            self._taken_at = time.monotonic()
        while (
            len(self._waiting) >= _MOST_WAITING and not self._closed and time.monotonic() < self._taken_at + _HELD_UP_S
        ):
            self._change.wait(_RETRY_S)

    def _pass_over(self, count: int) -> None:
        if not self._passed_over:
            text = (
                "the watcher has taken nothing for %.0f s and %d metrics wait: new ones are passed over until it does"
            )
            logger.warning(text, _HELD_UP_S, len(self._waiting))
        self._passed_over += count

    def flush(self, timeout: float) -> bool:
        """Waits until everything is sent; returns whether it was.

        Raises:
            WriteFailed: the disk does not take it.
        """
        end = time.monotonic() + timeout
        with self._change:
            self._hurry += 1
            self._change.notify_all()
            try:  # in short waits, which can be interrupted in any thread
                while (left := end - time.monotonic()) > 0:
                    if self._change.wait_for(lambda: not self._waiting or self._refused, min(left, _RETRY_S)):
                        break
            finally:
                self._hurry -= 1
            if self._waiting and self._refused:
                raise self._refused
            return not self._waiting

    def close(self, timeout: float) -> int:
        """Sends what is left and ends the thread; returns how many metrics are not sent."""
        with suppress(WriteFailed):  # who asked for metrics to be on the disk was told
            self.flush(timeout)
        with self._change:
            self._closed = True
            self._change.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)  # waits: what is not sent is counted and told below
            atexit.unregister(self.close)
        return len(self._waiting) + self._passed_over

    def _send_all(self) -> None:
        # waits: until the end is told, as a daemon
        while batch := self._next_batch():
            try:
                self._transport.append(self._client, self._first, batch)
            except OSError as error:
                logger.debug("metrics are sent again: %s", error)
                with self._change:
                    self._refused = error if isinstance(error, WriteFailed) else None
                    self._change.notify_all()
                    self._change.wait_for(lambda: self._closed, _RETRY_S)
                continue
            with self._change:
                self._refused = None
                self._taken_at = time.monotonic()
                del self._waiting[: len(batch)]
                self._first += len(batch)
                self._change.notify_all()

    def _next_batch(self) -> list[Metric]:
        """Waits for metrics, then a little for more of them; empty at the end."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._closed)  # waits: for metrics, as a daemon
            self._change.wait_for(lambda: self._hurry > 0 or self._closed or len(self._waiting) >= _BATCH, _BATCH_S)
            return [] if self._closed else self._waiting[:_MAX_BATCH]


@dataclass(frozen=True)
class ActorTransport:
    """Calls the watcher actor; its errors become `OSError`. Picklable.

    Attributes:
        actor: handle of the actor.
    """

    actor: Any

    def append(self, client: str, first: int, metrics: Sequence[Metric]) -> None:
        """See `Transport`."""
        self._call("append", client, first, list(metrics))

    def query(self, name: str) -> Any:
        """See `Transport`."""
        return self._call("query", name)

    def watch_cfgs(self, cfgs: Sequence[tuple[Mapping[str, Any], str]]) -> None:
        """See `Transport`."""
        self._call("watch_cfgs", list(cfgs))

    def setup_sweep(self, hpo_config: Mapping[str, Any], project: str) -> str:
        """See `Transport`."""
        return self._call("setup_sweep", hpo_config, project)

    def sync(self) -> None:
        """See `Transport`."""
        self._call("sync")

    def finish(self, timeout: float = _FLUSH_S) -> SinkState:
        """See `Transport`; the actor ends."""
        import ray

        try:
            return self._call("finish", timeout, patience=timeout + _CALL_S)
        finally:
            ray.kill(self.actor)

    def _call(self, method: str, *args: Any, patience: float = _CALL_S) -> Any:
        return call_actor(self.actor, method, *args, patience=patience)


def call_actor(actor: Any, method: str, *args: Any, patience: float = _CALL_S) -> Any:
    """Calls a method of a watcher's actor.

    Raises:
        OSError: it does not answer in time, or fails; a `WriteFailed` as the actor met it.
    """
    from ray.exceptions import RayError, RayTaskError

    try:
        return result_of(getattr(actor, method).remote(*args), patience)
    except RayError as error:
        if isinstance(error, RayTaskError) and isinstance(error.cause, WriteFailed):
            raise error.cause from None
        raise OSError(f"watcher: {error}") from error


def start_watcher(config: WatchConfig, actor: bool) -> WatcherClient:
    """Starts the watcher of a run.

    Args:
        config: names and places; "auto" is settled here, where the user's environment is.
        actor: whether other processes report to it; then it is an actor on this node.
    """
    config = replace(config, wandb=config.resolve_wandb(), work_dir=config.work_dir.absolute())
    if not actor:
        return WatcherClient(SandboxWatcher(config))
    return WatcherClient(ActorTransport(_start_actor(config)))


def _start_actor(config: WatchConfig) -> Any:
    return actor_beside(_WatcherActor, f"watcher-{config.run_id}", config)


def actor_beside(cls: type, name: str, *args: Any, max_concurrency: int = 1) -> Any:
    """A named actor on this node, started again when it dies, that knows the driver's wandb variables.

    Args:
        cls: takes `args` and these variables.
        name: in our namespace; a leftover of that name is ended.
        args: for its constructor.
        max_concurrency: how many calls it does at a time, in threads.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    _end_leftover(name)
    node = ray.get_runtime_context().get_node_id()
    options = {
        "name": name,
        "max_concurrency": max_concurrency,
        "namespace": NAMESPACE,
        "num_cpus": 0,
        "max_restarts": -1,
        "max_task_retries": -1,  # every method may be repeated
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),  # work_dir is here
    }
    # The driver's wandb variables, as an argument: a runtime environment would write them to Ray's logs.
    environment = {key: value for key, value in os.environ.items() if key.startswith("WANDB_")}
    return ray.remote(cls).options(**options).remote(*args, environment)


def _end_leftover(name: str) -> None:
    """Frees the name from the watcher of a run that was killed a moment ago; Ray takes seconds to notice."""
    import ray

    for _ in range(100):
        try:
            ray.kill(ray.get_actor(name, NAMESPACE))
        except ValueError:
            return
        time.sleep(0.1)


class _WatcherActor(SandboxWatcher):
    """The watcher in a process of its own.

    Args:
        config: names and places.
        environment: the driver's wandb variables.
    """

    def __init__(self, config: WatchConfig, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        super().__init__(config)
