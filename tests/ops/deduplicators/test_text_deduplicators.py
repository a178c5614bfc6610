import re
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysandbox.ops.base import OPERATORS
from raysandbox.ops.batch import Batch
from raysandbox.ops.minhash import best_bands, hash_functions

PLAIN = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "Dog", "and", "runs", "away"]


def make(name, **parameters):
    return OPERATORS.get(name)(**parameters)


def kept(operator, texts, cuts=()):
    """Indices of the texts that stay when they arrive in batches cut at the given places."""
    edges = [0, *sorted(min(cut, len(texts)) for cut in cuts), len(texts)]
    pieces = [texts[start:end] for start, end in pairwise(edges)]
    state = operator.load()
    batches = [Batch(pa.table({"text": pa.array(piece, pa.large_string())})) for piece in pieces]
    features = pa.concat_tables([pa.table(operator.features(batch, state)) for batch in batches])
    return np.flatnonzero(operator.decide(features, len(texts), 0)).tolist()


ROWS = st.lists(st.lists(st.sampled_from(["a", "b", " ", "B", "1", "!"]), max_size=5).map("".join), max_size=20)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.booleans(), st.booleans(), st.lists(st.integers(0, 20), max_size=3))
def test_exact_is_a_set(texts, lowercase, ignore, cuts):
    def key(text):
        text = text.lower() if lowercase else text
        return (re.sub(r"[\s\d!]", "", text) if ignore else text).strip()

    firsts = {key(text): row for row, text in reversed(list(enumerate(texts)))}
    operator = make("document_deduplicator", lowercase=lowercase, ignore_non_character=ignore)
    assert kept(operator, texts, cuts) == sorted(firsts.values())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(PLAIN), max_size=12).map(" ".join), max_size=15),
    st.lists(st.integers(0, 15), max_size=3),
    st.sampled_from(["document_minhash_deduplicator", "document_simhash_deduplicator"]),
    st.sampled_from(["space", "character", "punctuation"]),
)
def test_sketches(texts, cuts, name, tokenization):
    operator = make(name, tokenization=tokenization, window_size=2)
    whole = kept(operator, texts)
    assert kept(operator, texts, cuts) == whole
    assert whole[:1] == [0][: len(texts)]  # the first text stays
    firsts = {text: row for row, text in reversed(list(enumerate(texts)))}
    assert set(whole) <= set(firsts.values())  # of equal texts at most the first
    assert kept(operator, [texts[row] for row in whole]) == list(range(len(whole)))


LONG = [" ".join(f"{topic}{number}" for number in range(200)) for topic in "abc"]
EDITED = LONG[1].replace("b100 ", "other ").upper()


@pytest.mark.parametrize("name", ["document_minhash_deduplicator", "document_simhash_deduplicator"])
def test_near_texts(name):
    assert kept(make(name, window_size=1), [LONG[0], LONG[1], EDITED, LONG[2], LONG[1]]) == [0, 1, 3]


@pytest.mark.parametrize("name", ["document_minhash_deduplicator", "document_simhash_deduplicator"])
def test_texts_without_a_shingle_are_equal(name):
    assert kept(make(name, window_size=5), ["", "too short", LONG[0], "another"]) == [0, 2]


def test_what_is_ignored():
    numbered = [re.sub(r"a(\d+)", rf"a\1_{row}", LONG[0]) for row in range(3)]
    assert kept(make("document_minhash_deduplicator"), numbered) == [0, 1, 2]
    assert kept(make("document_minhash_deduplicator", ignore_pattern=r"_\d"), numbered) == [0]


def test_characters_of_any_length_in_utf8():
    texts = ["aé中😀" * 20, "aé中😀" * 20 + "!", "😀中éa" * 20]
    for name in ("document_minhash_deduplicator", "document_simhash_deduplicator"):
        assert kept(make(name, tokenization="character", window_size=2), texts)[:1] == [0]
        assert kept(make(name, tokenization="character", window_size=6), [texts[0], texts[2], texts[0]]) == [0, 1]


def test_sentencepiece(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    prefix = tmp_path / "tiny"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*LONG, *PLAIN]), model_prefix=str(prefix), vocab_size=50, minloglevel=3
    )
    operator = make(
        "document_minhash_deduplicator", tokenization="sentencepiece", tokenizer_model=f"{prefix}.model", window_size=3
    )
    assert kept(operator, [LONG[0], LONG[1], EDITED, LONG[2], ""]) == [0, 1, 3, 4]


def test_bands():
    assert best_bands(0.7, 256) == (25, 10)
    assert make("document_minhash_deduplicator").bands() == (25, 10)
    assert make("document_minhash_deduplicator", num_bands=4).bands() == (25, 10)
    assert make("document_minhash_deduplicator", num_bands=4, num_rows_per_band=2).bands() == (4, 2)


def test_hash_functions_do_not_depend_on_their_number():
    (few, _), (many, _) = hash_functions(3), hash_functions(5)
    assert many[:3].tolist() == few.tolist()


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("document_minhash_deduplicator", {"tokenization": "sentencepiece"}, "needs tokenizer_model"),
        ("document_minhash_deduplicator", {"num_bands": 50, "num_rows_per_band": 6}, "at most num_permutations"),
        ("document_minhash_deduplicator", {"ignore_pattern": "("}, "not a regular expression"),
        ("document_simhash_deduplicator", {"hamming_distance": 6}, "below num_blocks"),
        ("document_simhash_deduplicator", {"tokenization": "sentencepiece"}, "'space', 'punctuation' or 'character'"),
    ],
)
def test_refused(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        make(name, **parameters)
