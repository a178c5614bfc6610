"""Builds isolated environments with venv and pip, and removes them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.core.files import atomic_write, remove
from raysandbox.core.programs import run_program
from raysandbox.core.redact import redact_text
from raysandbox.provision.environment_source import checked_source, described, drivers_torch, exact_torch, torch_of
from raysandbox.provision.environments import (
    MANIFEST,
    Environment,
    Pins,
    driver_ray,
    environments_dir,
    find,
    link_of,
    package_folder,
    pins_of,
)

__all__ = ["BuildView", "create", "delete"]

_BUILDS = ".builds"
_CPU_TORCH = "https://download.pytorch.org/whl/cpu"
_STALL_S = 3600.0  # pip is silent while it compiles
_ASK_S = 60.0


class BuildView:
    """Receives how a build goes on. This one shows nothing."""

    def step(self, text: str) -> None:
        """A step begins."""

    def line(self, text: str) -> None:
        """A line of pip's output."""


def create(
    name: str,
    *,
    variant: str = "",
    source: str | None = None,
    python: str | None = None,
    recreate: bool = False,
    view: BuildView | None = None,
) -> Environment:
    """Builds an environment, unless it is there as it would be built.

    An older one is replaced when the new one is whole; a variant that can be used stays unless a
    variant is asked for.

    Args:
        name: of the environment.
        variant: of its pins; "" for the plain ones, or whichever is there.
        source: checkout that it is made for, where its pins need one; by default the earlier one.
        python: the interpreter to make it with, of this driver's minor version; by default this one.
        recreate: build it in any case.
        view: receives how it goes on.

    Raises:
        UserError: the name is unknown, the interpreter does not fit, or a step failed; with pip's last lines.
    """
    pins, root, view = pins_of(name, variant), environments_dir(), view or BuildView()
    checkout = checked_source(pins, source)
    base = _checked_python(python)
    if not driver_ray():
        raise UserError("Ray is not installed in this environment: an isolated environment holds the same version")
    with _locked(root, name) as lock:
        _sweep(root, name)
        found = find(name)
        if found and not recreate:
            there = _is_there(found, variant, checkout)
            if there:
                view.step(there)
                return found
        if found and found.variant and found.variant != variant:
            view.step(f"{found.path}, made with {found.variant}, is replaced by one without")
        target = root / name
        if target.exists() and not target.is_symlink():
            raise UserError(f"{target} is no environment of raysandbox's: move it away")
        build = root / _BUILDS / f"{name}-{uuid.uuid4().hex[:8]}"
        try:
            with (root / f"{name}.log").open("w", encoding="utf-8") as log:
                _Build(pins, build, base, log, view, lock, checkout).run()
            old = target.resolve() if target.is_symlink() else None
            link = build.with_name(f"{build.name}.link")
            link.symlink_to(build)
            os.replace(link, target)
        except BaseException:
            remove(build)
            raise
        if old:
            remove(old)
        return Environment(name, target, json.loads((target / MANIFEST).read_text(encoding="utf-8")))


def delete(name: str) -> Path:
    """Removes an environment; returns where it was.

    Raises:
        UserError: there is none.
    """
    root = environments_dir()
    target = root / name
    if Path(name).name != name or not target.is_symlink():
        pins_of(name)
        raise UserError(f"there is no environment '{name}' in {root}")
    with _locked(root, name):
        target.unlink()
        _sweep(root, name)
        remove(root / f"{name}.log")
    return target


def _is_there(found: Environment, variant: str, source: Path | None) -> str:
    """Why nothing is to be built for a variant and a checkout; "" when something is."""
    if found.source != source:
        return ""
    if _is_current(found) and found.variant == variant:
        return f"{found.path} is there already"
    if variant or not found.variant or found.misfit():
        return ""
    differences = found.differences()
    renew = f" ({differences}; renew it: {found.command})" if differences else ""
    return f"{found.path} is there already, made with {found.variant}, and stays{renew}; --recreate builds it without"


def _is_current(found: Environment) -> bool:
    """Whether an environment is as it would be built; points it to this package if only that differs."""
    if link_of(found.path).resolve() != package_folder():
        _link_package(found.path)
    return not found.misfit() and not found.differences()


def _checked_python(python: str | None) -> str:
    """The interpreter to build with; Ray's workers need the driver's minor version."""
    if python is None:
        return sys.executable
    code = "import platform; print('.'.join(platform.python_version_tuple()[:2]))"
    try:
        answer = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"--python {python}: {error}") from error
    wanted = ".".join(platform.python_version_tuple()[:2])
    if answer.stdout.strip() != wanted:
        found = answer.stdout.strip() or answer.stderr.strip()
        raise UserError(f"--python {python} is Python {found}; Ray's workers need the driver's, {wanted}")
    return python


