import re

import mmh3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysandbox.evaluators._java_text import java_lower
from raysandbox.evaluators._spark_features import piece_features, word_features

SIZE = 1000
texts = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    st.sampled_from("aB é中😀 \t\n\x0b\f\r\x00\x85\xa0")
)


def words_of(text):
    r"""Java's `toLowerCase().split("\\s")`, word by word."""
    words = re.split("[ \t\n\x0b\f\r]", java_lower(text))
    if len(words) == 1:
        return words
    while words and not words[-1]:
        words.pop()
    return words


def rows_of(features):
    return [part.tolist() for part in np.split(features.indices, features.starts[1:-1])]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", [""]),
        (" \t", []),
        (" a", ["", "a"]),
        ("a  b \n", ["a", "", "b"]),
        ("A\x00b c\x85d e\xa0f", ["a\x00b", "c\x85d", "e\xa0f"]),
        ("a\tb\x0bc\fd\re", ["a", "b", "c", "d", "e"]),
    ],
)
def test_words_are_split_like_java(text, words):
    assert words_of(text) == words
    assert rows_of(word_features([text], SIZE))[0] == [mmh3.hash(word.encode(), 42) % SIZE for word in words]


def test_hashes_are_those_of_spark():
    # HashingTF().indexOf(word) of PySpark 4.3
    assert word_features(["a spark  é 😀"], 262_144).indices.tolist() == [107107, 173558, 249180, 33439, 197907]


@given(st.lists(texts, min_size=1, max_size=8))
def test_every_word_is_hashed_in_order(batch):
    expected = [[mmh3.hash(word.encode(), 42) % SIZE for word in words_of(text)] for text in batch]
    assert rows_of(word_features(batch, SIZE)) == expected


def test_no_texts_have_no_words():
    assert word_features([], SIZE).starts.tolist() == [0]
    assert word_features([], SIZE).indices.tolist() == []


def test_distinct_features_are_counted_once_per_text():
    features = word_features(["b a b", "", "b b", " "], SIZE).distinct()
    a, b, empty = (mmh3.hash(word, 42) % SIZE for word in ("a", "b", ""))
    assert rows_of(features) == [sorted([a, b]), [empty], [b], []]


def test_pieces_are_hashed_like_words():
    features = piece_features(["x y", "", "y"], str.split, SIZE)
    x, y = (mmh3.hash(piece, 42) % SIZE for piece in "xy")
    assert rows_of(features) == [[x, y], [], [y]]
