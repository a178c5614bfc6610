"""wandb as a sink: a thread that follows the metrics file.

The file is the queue: nothing is dropped, however slow or broken wandb is, and memory stays
bounded. Rows carry their metrics' sequence number as wandb's step. wandb buffers in a process of
its own whose tail a kill loses, so only a clean end moves the mark (`metrics.wandb.json`) from
which a restarted run gives its metrics again; rows that wandb already has are ignored by their step.

A server that does not answer is asked again every minute, before wandb is started: once its `init` has
begun to wait for a server nothing but the end of its process stops it. At the end of the run what such a
server did not get is left as files of an offline run.
"""

from __future__ import annotations

import atexit
import http.client
import json
import logging
import os
import re
import signal
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from raysandbox.core.errors import UserError
from raysandbox.core.files import atomic_write, read_object
from raysandbox.core.redact import redact_text
from raysandbox.watcher.config import WatchConfig
from raysandbox.watcher.metrics import MetricsLog, from_json
from raysandbox.watcher.sinks import SinkState

__all__ = ["WandbRun", "WandbSink", "connect", "silence_of_server"]

logger = logging.getLogger(__name__)
_CHUNK = 1 << 20  # bytes of the file read at a time
_RETRY_S = 60.0  # pause after a failure
_INIT_S = 20.0
_ANSWER_S = 12.0  # for a server to answer a question; slow ones take 10 s
_FINISH_S = 20.0  # what wandb may spend on uploading at the end, also when the interpreter exits


class WandbRun(Protocol):
    """The part of wandb's Run that is used."""

    @property
    def config(self) -> Any:
        """The run's configuration, with `update`."""
        ...

    def log(self, data: dict[str, Any], step: int | None = None) -> None:
        """Adds a row."""
        ...

    def finish(self) -> None:
        """Uploads the rest and ends the run."""
        ...


class WandbUnreachable(UserError):
    """The server does not answer, or not with what it is asked for."""


def connect(config: WatchConfig, mode: str, group: str | None) -> WandbRun:
    """Starts or continues the run in wandb, without a word on the console."""
    wandb, settings = _wandb()
    run = wandb.init(
        project=_name(config.project),
        id=_name(config.run_id)[:64],
        name=config.experiment,
        group=group,
        dir=str(config.work_dir),
        mode=cast(Any, mode),
        resume="allow" if mode == "online" else None,
        reinit="create_new",
        settings=settings,
    )
    return cast(WandbRun, run)


def _wandb() -> tuple[Any, Any]:
    """The module, set up, and settings of a run.

    Metadata collection is off: wandb would store the command line, and with it secrets given there. So are
    reports of wandb's own errors, for whose delivery a process would wait at its end, up to half a minute.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at the import
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        init_timeout=_INIT_S,
        finish_timeout=_FINISH_S,
        finish_timeout_raises=True,
        save_code=False,
        x_disable_meta=True,
        x_save_requirements=False,
    )
    wandb.setup(settings)
    return wandb, settings


def silence_of_server() -> str:
    """Why wandb's server cannot be used now; empty where it answers. Waits for it a limited time."""
    base = str(_wandb()[0].setup().settings.base_url).rstrip("/")
    if not base.startswith(("http://", "https://")):
        return f"{base} is no address of a server"
    question = json.dumps({"query": "query { serverInfo { __typename } }"}).encode()
    request = urllib.request.Request(f"{base}/graphql", question, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_S):
            return ""
    except urllib.error.HTTPError as error:
        error.close()
        refuses = error.code == http.client.TOO_MANY_REQUESTS or error.code >= http.client.INTERNAL_SERVER_ERROR
        return f"{base} answers {error.code} {error.reason}" if refuses else ""
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            return ""  # it does answer, and wandb may know its certificate
        return f"{base} does not answer: {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        return f"{base} does not answer: {error or type(error).__name__}"


def _end_service() -> None:
    """Ends wandb's own process, for whose uploads a process that exits would wait."""
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            if Path("/proc", child, "comm").read_text().startswith("wandb-core"):
                os.kill(int(child), signal.SIGKILL)


def _name(text: str) -> str:
    return re.sub(r"[^\w.\-]", "-", text)


