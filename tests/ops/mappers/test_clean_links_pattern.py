import regex
from hypothesis import given
from hypothesis import strategies as st

from raysandbox.ops.mappers import clean_links_mapper

# What the operator's pattern is to match, written plainly: repetitions in repetitions, any way back.
NESTED = r"\((?:[^\s()<>]|\([^\s()<>]+\))*\)"
PLAIN = regex.compile(
    r"(?i)\b((?:[a-z][\w-]+:(?:/{1,3}|[a-z0-9%])|www\d{0,3}[.]|[a-z0-9.\-]+[.][a-z]{2,4}/)"
    rf"(?:[^\s()<>]|{NESTED})+(?:{NESTED}|[^\s`!()\[\]{{}};:'\".,<>?«»“”‘’]))"
)
PIECES = [*"a.b-_:/é Kſ(9w)", ".com/", "www.", "aa", "http:", "..", "--"]


@given(st.lists(st.sampled_from(PIECES), max_size=16).map("".join))
def test_matches_as_the_plain_pattern(text):
    assert clean_links_mapper._LINK.sub("#", text) == PLAIN.sub("#", text)


def test_a_long_token_of_dots_is_read_once():
    text = "aa." * 20_000 + "com/"  # takes hours with the plain pattern
    found = [clean_links_mapper._LINK.search(text + rest, timeout=20) for rest in ("page", "")]
    assert [link is not None for link in found] == [True, False]
