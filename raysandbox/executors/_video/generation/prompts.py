"""Prompts of a generation: from VBench's prompt information, a text file, or a column of a data set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.executors.train._rows import read_columns

__all__ = ["Prompts", "read_prompts"]

_VBENCH_KEY = "prompt_en"
_DATA = (".jsonl", ".json", ".parquet")
_TEXT = (".txt", ".text", "")


@dataclass(frozen=True)
class Prompts:
    """What videos are made of.

    Attributes:
        texts: the prompts, each once, in the order of the file.
        dimensions: VBench's dimensions that a prompt is scored in, where the file tells.
        named: all dimensions that the file names, also those of prompts that are left out.
        repeated: how many entries of the file were left out since their prompt came before.
        limited: how many prompts were left out since there are more than asked for.
    """

    texts: tuple[str, ...]
    dimensions: Mapping[str, tuple[str, ...]]
    named: frozenset[str] = frozenset()
    repeated: int = 0
    limited: int = 0


def read_prompts(path: Path, prompt_key: str | None = None, limit: int | None = None) -> Prompts:
    """Reads the prompts of a file.

    Args:
        path: a JSON file with a list of objects, JSON lines, Parquet or a folder of these, with the prompts
            in one column; a JSON list of texts; or a text file (`.txt`, `.text` or no suffix), with one prompt
            in each line that is not blank.
        prompt_key: the column; by default `prompt_en`, as in VBench's files, or else `text`.
        limit: how many prompts to take from the beginning; None for all.

    Raises:
        UserError: the file cannot be read, is of another kind, or has no columns to choose from; or a prompt is
            no text; the message names the place.
        JobFailed: there is no prompt.
    """
    if not path.exists():
        raise UserError(f"prompts: there is no file {path}")
    read = _rows if path.is_dir() or path.suffix.lower() in _DATA else _lines
    entries = list(read(path, prompt_key))
    dimensions: dict[str, tuple[str, ...]] = {}
    for where, text, named in entries:
        _check(where, text)
        dimensions[text] = tuple(dict.fromkeys((*dimensions.get(text, ()), *named)))
    if not dimensions:
        raise JobFailed(f"prompts: {path} holds no prompts")
    texts = tuple(dimensions)[:limit]
    return Prompts(
        texts,
        {text: dimensions[text] for text in texts},
        frozenset(name for names in dimensions.values() for name in names),
        repeated=len(entries) - len(dimensions),
        limited=len(dimensions) - len(texts),
    )


def _lines(path: Path, prompt_key: str | None) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    if path.suffix.lower() not in _TEXT:
        known = ", ".join((*_DATA, *filter(None, _TEXT)))
        raise UserError(f"prompts: {path} is none of {known}: convert it, or rename it if it is a text with prompts")
    _refuse_key(path, prompt_key)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"prompts: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"prompts: {path} is no text in UTF-8 (byte {error.start}): convert it") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"{path}:{number}", line.strip(), ()


def _rows(path: Path, prompt_key: str | None) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    if path.suffix.lower() == ".json" and (listed := _list_of_texts(path)) is not None:
        _refuse_key(path, prompt_key)
        yield from ((f"{path}: prompt {number}", text, ()) for number, text in enumerate(listed, start=1))
        return
    table = _table(path)
    key = prompt_key or next((name for name in (_VBENCH_KEY, "text") if name in table), None)
    if key is None or key not in table:
        named = f"'{prompt_key}', which prompt_key names" if prompt_key else f"'{_VBENCH_KEY}' or 'text'"
        raise UserError(
            f"prompts: {path} has no column {named}; its columns are {', '.join(table)}: set prompt_key to one of them"
        )
    dimensions = table.get("dimension") or [None] * len(table[key])
    for number, (text, named) in enumerate(zip(table[key], dimensions, strict=True), start=1):
        yield f"{path}: entry {number}", text, _names(named)


def _refuse_key(path: Path, prompt_key: str | None) -> None:
    if prompt_key is not None:
        raise UserError(f"prompt_key: {path} holds prompts alone, and no columns: remove prompt_key ('{prompt_key}')")


def _list_of_texts(path: Path) -> list[Any] | None:
    """The content of a JSON file that is a list of texts; None for other content, which `_table` judges."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, list) and content and isinstance(content[0], str) else None


def _table(path: Path) -> dict[str, list[Any]]:
    """The columns of interest of a data set."""
    try:
        return _json_table(path) if path.is_file() and path.suffix.lower() == ".json" else _arrow_table(path)
    except OSError as error:
        raise UserError(f"prompts: {path} cannot be read: {error.strerror}") from error


def _arrow_table(path: Path) -> dict[str, list[Any]]:
    table = read_columns(path, {}, "prompts")
    return {name: table[name].to_pylist() for name in table.column_names}


def _json_table(path: Path) -> dict[str, list[Any]]:
    """A JSON list of objects, whose other values (VBench's auxiliary_info) may be of any type, or JSON lines."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return _arrow_table(path)  # JSON lines, or an error that names the line
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise UserError(
            f'prompts: {path} is not a list of {{"{_VBENCH_KEY}", "dimension": […]}} or of texts: give a prompt '
            f"information file of VBench, a data set, or a text file with a prompt per line"
        )
    names = dict.fromkeys(name for entry in content for name in entry)
    return {name: [entry.get(name) for entry in content] for name in names}


def _names(named: Any) -> tuple[str, ...]:
    return (named,) if isinstance(named, str) else tuple(map(str, named or ()))


def _check(where: str, text: Any) -> None:
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"prompts: {where} is no text but {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"prompts: {where} holds half of a surrogate pair, which is no text") from error
