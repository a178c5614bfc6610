"""The `parameters` of a sweep file: from their mappings to a search space, with every problem."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from raysandbox.config.documents import KeyPath
from raysandbox.core.errors import Problem, did_you_mean
from raysandbox.core.keys import canonical_json
from raysandbox.hpo.algorithms import SCHEDULERS, SEARCH_ALGORITHMS
from raysandbox.hpo.space import BETA, ENUMERABLE, KINDS, NORMAL, RANGED, Parameter

__all__ = ["algorithm_problems", "read_parameters"]

Note = Callable[..., Problem]

_KEYS = ("value", "values", "probabilities", "min", "max", "mu", "sigma", "a", "b", "q")
_ALIASES = {"categorical_w_probabilities": "categorical"}
_LARGEST_EXPONENT = 700.0  # exp of more is no float


class _Wrong(Exception):
    """A parameter that cannot be read: key, message, fix."""


def read_parameters(raw: Any, note: Note) -> tuple[dict[str, tuple[Parameter, KeyPath]], list[Problem]]:
    """Reads `parameters`.

    Args:
        raw: the mapping of the file.
        note: makes a problem at a path of the sweep file: (path, message, fix, severity=…).

    Returns:
        name → the parameter and where it stands, in the file's order; problems.
    """
    if not isinstance(raw, Mapping) or not raw:
        return {}, [note(("parameters",), "names no parameters", "add parameter: {values: […]} or {min: …, max: …}")]
    found: dict[str, tuple[Parameter, KeyPath]] = {}
    problems: list[Problem] = []
    for name, form, where in _flat(raw, ("parameters",), ""):
        if name in found:
            problems.append(note(where, f"'{name}' is given twice, nested and dotted", "keep one"))
            continue
        try:
            parameter = _parameter(name, form)
        except _Wrong as error:
            key, message, fix = error.args
            problems.append(note((*where, key) if key else where, message, fix))
            continue
        found[name] = (parameter, where)
        problems += [note(where, text, severity="warning") for text in _oddities(parameter)]
    return found, problems


def algorithm_problems(
    method: str | None,
    search_alg: Mapping[str, Any] | None,
    scheduler: Mapping[str, Any] | None,
    parameters: Mapping[str, tuple[Parameter, KeyPath]],
    note: Note,
) -> Iterator[Problem]:
    """What the chosen method, search algorithm and scheduler cannot do with these parameters."""
    alone = [("search_alg", SEARCH_ALGORITHMS, search_alg), ("scheduler", SCHEDULERS, scheduler)]
    for key, table, given in alone:
        algorithm = table[given["type"]] if given is not None else None
        if algorithm is None:
            continue
        other = scheduler if key == "search_alg" else search_alg
        if algorithm.partner is not None and (other or {}).get("type") != algorithm.partner:
            partner = "scheduler" if key == "search_alg" else "search_alg"
            yield note((key,), f"{algorithm.name} works with {partner}: {algorithm.partner} only", "add it")
        for parameter, where in parameters.values():
            if parameter.kind == "categorical" and not algorithm.categories:
                yield note(
                    where, f"{algorithm.name} cannot choose among values", f"write min and max, or another {key}"
                )
            if not parameter.bounded and not algorithm.unbounded:
                fix = f"write min and max, or another {key}"
                yield note(where, f"{algorithm.name} needs bounds, which {parameter.kind} has none", fix)
    for parameter, where in parameters.values():
        if method == "grid" and parameter.kind not in ENUMERABLE:
            fix = "write values: […], whole min and max, or distribution: q_uniform with q; or method: random"
            yield note(where, f"method grid cannot enumerate {parameter.kind}", fix)
        if method == "bayes" and parameter.probabilities is not None:
            fix = "remove them, or write method: random"
            yield note((*where, "probabilities"), "method bayes would ignore probabilities", fix)


def _flat(raw: Mapping[str, Any], base: KeyPath, prefix: str) -> Iterator[tuple[str, Any, KeyPath]]:
    """The parameters with those that are nested, by dotted names."""
    for key, form in raw.items():
        where = (*base, key)
        if isinstance(form, Mapping) and isinstance(form.get("parameters"), Mapping) and len(form) == 1:
            yield from _flat(form["parameters"], (*where, "parameters"), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", form, where


def _parameter(name: str, form: Any) -> Parameter:
    if not isinstance(form, Mapping):
        if isinstance(form, list):
            raise _Wrong("", "should be a mapping", f"write {name}: {{values: {form!r}}}")
        raise _Wrong("", "should be a mapping", f"write {name}: {{value: {form!r}}} for a fixed value")
    if "parameters" in form:
        raise _Wrong("", "has `parameters` and other keys", "a parameter that holds parameters holds nothing else")
    for key in form:
        if key not in (*_KEYS, "distribution"):
            hint = did_you_mean(key, (*_KEYS, "distribution"))
            raise _Wrong(key, f"unknown key '{key}'", hint or f"known: distribution, {', '.join(_KEYS)}")
    kind = _kind(form)
    allowed = _keys_of(kind)
    for key in form:
        if key != "distribution" and key not in allowed:
            raise _Wrong(key, f"{kind} has no '{key}'", f"it has: {', '.join(allowed)}")
    if kind == "constant":
        return Parameter(name, kind, values=(_given(form, "value"),))
    if kind == "categorical":
        return _categorical(name, form)
    return _numeric(name, kind, form)


def _kind(form: Mapping[str, Any]) -> str:
    """The distribution, named or inferred as wandb infers it."""
    if "distribution" in form:
        kind = _ALIASES.get(str(form["distribution"]), str(form["distribution"]))
        if kind not in KINDS:
            fix = did_you_mean(kind, KINDS) or f"known: {', '.join(KINDS)}"
            raise _Wrong("distribution", f"unknown distribution '{kind}'", fix)
        if "probabilities" not in form and form["distribution"] in _ALIASES:
            raise _Wrong("", "categorical_w_probabilities needs probabilities", "add them")
        return kind
    if "value" in form:
        return "constant"
    if "values" in form:
        return "categorical"
    if "min" in form and "max" in form:
        whole = all(isinstance(form[key], int) and not isinstance(form[key], bool) for key in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    named = ", ".join(sorted(form)) or "nothing"
    fix = "add value, values, both min and max, or a distribution"
    raise _Wrong("", f"no distribution follows from {named}", fix)


def _keys_of(kind: str) -> tuple[str, ...]:
    if kind == "constant":
        return ("value",)
    if kind == "categorical":
        return ("values", "probabilities")
    keys = ("min", "max") if kind in RANGED else ("mu", "sigma") if kind in NORMAL else ("a", "b")
    return (*keys, "q") if kind.startswith("q_") else keys


def _given(form: Mapping[str, Any], key: str) -> Any:
    if key not in form:
        raise _Wrong("", f"{key} is missing", f"add {key}")
    return form[key]


def _number(form: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = _given(form, key) if default is None else form.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Wrong(key, f"should be a number, not {value!r}", "")
    return value


def _categorical(name: str, form: Mapping[str, Any]) -> Parameter:
    values = _given(form, "values")
    if not isinstance(values, list) or not values:
        raise _Wrong("values", "should be a list of at least one value", "")
    likely = form.get("probabilities")
    if likely is None:
        return Parameter(name, "categorical", values=tuple(values))
    if not isinstance(likely, list) or len(likely) != len(values):
        raise _Wrong("probabilities", f"should be a list of {len(values)} numbers, one per value", "")
    numbers = [_number({"probabilities": item}, "probabilities") for item in likely]
    if min(numbers) < 0 or not math.isclose(math.fsum(numbers), 1, abs_tol=1e-6):
        raise _Wrong("probabilities", f"should be at least 0 and sum to 1, not {math.fsum(numbers):g}", "")
    return Parameter(name, "categorical", values=tuple(values), probabilities=tuple(numbers))


def _numeric(name: str, kind: str, form: Mapping[str, Any]) -> Parameter:
    q = _number(form, "q", 1) if kind.startswith("q_") else 1
    if q <= 0:
        raise _Wrong("q", f"should be greater than 0, not {q!r}", "")
    if kind in NORMAL:
        mu, sigma = _number(form, "mu", 0.0), _number(form, "sigma", 1.0)
        if sigma <= 0:
            raise _Wrong("sigma", f"should be greater than 0, not {sigma!r}", "write value: … for a fixed value")
        return Parameter(name, kind, mu=mu, sigma=sigma, q=q)
    if kind in BETA:
        a, b = _number(form, "a", 1.0), _number(form, "b", 1.0)
        if min(a, b) <= 0:
            raise _Wrong("a" if a <= 0 else "b", "should be greater than 0", "")
        if find_spec("scipy") is None:
            raise _Wrong("distribution", f"{kind} needs scipy", "pip install 'raysandbox[hpo]'")
        return Parameter(name, kind, a=a, b=b, q=q)
    return Parameter(name, kind, *_bounds(kind, form), q=q)


def _bounds(kind: str, form: Mapping[str, Any]) -> tuple[float, float]:
    low, high = _number(form, "min"), _number(form, "max")
    if low >= high:
        raise _Wrong("min", f"min {low!r} is not less than max {high!r}", "write value: … for a fixed value")
    if kind == "int_uniform":
        for key, number in (("min", low), ("max", high)):
            if not float(number).is_integer():
                raise _Wrong(key, f"int_uniform needs whole numbers, not {number!r}", "write distribution: uniform")
        return int(low), int(high)
    if kind.endswith("_values") and low <= 0:
        raise _Wrong("min", f"{kind} needs values greater than 0, not {low!r}", "write distribution: uniform")
    if kind.endswith("log_uniform") and max(abs(low), abs(high)) > _LARGEST_EXPONENT:
        fix = f"min and max are exponents of e; write distribution: {kind}_values to give the values"
        raise _Wrong("max", f"exp({high!r}) is no number", fix)
    return low, high


def _oddities(parameter: Parameter) -> Iterator[str]:
    """What is allowed and probably not meant."""
    texts = [canonical_json(value) for value in parameter.values]
    if len(set(texts)) < len(texts):
        yield f"a value is given more than once: {_first_twice(texts)}"
    if parameter.quantised and parameter.kind in RANGED:
        if parameter.kind.endswith("log_uniform"):
            low, high = math.exp(parameter.low or 0.0), math.exp(parameter.high or 0.0)
        else:
            low, high = parameter.low or 0.0, parameter.high or 0.0
        ends = parameter.at(0.0), parameter.at(1.0)
        if ends[0] < low - 1e-12 or ends[1] > high + 1e-12:
            yield f"values are rounded to multiples of {parameter.q:g}, as wandb does: from {ends[0]:g} to {ends[1]:g}"


def _first_twice(texts: Sequence[str]) -> str:
    return next(text for index, text in enumerate(texts) if text in texts[:index])
