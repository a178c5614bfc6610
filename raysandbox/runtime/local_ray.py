"""A Ray of this process's own: on loopback, with no more processes than it needs; why it does not start."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

from raysandbox.core.errors import UserError
from raysandbox.core.redact import remember_secrets

__all__ = ["forget_token", "start_local"]

# Without this, Ray replaces 127.0.0.1 by the machine's address and listens on every interface.
_LOOPBACK_SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_LEAST_ROOM = 32 << 20  # bytes; with less Ray's processes wait for files that cannot be written
_LONGEST = 400  # characters of Ray's own words

logger = logging.getLogger(__name__)


def start_local(init: Callable[..., object]) -> None:
    """Starts a local Ray; once more if it did not come up in time, as on a busy machine.

    Args:
        init: `ray.init` with what is particular to this Ray.

    Raises:
        UserError: it did not start; the message says why and what to do.
    """
    try:
        _start(init)
    except TimeoutError as error:
        logger.warning("%s; it is started once more", error)
        try:
            _start(init)
        except TimeoutError as again:
            raise UserError(
                f"{again}, twice (the machine may be too busy or short of memory: end other work and run this again, "
                f"or name a cluster in RAY_ADDRESS)"
            ) from error


def _start(init: Callable[..., object]) -> None:
    """Starts it; what a failure leaves behind is ended.

    Raises:
        UserError: it cannot start.
        TimeoutError: it did not start in time, and nothing tells why.
    """
    with _loopback_only(), _own_token(), _fewer_processes() as nodes:
        try:
            init(address="local", include_dashboard=False)
        except Exception as error:  # Ray's own are bare ones
            import ray

            ray.shutdown()
            for node in nodes:
                node.kill_all_processes(check_alive=False, allow_graceful=False)
            logs = nodes[-1].get_logs_dir_path() if nodes else None
            raise _reason(error, logs) from error


def _reason(error: Exception, logs: str | None) -> UserError | TimeoutError:
    """What a failed start means: Ray says of a full disk, too, that something timed out."""
    from ray._common.utils import get_default_ray_temp_dir

    folder = Path(get_default_ray_temp_dir())
    room = _room(folder)
    text = " ".join(str(error).split())
    said = text[:_LONGEST] or type(error).__name__
    where = f"; its logs are in {logs}" if logs else ""
    if room < _LEAST_ROOM or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return UserError(
            f"a local Ray cannot start: {folder}, where it keeps its session, has {room / 1e6:.0f} MB free "
            f"(make room there, or set RAY_TMPDIR to a folder that has some)"
        )
    if isinstance(error, TimeoutError) or "timed out" in text.lower():
        return TimeoutError(f"a local Ray did not start in time: {said}{where}")
    if "already in use" in text:
        fix = "something listens on a port that is set for Ray: unset RAY_GCS_SERVER_PORT, or end what listens"
    elif isinstance(error, OSError):
        fix = f"Ray keeps its session in {folder}: set RAY_TMPDIR to a folder of yours with a short path"
    else:
        fix = "mend what it says, or name a cluster in RAY_ADDRESS"
    return UserError(f"a local Ray cannot start: {said}{where} ({fix})")


def _room(folder: Path) -> float:
    """Bytes free on the disk of a folder that may not be there yet; infinite where nobody can tell."""
    try:
        return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    except OSError:
        return float("inf")


@contextlib.contextmanager
def _loopback_only() -> Iterator[None]:
    """Makes `ray.init` keep the loopback address, so that no port is open to the network."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ[_LOOPBACK_SWITCH] = "0"  # for the processes that Ray starts
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[_LOOPBACK_SWITCH]


@contextlib.contextmanager
def _own_token() -> Iterator[None]:
    """Gives a local Ray a token that only its processes know, unless the user has said which, or none.

    Ray would write one to ~/.ray/auth_token, which under a usual umask all users of the machine can read;
    they reach loopback, and Ray runs code for whoever has the token. This process keeps it in Ray's cache.
    """
    mode = os.environ.get("RAY_AUTH_MODE")
    if (
        (mode or "token").lower() != "token"
        or os.environ.get("RAY_AUTH_TOKEN")
        or os.environ.get("RAY_AUTH_TOKEN_PATH")
    ):
        yield
        return
    os.environ["RAY_AUTH_TOKEN"] = _token()  # for the processes that Ray starts, and theirs
    forget_token()
    try:
        yield
    finally:
        del os.environ["RAY_AUTH_TOKEN"]
        if mode is None:
            os.environ.pop(
                "RAY_AUTH_MODE", None
            )  # Ray sets it; what is asked later of another Ray is not about this one


@cache
def _token() -> str:
    """The token of this process's local Rays."""
    made = secrets.token_hex(32)
    remember_secrets({"token": made})
    return made


def forget_token() -> None:
    """Makes Ray look for its token again; it does so once per process."""
    from ray._raylet import AuthenticationTokenLoader  # pyright: ignore[reportAttributeAccessIssue]  # compiled

    AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def _fewer_processes() -> Iterator[list[Any]]:
    """Makes `ray.init` leave out the autoscaler's monitor, the log monitor and the dashboard.

    Nothing here asks them, a local Ray does not grow, and each is a Python process of its own:
    together they take 1.7 CPU seconds, and `ray.init` waits for the dashboard.

    Yields:
        what Ray knows its processes by, once it has begun to start them: nobody else has it until all of them are up.
    """
    from ray._private import node, parameter

    params, start_dashboard, start_head = (
        parameter.RayParams,
        node.Node.start_api_server,
        node.Node.start_head_processes,
    )
    nodes: list[Any] = []

    def remember(self: Any) -> None:
        nodes.append(self)
        start_head(self)

    parameter.RayParams = partial(cast(Any, params), no_monitor=True, include_log_monitor=False)
    node.Node.start_api_server = _nothing
    node.Node.start_head_processes = remember
    try:
        yield nodes
    finally:
        parameter.RayParams, node.Node.start_api_server = params, start_dashboard
        node.Node.start_head_processes = start_head


def _nothing(*_: object, **__: object) -> None:
    """No dashboard."""
