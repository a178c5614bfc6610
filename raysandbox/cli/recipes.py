"""Reading a recipe file for the verbs that take one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raysandbox.config.documents import load_document
from raysandbox.config.dotted import apply_overrides
from raysandbox.core.errors import ConfigError
from raysandbox.recipe.problems import recipe_problems

__all__ = ["load_recipe"]


def load_recipe(path: str, overrides: Sequence[str], allow_user_code: bool) -> dict[str, Any]:
    """Reads and checks a recipe; its problems carry the file's lines.

    Raises:
        ConfigError: every problem of the recipe.
    """
    document = apply_overrides(load_document(path), overrides)
    if not isinstance(document.data, dict):
        raise ConfigError([document.problem((), "is not a mapping", "write keys such as dataset_path: and process:")])
    found = recipe_problems(document.data, allow_user_code=allow_user_code)
    errors = [problem for problem in found if problem.stops_a_run]
    if errors:
        raise ConfigError([document.problem(p.path, p.message, p.fix) for p in errors])
    return document.data
