"""Compares operators with those of the installed Data-Juicer on the same 2,000 rows.

The rows come from `bench_text.jsonl.zst` in the folder that RAYSANDBOX_BENCH_DATA names, else they
are made on the spot from the standard library's texts and planted edge cases.
"""

import importlib
import io
import os
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysandbox.ops import tables
from raysandbox.ops.base import OPERATORS, Filter, Mapper
from raysandbox.ops.batch import Batch

pytest.importorskip("data_juicer", reason="py-data-juicer is not installed: pip install 'raysandbox[datajuicer]'")

ROWS = 2000
STATS = "__dj__stats__"

EDGE_CASES = [
    "",
    " ",
    "\n",
    " \t\n ",
    "a",
    "é",
    "\u200b",
    "\u3000\u3000",
    "😀",
    "👩‍👩‍👧‍👦 family 🇩🇪 flag 👍🏽 skin",
    "مرحبا بالعالم، هذا نص عربي.",
    "שלום עולם",
    "नमस्ते दुनिया, यह एक वाक्य है।",
    "สวัสดีชาวโลก",
    "안녕하세요 세계",
    "こんにちは、世界！ﾊﾝｶｸ",
    "你好，世界！（全角）＜＆ｌｔ；＞",
    "zero\u200bwidth\u200djoiner\ufeffbom\u2060",
    "voilÃ  le travail, Ã©tÃ©, â€œquotesâ€\x9d and Ãƒ",
    "L&#39;&amp;&lt;br&gt;&EACUTE; &amp;amp; &notanentity;",
    "<b>&amp;</b>\n&amp; after markup",
    "ﬁne ﬂow ŉ ǆ “curly” ‘quotes’ ʼn",
    "\x00\x01\x07bell\x1b[31mred\x1b[0m\x7f\x85next\x80",
    "one\r\ntwo\rthree\u2028four\u2029five\x0bsix\x0cseven\x1ceight",
    "e\u0301 a\u0308 \u1112\u1161\u11ab 한",
    "İstanbul ΣΊΣΥΦΟΣ ΑΣ ΣΑΣ ß Ǆ",
    "œuvre Œ. Ђорђе вЂ В ГўВЂВa Â Ã Ã¡ a Â b",
    "х" * 50 + "°" + "Г°Р" + "ВÂ°" + "ØŸØ®",
    "x" * 30000,
    "repeat me please " * 400,
    "a b c d e f g h i j " * 20,
    "line\n" * 300,
    "Mail john.doe+tag@example.com, a@b.c, @x.y, x@y, a@@b.cd or ünï@example.org.",
    "See https://example.com/a_(b)_c?d=e#f, www.example.org/path, ftp://x.y/z. and bit.ly/abc!",
    "http://::::::::: http://( www1.a www1234.b std::vector foo:bar f:g Https://A/ example.museum/x a.b.co/",
    "(http://en.wikipedia.org/wiki/Foo_(bar)_(baz)) <http://a.b/c> 见http://例子.测试/路径。 ｈttp://x",
    "a.b.c.d/ e\u212a.\u017f\u0131/x WWW.EXAMPLE.COM WwW12.x «http://a.b» “http://a.b”",
    "!!! ??? ... --- 123 456",
    "tab\tseparated\tvalues\tπ Πάντα İ",
]


def _from_bench(folder):
    import zstandard

    with (Path(folder) / "bench_text.jsonl.zst").open("rb") as file:
        lines = io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file))
        return [orjson.loads(next(lines))["text"] for _ in range(ROWS)]


def _made():
    chance = random.Random(0)
    library = Path(os.__file__).parent
    sources = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(library.glob("*.py"))]
    data = sorted((library / "test" / "cjkencodings").glob("*-utf8.txt"))
    sources += [path.read_text(encoding="utf-8") for path in data]
    blocks = [(0x20, 0x7F), (0xA0, 0x250), (0x370, 0x530), (0x590, 0x700), (0x900, 0xA00), (0xE00, 0xE5C)]
    blocks += [(0x1E00, 0x2300), (0x2500, 0x2700), (0x3000, 0x3400), (0x4E00, 0x4F00), (0xAC00, 0xAD00)]
    blocks += [(0xFB00, 0xFB10), (0xFF00, 0xFFF0), (0x1F300, 0x1F700), (0x20, 0x30), (0x09, 0x0E)]
    rows = list(EDGE_CASES)
    while len(rows) < ROWS:
        kind = chance.random()
        if kind < 0.6:
            source = chance.choice(sources)
            start = chance.randrange(len(source) or 1)
            rows.append(source[start : start + chance.randrange(3000)])
        elif kind < 0.9:
            used = chance.sample(blocks, 3)
            rows.append("".join(chr(chance.randrange(*chance.choice(used))) for _ in range(chance.randrange(300))))
        else:
            rows.append(chance.choice(["", " ", "\n"]).join(chance.choices(EDGE_CASES[3:28], k=4)))
    return rows


@pytest.fixture(scope="module")
def texts(request):
    folder = os.environ.get("RAYSANDBOX_BENCH_DATA")
    rows = _from_bench(folder) if folder else _made()
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        source = folder or f"the standard library of Python {sys.version_info.major}.{sys.version_info.minor}"
        print(f"\n{len(rows)} rows from {source}", file=sys.stderr)
    return rows


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
    assert 0 < batch.num_rows < ROWS


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
