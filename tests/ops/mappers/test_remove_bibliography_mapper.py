import pytest


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("text\n\\bibliography{refs}\nmore", "text\n"),
        ("text \\begin{thebibliography} \\appendix", "text "),
        ("text \\appendices", "text \\appendices"),
        ("text \\appendixes", "text "),
        ("a \\bibliography{ b \\begin{references", "a \\bibliography{ b \\begin{references"),
        ("a} \\bibliography{ b \\begin{REFERENCES} c", "a} "),
        ("a} \\bibliography{ b \\appendix", "a} \\bibliography{ b "),
        ("\\begin{References}", "\\begin{References}"),
    ],
)
def test_ends(mapped, text, cut):
    assert mapped("remove_bibliography_mapper", [text]) == [cut]
