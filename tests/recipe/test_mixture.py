import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysandbox.recipe.mixture import Part, parse_dataset_path, row_quotas


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a.jsonl", [Part("a.jsonl")]),
        ("0.3 a.jsonl 0.7 b.parquet", [Part("a.jsonl", 0.3), Part("b.parquet", 0.7)]),
        ("a.jsonl 2 'b c.jsonl'", [Part("a.jsonl"), Part("b c.jsonl", 2.0)]),
        ("", []),
    ],
)
def test_parse(text, parts):
    assert parse_dataset_path(text) == parts


@pytest.mark.parametrize("text", ["0.3 0.7 a", "a 0.3", "-1 a", "nan a", "inf a", "0 a 0 b", "'a"])
def test_parse_refuses(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_dataset_path(text)


def test_a_name_with_blanks_is_one_path(tmp_path):
    path = tmp_path / "0.5 my file.jsonl"
    path.touch()
    assert parse_dataset_path(str(path)) == [Part(str(path))]


def test_quotas():
    assert row_quotas([1, 1], [10, 1000], None) == [10, 1000]
    assert row_quotas([0.3, 0.7], [100, 100], None) == [43, 100]
    assert row_quotas([0.3, 0.7], [100, 100], 10) == [3, 7]
    assert row_quotas([1, 1, 1], [100, 100, 100], 10) == [4, 4, 2]
    assert row_quotas([0, 1], [5, 5], None) == [0, 5]


@given(
    st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 50)), min_size=1, max_size=5),
    st.none() | st.integers(1, 100),
)
def test_quotas_stay_within_what_there_is(parts, wanted):
    weights, available = zip(*parts, strict=True)
    quotas = row_quotas(weights, available, wanted)
    assert all(0 <= quota <= rows for quota, rows in zip(quotas, available, strict=True))
    assert wanted is None or sum(quotas) <= wanted
