from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from raysandbox.ops import tables
from raysandbox.ops.batch import Batch
from raysandbox.ops.filters.character_repetition_filter import CharacterRepetitionFilter
from raysandbox.ops.filters.word_repetition_filter import WordRepetitionFilter
from raysandbox.ops.text import code_points, edit, line_lengths, replace_rows, words

TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("ab \n\r\t\x85\u2028ΣİÉ!1é漢😀"), max_size=40)
SPECIAL = {chr(code) for code in np.flatnonzero(tables.special())}


def batch_of(texts, kind=None):
    return Batch(pa.table({"text": pa.array(texts, kind or pa.large_string())}))


@given(st.lists(TEXT, max_size=8), st.sampled_from([pa.string(), pa.large_string()]), st.integers(0, 3))
def test_code_points_of_slices(texts, kind, skipped):
    batch = Batch(batch_of(texts, kind).table.slice(skipped))
    points = code_points(batch)
    assert [points.text(row) for row in range(batch.num_rows)] == texts[skipped:]
    assert points.lengths.tolist() == [len(text) for text in texts[skipped:]]


@given(st.lists(TEXT, max_size=8))
def test_lines(texts):
    lines = [text.splitlines() for text in texts]
    expected = [[len(parts), max(map(len, parts), default=0)] for parts in lines]
    assert line_lengths(batch_of(texts)).tolist() == expected


def split(text):
    """Words as Data-Juicer finds them."""
    for separator in "\n\t":
        text = text.replace(separator, " ")
    stripped = []
    for word in text.split(" "):
        while word and word[0] in SPECIAL:
            word = word[1:]
        while word and word[-1] in SPECIAL:
            word = word[:-1]
        if word:
            stripped.append(word)
    return stripped


@given(st.lists(TEXT, max_size=8))
def test_words(texts):
    for lower in (False, True):
        found = words(batch_of(texts), lower=lower)
        rows = [
            [found.codes[found.starts[i] : found.ends[i]].tobytes().decode("utf-32-le") for i in range(first, last)]
            for first, last in zip(found.firsts, found.lasts, strict=True)
        ]
        assert rows == [split(text.lower() if lower else text) for text in texts]


@settings(deadline=None)
@given(st.lists(st.text("ab é", max_size=60), max_size=6), st.integers(1, 5))
def test_character_repetition_counts_exactly(texts, n):
    expected = []
    for text in texts:
        counts = Counter(text[i : i + n] for i in range(len(text) - n + 1))
        repeated = sorted((count for count in counts.values() if count > 1), reverse=True)
        top = repeated[: int(len(counts) ** 0.5)]
        expected.append(sum(top) / counts.total() if counts else 0.0)
    stats = CharacterRepetitionFilter(rep_len=n).compute(batch_of(texts), None)
    assert stats["char_rep_ratio"].to_pylist() == expected


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "B", "b", "ab", "Σ", "-"]), max_size=30), max_size=6), st.integers(1, 4))
def test_word_repetition_counts_exactly(rows, n):
    texts = [" ".join(row) for row in rows]
    expected = []
    for text in texts:
        found = split(text.lower())
        counts = Counter(tuple(found[i : i + n]) for i in range(len(found) - n + 1))
        repeated = sum(count for count in counts.values() if count > 1)
        expected.append(repeated / counts.total() if counts else 0.0)
    stats = WordRepetitionFilter(rep_len=n).compute(batch_of(texts), None)
    assert stats["word_rep_ratio"].to_pylist() == expected


def test_equal_hashes_do_not_count_as_equal():
    # A polynomial hash modulo 2**64 cannot tell a Thue-Morse word from its complement.
    word = "".join("ab"[bin(i).count("1") % 2] for i in range(2048))
    text = word + "#" + word.translate(str.maketrans("ab", "ba"))
    stats = CharacterRepetitionFilter(rep_len=2048).compute(batch_of([text]), None)
    assert stats["char_rep_ratio"].to_pylist() == [0.0]


def test_edit_keeps_the_rest():
    batch = batch_of(["abc", "def", "ghi jkl"], pa.string())
    code_points(batch)
    spans = np.array([[0, 1, 2, 0], [2, 6, 9, 0], [2, 10, 13, 0]])
    edited = edit(batch, spans, lambda text, _: {"b": "BB", "jkl": "é😀", "ghi": "ghi"}[text])
    assert edited.table.column("text").to_pylist() == ["aBBc", "def", "ghi é😀"]
    assert edited.table.schema == batch.table.schema
    points = code_points(edited)
    assert [points.text(row) for row in range(3)] == ["aBBc", "def", "ghi é😀"]


def test_no_change_is_the_same_batch():
    batch = batch_of(["abc"])
    assert replace_rows(batch, [], []) is batch
    assert edit(batch, np.array([[0, 0, 1, 0]]), lambda text, _: text) is batch


def test_tables_end_with_the_assigned_planes():
    beyond = "".join(map(chr, range(tables.ASSIGNED, tables.CODE_POINTS)))
    assert not any(char.isalnum() or char.isspace() for char in beyond)
    assert beyond.lower() == beyond


def test_lower_table():
    irregular = tables.lowers_in_context()
    lowered = tables.lower()
    wrong = [
        code
        for code in range(tables.ASSIGNED)
        if not irregular[code] and not 0xD800 <= code < 0xE000 and chr(lowered[code]) != chr(code).lower()
    ]
    assert not wrong
