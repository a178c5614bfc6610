import pytest


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("\\documentclass{x}\n\\section*[s]{One} text \\part{Two}", "\\section*[s]{One} text \\part{Two}"),
        ("x \\subsubsection\n{a}", None),
        ("x \\subparagraph{a\n}", "\\subparagraph{a\n}"),
        ("x \\chapters{a}", None),
        ("x \\chapter \\section{", None),
        ("", None),
    ],
)
def test_headings(mapped, text, cut):
    assert mapped("remove_header_mapper", [text, "\\part{x}"], drop_no_head=False) == [cut or text, "\\part{x}"]
    assert mapped("remove_header_mapper", ["\\part{x}", text]) == ["\\part{x}", cut or ""]
