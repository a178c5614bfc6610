"""Setting values in nested configurations by dotted paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from raysandbox.config.documents import Document, KeyPath, parse_value
from raysandbox.core.errors import ConfigError, Problem, did_you_mean

__all__ = ["apply_overrides", "get_dotted", "set_dotted"]


def set_dotted(data: dict[str, Any], path: str, value: Any) -> KeyPath:
    """Sets `a.b.c` in nested mappings, making mappings on the way; in place.

    A list on the way is entered by index, by a job's `meta_name`, and a list of one-key maps (a
    recipe's `process`) by that key.

    Returns:
        where the value now stands.

    Raises:
        KeyError: the path runs through a value that is neither mapping nor list.
    """
    target: Any = data
    parts = path.split(".")
    reached: list[str | int] = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if isinstance(target, list):
            index = _index(target, part)
            reached.append(index)
            if _has_key(target[index], part):  # {op_name: params}
                target, reached = target[index], [*reached, part]
            elif not last:
                target = target[index]
                continue
            else:
                target[index] = value
                continue
        elif isinstance(target, dict):
            reached.append(part)
        else:
            raise KeyError(part)
        if last:
            target[part] = value
        elif target.get(part) is None:
            target[part] = {}
            target = target[part]
        else:
            target = target[part]
    return tuple(reached)


def _index(items: list[Any], part: str) -> int:
    """Position of a list element given by index, by its `meta_name`, or by its only key."""
    if part.lstrip("-").isdigit() and -len(items) <= int(part) < len(items):
        return int(part) % len(items)
    for match in (_has_meta_name, _has_key):
        found = [index for index, item in enumerate(items) if match(item, part)]
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            raise KeyError(f"{part}: {len(found)} elements have this name; use an index")
    raise KeyError(part)


def _has_meta_name(item: Any, name: str) -> bool:
    return isinstance(item, dict) and item.get("meta_name") == name


def _has_key(item: Any, name: str) -> bool:
    return isinstance(item, dict) and name in item


def get_dotted(data: Any, path: Sequence[str]) -> Any:
    """The value under a path of mapping keys and list indices.

    Raises:
        KeyError: nothing stands there.
    """
    for part in path:
        if isinstance(data, Mapping) and part in data:
            data = data[part]
        elif isinstance(data, Sequence) and not isinstance(data, str) and part.lstrip("-").isdigit():
            try:
                data = data[int(part)]
            except IndexError as error:
                raise KeyError(part) from error
        else:
            raise KeyError(part)
    return data


def apply_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """Applies `-o path=value` in order; values are YAML.

    Raises:
        ConfigError: an override without "=", or whose path leads nowhere.
    """
    if not overrides:
        return document
    data = document.data if isinstance(document.data, dict) else {}
    lines: dict[KeyPath, int] = dict(document.lines)
    problems = []
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not path:
            problems.append(Problem(f"-o {text}", None, "", "is not of the form path=value"))
            continue
        try:
            set_dotted(data, path, parse_value(value))
        except KeyError as error:
            part = str(error.args[0])
            hint = did_you_mean(part, data)
            problems.append(Problem(f"-o {text}", None, path, f"leads nowhere at '{part}'", hint))
        except yaml.YAMLError:
            problems.append(Problem(f"-o {text}", None, path, "its value is not valid YAML", "quote it"))
    if problems:
        raise ConfigError(problems)
    return Document(data, document.source, lines)
