"""Compares filters of words, tokens and fields, and selectors, with those of the installed Data-Juicer."""

import importlib
import json
import random
import warnings
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysandbox.ops.base import OPERATORS
from raysandbox.ops.batch import Batch

pytest.importorskip("data_juicer", reason="py-data-juicer is not installed: pip install 'raysandbox[datajuicer]'")

STATS = "__dj__stats__"
WORDS = [
    "the",
    "The",
    "a",
    "of",
    "fox",
    "dog",
    "bad!",
    "«bad»",
    "İs",
    "ΟΔΟΣ",
    "你好",
    "，",
    "...",
    "naïve",
    "e\u0301",
    "😀",
    "1",
]
GAPS = [" ", "  ", "\n", "\t", "\u3000", " \n\t"]
LISTS = {
    "en": ["the", "a", "of", "bad", "i̇s", "foxdog", "the fox", "▁the", "ġthe"],
    "zh": ["你好", "οδος"],
}


def _texts():
    chance = random.Random(3)
    made = [
        "".join(chance.choice(WORDS) + chance.choice(GAPS) for _ in range(chance.randrange(60))) for _ in range(300)
    ]
    return ["", " ", "!!!", *made]


TEXTS = _texts()


def theirs(name, parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from data_juicer.ops import load_ops

        (operator,) = load_ops([{name: dict(parameters)}])
    return operator


def run_theirs(operator, rows):
    """Which rows stay, and the statistics."""
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    samples = operator.compute_stats_batched({**columns, STATS: [{} for _ in rows]})
    return [bool(kept) for kept in operator.process_batched(samples)], samples[STATS]


def run_ours(name, parameters, rows):
    operator = OPERATORS.get(name)(**parameters)
    stats = operator.compute(Batch.from_table(pa.Table.from_pylist(rows)), operator.load())
    return operator.keep(stats).tolist(), {key: values.to_pylist() for key, values in stats.items()}


def compare(name, parameters, rows, their_parameters=None):
    expected, their_stats = run_theirs(theirs(name, parameters if their_parameters is None else their_parameters), rows)
    kept, stats = run_ours(name, parameters, rows)
    assert kept == expected
    for key, values in stats.items():
        np.testing.assert_allclose(values, [row[key] for row in their_stats], rtol=0, atol=1e-12)
    return kept


@pytest.fixture
def word_lists(tmp_path):
    """Folders with lists of each kind; the other kind's file must not be read."""
    for kind in ("stopwords", "flagged_words"):
        (tmp_path / f"my_{kind}_1.json").write_text(json.dumps(LISTS))
        (tmp_path / f"my_{kind}_2.json").write_text(json.dumps({"en": ["fox"], "fr": ["naïve"]}))
    (tmp_path / "other.json").write_text(json.dumps({"en": ["dog"]}))
    return str(tmp_path)


WORD_FILTERS = [("stopwords_filter", "stopwords_dir"), ("flagged_words_filter", "flagged_words_dir")]


@pytest.mark.parametrize(("name", "key"), WORD_FILTERS)
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"lang": "zh", "min_ratio": 0.1, "max_ratio": 0.4},
        {"lang": "all", "max_ratio": 0.3, "reversed_range": True},
        {"use_words_aug": True},
        {"use_words_aug": True, "words_aug_group_sizes": [2, 3], "words_aug_join_char": " ", "max_ratio": 0.5},
    ],
)
def test_word_lists(name, key, parameters, word_lists):
    assert any(compare(name, {**parameters, key: word_lists}, [{"text": text} for text in TEXTS]))


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory):
    import sentencepiece

    path = tmp_path_factory.mktemp("tokenizers") / "tiny.sp.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["the fox of a dog", "bad 你好 naïve", "The İs ΟΔΟΣ 1"] * 9),
            model_writer=file,
            vocab_size=200,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    return str(path)


