"""The benchmarks' data: the shipped text or generated documents, once or as several altered copies."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

__all__ = ["RECIPE", "alter", "source_file", "write_copies"]

VARIABLE = "RAYSANDBOX_BENCH_DATA"
SHIPPED = "bench_text.jsonl.zst"
# What `thresholds` and `hpo` run.
RECIPE = [
    {"whitespace_normalization_mapper": {}},
    {"fix_unicode_mapper": {}},
    {"clean_links_mapper": {}},
    {"clean_email_mapper": {}},
    {"text_length_filter": {"min_len": 50}},
    {"words_num_filter": {"min_num": 10}},
    {"alphanumeric_filter": {"min_ratio": 0.25}},
    {"maximum_line_length_filter": {"min_len": 20}},
    {"character_repetition_filter": {"max_ratio": 0.5}},
    {"word_repetition_filter": {"max_ratio": 0.5}},
    {"special_characters_filter": {"max_ratio": 0.4}},
]


def source_file(folder: Path, rows: int) -> Path:
    """One copy of the data as plain JSONL, which every contender reads.

    Args:
        folder: where to unpack or generate it.
        rows: documents to generate when RAYSANDBOX_BENCH_DATA names neither a file nor a folder.
    """
    given = os.environ.get(VARIABLE)
    target = folder / "in.jsonl"
    if given is not None and os.path.isdir(given):
        given = os.path.join(given, SHIPPED)
    if given is None:
        print(f"{VARIABLE} is not set: {rows:,} generated documents")
        _generate(target, rows)
    elif given.endswith(".zst"):
        import zstandard

        with open(given, "rb") as packed, target.open("wb") as output:
            zstandard.ZstdDecompressor().copy_stream(packed, output)
    else:
        return Path(given).absolute()
    return target


def write_copies(source: Path, copies: int, target: Path) -> None:
    """Writes the documents of a JSONL file several times over, each copy after the first altered."""
    with target.open("wb") as output:
        for copy in range(copies):
            with source.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines):
                    row = json.loads(line)
                    row["text"] = alter(row["text"], copy, number)
                    output.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def alter(text: str, copy: int, number: int) -> str:
    """The document of one copy: no copy holds a document of another one.

    Lines keep their characters and the text its mix of them, so that operators have the same work:
    the lines are turned around by a share that depends on the copy, and a number is appended.

    Args:
        text: the document.
        copy: 0 for the original, which stays as it is.
        number: of the document.
    """
    if copy == 0:
        return text
    lines = text.split("\n")
    turn = len(lines) * copy // (copy + 1)
    return "\n".join([*lines[turn:], *lines[:turn]]) + f" {copy}.{number}"


def _generate(target: Path, rows: int) -> None:
    """Words in a natural mix of lengths; no duplicates, no foreign scripts to speak of."""
    generator = random.Random(42)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(generator.choices(letters, range(26, 0, -1), k=generator.randint(1, 11))) for _ in range(20_000)]
    words += ["https://example.org/a", "x@example.org", "café", "naÃ¯ve", "文字", "\u3000", "##", "…"] * 40
    with target.open("w", encoding="utf-8") as output:
        for number in range(rows):
            count = int(generator.lognormvariate(5.6, 1.1)) + 1
            lines = [" ".join(generator.choices(words, k=generator.randint(1, 18))) for _ in range(count // 9 + 1)]
            output.write(json.dumps({"id": number, "text": "\n".join(lines)}, ensure_ascii=False) + "\n")
