import math
import statistics

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysandbox.analysis.summary import Analysis, summarise

NAN = float("nan")
numbers = st.one_of(
    st.none(),
    st.just(NAN),
    st.integers(-1000, 1000).map(float),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e100, max_value=1e100),
)


def summary_of(values, **options):
    return summarise(pa.table({"x": values}), **options).numeric["x"]


def test_numbers_are_described_as_by_hand():
    values = [4.0, 1.0, 3.0, 2.0, 10.0]
    summary = summary_of(values, percentiles=(0.25, 0.9))
    assert (summary.count, summary.missing) == (5, 0)
    assert summary.mean == 4.0
    assert summary.std == pytest.approx(statistics.stdev(values))
    assert (summary.min, summary.max) == (1.0, 10.0)
    assert summary.percentiles == pytest.approx((2.0, 7.6))


def test_nulls_nans_and_infinities_are_missing():
    summary = summary_of([1.0, None, NAN, math.inf, -math.inf, 3.0])
    assert (summary.count, summary.missing, summary.mean) == (2, 4, 2.0)


@pytest.mark.parametrize("values", [pa.array([], pa.float64()), pa.nulls(3), pa.array([NAN, NAN])])
def test_without_numbers_nothing_is_computed(values):
    summary = summary_of(values)
    assert (summary.count, summary.missing) == (0, len(values))
    assert summary.mean is summary.std is summary.histogram is None
    assert summary.percentiles == (None, None, None)


def test_one_value_has_no_spread():
    summary = summary_of([7])
    assert (summary.mean, summary.std, summary.min, summary.max) == (7.0, None, 7.0, 7.0)


def test_lists_are_flattened_and_take_no_part_in_correlations():
    analysis = summarise(pa.table({"widths": [[1, 2], [], None, [3, None]], "n": [1, 2, 3, 4]}))
    assert (analysis.numeric["widths"].count, analysis.numeric["widths"].missing) == (3, 2)
    assert analysis.numeric["widths"].mean == 2.0
    assert analysis.correlation.names == ("n",)


def test_booleans_count_as_zero_and_one():
    assert summary_of([True, False, True, True]).mean == 0.75


def test_strings_are_counted():
    table = pa.table({"lang": pa.array(["en", "zh", "de", "zh", None, "en"]).dictionary_encode()})
    text = summarise(table).text["lang"]
    assert (text.count, text.missing, text.distinct) == (5, 1, 3)
    assert text.top == (("en", 2), ("zh", 2), ("de", 1))


def test_other_types_are_named():
    assert summarise(pa.table({"box": [{"x": 1}], "n": [1]})).ignored == ("box",)


def test_whole_numbers_get_a_bin_each():
    histogram = summary_of([1, 1, 2, 5]).histogram
    assert histogram.edges == (0.5, 1.5, 2.5, 3.5, 4.5, 5.5)
    assert histogram.counts == (2, 1, 0, 0, 1)


def test_skewed_positive_values_get_bins_of_equal_ratio():
    values = np.exp(np.random.default_rng(0).normal(7, 1.5, 5000))
    histogram = summary_of(values).histogram
    ratios = np.divide(histogram.edges[1:], histogram.edges[:-1])
    assert histogram.scale == "log"
    assert np.allclose(ratios, ratios[0])
    assert summary_of(np.linspace(0, 1, 500)).histogram.scale == "linear"


def test_correlations_are_those_of_the_definition():
    rng = np.random.default_rng(1)
    x = rng.normal(size=200)
    y = x + rng.normal(size=200)
    correlation = summarise(pa.table({"x": x, "y": y, "cube": x**3, "same": np.ones(200)})).correlation
    assert correlation.pearson[0][1] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert correlation.spearman[0][2] == pytest.approx(1.0)
    assert correlation.pearson[0][2] < 0.99
    assert correlation.pearson[0][3] is None
    assert correlation.pearson[3][3] is None


def test_correlations_use_rows_where_both_are_present():
    correlation = summarise(pa.table({"x": [1.0, 2.0, None, 3.0, 9.0], "y": [3.0, 2.0, 5.0, 1.0, None]})).correlation
    assert correlation.pearson[0][1] == correlation.spearman[1][0] == pytest.approx(-1.0)


def test_equal_values_share_their_rank():
    correlation = summarise(pa.table({"x": [1, 1, 2, 3], "y": [5, 6, 6, 9]})).correlation
    assert correlation.spearman[0][1] == pytest.approx(np.corrcoef([1.5, 1.5, 3, 4], [1, 2.5, 2.5, 4])[0, 1])


@given(st.lists(st.tuples(numbers, numbers), max_size=40), st.integers(1, 7))
def test_the_result_does_not_depend_on_chunks(rows, chunk):
    table = pa.table({name: pa.array([row[i] for row in rows], pa.float64()) for i, name in enumerate("ab")})
    chunks = [table.slice(start, chunk) for start in range(0, len(rows), chunk)]
    chunked = pa.concat_tables(chunks) if chunks else table
    assert summarise(chunked).to_json() == summarise(table).to_json()


@given(st.lists(numbers, max_size=60))
def test_summaries_hold_together(values):
    analysis = summarise(pa.table({"x": pa.array(values, pa.float64())}))
    summary = analysis.numeric["x"]
    assert summary.count + summary.missing == len(values)
    assert Analysis.from_json(analysis.to_json()) == analysis
    if summary.count:
        assert summary.min <= summary.percentiles[0] <= summary.percentiles[1] <= summary.percentiles[2] <= summary.max
        assert sum(summary.histogram.counts) == summary.count
        assert len(summary.histogram.edges) == len(summary.histogram.counts) + 1
        assert sorted(summary.histogram.edges) == list(summary.histogram.edges)
