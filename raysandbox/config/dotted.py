"""Setting values in nested configurations by dotted paths."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from raysandbox.config.documents import Document, KeyPath, load_document, parse_value
from raysandbox.core.errors import ConfigError, Problem, did_you_mean

__all__ = ["apply_overrides", "get_dotted", "set_dotted"]

_INDEX = re.compile(r"-?[0-9]+", re.ASCII)
_SIDES = ("dj_configs", "extra_configs")  # of a job: a mapping, or the path of a side file
_SEARCH = "hpo_config"  # a mapping, or the path of a sweep file
_BY_PATH = ("local", "input")  # of a job: their keys are dotted paths themselves


def set_dotted(data: dict[str, Any], path: str, value: Any) -> KeyPath:
    """Sets `a.b.c` in nested mappings, making mappings on the way; in place.

    A list on the way is entered by index, by a job's `meta_name`, and a list of one-key maps (a
    recipe's `process`) by that key, which an element may also be alone. What would lie in a job's side
    file goes to its `local`. A key that holds dots itself, such as the name of a search's parameter, is
    meant where the path spells it out.

    Returns:
        where the value now stands.

    Raises:
        KeyError: the path runs through a value that is neither mapping nor list; its arguments are
            the part that leads nowhere and what could stand there instead.
    """
    return tuple(_set(data, path.split("."), value))


def _set(target: Any, parts: Sequence[str], value: Any) -> list[str | int]:
    part, *rest = parts
    if isinstance(target, list):
        index = _index(target, part)
        if rest and target[index] == part:  # an operator without parameters
            target[index] = {part: None}
        if isinstance(target[index], dict) and part in target[index]:  # {op_name: params}
            return [index, *_set(target[index], parts, value)]
        if rest:
            return [index, *_set(target[index], rest, value)]
        target[index] = value
        return [index]
    if not isinstance(target, dict):
        raise KeyError(part, [])
    part, *rest = _longest_key(target, parts)
    if not rest:
        target[part] = value
        return [part]
    if "hook" in target and part in _SIDES and isinstance(target.get(part), str):
        return _set(target, ["local", *parts], value)
    if target.get(part) is None:
        target[part] = {}
    if "hook" in target and part in _BY_PATH and isinstance(target[part], dict):
        target[part][".".join(rest)] = value
        return [part, ".".join(rest)]
    return [part, *_set(target[part], rest, value)]


def _longest_key(target: Mapping[str, Any], parts: Sequence[str]) -> Sequence[str]:
    """The parts, with the first ones as one where they spell out a key of the mapping that holds dots."""
    for size in range(len(parts), 1, -1):
        if (key := ".".join(parts[:size])) in target:
            return key, *parts[size:]
    return parts


def _index(items: list[Any], part: str) -> int:
    """Position of a list element given by index, by its `meta_name`, or by its only key."""
    if _INDEX.fullmatch(part) and -len(items) <= int(part) < len(items):
        return int(part) % len(items)
    for match in (_has_meta_name, _has_key):
        found = [index for index, item in enumerate(items) if match(item, part)]
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            raise KeyError(f"{part}: {len(found)} elements have this name; use an index", [])
    names = [str(name) for item in items if isinstance(item, dict) for name in (item.get("meta_name"), *item) if name]
    raise KeyError(part, names)


def _has_meta_name(item: Any, name: str) -> bool:
    return isinstance(item, dict) and item.get("meta_name") == name


def _has_key(item: Any, name: str) -> bool:
    return item == name or (isinstance(item, dict) and name in item)


def get_dotted(data: Any, path: Sequence[str]) -> Any:
    """The value under a path of mapping keys and list indices.

    Raises:
        KeyError: nothing stands there.
    """
    for part in path:
        if isinstance(data, Mapping) and part in data:
            data = data[part]
        elif isinstance(data, Sequence) and not isinstance(data, str) and _INDEX.fullmatch(part):
            try:
                data = data[int(part)]
            except IndexError as error:
                raise KeyError(part) from error
        else:
            raise KeyError(part)
    return data


def apply_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """Applies `-o path=value` in order; values are YAML. An override inside `hpo_config` takes its file in.

    Raises:
        ConfigError: an override without "=", or whose path leads nowhere.
    """
    data = document.data
    if not overrides or not isinstance(data, dict):
        return document
    problems = []
    for text in overrides:
        path, equals, value = text.partition("=")
        source = f"-o {text}"
        if not equals or not path:
            problems.append(Problem(source, None, "", "is not of the form path=value"))
            continue
        try:
            if path.startswith(_SEARCH + ".") and isinstance(data.get(_SEARCH), str):
                data[_SEARCH] = load_document(data[_SEARCH]).data
            set_dotted(data, path, parse_value(value, source))
        except KeyError as error:
            part, known = error.args
            hint = did_you_mean(part, known or data)
            problems.append(Problem(source, None, path, f"leads nowhere at '{part}'", hint))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return document