@contextlib.contextmanager
def _locked(root: Path, name: str) -> Iterator[int]:
    """Holds the lock of a name; yields its file's descriptor."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        opened = (root / f".{name}.lock").open("w")
    except OSError as error:
        raise UserError(f"{root}: {error}; set RAYSANDBOX_ENVIRONMENTS to a folder that can be written") from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process works on the environment '{name}' in {root}: wait for it") from error
        yield lock.fileno()


def _sweep(root: Path, name: str) -> None:
    """Removes what killed builds left; the caller holds the lock."""
    target = root / name
    used = target.resolve() if target.is_symlink() else None
    for path in (root / _BUILDS).glob(f"{name}-*"):
        if path != used:
            remove(path)


@dataclass(frozen=True)
class _Build:
    """One build.

    Attributes:
        pins: what of.
        path: its folder, where it stays: virtual environments cannot be moved.
        base: the interpreter to make it with.
        log: receives all output.
        view: receives how it goes on.
        lock: descriptor of the lock's file; programs inherit it, so that one that takes a moment to end
            with a killed build keeps the next build out of its folder.
        source: checkout that it is made for, if any.
    """

    pins: Pins
    path: Path
    base: str
    log: IO[str]
    view: BuildView
    lock: int
    source: Path | None = None

    @property
    def _python(self) -> str:
        return str(self.path / "bin" / "python")

    def run(self) -> None:
        """Builds; the manifest is written last."""
        start = time.monotonic()
        steps = len(self.pins.steps) + 2
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._step(1, steps, "a virtual environment")
        self._call([self.base, "-m", "venv", str(self.path)], "venv")
        for number, step in enumerate(self.pins.steps, 2):
            if "torch" in step:
                self._step(number, steps, f"torch {step['torch']}")
                self._torch(str(step["torch"]))
            elif "torch_of" in step:
                asked = torch_of(Path(f"{self.source}/{step['torch_of']}"))
                self._step(number, steps, asked or f"no torch ({step['torch_of']} names none)")
                self._torch_as(asked)
            else:
                values = {"ray": driver_ray(), "source": self.source}
                requirements = [str(item).format_map(values) for item in step["requirements"]]
                self._step(number, steps, ", ".join(requirements))
                self._pip([*step.get("options", ()), *requirements])
        _link_package(self.path)
        self._step(steps, steps, "the check that it works")
        self._call([self._python, "-c", self.pins.check + "\nimport raysandbox.core.errors\n"], "the check")
        atomic_write(self.path / MANIFEST, json.dumps(self._manifest(time.monotonic() - start), indent=2) + "\n")

    def _step(self, number: int, steps: int, text: str) -> None:
        self.view.step(f"[{number}/{steps}] {text}")

    def _torch(self, version: str) -> None:
        """Installs torch: without an NVIDIA driver its CPU build, from wherever there is one."""
        tries = [[f"torch=={version}"]]
        if not _has_nvidia_driver():
            quick = ["--retries", "1", "--timeout", "20", "--index-url", _CPU_TORCH]
            tries = [[f"torch=={version}+cpu"], [*quick, f"torch=={version}+cpu"], *tries]
        for arguments in tries[:-1]:
            with contextlib.suppress(UserError):
                self._pip(arguments)
                return
        self._pip(tries[-1])

    def _torch_as(self, requirement: str) -> None:
        """Installs torch as a checkout asks for it, if it does."""
        if not requirement:
            return
        fitting = exact_torch(requirement) or ("" if _has_nvidia_driver() else drivers_torch(requirement))
        if fitting:
            self._torch(fitting)
        else:
            self._pip([requirement])

    def _pip(self, arguments: Sequence[str]) -> None:
        options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
        self._call([self._python, "-m", "pip", "install", *options, *arguments], "pip")

    def _call(self, arguments: Sequence[str], what: str) -> None:
        """Runs a program; its output goes to the log and the view."""

        def take(line: str) -> None:
            line = redact_text(line)  # an index's address may hold a password
            self.log.write(line + "\n")
            self.view.line(line.strip())

        try:
            run_program(
                arguments,
                cwd=self.path.parent,
                environment=_clean_environment(),
                on_line=take,
                stall_timeout_s=_STALL_S,
                what=what,
                echo=False,
                pass_fds=(self.lock,),
            )
        except JobFailed as error:
            raise UserError(
                redact_text(
                    f"the environment '{self.pins.name}' was not built: {error}\n(all of its output: {self.log.name})"
                )
            ) from error

    def _manifest(self, seconds: float) -> Mapping[str, Any]:
        code = "import json, platform\nfrom importlib.metadata import distributions\n" + (
            "print(json.dumps([platform.python_version(), {d.metadata['Name']: d.version for d in distributions()}]))"
        )
        question = [self._python, "-c", code]
        try:
            answer = subprocess.run(
                question, capture_output=True, text=True, check=True, timeout=_ASK_S, env=_clean_environment()
            )
        except subprocess.SubprocessError as error:
            raise UserError(f"the environment '{self.pins.name}' does not say what it holds: {error}") from error
        python, packages = json.loads(answer.stdout)
        return {
            "name": self.pins.name,
            "variant": self.pins.variant,
            "pins": self.pins.digest,
            **({"source": described(self.source, self.pins)} if self.source else {}),
            "python": python,
            "ray": packages.get("ray"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "bytes": _size(self.path),
            "packages": dict(sorted(packages.items())),
        }


def _link_package(path: Path) -> None:
    """Makes this package importable in an environment, and nothing else that lies beside it."""
    link = link_of(path)
    link.parent.mkdir(exist_ok=True)
    new = link.with_name(f".{uuid.uuid4().hex}")
    new.symlink_to(package_folder())
    os.replace(new, link)
    for site in path.glob("lib/python*/site-packages"):
        atomic_write(site / "raysandbox.pth", f"{link.parent.resolve()}\n")


def _clean_environment() -> dict[str, str]:
    """The process's environment less what would let other packages shine through."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_USER"}
    return {**{key: value for key, value in os.environ.items() if key not in hidden}, "PYTHONNOUSERSITE": "1"}


def _has_nvidia_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def _size(path: Path) -> int:
    """Bytes on disk of a tree; links count as nothing."""
    total = 0
    for folder, _, files in os.walk(path):
        for file in files:
            total += os.lstat(os.path.join(folder, file)).st_blocks * 512
    return total
