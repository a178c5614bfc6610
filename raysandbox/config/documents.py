"""YAML and JSON documents that remember the line of every key."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from raysandbox.core.errors import ConfigError, Problem
from raysandbox.core.redact import remember_secrets

__all__ = ["Document", "KeyPath", "load_document", "parse_value", "place_of", "show_path", "to_yaml"]

KeyPath = tuple[str | int, ...]

_MAX_BYTES = 16 * 1024**2
_MAX_DEPTH = 100
_LARGEST = 10**300  # of whole numbers: larger ones have no float beside them
_MAX_NODES = 200_000  # aliases can expand a small file without bound
_MERGE = "tag:yaml.org,2002:merge"
_SURROGATES = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_ENV = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)(?:,([^}]*))?\}")

# libyaml's loader where PyYAML was built with it; the pure one reads the same.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):
    """Safe YAML, with YAML 1.2's floats: 3e-4 is a number, as in JSON."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class Document:
    """A parsed file.

    Attributes:
        data: its content.
        source: the file's name as the user gave it.
        lines: 1-based line of every key and list element.
        places: URL of a folder → the local folder that stands for it while a run goes on.
    """

    data: Any
    source: str
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)

    def placed(self, places: Mapping[str, str]) -> Document:
        """This document with local folders in place of URLs, wherever its texts name these or what is below."""
        return replace(self, data=_placed(self.data, places), places=places) if places else self

    def line(self, path: KeyPath) -> int | None:
        """Line of a key, or of the nearest parent that has one."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None

    def problem(self, path: KeyPath, message: str, fix: str = "", **more: Any) -> Problem:
        """A finding at a key of this document."""
        return Problem(self.source, self.line(path), show_path(path), message, fix, **more)


def _placed(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _placed(item, places) for key, item in value.items()}
    if isinstance(value, list):
        return [_placed(item, places) for item in value]
    if isinstance(value, str):
        for url, folder in places.items():  # alone, or a word of a mix: `0.3 s3://… 0.7 s3://…`
            value = re.sub(rf"(?<!\S){re.escape(url)}(?=/|\s|$)", lambda _, folder=folder: folder, value)
    return value


def place_of(data: Any, text: str) -> KeyPath | None:
    """Where a text stands in parsed data, alone or as one of several words; None when nowhere."""
    stack: list[tuple[Any, KeyPath]] = [(data, ())]
    while stack:
        value, where = stack.pop()
        if isinstance(value, Mapping):
            stack.extend((item, (*where, key)) for key, item in value.items())
        elif isinstance(value, list):
            stack.extend((item, (*where, index)) for index, item in enumerate(value))
        elif isinstance(value, str) and text in (value, *value.split()):
            return where
    return None


def show_path(path: KeyPath) -> str:
    """Dotted form of a key path: `probe_job_configs[0].hook`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def load_document(path: str | Path, source: str | None = None) -> Document:
    """Reads a YAML or JSON file.

    `${env:NAME}` and `${env:NAME,default}` in strings are replaced; no other environment
    variable is ever consulted.

    Raises:
        ConfigError: unreadable file, syntax error, duplicate keys, an unset variable; all at once
            where parsing can go on.
    """
    source = source or str(path)
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)  # a data set or a device may stand here by mistake
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError([Problem(source, None, "", f"cannot be read: {reason}", "check the path")]) from error
    if len(content) > _MAX_BYTES:
        message = f"is larger than {_MAX_BYTES // 1024**2} MB: it is no configuration"
        raise ConfigError([Problem(source, None, "", message, "check the path")])
    try:
        text = content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        problem = Problem(source, None, "", f"is not UTF-8 at byte {error.start}", "save it as UTF-8")
        raise ConfigError([problem]) from error
    return _parse(_as_yaml(text) if source.endswith(".json") else text, source)


def _as_yaml(text: str) -> str:
    """JSON's text as YAML reads it alike.

    JSON allows tabs between tokens, where YAML does not, and forbids them inside strings; it writes
    characters beyond the first plane as two escapes, which YAML refuses.
    """
    return _SURROGATES.sub(lambda pair: json.loads(f'"{pair[0]}"'), text.replace("\t", " "))


def _parse(text: str, source: str) -> Document:
    """Parses YAML.

    Raises:
        ConfigError: with every problem.
    """
    try:
        _check_depth(text, source)
        loader = _Loader(text)
        node = loader.get_single_node()
        builder = _Builder(loader, source)
        data = None if node is None else builder.build(node, ())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        message = getattr(error, "problem", None) or str(error).split("\n", 1)[0]
        line = mark.line + 1 if mark else None
        problem = Problem(source, line, "", f"is not valid YAML: {message}", "check indentation and quotes")
        raise ConfigError([problem]) from error
    if builder.problems:
        raise ConfigError(builder.problems)
    remember_secrets(data)
    return Document(data, source, builder.lines)


