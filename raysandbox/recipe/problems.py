"""Everything that is wrong with a recipe, found without Ray, data or models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from raysandbox.config.validation import model_problems
from raysandbox.core.errors import ConfigError, Problem, UserError, did_you_mean
from raysandbox.ops.base import OPERATORS, Filter, Operator
from raysandbox.recipe.mixture import parse_dataset_path
from raysandbox.recipe.peer_keys import PEER_KEYS
from raysandbox.recipe.schema import Recipe, export_format

__all__ = ["RecipeProblem", "parse_recipe", "recipe_problems"]

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class RecipeProblem:
    """One finding about a recipe; `path` starts at the recipe's root."""

    path: Path
    message: str
    fix: str = ""
    severity: Literal["error", "warning"] = "error"

    def located(self, file: str | None = None) -> Problem:
        """The finding as the problem of a file."""
        return Problem(file, None, ".".join(map(str, self.path)), self.message, self.fix, self.severity)


def parse_recipe(raw: Mapping[str, Any], file: str | None = None) -> Recipe:
    """The recipe of a raw mapping.

    Raises:
        ConfigError: with every problem of the recipe.
    """
    errors = [problem for problem in recipe_problems(raw) if problem.severity == "error"]
    if errors:
        raise ConfigError([problem.located(file) for problem in errors])
    return Recipe.model_validate({key: value for key, value in raw.items() if key not in PEER_KEYS})


def recipe_problems(raw: Mapping[str, Any]) -> list[RecipeProblem]:
    """Every problem of a raw recipe, errors and warnings, in the order of its keys."""
    problems = [*_keys(raw), *_values(raw), *_paths(raw)]
    steps = raw.get("process") or []
    if isinstance(steps, list):
        for index, step in enumerate(steps):
            problems += _step(("process", index), step)
    return problems


def _keys(raw: Mapping[str, Any]) -> Iterator[RecipeProblem]:
    known = [*Recipe.model_fields, *PEER_KEYS]
    for key in raw:
        if key not in known:
            yield RecipeProblem((key,), f"unknown key '{key}'", did_you_mean(key, known))
    ignored = [key for key in raw if key in PEER_KEYS]
    if ignored:
        yield RecipeProblem((), f"these keys of Data-Juicer have no effect here: {', '.join(ignored)}", "", "warning")
    if isinstance(raw.get("text_keys"), list) and len(raw["text_keys"]) > 1:
        yield RecipeProblem(
            ("text_keys",),
            f"operators read '{raw['text_keys'][0]}' only",
            "set text_key on an operator that reads another column",
            "warning",
        )
    if raw.get("custom_operator_paths"):
        yield RecipeProblem(
            ("custom_operator_paths",),
            "custom operator files are not in this version",
            "install them as a package with an entry point of the group raysandbox.operator",
        )


def _values(raw: Mapping[str, Any]) -> list[RecipeProblem]:
    """Values of the wrong type or range; `process` has better messages of its own."""
    found: list[RecipeProblem] = []

    def locate(path: Path, message: str, fix: str) -> Problem:
        problem = RecipeProblem(path, message, fix)
        found.append(problem)
        return problem.located()

    others = ("process", "custom_operator_paths")
    fields = {key: value for key, value in raw.items() if key in Recipe.model_fields and key not in others}
    model_problems(Recipe, fields, locate)
    steps = raw.get("process")
    if steps is not None and not isinstance(steps, list):
        found.append(RecipeProblem(("process",), "should be a list of operators", "write `- name: {parameter: value}`"))
    return found


def _paths(raw: Mapping[str, Any]) -> Iterator[RecipeProblem]:
    dataset, target = raw.get("dataset_path"), raw.get("export_path")
    if isinstance(dataset, str):
        try:
            parse_dataset_path(dataset)
        except ValueError as error:
            yield RecipeProblem(("dataset_path",), str(error), "write `0.3 a.jsonl 0.7 b.jsonl`")
    if isinstance(target, str) and target:
        try:
            export_format(target, raw.get("export_type"))
        except ConfigError as error:
            for problem in error.problems:
                yield RecipeProblem(("export_path",), problem.message, problem.fix)


def _step(path: Path, step: Any) -> list[RecipeProblem]:
    if isinstance(step, str):
        step = {step: None}
    if not isinstance(step, Mapping) or len(step) != 1:
        return [RecipeProblem(path, "should be one operator", "write `- name: {parameter: value}`")]
    ((name, params),) = step.items()
    if name not in OPERATORS:
        return [RecipeProblem(path, OPERATORS.unknown(name))]
    if params is not None and not isinstance(params, Mapping):
        message = f"the parameters of {name} should be a mapping, not {params!r}"
        return [RecipeProblem((*path, name), message, f"write `- {name}: {{parameter: value}}`")]
    try:
        cls: type[Operator] = OPERATORS.get(name)
    except UserError as error:
        return [RecipeProblem(path, str(error))]
    return _parameters((*path, name), cls, params or {})


def _parameters(path: Path, cls: type[Operator], params: Mapping[str, Any]) -> list[RecipeProblem]:
    name = cls.type_name
    found: list[RecipeProblem] = []

    def locate(where: Path, message: str, fix: str) -> Problem:
        if message.startswith("unknown key") and len(where) == 1:
            hint = did_you_mean(str(where[0]), cls.model_fields)
            message = f"unknown parameter '{where[0]}' of {name}"
            message, fix = (f"{message}; {hint}", "") if hint else (message, f"known: {', '.join(cls.model_fields)}")
        problem = RecipeProblem((*path, *where), message, fix)
        found.append(problem)
        return problem.located()

    ignored = [key for key in params if key in cls.no_meaning_here]
    used = {key: value for key, value in params.items() if key not in cls.no_meaning_here}
    model_problems(cls, used, locate)
    if not found and issubclass(cls, Filter):
        found += _bounds(path, cls.model_validate(used))
    if ignored:
        message = f"these parameters have no effect here: {', '.join(ignored)}"
        found.append(RecipeProblem(path, message, "", "warning"))
    return found


def _bounds(path: Path, operator: Filter) -> Iterator[RecipeProblem]:
    for stat in operator.statistics():
        if stat.lower is None or stat.upper is None:
            continue
        lower, upper = getattr(operator, stat.lower), getattr(operator, stat.upper)
        if lower is not None and upper is not None and lower > upper:
            message = f"{stat.lower} ({lower:g}) is above {stat.upper} ({upper:g}): no row would stay"
            yield RecipeProblem((*path, stat.lower), message, "exchange them")
