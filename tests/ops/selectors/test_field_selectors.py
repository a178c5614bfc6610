"""Selectors by a field: any division into blocks, missing values, fields that nobody has."""

from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysandbox.core.errors import UserError
from raysandbox.ops.base import OPERATORS
from raysandbox.ops.batch import Batch, RowFaults
from raysandbox.recipe.rows import table_of

FREQUENCY, TAGS, TOPK = (f"{kind}_specified_field_selector" for kind in ("frequency", "tags", "topk"))
RANGE = "range_specified_field_selector"


def keep(name, rows, cut=0, **parameters):
    """Indices of the rows that stay when they arrive in two blocks."""
    operator = OPERATORS.get(name)(**parameters)
    parts = [part for part in (rows[:cut], rows[cut:]) if part]
    tables = [pa.table(operator.features(Batch(table_of(part)), None)) for part in parts]
    features = pa.concat_tables(tables, promote_options="permissive")
    return np.flatnonzero(operator.decide(features, len(rows), 0)).tolist()


def rows_of(*values):
    return [{"id": 0, "v": value} for value in values]


VALUES = st.none() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, 2.5])


@settings(max_examples=150, deadline=None)
@given(st.lists(VALUES, min_size=2, max_size=12), st.integers(0, 12), st.integers(1, 6), st.booleans())
def test_topk_is_what_sorting_says(values, cut, count, reverse):
    if all(value is None for value in values):
        return
    last = float("-inf") if reverse else float("inf")
    ranked = sorted(range(len(values)), key=lambda i: last if values[i] is None else values[i], reverse=reverse)
    assert keep(TOPK, rows_of(*values), cut, field_key="v", topk=count, reverse=reverse) == sorted(ranked[:count])


MIXED = VALUES | st.sampled_from(["a", "b", "1"]) | st.booleans()


@settings(max_examples=150, deadline=None)
@given(st.lists(MIXED, min_size=2, max_size=12), st.integers(0, 12), st.integers(1, 4), st.booleans())
def test_frequency_counts_equal_values(values, cut, count, reverse):
    if all(value is None for value in values):
        return
    groups = {}
    for index, value in enumerate(values):
        groups.setdefault(value, []).append(index)
    chosen = sorted(groups.values(), key=len, reverse=reverse)[:count]
    assert keep(FREQUENCY, rows_of(*values), cut, field_key="v", topk=count, reverse=reverse) == sorted(
        chain.from_iterable(chosen)
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(MIXED, min_size=2, max_size=12), st.integers(0, 12), st.lists(MIXED, max_size=4))
def test_tags_are_compared_as_python_does(values, cut, tags):
    if all(value is None for value in values):
        return
    expected = [index for index, value in enumerate(values) if value in tags]
    assert keep(TAGS, rows_of(*values), cut, field_key="v", target_tags=tags) == expected


@pytest.mark.parametrize(
    ("name", "parameters", "chosen"),
    [
        (FREQUENCY, {"topk": 1}, [0, 1]),
        (TAGS, {"target_tags": [5]}, [2]),
        (TOPK, {"topk": 1}, [2]),
        (RANGE, {"lower_rank": 1, "upper_rank": 3}, [0, 2]),
    ],
)
def test_a_field_that_few_rows_or_none_have(name, parameters, chosen):
    with pytest.raises(UserError, match=f"{name}: field_key: no row has a value of 'w.x'"):
        keep(name, rows_of(1, 2, 3), field_key="w.x", **parameters)
    assert keep(name, [{"v": 1}], field_key="w.x", **parameters) == [0]
    assert keep(name, [{"id": 1}, {"id": 2}, {"w": {"x": 5}}], 2, field_key="w.x", **parameters) == chosen


@pytest.mark.parametrize(
    ("name", "parameters"), [(FREQUENCY, {}), (TOPK, {}), (RANGE, {"lower_rank": 1}), (TAGS, {"target_tags": []})]
)
def test_nothing_to_decide_by(name, parameters):
    key = {} if name == TAGS else {"field_key": "v"}
    assert keep(name, rows_of(1, 2, 3), **key, **parameters) == [0, 1, 2]


def test_a_share_of_nothing():
    for name in (FREQUENCY, TOPK):
        assert keep(name, rows_of(1, 2, 3), field_key="v", top_ratio=0) == []


@pytest.mark.parametrize(("name", "parameters"), [(FREQUENCY, {"topk": 1}), (TAGS, {"target_tags": ["a"]})])
def test_lists_are_bad_rows(name, parameters):
    with pytest.raises(RowFaults, match="'v' is a list"):
        keep(name, rows_of([1], [2]), field_key="v", **parameters)


def test_texts_are_ranked_as_texts_and_below_a_level_as_numbers():
    texts = ["9", "10", "2"]
    assert keep(TOPK, rows_of(*texts), field_key="v", topk=1) == [0]
    assert keep(TOPK, [{"m": {"v": text}} for text in texts], field_key="m.v", topk=1) == [1]


def test_large_integers_are_ranked_exactly():
    assert keep(TOPK, rows_of(2**60, 2**60 + 1, 2**60 - 1), field_key="v", topk=1) == [1]
