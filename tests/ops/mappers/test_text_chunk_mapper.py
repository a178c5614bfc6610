import sys
from types import SimpleNamespace

import pyarrow as pa
import pytest

from raysandbox import process
from raysandbox.core.errors import MissingExtraError, UserError
from raysandbox.ops.batch import Batch
from raysandbox.ops.mappers.text_chunk_mapper import TextChunkMapper


@pytest.mark.parametrize(
    ("parameters", "text", "chunks"),
    [
        ({}, "one\n\ntwo\nthree\n\n \n\n", ["one", "two\nthree"]),
        ({}, " ", []),
        ({"split_pattern": "(,)|;"}, "a,b;c", ["a", ",", "b", "c"]),
        ({"split_pattern": None, "max_len": 4}, "abcdefghij", ["abcd", "efgh", "ij"]),
        ({"split_pattern": None, "max_len": 4, "overlap_len": 2}, "abcdefg", ["abcd", "cdef", "efg", "g"]),
        ({"split_pattern": None, "max_len": 4}, "", [""]),
        ({"max_len": 20}, "one\n\ntwo", ["one\n\ntwo"]),
        ({"split_pattern": " ", "max_len": 8}, "one two three four", ["one two", "three", "four"]),
        ({"split_pattern": ";", "max_len": 4, "overlap_len": 1}, "abcdef;g", ["abcd", "def", "g"]),
        ({"split_pattern": "^|;", "max_len": 4}, "abcdefg;", ["abcd", "efg;"]),
        ({"split_pattern": "x", "max_len": 3}, "xx   abcd", ["x", "abc", "d"]),
    ],
)
def test_chunks(mapped, parameters, text, chunks):
    assert mapped("text_chunk_mapper", [text], **parameters) == chunks


def test_other_columns_and_statistics_are_repeated():
    table = pa.table({"id": [1, 2, 3], "text": ["a b", " ", "c"]})
    batch = Batch(table, stats={"text_len": pa.array([3, 1, 1])})
    result = TextChunkMapper(split_pattern=" ").process(batch, None)
    assert result.table.to_pydict() == {"id": [1, 1, 3], "text": ["a", "b", "c"]}
    assert result.table.schema == table.schema
    assert result.stats["text_len"].to_pylist() == [3, 3, 1]
    assert TextChunkMapper(split_pattern=";").process(result, None) is result


def test_rows_of_a_recipe():
    rows = [{"text": "one\n\ntwo", "more": {"a": 1}}, {"text": " "}, {"text": "three", "more": [2]}]
    result = process(
        {"process": [{"text_chunk_mapper": {}}, {"text_length_filter": {"min_len": 1, "max_len": 4}}]}, rows=rows
    )
    assert result.rows == [{"text": "one", "more": {"a": 1}}, {"text": "two", "more": {"a": 1}}]


def test_long_texts_are_cut_quickly(mapped):
    """Data-Juicer's recursion ends after a thousand chunks."""
    chunks = mapped("text_chunk_mapper", ["ab " * 20_000], split_pattern=" ", max_len=3)
    assert len(chunks) == 20_000
    assert set(chunks) == {"ab", "ab "}


class Echo:
    """A tokenizer of characters that adds two tokens to every text and writes them out."""

    def encode(self, text):
        return ["<", *text, ">"]

    def decode(self, tokens):
        return "".join(tokens)


def test_tokens():
    mapper = TextChunkMapper(split_pattern=" ", max_len=6, tokenizer="x")
    result = mapper.process(Batch(pa.table({"text": ["ab cd ef gh", "ab"]})), Echo())
    # As in Data-Juicer the place of a match counts the signs that decoding adds: "c" and "g" are lost.
    assert result.texts == ["<ab", "<d ef", "h", "ab"]


def test_tokens_that_leave_no_room():
    mapper = TextChunkMapper(split_pattern=" ", max_len=2, tokenizer="x")
    with pytest.raises(ValueError, match="do not get to the end"):
        mapper.process(Batch(pa.table({"text": ["abcdefgh"]})), Echo())


def test_a_tokenizer_that_is_not_there(monkeypatch):
    def from_pretrained(name, *, trust_remote_code):
        raise OSError(f"{name} is not there")

    stub = SimpleNamespace(AutoTokenizer=SimpleNamespace(from_pretrained=from_pretrained))
    monkeypatch.setitem(sys.modules, "transformers", stub)
    with pytest.raises(UserError, match=r"text_chunk_mapper\.tokenizer: 'some/name' cannot be loaded"):
        TextChunkMapper(tokenizer="some/name").load()


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"raysandbox\[models\]"):
        TextChunkMapper(tokenizer="tokenizers/some").load()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"split_pattern": None}, "cannot both be null"),
        ({"max_len": 3, "overlap_len": 3}, "less than max_len"),
        ({"max_len": 0}, "max_len"),
        ({"split_pattern": "("}, "not a regular expression"),
    ],
)
def test_wrong_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        TextChunkMapper(**parameters)
