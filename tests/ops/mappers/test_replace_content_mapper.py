import pytest


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, "● ab 2024\n"),
        ({"pattern": "●.*a", "repl": "*"}, "*b 2024\n"),
        ({"pattern": r"r'b.*\n'", "repl": ""}, "● a"),
        ({"pattern": ["a", r"(\d)\d"], "repl": ["b", r"\1"]}, "● bb 22\n"),
        ({"pattern": ["a", "b"], "repl": "c"}, "● cc 2024\n"),
    ],
)
def test_replacements(mapped, parameters, expected):
    assert mapped("replace_content_mapper", ["● ab 2024\n"], **parameters) == [expected]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"pattern": "("}, "not a regular expression"),
        ({"pattern": ["a", "b"], "repl": ["c"]}, "1 texts for 2 patterns"),
    ],
)
def test_wrong_parameters(mapped, parameters, message):
    with pytest.raises(ValueError, match=message):
        mapped("replace_content_mapper", [], **parameters)
