import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One &amp; <b>two</b></p>", "One & two"),
        ("a<ol><li>x</li><li>y</li></ol>", "a\n*\n*x\n*y"),
        ("1 < 2 & 3 > 2", "1 < 2 & 3 > 2"),
        ("  indented\r\nlines ", "indented\nlines "),
        ("a\0b<!-- c -->", "ab"),
        ("", ""),
    ],
)
def test_text_of_html(mapped, html, text):
    assert mapped("clean_html_mapper", [html]) == [text]


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("<>&#;/!?aZ1 \t\n\r\f\v\0é\ufeff\x85"), max_size=12), max_size=5))
def test_other_texts_are_as_the_parser_has_them(mapped, texts):
    """Texts without a tag that is replaced first: whether the sign is exact."""
    assert mapped("clean_html_mapper", texts) == [LexborHTMLParser(text).text() for text in texts]


def test_every_character_alone_or_at_the_start(mapped):
    codes = [code for code in [*range(0x3000), *range(0xD7F0, 0x10100), *range(0x1FF00, 0x20100)]]
    texts = [text for code in codes if not 0xD800 <= code < 0xE000 for text in (chr(code), f"x{chr(code)}y")]
    assert mapped("clean_html_mapper", texts) == [LexborHTMLParser(text).text() for text in texts]