def _check_depth(text: str, source: str) -> None:
    """Refuses what is nested deeper than anybody means it, before libyaml's time grows with the square of that.

    Raises:
        ConfigError: it is.
        yaml.YAMLError: it is not valid YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise _too_deep(source, event.start_mark.line + 1)


def _too_deep(source: str, line: int) -> ConfigError:
    return ConfigError([Problem(source, line, "", f"is nested deeper than {_MAX_DEPTH} levels", "flatten it")])


class _Builder:
    """Turns a YAML node tree into data, noting lines and problems."""

    def __init__(self, loader: Any, source: str) -> None:
        self.loader = loader
        self.source = source
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[Problem] = []
        self._open: set[int] = set()
        self._count = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self._count += 1
        if self._count > _MAX_NODES or id(node) in self._open:
            raise ConfigError(
                [Problem(self.source, line, show_path(path), "expands without bound", "remove the alias")]
            )
        if len(path) > _MAX_DEPTH:  # by aliases
            raise _too_deep(self.source, line)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return dict(self._items(node, path))
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._open.discard(id(node))

    def _items(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[Any, Any]]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if isinstance(key_node, yaml.ScalarNode) and key != "<<":
                if key in seen:
                    self._note(line, (*path, key), f"is given twice (first in line {seen[key]})", "keep one")
                seen[key] = line
        self._merge(node)
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._note(key_node.start_mark.line + 1, path, "has a key that is not a scalar", "use a plain name")
                continue
            key = key_node.value  # as it is written: a date or a number is a name here
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            yield key, self.build(value_node, (*path, key))

    def _merge(self, node: yaml.MappingNode) -> None:
        """Puts in what merge keys bring, in place; each key once, so that merges of merges do not multiply.

        Raises:
            yaml.YAMLError: a merge key names what is no mapping.
        """
        own = [pair for pair in node.value if pair[0].tag != _MERGE]
        merges = [value for key, value in node.value if key.tag == _MERGE]
        node.value = own  # now, since a mapping may name itself
        brought: dict[Any, tuple[yaml.Node, yaml.Node]] = {}
        for value in reversed(merges):  # of several merge keys the last one counts, of a list the first element
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode):
                    raise yaml.constructor.ConstructorError(
                        problem="a merge key takes a mapping, or a list of them", problem_mark=source.start_mark
                    )
                self._merge(source)
                for key_node, value_node in source.value:
                    brought.setdefault(_name(key_node), (key_node, value_node))
        names = {_name(key_node) for key_node, _ in own}
        node.value = [pair for name, pair in brought.items() if name not in names] + own

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        try:
            value = self.loader.construct_object(node)
        except (ValueError, yaml.YAMLError) as error:  # an impossible date, an unknown tag
            self._note(
                node.start_mark.line + 1, path, f"cannot be read: {str(error).splitlines()[0]}", "quote the value"
            )
            return None
        if isinstance(value, str):
            return self._expand(value, node.start_mark.line + 1, path)
        if isinstance(value, int) and abs(value) > _LARGEST:
            self._note(node.start_mark.line + 1, path, "is too large for a number", "write a smaller one")
            return None
        if value is None or isinstance(value, bool | int | float):
            return value
        return str(node.value)  # dates and bytes have no meaning in a configuration

    def _expand(self, value: str, line: int, path: KeyPath) -> str:
        def replace(match: re.Match[str]) -> str:
            name, default = match.groups()
            if name not in os.environ and default is None:
                self._note(
                    line, path, f"environment variable {name} is not set", f"set it, or write ${{env:{name},default}}"
                )
                return ""
            return os.environ.get(name, default or "")

        return _ENV.sub(replace, value) if "${env:" in value else value

    def _note(self, line: int, path: KeyPath, message: str, fix: str) -> None:
        self.problems.append(Problem(self.source, line, show_path(path), message, fix))


def _name(key: yaml.Node) -> Any:
    return key.value if isinstance(key, yaml.ScalarNode) else id(key)


def parse_value(text: str, source: str) -> Any:
    """A YAML value by the rules of configuration files.

    Raises:
        ConfigError: it is not valid YAML; located in `source`.
    """
    return _parse(text, source).data


def to_yaml(value: Any) -> str:
    """YAML text of a JSON-like value, key order kept, readable unicode."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
