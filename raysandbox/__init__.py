"""Data-model co-development experiments on Ray: probe, refine, process, train, evaluate."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysandbox.api import run
    from raysandbox.config.load import load_config
    from raysandbox.core.registry import register
    from raysandbox.recipe.api import analyze, process

__all__ = ["analyze", "load_config", "process", "register", "run"]

# Imported when first used, so that `import raysandbox` is instant.
_HOMES = {
    "analyze": "raysandbox.recipe.api",
    "load_config": "raysandbox.config.load",
    "process": "raysandbox.recipe.api",
    "register": "raysandbox.core.registry",
    "run": "raysandbox.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'raysandbox' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
