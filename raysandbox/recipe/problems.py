"""Everything that is wrong with a recipe, found without Ray, data or models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Literal

from raysandbox.config.user_code import ALLOW, code_in_options
from raysandbox.config.validation import model_problems
from raysandbox.core.errors import ConfigError, Problem, UserError, did_you_mean
from raysandbox.ops.base import OPERATORS, Filter, Operator
from raysandbox.ops.custom import import_operators
from raysandbox.recipe.mixture import parse_dataset_path
from raysandbox.recipe.peer_keys import PEER_KEYS
from raysandbox.recipe.schema import Recipe, export_format
from raysandbox.recipe.validators import VALIDATORS

__all__ = ["RecipeProblem", "parse_recipe", "recipe_problems"]

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class RecipeProblem:
    """One finding about a recipe; `path` starts at the recipe's root, the rest is that of `Problem`."""

    path: Path
    message: str
    fix: str = ""
    severity: Literal["error", "warning"] = "error"
    missing_path: bool = False

    @property
    def stops_a_run(self) -> bool:
        """Whether it is an error, or something missing that only `check` forgives."""
        return self.severity == "error" or self.missing_path

    def located(self, file: str | None = None) -> Problem:
        """The finding as the problem of a file."""
        path = ".".join(map(str, self.path))
        return Problem(file, None, path, self.message, self.fix, self.severity, self.missing_path)


def parse_recipe(raw: Mapping[str, Any], file: str | None = None, *, allow_user_code: bool = False) -> Recipe:
    """The recipe of a raw mapping.

    Raises:
        ConfigError: with every problem of the recipe.
    """
    errors = [found for found in recipe_problems(raw, allow_user_code=allow_user_code) if found.stops_a_run]
    if errors:
        raise ConfigError([problem.located(file) for problem in errors])
    return Recipe.model_validate({key: value for key, value in _respelled(raw).items() if key not in PEER_KEYS})


def recipe_problems(raw: Mapping[str, Any], *, allow_user_code: bool = False) -> list[RecipeProblem]:
    """Every problem of a raw recipe, errors and warnings, in the order of its keys.

    Args:
        raw: the recipe.
        allow_user_code: whether code of the user may run: it imports the files of `custom_operator_paths`.
    """
    raw = _respelled(raw)
    problems = [*_keys(raw), *_values(raw), *_paths(raw), *_custom_operators(raw, allow_user_code)]
    problems += _validators(raw.get("validators"))
    steps = raw.get("process") or []
    if isinstance(steps, list):
        for index, step in enumerate(steps):
            problems += _step(("process", index), step, allow_user_code)
    if raw.get("custom_operator_paths") and not allow_user_code:  # which may be where such a name is from
        problems = [problem for problem in problems if not problem.message.startswith("unknown operator")]
    return problems


def _respelled(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe with today's spelling of Data-Juicer's keys."""
    return {{"custom-operator-paths": "custom_operator_paths"}.get(key, key): value for key, value in raw.items()}


def _custom_operators(raw: Mapping[str, Any], allow_user_code: bool) -> Iterator[RecipeProblem]:
    given = raw.get("custom_operator_paths") or []
    paths = [given] if isinstance(given, str) else given
    if not paths or not isinstance(paths, list):
        return
    if not allow_user_code:
        yield RecipeProblem(("custom_operator_paths",), "runs code of yours", ALLOW)
        return
    for path in paths:
        try:
            import_operators(FilePath(str(path)).expanduser())
        except UserError as error:
            yield RecipeProblem(("custom_operator_paths",), str(error))


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


def _values(raw: Mapping[str, Any]) -> list[RecipeProblem]:
    """Values of the wrong type or range; `process` and `validators` have better messages of their own."""
    found: list[RecipeProblem] = []
    lists = {"process": "write `- name: {parameter: value}`", "validators": "write `- {type: name, parameter: value}`"}
    fields = {key: value for key, value in raw.items() if key in Recipe.model_fields and key not in lists}
    model_problems(Recipe, fields, _collecting(found))
    for key, fix in lists.items():
        if raw.get(key) is not None and not isinstance(raw[key], list):
            found.append(RecipeProblem((key,), "should be a list", fix))
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


def _validators(raw: Any) -> Iterator[RecipeProblem]:
    entries: list[Any] = raw if isinstance(raw, list) else []
    for index, entry in enumerate(entries):
        path: Path = ("validators", index)
        if not isinstance(entry, Mapping) or not isinstance(entry.get("type"), str):
            yield RecipeProblem(path, "has no type", f"known: {', '.join(VALIDATORS)}")
            continue
        kind = entry["type"]
        cls = VALIDATORS.get(kind)
        if cls is None:
            hint = did_you_mean(kind, VALIDATORS) or f"known: {', '.join(VALIDATORS)}"
            yield RecipeProblem((*path, "type"), f"unknown validator '{kind}'; {hint}")
            continue
        found: list[RecipeProblem] = []
        parameters = {key: value for key, value in entry.items() if key != "type"}
        model_problems(cls, parameters, _collecting(found, path))
        yield from found
        if ignored := [key for key in parameters if key in cls.no_meaning_here]:
            message = f"all rows are looked at; no effect here: {', '.join(ignored)}"
            yield RecipeProblem(path, message, "", "warning")


def _collecting(found: list[RecipeProblem], base: Path = ()) -> Callable[[Path, str, str], Problem]:
    """A function that notes a finding of the schema below `base`."""

    def locate(path: Path, message: str, fix: str) -> Problem:
        found.append(RecipeProblem((*base, *path), message, fix))
        return found[-1].located()

    return locate


def _step(path: Path, step: Any, allow_user_code: bool) -> list[RecipeProblem]:
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
    found = _parameters((*path, name), cls, params or {})
    if cls.runs_code and not allow_user_code:
        found.append(RecipeProblem((*path, name), f"{name} runs code of yours", ALLOW))
    if not allow_user_code:
        found += [
            RecipeProblem((*path, name, *key), message, fix) for key, message, fix in code_in_options(cls, params or {})
        ]
    if missing := cls.missing():
        found.append(RecipeProblem((*path, name), missing, "", "warning", missing_path=True))
    return found


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
    found += [RecipeProblem((*path, key), text, "", "warning") for key, text in cls.missing_weights(used).items()]
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
