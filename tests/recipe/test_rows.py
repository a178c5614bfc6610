import json
import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysandbox.recipe.rows import JSON_TEXT, decode_row, encode_row, has_long_number, table_of

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
)
ROWS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES)


def decode(line):
    return decode_row(line, long_numbers=has_long_number(line))


@given(ROWS, st.booleans())
def test_rows_survive_exactly(row, escaped):
    line = json.dumps(row, ensure_ascii=escaped).encode()
    again = decode(encode_row(decode(line)))
    assert again == row
    assert list(again) == list(row)
    assert repr(again) == repr(row)  # 1 is not 1.0, and True is not 1


@given(st.lists(ROWS))
def test_any_rows_make_a_table(rows):
    table = table_of(rows)
    assert table.num_columns == 0 or table.num_rows == len(rows)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "broken JSON"),
        (b'{"a": "\xff"}', "broken UTF-8 at byte 7"),
        (b"[1]", "not a JSON object but a list"),
        (b'"a"', "not a JSON object but a string"),
        (b"null", "not a JSON object but null"),
        (b"12345678901234567890123", "a number"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "too deeply"),
    ],
)
def test_bad_lines_say_why(line, reason):
    with pytest.raises(ValueError, match=reason):
        decode(line)


def test_not_a_number_is_read_and_written_as_null():
    row = decode(b'{"a": NaN, "b": 123456789012345678901234567890}')
    assert math.isnan(row["a"])
    assert encode_row(row) == b'{"a":null,"b":123456789012345678901234567890}'


def test_values_without_a_common_type_become_json_texts():
    table = table_of([{"a": 1}, {"a": "x"}, {}, {"a": [1, {"b": None}]}])
    assert table.schema.field("a").metadata == JSON_TEXT
    assert table.column("a").to_pylist() == ["1", '"x"', None, '[1,{"b":null}]']


def test_dates_in_strings_stay_strings():
    assert table_of([{"day": "2024-01-01T00:00:00"}]).schema.field("day").type == pa.large_string()
