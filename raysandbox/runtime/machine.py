"""What is to be known of a machine before work is sent to it; runs on every node.

Imports nothing but Python's standard library when it is loaded, so that a node whose other packages
are missing or broken still answers.
"""

from __future__ import annotations

import hashlib
import locale
import os
import platform
import re
import resource
import shutil
import socket
import stat
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import raysandbox
from raysandbox.runtime.gpus import Gpus, find_gpus
from raysandbox.runtime.listening import Listener, ray_listeners

__all__ = ["PACKAGES", "Folder", "Machine", "Memory", "Token", "examine", "nearest", "within"]

# Of these versions are compared between nodes.
PACKAGES = ("ray", "pyarrow", "numpy", "pydantic", "torch", "transformers", "diffusers")
UNLIMITED = -1
_FOLDER_S = 5.0  # for one folder: a network file system that hangs is said by name
_CGROUP = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60  # what version 1 of cgroups says for none
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
T = TypeVar("T")


@dataclass(frozen=True)
class Folder:
    """A place where files go.

    Attributes:
        role: what it is for.
        path: it.
        standing: it, or the nearest folder above that exists.
        free: bytes.
        total: bytes of its file system.
        writable: whether a file can be made there.
        error: why nothing is known.
    """

    role: str
    path: str
    standing: str = ""
    free: int = 0
    total: int = 0
    writable: bool = True
    error: str = ""


@dataclass(frozen=True)
class Memory:
    """Bytes: of the machine, of what can be had now, and of the container's limit and use (None without one)."""

    total: int
    available: int
    limit: int | None = None
    used: int | None = None


@dataclass(frozen=True)
class Token:
    """Ray's token, without what it is.

    Attributes:
        source: where it is: RAY_AUTH_TOKEN, or a file; "" when there is none.
        open_to: others who can read that file: "", "its group", "everybody".
    """

    source: str = ""
    open_to: Literal["", "its group", "everybody"] = ""


@dataclass(frozen=True)
class Machine:
    """Everything about a machine.

    Attributes:
        host: its name.
        platform: operating system and processor.
        python: version of the interpreter.
        executable: the interpreter.
        versions: package → version, "" where it is not installed.
        package: digest of this package's files.
        torch_cuda: the CUDA that torch was built for, "" for none or without torch.
        cpus: that this process may use.
        cpu_quota: CPUs that the container may use, None without a limit.
        memory: see there.
        shared: total bytes of /dev/shm, None where there is none.
        open_files: how many files a process may open, UNLIMITED for any number.
        processes: how many processes the user or container may still start, UNLIMITED for any number.
        folders: see there.
        gpus: see there.
        listeners: what of Ray listens.
        encoding: of text files; `file_names`: of file names.
        proxies: variable → host of the proxy.
        no_proxy: hosts that are reached without one.
        auth_mode: RAY_AUTH_MODE.
        token: see there.
    """

    host: str = ""
    platform: str = ""
    python: str = ""
    executable: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    package: str = ""
    torch_cuda: str = ""
    cpus: int = 1
    cpu_quota: float | None = None
    memory: Memory = Memory(0, 0)
    shared: int | None = None
    open_files: int = UNLIMITED
    processes: int = UNLIMITED
    folders: tuple[Folder, ...] = ()
    gpus: Gpus = field(default_factory=Gpus)
    listeners: tuple[Listener, ...] = ()
    encoding: str = "utf-8"
    file_names: str = "utf-8"
    proxies: Mapping[str, str] = field(default_factory=dict)
    no_proxy: str = ""
    auth_mode: str = ""
    token: Token = Token()


def examine(folders: Mapping[str, str], *, more_packages: Sequence[str] = ()) -> Machine:
    """Looks at this machine.

    Args:
        folders: role → path of the folders to look at; local ones.
        more_packages: packages whose versions are wanted besides `PACKAGES`.
    """
    proxies = {name: value for name in _PROXIES if (value := os.environ.get(name) or os.environ.get(name.upper()))}
    return Machine(
        host=socket.gethostname(),
        platform=platform.platform(terse=True),
        python=platform.python_version(),
        executable=sys.executable,
        versions={name: _version(name) for name in dict.fromkeys((*PACKAGES, *more_packages))},
        package=_package_digest(),
        torch_cuda=_torch_cuda(),
        cpus=len(os.sched_getaffinity(0)),
        cpu_quota=_cpu_quota(),
        memory=_memory(),
        shared=shutil.disk_usage("/dev/shm").total if os.path.isdir("/dev/shm") else None,
        open_files=_limit(resource.RLIMIT_NOFILE),
        processes=_processes_left(),
        folders=tuple(_folder(role, path) for role, path in folders.items()),
        gpus=find_gpus(),
        listeners=ray_listeners(),
        encoding=locale.getpreferredencoding(False).lower(),
        file_names=sys.getfilesystemencoding().lower(),
        proxies={name: urlsplit(url if "//" in url else f"//{url}").hostname or "" for name, url in proxies.items()},
        no_proxy=os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "",
        auth_mode=os.environ.get("RAY_AUTH_MODE", ""),
        token=_token(),
    )


