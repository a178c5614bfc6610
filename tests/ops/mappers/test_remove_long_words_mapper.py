import pytest


@pytest.mark.parametrize(
    ("parameters", "text", "expected"),
    [
        ({}, "  a  b \t c\n\n d \n", "a b\tc\nd"),
        ({}, "one two\tthree\nfour", "one two\tthree\nfour"),
        ({"max_len": 4}, "short longer! 'four' \n verylong\t x", "'four'\nx"),
        ({"min_len": 3, "max_len": 4}, "a bc def ...... (ab) ((ab))", "def (ab)"),
        ({"max_len": 3}, "toolong", ""),
    ],
)
def test_words(mapped, parameters, text, expected):
    assert mapped("remove_long_words_mapper", [text, "x"], **parameters) == [
        expected,
        "x" if "min_len" not in parameters else "",
    ]
