"""Compares operators with those of the installed Data-Juicer on the same 2,000 rows, the fixture `texts`."""

import importlib
import random
import warnings

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysandbox.ops import tables
from raysandbox.ops.base import OPERATORS, Filter, Mapper
from raysandbox.ops.batch import Batch

pytest.importorskip("data_juicer", reason="py-data-juicer is not installed: pip install 'raysandbox[datajuicer]'")

STATS = "__dj__stats__"


def theirs(name, parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from data_juicer.ops import load_ops

        (operator,) = load_ops([{name: dict(parameters)}])
    return operator


def ours(name, parameters):
    return OPERATORS.get(name)(**parameters)


def batch_of(texts):
    return Batch(pa.table({"text": pa.array(texts, pa.large_string())}))


def run_theirs(name, parameters, texts):
    """Texts that are left, and the statistics of all rows."""
    operator = theirs(name, parameters)
    if name.endswith("_mapper"):
        return operator.process_batched({"text": list(texts)})["text"], None
    samples = operator.compute_stats_batched({"text": list(texts), STATS: [{} for _ in texts]})
    keep = list(operator.process_batched(samples))
    return [text for text, kept in zip(texts, keep, strict=True) if kept], samples[STATS]


def run_ours(name, parameters, batch):
    operator = ours(name, parameters)
    state = operator.load()
    if isinstance(operator, Mapper):
        return operator.process(batch, state), None
    assert isinstance(operator, Filter)
    stats = operator.compute(batch, state)
    return batch.select(operator.keep(stats)), {key: values.to_pylist() for key, values in stats.items()}


def compare(name, parameters, texts):
    their_texts, their_stats = run_theirs(name, parameters, texts)
    batch, stats = run_ours(name, parameters, batch_of(texts))
    for key in stats or {}:
        expected = [row[key] for row in their_stats]
        if isinstance(expected[0], str):
            assert stats[key] == expected
        else:
            np.testing.assert_allclose(stats[key], expected, rtol=0, atol=1e-6)
    assert batch.texts == their_texts
    assert batch.table.column("text").to_pylist() == their_texts


MAPPERS = [
    ("whitespace_normalization_mapper", {}),
    ("fix_unicode_mapper", {}),
    ("fix_unicode_mapper", {"normalization": "nfkc"}),
    ("fix_unicode_mapper", {"normalization": "NFD"}),
    ("fix_unicode_mapper", {"normalization": "NFKD"}),
    ("clean_links_mapper", {}),
    ("clean_links_mapper", {"repl": r"<\1>"}),
    ("clean_links_mapper", {"pattern": r"r'https?://\S+'", "repl": "LINK"}),
    ("clean_email_mapper", {}),
    ("clean_email_mapper", {"repl": "<email>"}),
    ("clean_email_mapper", {"pattern": r"\w+@\w+"}),
]
FILTERS = [
    ("text_length_filter", {}),
    ("text_length_filter", {"min_len": 50, "max_len": 2000}),
    ("text_length_filter", {"min_len": 50, "max_len": 2000, "reversed_range": True}),
    ("text_length_filter", {"min_len": 1, "max_len": 1, "min_closed_interval": False}),
    ("text_length_filter", {"min_len": 0, "max_len": 1, "max_closed_interval": False, "reversed_range": True}),
    ("words_num_filter", {}),
    ("words_num_filter", {"lang": "zh", "min_num": 3, "max_num": 300}),
    ("alphanumeric_filter", {}),
    ("alphanumeric_filter", {"min_ratio": 0.6, "max_ratio": 0.8}),
    ("average_line_length_filter", {}),
    ("average_line_length_filter", {"min_len": 20, "max_len": 60}),
    ("maximum_line_length_filter", {}),
    ("maximum_line_length_filter", {"min_len": 20, "max_len": 80}),
    ("character_repetition_filter", {}),
    ("character_repetition_filter", {"rep_len": 1, "min_ratio": 0.1, "max_ratio": 0.6}),
    ("character_repetition_filter", {"rep_len": 3, "min_ratio": 0.05, "max_ratio": 0.2}),
    ("word_repetition_filter", {}),
    ("word_repetition_filter", {"rep_len": 1, "min_ratio": 0.2, "max_ratio": 0.7}),
    ("word_repetition_filter", {"rep_len": 2, "max_ratio": 0.1}),
    ("special_characters_filter", {}),
    ("special_characters_filter", {"min_ratio": 0.2, "max_ratio": 0.5, "max_closed_interval": False}),
]
# The recipe that the benchmark runs.
TWELVE = [
    ("whitespace_normalization_mapper", {}),
    ("fix_unicode_mapper", {}),
    ("clean_links_mapper", {}),
    ("clean_email_mapper", {}),
    ("text_length_filter", {"min_len": 50, "max_len": 200000}),
    ("words_num_filter", {"min_num": 10, "max_num": 50000}),
    ("alphanumeric_filter", {"min_ratio": 0.25}),
    ("average_line_length_filter", {"min_len": 10}),
    ("maximum_line_length_filter", {"min_len": 20}),
    ("character_repetition_filter", {"rep_len": 10, "max_ratio": 0.5}),
    ("word_repetition_filter", {"rep_len": 10, "max_ratio": 0.5}),
    ("special_characters_filter", {"max_ratio": 0.4}),
]


@pytest.mark.parametrize(("name", "parameters"), MAPPERS + FILTERS)
def test_operator(name, parameters, texts):
    compare(name, parameters, texts)


LINK_PARTS = ["http", "://", "www", "12", ".", "com", "/", "a", "Z9", "é", "(", ")", "-", ":", "!", ",", " ", "<", ">"]
LINK_PARTS += [
    "“",
    "»",
    "\n",
    "\u3000",
    "\u0130",
    "\u017f",
    "K",
    "_",
    "%",
    "[",
    "'",
    "例",
    "１",
    "@",
    "+",
    "b.c",
    "x@y.z",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.sampled_from(LINK_PARTS), max_size=12).map("".join), max_size=6))
