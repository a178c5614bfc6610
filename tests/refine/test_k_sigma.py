import copy
import json
import math
from collections.abc import Iterator

import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from raysandbox.analysis.summary import Analysis, summarise
from raysandbox.core.registry import register
from raysandbox.ops.base import OPERATORS, Filter, Mapper, Stat
from raysandbox.refine.k_sigma import KSigmaConfig, refine, write_recipe


@pytest.fixture(scope="module", autouse=True)
def operators() -> Iterator[None]:
    """Operators of this test only, taken out of the registry afterwards."""

    @register("k_sigma_length_filter")
    class Length(Filter):
        stats = (Stat("length", "min_len", "max_len", low=0, integer=True),)
        min_len: int = 1
        max_len: int = 100
        max_mintiness: float = 1.0  # a name that holds "min" and "max" and bounds nothing

    @register("k_sigma_ratio_filter")
    class Ratio(Filter):
        stats = (Stat("ratio", "min_ratio", "max_ratio", low=0, high=1),)
        min_ratio: float = 0.0
        max_ratio: float | str = 1.0

    @register("k_sigma_lines_filter")
    class Lines(Filter):
        """Its statistic is a fraction, its argument is a whole number."""

        stats = (Stat("average", "min_len", None, low=0),)
        min_len: int = 1

    @register("k_sigma_size_filter")
    class Size(Filter):
        """One argument bounds two statistics."""

        stats = (Stat("width", "min_size", "max_size", low=0), Stat("height", "min_size", "max_size", low=0))
        min_size: float = 0
        max_size: float = math.inf

    @register("k_sigma_mapper")
    class Plain(Mapper):
        min_len: int = 1

    names = [cls.type_name for cls in (Length, Ratio, Lines, Size, Plain)]
    yield
    for name in names:
        del OPERATORS._classes[name]


def analysis_of(**columns) -> Analysis:
    return summarise(pa.table(columns))


def refined(process, analysis, k=3.0):
    return refine({"process": process}, analysis, k).recipe["process"]


ANALYSIS_ROWS = {"length": [10, 20, 30, 41], "ratio": [0.5, 0.6, 0.7, 0.8]}


def test_present_bounds_become_mean_minus_and_plus_k_std():
    analysis = analysis_of(ratio=[0.4, 0.5, 0.6])
    (step,) = refined([{"k_sigma_ratio_filter": {"min_ratio": 0.9, "max_ratio": 0.95}}], analysis, k=2)
    assert step["k_sigma_ratio_filter"] == pytest.approx({"min_ratio": 0.3, "max_ratio": 0.7})


def test_whole_bounds_are_rounded_outwards_and_stay_whole():
    analysis = analysis_of(length=[10, 20, 30, 41], average=[10.0, 20.0, 30.0, 41.0])
    process = [{"k_sigma_length_filter": {"min_len": 1, "max_len": 2}}, {"k_sigma_lines_filter": {"min_len": 3}}]
    length, lines = refined(process, analysis, k=1)
    assert length == {"k_sigma_length_filter": {"min_len": 11, "max_len": 39}}  # 25.25 ± 13.28
    assert lines == {"k_sigma_lines_filter": {"min_len": 11}}
    assert isinstance(length["k_sigma_length_filter"]["max_len"], int)


@given(st.floats(0, 1), st.integers(2, 3000), st.floats(0.01, 4))
def test_rows_that_are_all_equal_stay(value, count, k):
    process = [{"k_sigma_ratio_filter": {"min_ratio": 0.0, "max_ratio": 1.0}}]
    (step,) = refined(process, analysis_of(ratio=[value] * count), k=k)
    assert step["k_sigma_ratio_filter"] == {"min_ratio": value, "max_ratio": value}


def test_values_that_are_no_numbers_do_not_move_bounds():
    process = [{"k_sigma_ratio_filter": {"min_ratio": 0.1, "max_ratio": 0.9}}]
    ratios = [0.4, 0.5, 0.6]
    with_gaps = analysis_of(ratio=[math.nan, *ratios, None, math.inf])
    assert refined(process, with_gaps) == refined(process, analysis_of(ratio=ratios))
    assert refined(process, analysis_of(ratio=[math.nan] * 5)) == process


def test_bounds_are_clamped_to_the_range_of_the_statistic():
    process = [{"k_sigma_ratio_filter": {"min_ratio": 0.5, "max_ratio": 0.5}}]
    result = refine({"process": process}, analysis_of(ratio=[0.0, 1.0]))
    assert result.recipe["process"] == [{"k_sigma_ratio_filter": {"min_ratio": 0.0, "max_ratio": 1.0}}]
    assert all("clamped" in change.reason for change in result.changes)


def test_absent_arguments_and_lookalikes_stay():
    process = [{"k_sigma_length_filter": {"max_len": 5, "max_mintiness": 0.5}}]
    (step,) = refined(process, analysis_of(**ANALYSIS_ROWS), k=1)
    assert step == {"k_sigma_length_filter": {"max_len": 39, "max_mintiness": 0.5}}


def test_an_argument_of_two_statistics_suits_both():
    process = [{"k_sigma_size_filter": {"min_size": 1, "max_size": 2}}]
    (step,) = refined(process, analysis_of(width=[10.0, 20.0], height=[100.0, 110.0]), k=1)
    expected = {"min_size": 15 - math.sqrt(50), "max_size": 105 + math.sqrt(50)}
    assert step["k_sigma_size_filter"] == pytest.approx(expected)