class WandbSink:
    """Gives the lines of a metrics file to wandb.

    Args:
        log: the metrics file.
        mark: file that remembers what wandb surely has.
        mode: what `close` reports as mode.
        connect: starts or continues the run, given the group.
        group: wandb's group.
        silence: why the server cannot be used now, "" where it can; asked before `connect`.
        offline: as `connect`, without a server: for what it did not take by the end.
    """

    def __init__(
        self,
        log: MetricsLog,
        mark: Path,
        mode: str,
        connect: Callable[[str | None], WandbRun],
        group: str | None = None,
        silence: Callable[[], str] = str,
        offline: Callable[[str | None], WandbRun] | None = None,
    ) -> None:
        self._silence, self._connect_offline = silence, offline
        self._is_fallback = False
        self._log = log
        self._mark = mark
        self._mode = mode
        self._connect = connect
        self._group = group
        self._run: WandbRun | None = None
        self._config: dict[str, Any] = {}
        self._config_given: dict[str, Any] = {}
        self._offset = 0
        self._retry_at = 0.0
        self._given = 0
        self._failures = 0
        self._error: str | None = None
        self._news = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._follow, name="wandb", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Tells that the file has grown; the first call begins the run."""
        self._news.set()

    def configure(self, config: Mapping[str, Any], group: str | None = None) -> None:
        """Adds to the run's configuration; a group counts if the run has not begun."""
        self._config = {**self._config, **config}
        self._group = group or self._group
        self.wake()

    def close(self, timeout: float) -> SinkState:
        """Gives what is left and ends the run, for at most `timeout` seconds."""
        self._closing = True
        self._news.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            left = self._log.size - self._offset
            more = f", {left} bytes of metrics.jsonl were not given to it" if left else ""
            self._failed(TimeoutError(f"wandb did not finish within {timeout:g} s{more}"))
            atexit.register(_end_service)
        return SinkState(self._mode, self._given, self._failures, self._error)

    def _follow(self) -> None:
        closing = False
        while not closing:
            self._news.wait(timeout=_RETRY_S if self._failures else None)  # waits: for metrics, as a daemon
            self._news.clear()
            closing = self._closing
            try:
                self._forward(closing)
            except Exception as error:  # whatever a foreign library raises must not end the run
                logger.debug("wandb failed", exc_info=True)
                self._failed(error)
                self._run = None
                self._retry_at = time.monotonic() + _RETRY_S

    def _forward(self, closing: bool) -> None:
        run = self._run or self._begin(closing)
        if run is None:
            return
        if self._config is not self._config_given:
            given = self._config
            run.config.update(given, allow_val_change=True)
            self._config_given = given
        while self._offset < self._log.size:
            data = self._read_lines()
            for step, row, count in _rows(data.splitlines()):
                run.log(row, step=step)
                self._given += count
            self._offset += len(data)
        if closing:
            run.finish()
            if not self._is_fallback:  # of which wandb knows only once somebody gives it the files
                atomic_write(self._mark, json.dumps({"offset": self._offset}))

    def _begin(self, closing: bool) -> WandbRun | None:
        nothing_to_say = not self._log.size and not self._config
        if nothing_to_say or (not closing and time.monotonic() < self._retry_at):
            return None
        connect = self._connect
        if reason := self._silence():
            if not closing or self._connect_offline is None:
                raise WandbUnreachable(reason)
            self._failed(WandbUnreachable(reason))
            files = self._mark.parent / "wandb"
            self._error = f"{self._error}; its files are left in {files}: upload them by `wandb sync {files}/offline-*`"
            connect, self._is_fallback = self._connect_offline, True
        self._run = connect(self._group)
        self._offset = self._read_mark()
        self._config_given = {}
        return self._run

    def _read_lines(self) -> bytes:
        with self._log.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read(min(_CHUNK, self._log.size - self._offset))
            return data if data.endswith(b"\n") else data + file.readline()

    def _read_mark(self) -> int:
        try:
            offset = int(read_object(self._mark)["offset"])
        except (ValueError, KeyError, TypeError):
            return 0  # absent or torn: everything is given again
        return offset if offset <= self._log.size else 0

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._error is None:
            self._error = redact_text(
                str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            )
            text = "wandb failed, the run goes on: %s (metrics are in %s, and wandb is tried again)"
            logger.warning(text, self._error, self._log.path)


def _rows(lines: Sequence[bytes]) -> Iterator[tuple[int, dict[str, Any], int]]:
    """Joins metrics that were reported together; yields (wandb's step, row, number of metrics)."""
    row: dict[str, Any] = {}
    first: dict[str, Any] = {}
    for line in map(json.loads, lines):
        together = row and all(line[key] == first[key] for key in ("client", "t", "step")) and line["name"] not in row
        if row and not together:
            yield _row(first, row)
            row = {}
        if not row:
            first = line
        row[line["name"]] = from_json(line["value"])
    if row:
        yield _row(first, row)


def _row(first: Mapping[str, Any], row: dict[str, Any]) -> tuple[int, dict[str, Any], int]:
    extra = {} if first["step"] is None else {"step": first["step"]}
    return first["seq"], {**row, **extra}, len(row)
