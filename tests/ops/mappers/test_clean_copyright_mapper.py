import pytest


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("/* (c) COPYRIGHT\n * me **/\ncode", "\ncode"),
        ("code /* note */ /* copyright */", "code /* note */ /* copyright */"),
        ("# note\n/* note */", "# note\n/* note */"),
        ("# me\n\n// you\n-- us\nx = 1\n# them", "x = 1\n# them"),
        ("# copyright\n/* not closed", "/* not closed"),
        ("/*/ copyright */ x", " x"),
        (" # x", " # x"),
        ("#", ""),
        ("", ""),
    ],
)
def test_notices(mapped, text, cleaned):
    assert mapped("clean_copyright_mapper", [text]) == [cleaned]