def test_text_stays_text():
    (step,) = refined([{"k_sigma_ratio_filter": {"max_ratio": "9/21"}}], analysis_of(ratio=[0.25, 0.75]), k=0.5)
    assert float(step["k_sigma_ratio_filter"]["max_ratio"]) == pytest.approx(0.5 + math.sqrt(0.125) / 2)
    assert isinstance(step["k_sigma_ratio_filter"]["max_ratio"], str)


@pytest.mark.parametrize(
    ("step", "line"),
    [
        ({"k_sigma_mapper": {"min_len": 3}}, "k_sigma_mapper: kept (it declares no statistics with bounds)"),
        ({"not_an_operator": None}, "not_an_operator: kept (it declares no statistics with bounds)"),
        ("k_sigma_length_filter", "k_sigma_length_filter: kept (the recipe sets none of its bounds)"),
        ({"k_sigma_length_filter": None}, "k_sigma_length_filter: kept (the recipe sets none of its bounds)"),
        (
            {"k_sigma_lines_filter": {"min_len": 3}},
            "k_sigma_lines_filter.min_len: kept (the analysis has no statistic average)",
        ),
        (
            {"k_sigma_ratio_filter": {"min_ratio": 3}},
            "k_sigma_ratio_filter.min_ratio: kept (fewer than two rows have a value of ratio)",
        ),
        (
            {"k_sigma_length_filter": {"min_len": 3}},
            "k_sigma_length_filter.min_len: kept (length is not a number)",
        ),
    ],
)
def test_what_is_left_alone_is_explained(step, line):
    analysis = analysis_of(ratio=[float("nan"), None, 0.5], length=["a", "b", "c"])
    result = refine({"process": [step]}, analysis)
    assert result.recipe == {"process": [step]}
    assert [str(change) for change in result.changes] == [line]


def test_a_change_says_where_it_comes_from():
    process = [{"k_sigma_length_filter": {"min_len": 50}}]
    (change,) = refine({"process": process}, analysis_of(length=[800, 812, 824])).changes
    assert str(change) == "k_sigma_length_filter.min_len: 50 → 776 (mean 812 − 3 × std 12)"


def test_the_same_operator_twice_is_told_apart_by_position():
    process = [{"k_sigma_length_filter": {"min_len": 1}}, {"k_sigma_length_filter": {"max_len": 1}}]
    result = refine({"process": process}, analysis_of(**ANALYSIS_ROWS), 1)
    assert [(change.position, change.argument) for change in result.changes] == [(0, "min_len"), (1, "max_len")]


def test_the_recipe_given_is_not_changed_and_other_keys_stay():
    recipe = {"project_name": "p", "process": [{"k_sigma_length_filter": {"min_len": 1}}], "np": 4}
    before = copy.deepcopy(recipe)
    result = refine(recipe, analysis_of(**ANALYSIS_ROWS))
    assert recipe == before
    assert list(result.recipe) == ["project_name", "process", "np"]
    assert refine({"np": 4}, analysis_of(**ANALYSIS_ROWS)).recipe == {"np": 4}


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=20),
    st.lists(st.integers(0, 10**6), min_size=20, max_size=20),
    st.floats(0.01, 100),
)
def test_bounds_are_ordered_inside_the_range_and_valid(ratios, lengths, k):
    process = [
        {"k_sigma_ratio_filter": {"min_ratio": 0, "max_ratio": 1}},
        {"k_sigma_length_filter": {"min_len": 5, "max_len": 6}},
    ]
    analysis = analysis_of(ratio=ratios, length=lengths[: len(ratios)])
    first = refine({"process": process}, analysis, k)
    ratio, length = (next(iter(step.values())) for step in first.recipe["process"])
    assert 0 <= ratio["min_ratio"] <= ratio["max_ratio"] <= 1
    assert 0 <= length["min_len"] <= length["max_len"]
    for step in first.recipe["process"]:
        for name, arguments in step.items():
            OPERATORS.get(name)(**arguments)
    assert refine(first.recipe, analysis, k).recipe == first.recipe


@pytest.mark.parametrize("name", ["recipe.yaml", "recipe.yml", "recipe.json"])
def test_recipes_are_written_in_their_order(tmp_path, name):
    recipe = {"process": [{"x_filter": {"min": 0.1, "max": 3}}], "dataset_path": "データ.jsonl"}
    path = tmp_path / "new" / name
    write_recipe(recipe, path)
    text = path.read_text(encoding="utf-8")
    loaded = json.loads(text) if name.endswith("json") else yaml.safe_load(text)
    assert loaded == recipe
    assert list(loaded) == ["process", "dataset_path"]
    assert "データ" in text


@pytest.mark.parametrize("wrong", [{"path_k_sigma_recipe": "x.txt"}, {"k": 0}, {"k": float("inf")}, {"sigma": 1}])
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(ValidationError):
        KSigmaConfig.model_validate({**KSigmaConfig.example, **wrong})


def test_the_example_is_valid():
    assert KSigmaConfig.model_validate(KSigmaConfig.example).k == 3