def within(seconds: float, function: Callable[..., T], *arguments: Any) -> T:
    """Calls a function that may hang for ever.

    Raises:
        TimeoutError: it did not end in time; its thread is left behind.
        Exception: what it raised.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def call() -> None:
        try:
            results.append(function(*arguments))
        except Exception as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)  # waits: what comes late is told below as TimeoutError
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer in {seconds:g} s")
    return results[0]


def _package_digest() -> str:
    """Digest of all files of this package, less what Python makes of them."""
    root = Path(raysandbox.__file__).parent
    found = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            found.update(f"{path.relative_to(root)}\0".encode())
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _torch_cuda() -> str:
    """Read from its file: importing torch takes seconds."""
    try:
        text = Path(str(distribution("torch").locate_file("torch/version.py"))).read_text(encoding="utf-8")
    except (PackageNotFoundError, OSError):
        return ""
    found = re.search(r"^cuda[^=\n]*= *'([\d.]+)'", text, re.MULTILINE)
    return found[1] if found else ""


def _folder(role: str, path: str) -> Folder:
    try:
        return within(_FOLDER_S, _look_at, role, path)
    except (OSError, TimeoutError) as error:
        return Folder(role, path, error=error.strerror if isinstance(error, OSError) and error.strerror else str(error))


def _look_at(role: str, path: str) -> Folder:
    place = nearest(path)
    usage = shutil.disk_usage(place)
    return Folder(role, path, str(place), usage.free, usage.total, os.access(place, os.W_OK | os.X_OK))


def nearest(path: str) -> Path:
    """The folder, or the nearest one above it that exists."""
    place = Path(path).expanduser().absolute()
    return next(folder for folder in (place, *place.parents) if folder.is_dir())


def _memory() -> Memory:
    words = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
    kilobytes = {name: int(words[name].split()[0]) for name in ("MemTotal", "MemAvailable")}
    total, available = (kilobytes[name] * 1024 for name in ("MemTotal", "MemAvailable"))
    limit = _cgroup_number("memory", "memory.max", "memory.limit_in_bytes")
    if limit is None or limit >= total:
        return Memory(total, available)
    return Memory(total, available, limit, _cgroup_number("memory", "memory.current", "memory.usage_in_bytes"))


def _cpu_quota() -> float | None:
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        quota = _cgroup_number("cpu", "", "cpu.cfs_quota_us")
        period = _cgroup_number("cpu", "", "cpu.cfs_period_us")
        return quota / period if quota and quota > 0 and period else None


def _cgroup_number(controller: str, second: str, first: str) -> int | None:
    """A number of this process's control group, version 2 or 1; None for none.

    In a container its own group stands at the root, elsewhere where /proc/self/cgroup says.
    """
    places = [_CGROUP / second, _CGROUP / controller / first]
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            places.insert(0, _CGROUP / path.lstrip("/") / second)
        elif controller in controllers.split(","):
            places.insert(0, _CGROUP / controller / path.lstrip("/") / first)
    for place in places:
        text = " ".join(_lines(place)) if place.is_file() else ""
        if text.lstrip("-").isdigit() and int(text) < _NO_LIMIT:
            return int(text)
    return None


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _limit(kind: int) -> int:
    """The hard limit: Ray raises the soft one to it."""
    hard = resource.getrlimit(kind)[1]
    return UNLIMITED if hard == resource.RLIM_INFINITY else hard


def _processes_left() -> int:
    most = _cgroup_number("pids", "pids.max", "pids.max")
    now = _cgroup_number("pids", "pids.current", "pids.current") or 0
    user = _limit(resource.RLIMIT_NPROC)
    left = [number for number in (user, most - now if most is not None else UNLIMITED) if number != UNLIMITED]
    return min(left) if left else UNLIMITED


def _token() -> Token:
    """Where Ray would find its token, in the order in which it looks."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return Token("RAY_AUTH_TOKEN")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        mode = path.stat().st_mode
    except OSError:
        return Token()
    open_to = "everybody" if mode & stat.S_IROTH else "its group" if mode & stat.S_IRGRP else ""
    return Token(str(path), open_to)
