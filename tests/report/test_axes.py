from __future__ import annotations

import pytest

from raysandbox.report.axes import category_column, number_column, show_value


def test_values_are_shown_as_yaml_writes_them() -> None:
    values = (True, None, 0.123456, 1e-05, 1200, "en", [1, 2], {"a": 0.5})
    assert [show_value(value) for value in values] == [
        "true",
        "null",
        "0.1235",
        "1e-05",
        "1200",
        "en",
        "[1, 2]",
        '{"a": 0.5}',
    ]


def test_linear_axis() -> None:
    column = number_column("x", "x", [0.0, 4, 10], scale="linear")
    assert [column.position(value) for value in (0, 5, 10.0)] == [0.0, 0.5, 1.0]
    assert [column.position(value) for value in (True, "5", None, float("nan"), float("inf"))] == [None] * 5
    assert column.ticks() == [(0.0, "0"), (0.2, "2"), (0.4, "4"), (0.6, "6"), (0.8, "8"), (1.0, "10")]


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (1e-6, 1e-2, ["1e-06", "1e-05", "0.0001", "0.001", "0.01"]),
        (8, 60, ["10", "20", "50"]),
        (31, 38, ["32", "34", "36", "38"]),
        (7, 7, ["7"]),
    ],
)
def test_ticks_of_log_axes(low: float, high: float, texts: list[str]) -> None:
    ticks = number_column("x", "x", [low, high], scale="log").ticks()
    assert [text for _, text in ticks] == texts
    assert all(0 <= position <= 1 for position, _ in ticks)


def test_log_axis() -> None:
    column = number_column("x", "x", [1, 100], scale="log")
    assert column.position(10) == pytest.approx(0.5)
    assert column.position(0) is None
    assert number_column("x", "x", [0, 100], scale="log").scale == "linear"  # 0 has no logarithm


def test_an_axis_without_values_or_with_one() -> None:
    assert number_column("x", "x", [], scale="log").position(0.5) == 0.5
    assert number_column("x", "x", [3.0], scale="linear").position(3) == 0.5


def test_categories_stay_in_order_and_numbers_are_sorted() -> None:
    assert category_column("x", "x", ["zh", "en", "zh"]).categories == ("zh", "en")
    assert category_column("x", "x", [9, 3, 5]).categories == ("3", "5", "9")
    assert category_column("x", "x", [True, False, [1]]).categories == ("true", "false", "[1]")


def test_lines_through_one_category_lie_side_by_side_and_inside() -> None:
    column = category_column("x", "x", ["a", "b"])
    low, middle, high = (column.place("a", end) for end in (0.0, 0.5, 1.0))
    assert low is not None
    assert middle is not None
    assert high is not None
    assert 0 <= low < middle < high < 0.1
    assert column.place("a", None) == column.position("a") == middle
    assert column.place("c", 0.5) is None


def test_many_categories_have_few_marks() -> None:
    column = category_column("x", "x", [f"c{number}" for number in range(100)])
    assert len(column.ticks()) <= 16