def test_links_and_addresses_of_any_shape(rows):
    for name in ("clean_links_mapper", "clean_email_mapper"):
        compare(name, {"repl": "<>"}, rows)


def test_all_twelve_in_sequence(texts):
    batch, their_texts = batch_of(texts), texts
    for name, parameters in TWELVE:
        batch, _ = run_ours(name, parameters, batch)
        their_texts, _ = run_theirs(name, parameters, their_texts)
    assert batch.texts == their_texts
    assert 0 < batch.num_rows < len(texts)


@pytest.mark.parametrize("parameters", [{}, {"lang": "en"}, {"lang": ["en", "zh"], "min_score": 0.4}])
def test_language_id(parameters, texts, monkeypatch):
    module = importlib.import_module("data_juicer.ops.filter.language_id_score_filter")
    model = ours("language_id_score_filter", {}).load()
    monkeypatch.setattr(module, "prepare_model", lambda **_: "bundled")
    monkeypatch.setattr(module, "get_model", lambda _: model)
    compare("language_id_score_filter", parameters, texts)


def test_special_characters():
    from data_juicer.ops.common import SPECIAL_CHARACTERS

    expected = {ord(char) for char in SPECIAL_CHARACTERS if len(char) == 1}
    assert set(np.flatnonzero(tables.special()).tolist()) == expected


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("ignore_non_character", [False, True])
def test_document_deduplicator(lowercase, ignore_non_character, texts):
    parameters = {"lowercase": lowercase, "ignore_non_character": ignore_non_character}
    rows = texts + [text.swapcase() for text in texts[::7]] + [f" {text}1\n" for text in texts[::5]] + texts[::3]
    operator = theirs("document_deduplicator", parameters)
    hashes = [operator.compute_hash({"text": text})["__dj__hash"] for text in rows]
    deduplicator = ours("document_deduplicator", parameters)
    features = pa.table(deduplicator.features(batch_of(rows), None))
    assert [value.hex() for value in features.column("__dj__hash").to_pylist()] == hashes
    keep = deduplicator.decide(features, len(rows), 0)
    firsts = {value: index for index, value in reversed(list(enumerate(hashes)))}
    assert np.flatnonzero(keep).tolist() == sorted(firsts.values())


@pytest.mark.parametrize(
    "bounds",
    [
        {"lower_percentile": 0.1, "upper_percentile": 0.9},
        {"lower_rank": 100, "upper_rank": 700},
        {"lower_percentile": 0.2, "lower_rank": 10, "upper_percentile": 0.5, "upper_rank": 5000},
        {"lower_rank": 700, "upper_rank": 100},
        {"lower_percentile": 0.5},
        {"upper_rank": 3},
    ],
)
@pytest.mark.parametrize("field", ["__dj__stats__.text_len", "meta.score.value", "number", "words"])
def test_range_specified_field_selector(field, bounds):
    from datasets import Dataset

    chance = random.Random(1)
    number = [chance.choice([None, chance.randrange(50)]) for _ in range(1000)]
    columns = {
        "id": list(range(1000)),
        "number": number,
        "words": [str(chance.randrange(30)) if chance.random() < 0.9 else "none" for _ in number],
        "meta": [{"score": {"value": chance.choice([0.25, 0.5, 1.5, float(row)])}} for row in range(1000)],
        "__dj__stats__": [{"text_len": chance.randrange(100)} for _ in number],
    }
    parameters = {"field_key": field, **bounds}
    expected = theirs("range_specified_field_selector", parameters).process(Dataset.from_dict(columns))["id"]
    selector = ours("range_specified_field_selector", parameters)
    features = pa.table(selector.features(Batch.from_table(pa.table(columns)), None))
    keep = selector.decide(features, 1000, 0)
    assert np.flatnonzero(keep).tolist() == sorted(expected)


@pytest.mark.parametrize("parameters", [{}, {"select_ratio": 0.3}, {"select_num": 40}])
def test_random_selector_keeps_as_many(parameters):
    from datasets import Dataset

    expected = theirs("random_selector", parameters).process(Dataset.from_dict({"id": list(range(333))}))
    keep = ours("random_selector", parameters).decide(pa.table({}), 333, 7)
    assert keep.sum() == len(expected)


def test_random_selector_takes_the_smaller_count():
    from datasets import Dataset

    parameters = {"select_ratio": 0.5, "select_num": 400}
    expected = theirs("random_selector", parameters).process(Dataset.from_dict({"id": list(range(333))}))
    assert ours("random_selector", parameters).decide(pa.table({}), 333, 7).sum() == len(expected) == 166
