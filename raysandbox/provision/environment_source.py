"""The checkout of the user's that an environment is made for: whether it is one, and what it asks for."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from raysandbox.core.errors import UserError
from raysandbox.provision.environments import Pins, find, source_digest

__all__ = ["checked_source", "described", "drivers_torch", "exact_torch", "torch_of"]

_TORCH = re.compile(r"torch\s*([=<>~!][^;#]*)?(?:[;#].*)?", re.IGNORECASE)


def checked_source(pins: Pins, given: str | None) -> Path | None:
    """The checkout to build for; None where the pins need none.

    Args:
        pins: of the environment.
        given: what the user named; by default the checkout of the environment that is there.

    Raises:
        UserError: there is none, it lacks files, or none is needed.
    """
    if not pins.source_files:
        if given:
            raise UserError(f"--source: the environment '{pins.name}' is made from packages alone: leave it out")
        return None
    built = find(pins.name)
    if given is None and built and built.source:
        given = str(built.source)
    if given is None:
        raise UserError(
            f"the environment '{pins.name}' is made for a checkout that you have: "
            f"raysandbox env create {pins.name} --source CHECKOUT"
        )
    source = Path(given).expanduser().resolve()
    if not source.is_dir():
        raise UserError(f"--source {given}: there is no such folder")
    missing = [name for name in pins.source_files if not (source / name).is_file()]
    if missing:
        raise UserError(f"--source {given} lacks {', '.join(missing)}: {pins.source_hint}")
    return source


def described(source: Path, pins: Pins) -> Mapping[str, Any]:
    """What a manifest says of a checkout.

    Returns:
        `path`; `commit`, None where git knows none; `changed`, whether files differ from it;
        `requirements`, the digest of what pip was asked for.
    """
    commit = _git(source, "rev-parse", "HEAD")
    changed = bool(_git(source, "status", "--porcelain", "--untracked-files=no")) if commit else None
    return {
        "path": str(source),
        "commit": commit or None,
        "changed": changed,
        "requirements": source_digest(source, pins),
    }


def torch_of(file: Path) -> str:
    """The line of a requirements file that asks for torch, e.g. "torch>=2.1"; "" when none does."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        found = _TORCH.fullmatch(line.strip())
        if found:
            return "torch" + (found[1] or "").replace(" ", "")
    return ""


def exact_torch(requirement: str) -> str:
    """The version that a requirement pins; "" when it pins none."""
    exact = requirement.partition("==")[2]
    return exact if exact.replace(".", "").isdecimal() else ""


def drivers_torch(requirement: str) -> str:
    """The version of torch in this environment, if it is one that a requirement allows; else "".

    Its CPU build can be had without PyTorch's own index, unlike that of "the newest".
    """
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        found = version("torch").partition("+")[0]
        return found if found in Requirement(requirement).specifier else ""
    except (PackageNotFoundError, InvalidRequirement):
        return ""


def _git(source: Path, *arguments: str) -> str:
    """What git says of a checkout; "" where there is no git, or no repository."""
    # No program that the repository's own configuration names is run.
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(source), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
