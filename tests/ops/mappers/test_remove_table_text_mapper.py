import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("parameters", "text", "expected"),
    [
        ({}, "Title\na b c\n1 2 3\nend", "Title\nend"),
        ({}, "a b\nc d\ne f\n", "a b\n"),
        ({}, "x\na b\nc d", "x\na b\nc d"),
        ({}, "x\na b\n\n\nc|d\n\ny", "x\ny"),
        ({}, "x\na  b\nc d\n", "x\na  b\nc d\n"),
        ({"min_col": 3}, "x\na b\nc d\n", "x\na b\nc d\n"),
        ({"max_col": 2}, "x\na b c\nd e f\n", "x\na b c\nd e f\n"),
        ({"max_col": 2}, "x\na|b|c\nd e\n", "x\n"),
        ({}, "x\na b\nc d e\nf g h\ni j\nk l\n", "x\na b\n"),
    ],
)
def test_tables(mapped, parameters, text, expected):
    assert mapped("remove_table_text_mapper", [text, ""], **parameters) == [expected, ""]


def test_columns_have_bounds(mapped):
    with pytest.raises(ValueError, match="max_col"):
        mapped("remove_table_text_mapper", [], max_col=21)


PARTS = [
    "a",
    "bc",
    "|",
    "||",
    "\t",
    " ",
    "\n",
    "\n\n",
    "a b\n",
    "a|b\n",
    "a\tb c\n",
    "|a|b|\n",
    "\r",
    "\u3000",
    "\x1c",
    "\x85",
]
PARTS += ["\na b c\nd|e f\n"]


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(PARTS), max_size=20).map("".join), max_size=5), st.integers(2, 6))
def test_equals_the_expressions(mapped, texts, most):
    expected = texts
    for separators in range(1, most):
        pattern = regex.compile(rf"(?<=\n)((\S+?)([ |\t](\S+?)){{{separators}}}\n+){{2,}}")
        expected = [pattern.sub("", text) for text in expected]
    assert mapped("remove_table_text_mapper", texts, max_col=most) == expected
