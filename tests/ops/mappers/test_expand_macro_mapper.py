import pytest


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        (
            "\\newcommand{\\R}{\\mathbb{R}}\nin \\R^n, \\Rx",
            "\\newcommand{\\mathbb{R}}{\\mathbb{R}}\nin \\mathbb{R}^n, \\Rx",
        ),
        ("\\def \\é{x}\n\\def\\a {é\\1}\n\\a.", "\\def \\é{x}\n\\defé\\1 {é\\1}\né\\1."),
        ("\\newcommand{\\f}[1]{#1}\n\\f{x}", "\\newcommand{\\f}[1]{#1}\n\\f{x}"),
        ("\\newcommand{\\a}{1}\n\\a\\a\\a \\a", "\\newcommand{1}{1}\n1\\a1 \\a"),
        ("\\a", "\\a"),
    ],
)
def test_macros(mapped, text, expanded):
    assert mapped("expand_macro_mapper", [text]) == [expanded]
