"""Filters by fields: missing and mixed values, conditions that are wrong, bad rows."""

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raysandbox.ops.base import OPERATORS
from raysandbox.ops.batch import Batch, RowFaults
from raysandbox.ops.expressions import names_in, parse_condition
from raysandbox.ops.fields import field_array, field_list, number_array
from raysandbox.recipe.problems import recipe_problems
from raysandbox.recipe.processing import process
from raysandbox.recipe.rows import table_of


def batch_of(*rows, **stats):
    return Batch(table_of(rows), stats={name: pa.array(values) for name, values in stats.items()})


def run(name, batch, **parameters):
    operator = OPERATORS.get(name)(**parameters)
    stats = operator.compute(batch, operator.load())
    return operator.keep(stats).tolist(), {key: values.to_pylist() for key, values in stats.items()}


NESTED = batch_of(
    {"m": {"a": {"b": 1}}}, {"m": {"a": None}}, {"m": None}, {}, {"m": {"a": {"b": 2}}}, n=[5, 6, 7, 8, 9]
)


def test_levels_of_a_field():
    assert field_array(NESTED, "m.a.b").to_pylist() == [1, None, None, None, 2]
    assert field_array(NESTED, "__dj__stats__.n").to_pylist() == [5, 6, 7, 8, 9]
    for absent in ("x", "m.x", "m.a.b.c", "__dj__stats__.x", "__dj__stats__"):
        assert field_array(NESTED, absent).to_pylist() == [None] * 5
        assert field_array(NESTED, absent).type == pa.null()


def test_values_without_a_common_type():
    batch = batch_of({"v": 1, "m": {"a": 1}}, {"v": "1", "m": "text"}, {"v": "x", "m": None}, {"v": None})
    assert field_array(batch, "v") is None
    assert field_list(batch, "v") == [1, "1", "x", None]
    assert field_list(batch, "m.a") == [1, None, None, None]
    assert number_array(batch, "v", lists=True).to_pylist() == [1, 1, None, None]
    assert run("specified_numeric_field_filter", batch, field_key="v", min_value=1)[0] == [True, True, False, False]
    kept, stats = run("specified_field_filter", batch, field_key="v", target_value=["x", "1"])
    assert kept == [False, True, True, False]
    assert stats == {"v": ["1", '"1"', "x", None]}


VALUES = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, 2, 1.0, 2.5, 10**20, float("nan"), "a", "b", "1", "null", '"a"', "[", " 1", "NaN", ""])
    | st.lists(st.sampled_from([1, 2]) | st.just(1.5), max_size=2)
    | st.dictionaries(st.sampled_from("pq"), st.integers(1, 2) | st.just(1.5), min_size=1)
)


@example([1.0, False], [None])
@given(st.lists(VALUES, min_size=1, max_size=6), st.lists(VALUES, min_size=1, max_size=3))
def test_values_do_not_depend_on_the_rows_beside(values, targets):
    rows = [{"v": value} for value in values]
    together = run("specified_field_filter", Batch(table_of(rows)), field_key="v", target_value=targets)
    alone = [run("specified_field_filter", Batch(table_of([row])), field_key="v", target_value=targets) for row in rows]
    assert together == ([kept for (kept,), _ in alone], {"v": [stats["v"][0] for _, stats in alone]})


def test_numbers_of_a_field():
    batch = batch_of({"v": "2.5"}, {"v": "none"}, {"v": ""}, {"v": None}, {"v": "-1e3"})
    kept, stats = run("specified_numeric_field_filter", batch, field_key="v", min_value=0)
    assert (kept, stats) == ([True, False, False, False, False], {"v": [2.5, None, None, None, -1000]})
    outside, _ = run("specified_numeric_field_filter", batch, field_key="v", min_value=0, reversed_range=True)
    assert outside == [False, False, False, False, True]
    zero = batch_of({"v": 0}, {"v": 1})
    assert run("specified_numeric_field_filter", zero, field_key="v", max_value=0)[0] == [True, False]


def test_a_list_is_no_number():
    with pytest.raises(RowFaults, match="'v' is a list"):
        run("specified_numeric_field_filter", batch_of({"v": [1]}, {"v": [2]}), field_key="v")


def test_lists_and_missing_values():
    batch = batch_of({"v": ["a", "b"]}, {"v": ["a", "c"]}, {"v": []}, {"v": None})
    assert run("specified_field_filter", batch, field_key="v", target_value=["a", "b"])[0] == [True, False, True, False]
    assert run("specified_field_filter", batch, field_key="v")[0] == [True] * 4


def test_a_field_is_required():
    for name in ("specified_field_filter", "specified_numeric_field_filter"):
        for parameters in ({}, {"field_key": ""}):
            (problem,) = recipe_problems({"process": [{name: parameters}]})
            assert problem.path[-1] == "field_key"


def test_suffixes_with_and_without_dot():
    batch = batch_of({"__dj__suffix__": ".txt"}, {"__dj__suffix__": ".md"})
    for suffixes in ("txt", ".txt", ["txt"], [".txt", "jsonl"]):
        assert run("suffix_filter", batch, suffixes=suffixes)[0] == [True, False]
    for none in (None, []):
        assert run("suffix_filter", batch, suffixes=none)[0] == [True, True]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("a <", "not a condition: invalid syntax at column"),
        ("__import__('os').system('true')", "cannot hold `__import__"),
        ("a[0] == 1", r"cannot hold `a\[0\]`"),
        ("a + 1 > 2", r"cannot hold `a \+ 1`"),
        ("a is None", "cannot hold `a is None`"),
        ("(lambda: 1) == 1", "cannot hold `lambda: 1`"),
        ("[x for x in a] == []", "cannot hold `"),
        ("{'a': 1} == a", "cannot hold `"),
        ("~a == 1", "cannot hold `~a`"),
        ("f'{a}' == 'x'", "cannot hold `"),
    ],
)
def test_conditions_that_are_refused(condition, message):
    with pytest.raises(ValueError, match=message):
        parse_condition(condition)
    (problem,) = recipe_problems({"process": [{"general_field_filter": {"filter_condition": condition}}]})
    assert problem.path[-1] == "filter_condition"


def test_a_level_is_never_an_attribute_of_a_python_object():
    for condition in ("a.__class__ == 1", "not a.upper", "a.real == 1"):
        assert parse_condition(condition)({"a": 1}) is (condition == "not a.upper")


def test_columns_of_a_condition():
    assert names_in(" 1 < b.c <= a or not x.y.z in (d, 'e')") == ["a", "b", "d", "x"]


def test_conditions_see_statistics():
    kept, _ = run("general_field_filter", NESTED, filter_condition="5 < __dj__stats__.n and m.a.b == 2")
    assert kept == [False, False, False, False, True]
    bare = Batch(NESTED.table)
    assert run("general_field_filter", bare, filter_condition="__dj__stats__.n not in [1]")[0] == [True] * 5


def test_rows_that_cannot_be_compared_are_set_aside():
    batch = batch_of({"v": 1}, {"v": "x"}, {"v": None}, {"v": 3})
    with pytest.raises(RowFaults) as caught:
        run("general_field_filter", batch, filter_condition="v > 1")
    assert list(caught.value.faults) == [1]
    result = process(
        {"process": [{"general_field_filter": {"filter_condition": "v > 1"}}], "max_bad_rows": 1},
        rows=[{"v": 1}, {"v": "x"}, {"v": None}, {"v": 3}],
    )
    assert result.rows == [{"v": 3}]
