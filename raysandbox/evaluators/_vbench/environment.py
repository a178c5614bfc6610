"""What the environment that holds VBench offers, asked without importing VBench."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.evaluators._vbench.dimensions import DIMENSIONS, PACKAGES
from raysandbox.provision.environments import find, interpreter

__all__ = ["ADVICE", "Environment", "inspect_environment", "lacking", "modules_of"]

ADVICE = "raysandbox env create vbench --with-detectron2"

_TIMEOUT_S = 60.0
# Distributions whose versions a score depends on.
_COMPUTING = (
    *("vbench", "torch", "torchvision", "numpy", "timm", "transformers", "pyiqa", "openai-clip"),
    *("decord", "opencv-python-headless", "opencv-python", "pillow", "detectron2", "fairscale"),
)
_SCRIPT = """
import importlib.util, json, sys
from importlib.metadata import PackageNotFoundError, version
def version_of(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
def exists(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
names, modules = json.loads(sys.argv[1])
spec = importlib.util.find_spec("vbench")
print(json.dumps({
    "folder": list(spec.submodule_search_locations)[0] if spec else None,
    "versions": {name: version_of(name) for name in names},
    "modules": [name for name in modules if exists(name)],
}))
"""


@dataclass(frozen=True)
class Environment:
    """What was found.

    Attributes:
        python: its interpreter.
        folder: of the package `vbench`.
        versions: of the distributions that scores depend on; those that are not there are left out.
        modules: those there, of what some dimensions need.
    """

    python: str
    folder: Path
    versions: Mapping[str, str]
    modules: frozenset[str]

    @property
    def prompts(self) -> Path:
        """The suite's own prompt information."""
        return self.folder / "VBench_full_info.json"

    def require(self, dimensions: Sequence[str]) -> None:
        """Refuses dimensions that it cannot compute.

        Raises:
            JobFailed: packages are missing; the message names them and what to do.
        """
        refused, needed = lacking(dimensions, self.modules)
        if refused:
            raise JobFailed(
                f"dimension_list: {', '.join(refused)}: the environment of {self.python} lacks {', '.join(needed)}: "
                f"{ADVICE}, or leave them out"
            )


def lacking(dimensions: Sequence[str], modules: Set[str]) -> tuple[list[str], list[str]]:
    """The dimensions that cannot be computed where there are these modules only, and the packages they lack."""
    lacks = {name: set(DIMENSIONS[name].modules) - modules for name in dimensions}
    refused = [name for name, lacked in lacks.items() if lacked]
    return refused, sorted({PACKAGES.get(module, module) for lacked in lacks.values() for module in lacked})


def modules_of(env: str) -> frozenset[str] | None:
    """What an environment holds of what some dimensions need, without starting a job; None if that cannot be told.

    Args:
        env: the name of an environment, whose manifest says it, or the path of an interpreter, which is asked.
    """
    if os.sep in env:
        try:
            return inspect_environment(interpreter(env)).modules
        except UserError:
            return None
    built = find(env)
    return _extras() if built is not None and built.variant == "detectron2" else frozenset()


def _extras() -> frozenset[str]:
    return frozenset(module for dimension in DIMENSIONS.values() for module in dimension.modules)


def inspect_environment(python: str) -> Environment:
    """Asks an interpreter what it holds.

    Raises:
        UserError: it does not run, or holds no vbench.
    """
    question = json.dumps([_COMPUTING, sorted(_extras())])
    try:
        answer = subprocess.run(
            [python, "-c", _SCRIPT, question], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
        found = json.loads(answer.stdout)
    except subprocess.CalledProcessError as error:
        raise UserError(f"env: {python} fails: {(error.stderr or '').strip()[-500:]}") from error
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise UserError(f"env: {python} does not run as a Python interpreter: {error}") from error
    if not found["folder"]:
        raise UserError(f"env: {python} has no vbench: raysandbox env create vbench, or name its interpreter in `env`")
    versions = {name: version for name, version in found["versions"].items() if version}
    return Environment(python, Path(found["folder"]), versions, frozenset(found["modules"]))
