import pytest


@pytest.mark.parametrize(
    ("chars", "expected"),
    [
        ("◆●■►▼▲▴∆▻▷❖♡□", ["ab-c", " x]^\n"]),
        ("a-]", ["●bc", "◆ x^\n"]),
        (["ab", "^", "\n"], ["●-c", "◆ x]"]),
        ("", ["●ab-c", "◆ x]^\n"]),
    ],
)
def test_characters(mapped, chars, expected):
    assert mapped("remove_specific_chars_mapper", ["●ab-c", "◆ x]^\n"], chars_to_remove=chars) == expected
