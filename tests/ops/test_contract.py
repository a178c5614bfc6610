"""What every registered operator must do."""

import pickle
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysandbox.ops.base import OPERATORS, DatasetOperator, Filter, Mapper
from raysandbox.ops.batch import META_COLUMN, Batch
from raysandbox.ops.text import code_points, line_lengths, words

BUILT_IN = [name for name in OPERATORS.names() if OPERATORS.get(name).__module__.startswith("raysandbox.ops.")]
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


def make(name):
    cls = OPERATORS.get(name)
    return cls(**cls.example)


def batch_of(texts):
    table = pa.table({"id": pa.array(range(len(texts)), pa.int64()), "text": pa.array(texts, pa.string())})
    return Batch(table, stats={"text_len": pa.array([len(text) for text in texts], pa.int64())})


@cache
def state_of(name):
    return make(name).load()


def outcome(operator, batches):
    """What an operator makes of rows that arrive in these batches, as plain Python values."""
    state = state_of(operator.type_name)
    if isinstance(operator, DatasetOperator):
        tables = [pa.table(operator.features(batch, state)) for batch in batches]
        rows = sum(batch.num_rows for batch in batches)
        features = pa.concat_tables(tables)
        return operator.decide(features, rows, 11).tolist(), features.to_pydict()
    if isinstance(operator, Mapper):
        return [row for batch in batches for row in operator.process(batch, state).table.to_pylist()]
    assert isinstance(operator, Filter)
    stats = [operator.compute(batch, state) for batch in batches]
    kept = [kept for part in stats for kept in operator.keep(part).tolist()]
    return kept, {key: [value for part in stats for value in part[key].to_pylist()] for key in stats[0]}


@pytest.fixture(params=BUILT_IN)
def name(request):
    return request.param


def test_example_runs(name):
    operator = make(name)
    batch = batch_of(TEXTS)
    result = outcome(operator, [batch])
    if isinstance(operator, Filter):
        kept, stats = result
        assert len(kept) == len(TEXTS)
        assert list(stats) == [stat.key for stat in operator.stats]
        assert all(len(values) == len(TEXTS) for values in stats.values())
    assert batch.table.equals(batch_of(TEXTS).table)


def test_configuration_round_trips(name):
    operator = make(name)
    written = yaml.safe_dump(operator.model_dump(exclude_unset=True))
    assert type(operator)(**(yaml.safe_load(written) or {})) == operator


def test_pickles(name):
    operator = make(name)
    assert pickle.loads(pickle.dumps(operator)) == operator


def test_is_documented(name):
    operator = OPERATORS.get(name)
    assert operator.type_name == name
    assert operator.summary().endswith(".")
    assert all(field.description for field in operator.model_fields.values())


def test_bounds_are_fields(name):
    operator = make(name)
    if isinstance(operator, Filter):
        assert operator.thresholds() <= set(type(operator).model_fields)


def test_no_rows(name):
    outcome(make(name), [batch_of([])])


def test_type_of_the_column_stays(name):
    operator = make(name)
    if isinstance(operator, Mapper):
        for kind in (pa.string(), pa.large_string()):
            table = pa.table({"text": pa.chunked_array([TEXTS[:4], TEXTS[4:]], kind)})
            assert operator.process(Batch(table), operator.load()).table.schema == table.schema


ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(TEXTS)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=12), cut=st.integers(0, 12))
def test_split_into_batches_does_not_matter(name, texts, cut):
    operator = make(name)
    whole = outcome(operator, [batch_of(texts)])
    rows = batch_of(texts)
    parts = [part for part in (np.arange(len(texts)) < cut, np.arange(len(texts)) >= cut) if part.any()]
    assert outcome(operator, [rows.select(part) for part in parts]) == whole
    assert outcome(operator, [batch_of(texts)]) == whole


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
    mapped = make("whitespace_normalization_mapper").process(batch, None)
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