@pytest.fixture(scope="module")
def hf_tokenizer(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizers") / "hf"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=["<s>", "<pad>"])
    tokenizer.train_from_iterator(TEXTS[:40], trainer)
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(pad_token="<pad>", pad_id=1)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "gpt_neox"}')  # Data-Juicer's loader looks at it
    return str(folder)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("words_num_filter", {"min_num": 5, "max_num": 60}),
        ("word_repetition_filter", {"rep_len": 2, "max_ratio": 0.3}),
        ("stopwords_filter", {"min_ratio": 0.05}),
        ("flagged_words_filter", {"use_words_aug": True}),
    ],
)
def test_pieces_of_a_sentencepiece_model(name, parameters, sentencepiece_model, word_lists, monkeypatch):
    from sentencepiece import SentencePieceProcessor

    module = importlib.import_module(f"data_juicer.ops.filter.{name}")
    monkeypatch.setattr(module, "prepare_model", lambda **_: "tiny")
    monkeypatch.setattr(module, "get_model", lambda _: SentencePieceProcessor(model_file=sentencepiece_model))
    parameters = {**parameters, "tokenization": True, **{key: word_lists for op, key in WORD_FILTERS if op == name}}
    rows = [{"text": text} for text in TEXTS]
    assert any(compare(name, {**parameters, "tokenizer": sentencepiece_model}, rows, parameters))


def test_alphanumeric_by_tokens(hf_tokenizer, monkeypatch):
    from transformers import AutoTokenizer

    module = importlib.import_module("data_juicer.ops.filter.alphanumeric_filter")
    model = AutoTokenizer.from_pretrained(hf_tokenizer)
    monkeypatch.setattr(module, "prepare_model", lambda **_: "tiny")
    monkeypatch.setattr(module, "get_model", lambda _: model)
    parameters = {"tokenization": True, "min_ratio": 0.7, "max_ratio": 1.2}
    rows = [{"text": text} for text in TEXTS]
    assert any(compare("alphanumeric_filter", {**parameters, "tokenizer": hf_tokenizer}, rows, parameters))


def test_token_num(hf_tokenizer):
    parameters = {"hf_tokenizer": hf_tokenizer, "min_num": 20, "max_num": 100}
    assert any(compare("token_num_filter", parameters, [{"text": text} for text in TEXTS]))


def _rows():
    chance = random.Random(5)
    return [
        {
            "id": row,
            "text": f"row {row}",
            "tag": chance.choice(["a", "b", "B", None]),
            "tags": chance.choice([["a"], ["a", "b"], ["c"], []]),
            "number": chance.choice([-1.5, 2.0, 3.25, 40.0, None]),
            "count": chance.randrange(1, 9),
            "written": chance.choice(["1", "2.5", "none", ""]),
            "meta": {"score": {"value": chance.choice([0.25, 0.5, 7.0, float(row + 1)])}, "tag": chance.choice("xyz")},
        }
        for row in range(400)
    ]


ROWS = _rows()


@pytest.mark.parametrize(
    "parameters",
    [
        {"field_key": "tag", "target_value": ["a", "b"]},
        {"field_key": "tag", "target_value": [None, "B"], "reversed_range": True},
        {"field_key": "tags", "target_value": ["a", "b"]},
        {"field_key": "count", "target_value": [1, 2.0]},
        {"field_key": "meta.tag", "target_value": ["x"]},
        {"field_key": "meta.tag"},
    ],
)
def test_specified_field(parameters):
    expected, their_stats = run_theirs(theirs("specified_field_filter", parameters), ROWS)
    kept, stats = run_ours("specified_field_filter", parameters, ROWS)
    assert kept == expected
    values = [row[parameters["field_key"]] for row in their_stats]
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    assert stats[parameters["field_key"]] == texts


@pytest.mark.parametrize("field", ["number", "count", "written", "meta.score.value"])
@pytest.mark.parametrize(
    "bounds", [{}, {"min_value": 2}, {"min_value": 0.3, "max_value": 3.25, "max_closed_interval": False}]
)
def test_specified_numeric_field(field, bounds):
    parameters = {"field_key": field, **bounds}
    expected, their_stats = run_theirs(theirs("specified_numeric_field_filter", parameters), ROWS)
    kept, stats = run_ours("specified_numeric_field_filter", parameters, ROWS)
    assert kept == expected
    numbers = [None if row[field] in (None, "none", "") else float(row[field]) for row in their_stats]
    assert stats[field] == numbers


def test_specified_numeric_field_outside_the_range():
    parameters = {"field_key": "meta.score.value", "min_value": 0.5, "max_value": 7, "reversed_range": True}
    kept, _ = run_ours("specified_numeric_field_filter", parameters, ROWS)
    assert kept == run_theirs(theirs("specified_numeric_field_filter", parameters), ROWS)[0]


