"""What Data-Juicer may not do here: install packages, fetch models and code, log every step.

It has no switches for these. Its lazy loader installs what is missing; many operators call pip,
mim, git or wget as programs of their own accord.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any

from raysandbox.core.errors import JobFailed

__all__ = ["guard"]

_PROGRAMS = {"ffmpeg", "ffprobe", "nvidia-smi"}  # what its operators run to do their work
_STARTERS = {"Popen", "call", "check_call", "check_output", "run"}


def guard() -> None:
    """Takes these abilities from the modules of Data-Juicer, which must be imported."""
    from data_juicer.utils import model_utils
    from data_juicer.utils.lazy_loader import LazyLoader
    from loguru import logger

    logger.remove()  # its import has replaced loguru's handlers by one that shows every step
    logger.add(sys.stderr, level="ERROR")
    LazyLoader._install_package = staticmethod(_refuse_to_install)
    model_utils.wget = _NoDownloads()
    model_utils.check_model = _checked(model_utils.check_model, model_utils.DJMC)
    programs = _Programs()
    for name, module in list(sys.modules.items()):
        if name.startswith("data_juicer.") and vars(module).get("subprocess") is subprocess:
            vars(module)["subprocess"] = programs


class _Programs:
    """`subprocess` for a few programs."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(subprocess, name)
        return partial(_start, found) if name in _STARTERS else found


def _start(starter: Any, command: str | Sequence[str], *arguments: Any, **options: Any) -> Any:
    words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    if PurePath(words[0]).name not in _PROGRAMS:
        raise JobFailed(
            f"an operator of Data-Juicer wants to run `{shlex.join(words)}`, as if to install or fetch something: "
            "do that before the run"
        )
    return starter(command, *arguments, **options)


class _NoDownloads:
    """The package `wget` without its purpose."""

    def download(self, url: str, out: str | None = None, **_: Any) -> str:
        """Says what to fetch."""
        raise JobFailed(f"an operator of Data-Juicer needs {url}, which is not on this machine: put it into {out}")


def _checked(check_model: Any, folder: str) -> Any:
    """`check_model` without the download, which is what it is forced to; a model that is there is found as before."""

    def check(model_name: str, force: bool = False) -> str:
        if force:
            raise JobFailed(
                f"an operator of Data-Juicer needs the model file {model_name}, "
                f"which is not on this machine: put it into {folder}"
            )
        return check_model(model_name)

    return check


def _refuse_to_install(package_spec: str, pip_args: object = None) -> None:
    """In place of a run-time `pip install`, which the loader also tries for packages that are there."""
    found = re.match(r"[\w.-]+", package_spec)
    name = found[0] if found else package_spec
    try:
        version(name)
    except PackageNotFoundError:
        message = f"an operator of Data-Juicer needs {name}, which is not installed: pip install '{package_spec}'"
        raise JobFailed(message) from None
