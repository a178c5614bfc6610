"""What every registered operator must do."""

import json
import math
import pickle
import wave
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysandbox.core.component import PathRole, path_refs
from raysandbox.ops.base import OPERATORS, DatasetOperator, Filter, Mapper
from raysandbox.ops.batch import META_COLUMN, SUFFIX_COLUMN, Batch
from raysandbox.ops.text import code_points, line_lengths, words
from tests.ops import tiny_clips, tiny_models

BUILT_IN = [name for name in OPERATORS.names() if OPERATORS.get(name).__module__.startswith("raysandbox.ops.")]
MEDIA = {kind: f"<__dj__{kind}>" for kind in ("image", "video", "audio")}
OF_MEDIA = [name for name in BUILT_IN if MEDIA.keys() & set(OPERATORS.get(name).reads)]
OF_TEXT = [name for name in BUILT_IN if name not in OF_MEDIA]
TEXTS = [
    "Plain English words, nothing else to see.",
    "",
    "   \t ",
    "Mail me@example.com or see https://example.com/a?b=c now.",
    "“Quoted” ｆｕｌｌ width, e\u0301 and voilÃ\xa0 &amp; more",
    "你好，世界。這是一個句子。",
    "one\ntwo\r\nthree\u2028four",
    "again and again and again and again and again",
    "Plain English words, nothing else to see.",
    "İΣ ΟΔΟΣ",
]
# Rows as pairs of a text and of which files and fields it comes with.
ROWS = [(text, index % 4) for index, text in enumerate(TEXTS)]


@dataclass
class World:
    """Files and models that the examples of operators need, made on first use."""

    folder: Path
    _made: dict = field(default_factory=dict)

    def make(self, name):
        """The operator of the class's example, with models and side files that exist."""
        cls = OPERATORS.get(name)
        refs = [ref for ref in path_refs(cls, cls.example) if ref.role is not PathRole.OUTPUT]
        ours = {ref.key[0]: self._path(ref.key[0]) for ref in refs if ref.key[0] in BUILDERS}
        return cls(**{**cls.example, **ours})

    def state(self, name):
        return self._once(("state", name), lambda: self.make(name).load())

    def _path(self, key):
        return self._once(key, lambda: BUILDERS[key](self.folder / key))

    def files(self, kind, pick):
        """None to two files of a kind."""
        both = self._once(kind, lambda: [MAKERS[kind](self.folder / f"{kind}{number}", number) for number in (1, 2)])
        return [[], both[:1], both, both[1:]][pick]

    def batch(self, name, rows, text_type=None):
        """Rows with everything that an operator may read."""
        marks = MEDIA if name in OF_MEDIA else {}
        media = {kind: [self.files(kind, pick) for _, pick in rows] if marks else None for kind in MEDIA}
        texts = [
            "".join(mark * len(media[kind][row]) for kind, mark in marks.items() if kind in OPERATORS.get(name).reads)
            + text
            for row, (text, _) in enumerate(rows)
        ]
        columns = {
            "id": pa.array(range(len(rows)), pa.int64()),
            "text": pa.array(texts, text_type or pa.string()),
            "num": pa.array([9 * pick for _, pick in rows], pa.int64()),
            "meta": pa.array([FIELDS[pick] for _, pick in rows], FIELDS_TYPE),
            META_COLUMN: pa.array([FIELDS[pick] for _, pick in rows], FIELDS_TYPE),
            SUFFIX_COLUMN: pa.array([".txt" if pick else ".jsonl" for _, pick in rows], pa.string()),
            **{
                f"{kind}s": pa.array(lists, pa.list_(pa.string())) for kind, lists in media.items() if lists is not None
            },
        }
        lengths = pa.array([len(text) for text, _ in rows], pa.int64())
        return Batch(pa.table(columns), stats={"text_len": lengths})

    def _once(self, key, make):
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def flagged_words(path):
    path.write_text(json.dumps({"en": ["words", "again"]}))
    return str(path)


def sound(path, number):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        tone = 8000 * np.sin(np.arange(4000 * number) / 9)
        file.writeframes(tone.astype(np.int16).tobytes())
    return str(path)


BUILDERS = {
    "flagged_words_dir": flagged_words,
    "hf_tokenizer": tiny_models.clip,
    "hf_clip": tiny_models.clip,
    "hf_nsfw_model": tiny_models.image_classifier,
    "hf_watermark_model": tiny_models.image_classifier,
    "hf_scorer_model": tiny_models.aesthetics_predictor,
}
MAKERS = {
    "image": lambda path, number: tiny_clips.save_picture(path.with_suffix(".png"), number),
    "video": lambda path, number: tiny_clips.save_clip(path.with_suffix(".mp4"), number, seconds=1.0, scenes=number),
    "audio": lambda path, number: sound(path.with_suffix(".wav"), number),
}
FIELDS = [
    {"language": "en", "score": 0.25, "source": "book"},
    {"language": "zh", "score": 5.0, "source": "web"},
    {"language": None, "score": None, "source": "book"},
    {"language": "en", "score": -1.0, "source": "talk"},
]
FIELDS_TYPE = pa.struct({"language": pa.string(), "score": pa.float64(), "source": pa.string()})


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("operators"))


def outcome(operator, state, batches):
    """What an operator makes of rows that arrive in these batches, as plain Python values."""
    if isinstance(operator, DatasetOperator):
        tables = [pa.table(operator.features(batch, state)) for batch in batches]
        rows = sum(batch.num_rows for batch in batches)
        features = pa.concat_tables(tables, promote_options="permissive")
        return operator.decide(features, rows, 11).tolist(), features.to_pydict()
    if isinstance(operator, Mapper):
        return [row for batch in batches for row in operator.process(batch, state).table.to_pylist()]
    assert isinstance(operator, Filter)
    stats = [operator.compute(batch, state) for batch in batches]
    kept = [kept for part in stats for kept in operator.keep(part).tolist()]
    return kept, {key: [value for part in stats for value in part[key].to_pylist()] for key in stats[0]}


