"""What of Ray listens on this machine, at which addresses, and whether it asks for a token."""

from __future__ import annotations

import importlib
import ipaddress
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Listener", "ray_listeners", "role_of_process"]

Auth = Literal["token", "none", "unknown"]

# What a process's command line holds → what it is, the first that fits.
_ROLES = {
    "ray.util.client.server": "Ray client server",
    "dashboard/dashboard.py": "dashboard and job server",
    "dashboard/agent.py": "dashboard agent",
    "runtime_env/agent/main.py": "runtime environment agent",
    "gcs/gcs_server": "GCS",
    "raylet/raylet": "raylet",
    "ray-dashboard": "dashboard module",
    "ray::": "worker",
    "default_worker.py": "worker",
    "log_monitor.py": "log monitor",
    "autoscaler/_private/monitor.py": "autoscaler",
}


@dataclass(frozen=True)
class Listener:
    """A listening socket of a process of Ray.

    Attributes:
        what: the process: "GCS", "dashboard and job server", …
        address: where it listens.
        port: its port.
        pid: the process.
        auth: whether that Ray asks for a token; "unknown" for another user's process.
        tls: whether its gRPC is encrypted.
    """

    what: str
    address: str
    port: int
    pid: int
    auth: Auth = "unknown"
    tls: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        address = ipaddress.ip_address(self.address.split("%")[0])
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def role_of_process(command: str) -> str | None:
    """What a process of Ray is, by its command line; None for other processes."""
    return next((role for part, role in _ROLES.items() if part in command), None)


def ray_listeners() -> tuple[Listener, ...]:
    """The listening TCP sockets of Ray's processes on this machine, sorted."""
    try:
        found = set(_listeners(_psutil()))
    except (ImportError, OSError):  # where the system does not tell
        return ()
    return tuple(sorted(found, key=lambda one: (one.what, one.address, one.port)))


def _psutil() -> Any:
    try:
        return importlib.import_module("psutil")
    except ImportError:
        importlib.import_module("ray")  # which puts its own copy on the path
        return importlib.import_module("psutil")


def _listeners(psutil: Any) -> Iterator[Listener]:
    sockets: dict[int, list[Any]] = {}
    for one in psutil.net_connections(kind="tcp"):
        if one.status == psutil.CONN_LISTEN and one.pid is not None:  # None: of another user's process
            sockets.setdefault(one.pid, []).append(one)
    for pid, found in sockets.items():
        try:
            process = psutil.Process(pid)
            # The first words only: a shell that merely quotes these names is no process of Ray.
            words = " ".join(process.cmdline()[:4])
            role = "this driver" if pid == os.getpid() else role_of_process(words)
            if role is None:
                continue
            auth, tls = _protection(process)
        except (psutil.Error, OSError):  # ended meanwhile
            continue
        for one in found:
            yield Listener(role, one.laddr.ip, one.laddr.port, pid, auth, tls)


def _protection(process: Any) -> tuple[Auth, bool]:
    """Whether a process of Ray asks for a token and encrypts gRPC.

    Its environment tells, or that of who started it: processes that rename themselves lose theirs.
    """
    readable = False
    for one in (process, *process.parents()):
        try:
            environment = one.environ()
        except Exception:  # noqa: BLE001 - psutil's own kinds and those of the system
            continue
        readable = readable or "PATH" in environment
        if "RAY_AUTH_MODE" in environment:
            asks = environment["RAY_AUTH_MODE"].lower() == "token"
            return "token" if asks else "none", environment.get("RAY_USE_TLS", "0") == "1"
    return "none" if readable else "unknown", False