@cache
def _general(condition):
    return theirs("general_field_filter", {"filter_condition": condition})


OPERANDS = ["count", "number", "tag", "meta.score.value", "meta.nothing", "nothing", "3", "-1.5", "'a'", "None", "True"]
COMPARED = ["==", "!=", "<", "<=", ">", ">=", "in", "not in"]
VALUES = st.sampled_from([*OPERANDS, "[1, 2, 'a']", "(3, None)", "{'a', 'b'}", "tags"])
COMPARISONS = st.lists(st.tuples(st.sampled_from(COMPARED), VALUES), min_size=1, max_size=3).flatmap(
    lambda rest: VALUES.map(lambda first: " ".join([first, *(f"{op} {value}" for op, value in rest)]))
)
CONDITIONS = st.recursive(
    COMPARISONS | VALUES,
    lambda parts: (
        st.lists(parts, min_size=2, max_size=3).map(lambda p: f"({' and '.join(p)})")
        | st.lists(parts, min_size=2, max_size=3).map(lambda p: f"({' or '.join(p)})")
        | parts.map(lambda part: f"(not {part})")
    ),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None)
@given(condition=CONDITIONS, row=st.sampled_from(ROWS))
def test_conditions(condition, row):
    try:
        (expected,), _ = run_theirs(_general(condition), [row])
    except TypeError:
        expected = None  # text < 3, 3 in 4
    operator = OPERATORS.get("general_field_filter")(filter_condition=condition)
    try:
        found = bool(operator.load()(row))
    except TypeError:
        found = None
    assert found == expected


@pytest.mark.parametrize(
    "condition",
    [
        "1 < count <= 5 and tag != 'b'",
        "tag == 'a' or number > 2 and not meta.score.value < 0.5",
        "tag in ['a', 'B'] or count not in (1, 2, 3)",
        "",
    ],
)
def test_general_field(condition):
    operator = theirs("general_field_filter", {"filter_condition": condition})
    kept, _ = run_ours("general_field_filter", {"filter_condition": condition}, ROWS)
    assert kept == run_theirs(operator, ROWS)[0]
    assert any(kept)


@pytest.mark.parametrize("parameters", [{"suffixes": ".txt"}, {"suffixes": [".txt", ".md"]}, {}])
@pytest.mark.parametrize("reversed_range", [False, True])
def test_suffix(parameters, reversed_range):
    rows = [{"text": "", "__dj__suffix__": suffix} for suffix in (".txt", ".md", ".jsonl", ".txt")]
    parameters = {**parameters, "reversed_range": reversed_range}
    kept, stats = run_ours("suffix_filter", parameters, rows)
    operator = theirs("suffix_filter", parameters)
    assert kept == [operator.process_single(row) for row in rows]
    assert stats["suffix"] == [".txt", ".md", ".jsonl", ".txt"]


def select(name, parameters):
    """Ids of the rows that their selector and ours keep, sorted."""
    from datasets import Dataset

    expected = theirs(name, parameters).process(Dataset.from_list(ROWS))["id"]
    operator = OPERATORS.get(name)(**parameters)
    batch = Batch.from_table(pa.Table.from_pylist(ROWS))
    keep = operator.decide(pa.table(operator.features(batch, None)), len(ROWS), 0)
    return np.flatnonzero(keep).tolist(), sorted(expected)


BOUNDS = [{"topk": 2}, {"top_ratio": 0.4}, {"top_ratio": 0.5, "topk": 1}, {"top_ratio": 0.1, "topk": 300}, {}]


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("field", ["tag", "count", "number", "meta.tag", "meta.score.value"])
def test_frequency_selector(field, reverse, bounds):
    kept, expected = select("frequency_specified_field_selector", {"field_key": field, "reverse": reverse, **bounds})
    assert kept == expected


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("field", ["count", "written", "meta.score.value", ""])
def test_topk_selector(field, reverse, bounds):
    kept, expected = select("topk_specified_field_selector", {"field_key": field, "reverse": reverse, **bounds})
    assert kept == expected


@pytest.mark.parametrize(
    ("field", "tags"), [("tag", ["a", "B"]), ("meta.tag", ["x"]), ("count", [1, 2]), ("tag", [None]), ("", ["a"])]
)
def test_tags_selector(field, tags):
    kept, expected = select("tags_specified_field_selector", {"field_key": field, "target_tags": tags})
    assert kept == expected
