import pytest

SOURCE = "%head\na %b\n50\\% c\n%\n%d\ne%"


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({}, "a\n50\\% c\ne%"),
        ({"inline": False}, "a %b\n50\\% c\ne%"),
        ({"multiline": False}, "%head\na\n50\\% c\n%\ne%"),
        ({"inline": False, "multiline": False}, SOURCE),
    ],
)
def test_comments(mapped, parameters, text):
    assert mapped("remove_comments_mapper", [SOURCE], **parameters) == [text]