def same(one, other):
    """Whether two outcomes are equal; numbers of a network may differ in the last digits with the batch."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-5)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.fixture(params=BUILT_IN)
def name(request):
    return request.param


def test_example_runs(name, world):
    operator, batch = world.make(name), world.batch(name, ROWS)
    result = outcome(operator, world.state(name), [batch])
    if isinstance(operator, Filter):
        kept, stats = result
        assert len(kept) == len(ROWS)
        assert list(stats) == [stat.key for stat in operator.statistics()]
        assert all(len(values) == len(ROWS) for values in stats.values())
    assert batch.table.equals(world.batch(name, ROWS).table)


def test_configuration_round_trips(name):
    operator = OPERATORS.get(name)(**OPERATORS.get(name).example)
    written = yaml.safe_dump(operator.model_dump(exclude_unset=True))
    assert type(operator)(**(yaml.safe_load(written) or {})) == operator


def test_pickles(name):
    operator = OPERATORS.get(name)(**OPERATORS.get(name).example)
    assert pickle.loads(pickle.dumps(operator)) == operator


def test_is_documented(name):
    operator = OPERATORS.get(name)
    assert operator.type_name == name
    assert operator.summary().endswith(".")
    assert all(field.description for field in operator.model_fields.values())


def test_bounds_are_fields(name):
    operator = OPERATORS.get(name)(**OPERATORS.get(name).example)
    if isinstance(operator, Filter):
        bounds = {bound for stat in operator.statistics() for bound in (stat.lower, stat.upper) if bound}
        assert bounds <= operator.thresholds() <= set(type(operator).model_fields)


def test_no_rows(name, world):
    outcome(world.make(name), world.state(name), [world.batch(name, [])])


def test_types_of_columns_stay(name, world):
    operator = world.make(name)
    if isinstance(operator, Mapper):
        for kind in (pa.string(), pa.large_string()):
            parts = [world.batch(name, rows, kind).table for rows in (ROWS[:4], ROWS[4:])]
            table = pa.concat_tables(parts)
            result = operator.process(Batch(table), world.state(name)).table
            assert result.select(table.column_names).schema == table.schema


ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(TEXTS)
ANY_ROW = st.tuples(ANY_TEXT, st.integers(0, 3))


def check_any_layout(world, name, rows, cut):
    """The same rows in one batch, in two, once more, and in the opposite order."""
    operator, state = world.make(name), world.state(name)
    batch = world.batch(name, rows)
    whole = outcome(operator, state, [batch])
    first = np.arange(len(rows)) < cut
    parts = [part for part in (first, ~first) if part.any()]
    fresh = world.batch(name, rows)
    assert same(outcome(operator, state, [fresh.select(part) for part in parts]), whole)
    assert same(outcome(operator, state, [world.batch(name, rows)]), whole)
    single = [world.batch(name, rows).select(np.arange(len(rows)) == row) for row in range(len(rows))]
    turned = outcome(operator, state, single[::-1])
    if isinstance(operator, Mapper):
        assert same(sorted(turned, key=lambda row: row["id"]), whole)
    else:
        assert same({key: values[::-1] for key, values in turned[1].items()}, whole[1])
        # Operators that decide over all rows keep the first of equals: not in any order.
        assert isinstance(operator, DatasetOperator) or turned[0][::-1] == whole[0]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ANY_ROW, min_size=1, max_size=12), cut=st.integers(0, 12))
@pytest.mark.parametrize("name", OF_TEXT)
def test_order_and_batches_do_not_matter(world, name, rows, cut):
    check_any_layout(world, name, rows, cut)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ANY_ROW, min_size=1, max_size=5), cut=st.integers(0, 5))
@pytest.mark.parametrize("name", OF_MEDIA)
def test_order_and_batches_of_files_do_not_matter(world, name, rows, cut):
    check_any_layout(world, name, rows, cut)


def batch_of(texts):
    return Batch(pa.table({"text": pa.array(texts, pa.string())}))


@settings(max_examples=60, deadline=None)
@given(st.lists(ANY_TEXT, min_size=1, max_size=10), st.data())
def test_views_follow_selection_and_new_texts(texts, data):
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))), bool)
    batch = batch_of(texts)
    see(batch)
    left = [text for text, kept in zip(texts, keep, strict=True) if kept]
    assert see(batch.select(keep)) == see(batch_of(left))
    changed = batch.with_texts([text + " new" for text in texts])
    assert see(changed) == see(batch_of([text + " new" for text in texts]))
    mapped = OPERATORS.get("whitespace_normalization_mapper")().process(batch, None)
    assert see(mapped) == see(batch_of(mapped.table.column("text").to_pylist()))


def see(batch):
    points = code_points(batch)
    seen = [[points.text(row) for row in range(batch.num_rows)], batch.texts, line_lengths(batch).tolist()]
    for lower in (False, True):
        found = words(batch, lower=lower)
        spans = [range(first, last) for first, last in zip(found.firsts, found.lasts, strict=True)]
        codes = [[found.codes[found.starts[i] : found.ends[i]].tolist() for i in span] for span in spans]
        seen.append(codes)
    return seen


def test_unknown_field_is_refused(name):
    with pytest.raises(ValueError, match="no_such_field"):
        OPERATORS.get(name)(no_such_field=1)


def test_meta_column_name():
    assert META_COLUMN == "__dj__meta__"
