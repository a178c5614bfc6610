"""Isolated environments: virtual environments of stacks that cannot share this one.

Their folder is `RAYSANDBOX_ENVIRONMENTS`, by default `~/.cache/raysandbox/environments`; nodes of a
cluster need it at the same path. An environment is a link `NAME` to the finished build below
`.builds/`, put in place by rename: it is whole, or it is not there.
"""

from __future__ import annotations

import logging
import os
import platform
import shlex
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from raysandbox.core.errors import UnknownNameError, UserError, did_you_mean
from raysandbox.core.files import cache_dir, read_object
from raysandbox.core.keys import digest

__all__ = [
    "MANIFEST",
    "Environment",
    "Pins",
    "driver_ray",
    "environments_dir",
    "find",
    "interpreter",
    "known",
    "link_of",
    "package_folder",
    "pins_of",
    "source_digest",
]

logger = logging.getLogger(__name__)

MANIFEST = "raysandbox-environment.json"
_PINS = Path(__file__).parent / "pins"


@dataclass(frozen=True)
class Pins:
    """What an environment is made of.

    Attributes:
        name: of the environment.
        variant: of its pins, "" or e.g. "detectron2".
        summary: what it is for.
        check: Python code that must run in it.
        steps: calls of pip in order: `requirements` with `options`, a version of `torch`, or `torch_of`: a file
            of the checkout whose line on torch counts, if it has one.
        source_files: what a checkout of the user's must hold that the environment is made for; empty where
            none is needed.
        source_hint: where such a checkout comes from.
    """

    name: str
    variant: str
    summary: str
    check: str
    steps: tuple[Mapping[str, Any], ...]
    source_files: tuple[str, ...] = ()
    source_hint: str = ""

    @property
    def digest(self) -> str:
        """Digest of all that pip is asked for."""
        return digest(list(self.steps))


@dataclass(frozen=True)
class Environment:
    """A built environment.

    Attributes:
        name: its name.
        path: its folder.
        manifest: what it holds: `variant`, `pins` (digest), `python`, `ray`, `bytes`, `seconds`, `packages`,
            `source` (see `environment_source.described`) where it was made for a checkout.
    """

    name: str
    path: Path
    manifest: Mapping[str, Any]

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"

    @property
    def variant(self) -> str:
        """The variant of its pins: "" or e.g. "detectron2"."""
        return str(self.manifest.get("variant", ""))

    @property
    def source(self) -> Path | None:
        """The checkout that it was made for, if any."""
        given = self.manifest.get("source")
        return Path(given["path"]) if given else None

    @property
    def command(self) -> str:
        """The command that builds it again, with its variant and checkout."""
        variant = f" --with-{self.variant}" if self.variant else ""
        source = f" --source {shlex.quote(str(self.source))}" if self.source else ""
        return f"raysandbox env create {self.name}{variant}{source}"

    def misfit(self) -> str:
        """Why actors of this driver cannot run in it; "" when they can."""
        if not self.python.exists():
            return f"its interpreter {self.python} is gone"
        ray, driver = self.manifest.get("ray"), driver_ray()
        if ray != driver:
            return f"it holds ray {ray}, this environment {driver}"
        python = ".".join(str(self.manifest.get("python")).split(".")[:2])
        if python != ".".join(platform.python_version_tuple()[:2]):
            return f"it holds Python {python}, this environment {platform.python_version()}"
        if not (link_of(self.path) / "__init__.py").exists():
            return f"the raysandbox that it points to is gone ({link_of(self.path)})"
        return ""

    def differences(self) -> str:
        """What is not as this version of raysandbox would build it now; "" when nothing."""
        try:
            pins = pins_of(self.name, self.variant)
        except UserError:
            return "this version of raysandbox holds no pins for it"
        if self.manifest.get("pins") != pins.digest:
            return "it was built from other pins"
        if self.source and not self.source.is_dir():
            return f"its checkout {self.source} is gone"
        if self.source and source_digest(self.source, pins) != self.manifest["source"]["requirements"]:
            return f"what {self.source} requires has changed"
        if link_of(self.path).resolve() != package_folder():
            return f"it uses the raysandbox of {link_of(self.path).resolve()}"
        return ""


def environments_dir() -> Path:
    """Where environments are."""
    given = os.environ.get("RAYSANDBOX_ENVIRONMENTS")
    return Path(given).expanduser().absolute() if given else cache_dir() / "environments"


def known() -> dict[str, str]:
    """Environments that can be built: name → what it is for."""
    return {path.stem: pins_of(path.stem).summary for path in sorted(_PINS.glob("*.toml")) if "-" not in path.stem}


@cache
def pins_of(name: str, variant: str = "") -> Pins:
    """The pins of an environment.

    Raises:
        UnknownNameError: there are none of that name or variant.
    """
    file = _PINS / (f"{name}-{variant}.toml" if variant else f"{name}.toml")
    if "-" in name or os.sep in name or not file.exists():
        names = [path.stem for path in sorted(_PINS.glob("*.toml")) if "-" not in path.stem]
        if name in names:
            raise UnknownNameError(f"environment '{name}' has no variant '{variant}'")
        hint = did_you_mean(name, names) or f"known: {', '.join(names)}"
        raise UnknownNameError(f"unknown environment '{name}'; {hint}")
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    source = content.get("source", {"files": (), "hint": ""})
    return Pins(
        name,
        variant,
        content["summary"],
        content["check"],
        tuple(content["step"]),
        tuple(source["files"]),
        source["hint"],
    )


def source_digest(source: Path, pins: Pins) -> str:
    """Digest of the files of a checkout that say what pip installs for it."""
    files = [source / name for name in pins.source_files if name.endswith(".txt")]
    return digest([file.read_text(errors="replace") if file.is_file() else None for file in files])


def find(name: str) -> Environment | None:
    """A built environment, or None."""
    path = environments_dir() / name
    manifest = read_object(path / MANIFEST)
    return Environment(name, path, manifest) if manifest else None


def interpreter(name: str) -> str:
    """The Python interpreter of an environment, for Ray's `py_executable`.

    Args:
        name: of an environment that `raysandbox env create` built; or the path of an interpreter.

    Raises:
        UserError: it is not there or does not fit this driver; the message says what to do.
    """
    if os.sep in name:
        path = Path(name).expanduser().absolute()
        if shutil.which(path):
            return str(path)
        raise UserError(f"there is no Python interpreter at {name}: correct the path, or name an environment")
    found = find(name)
    if found is None:
        # An unknown name is the user's first mistake.
        source = " --source CHECKOUT" if pins_of(name).source_files else ""
        raise UserError(
            f"the environment '{name}' is not built on this machine ({environments_dir() / name}): "
            f"raysandbox env create {name}{source}"
        )
    misfit = found.misfit()
    if misfit:
        raise UserError(f"the environment '{name}' cannot be used: {misfit}; rebuild it: {found.command}")
    differences = found.differences()
    if differences:
        logger.warning("environment '%s': %s; renew it with `%s`", name, differences, found.command)
    return str(found.python)


def package_folder() -> Path:
    """The folder of this package, which environments link to."""
    return Path(__file__).resolve().parents[1]


def link_of(path: Path) -> Path:
    """The link to this package inside an environment's folder; its parent is on the environment's path."""
    return path / "package" / "raysandbox"


def driver_ray() -> str:
    """The version of Ray in this environment, "" without one; an environment's actors need the same."""
    try:
        return version("ray")
    except PackageNotFoundError:
        return ""
