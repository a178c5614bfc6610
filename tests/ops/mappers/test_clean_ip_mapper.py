import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

# As Data-Juicer writes it.
V4 = r"(?:(?:1[0-9][0-9]\.)|(?:2[0-4][0-9]\.)|(?:25[0-5]\.)|(?:[1-9][0-9]\.)|(?:[0-9]\.)){3}"
V4 += r"(?:(?:1[0-9][0-9])|(?:2[0-4][0-9])|(?:25[0-5])|(?:[1-9][0-9])|(?:[0-9]))"
V6 = r"([\da-fA-F]{1,4}:){7}[\da-fA-F]{1,4}"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("from 192.168.0.255, to", "from <>, to"),
        ("2001:0db8:85a3:0000:0000:8a2e:0370:7334!", "<>!"),
        ("1.2.3 and 1:2:3:4", "1.2.3 and 1:2:3:4"),
        ("٠:1:2:3:4:5:6:٧", "<>"),
        ("...1.2.3.4.5", "...<>.5"),
    ],
)
def test_addresses(mapped, text, cleaned):
    assert mapped("clean_ip_mapper", [text], repl="<>") == [cleaned]


PARTS = ["1", "25", "256", ".", ".", ":", ":", "a", "F", "g", " ", "١", "１", "0:1:2:3:4:5:6", "1.2.3"]


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(PARTS), max_size=20).map("".join), max_size=6))
def test_equals_the_expression_on_whole_texts(mapped, texts):
    assert mapped("clean_ip_mapper", texts, repl="<>") == [regex.sub(f"{V4}|{V6}", "<>", text) for text in texts]


def test_own_pattern(mapped):
    assert mapped("clean_ip_mapper", ["port 80, 1.2.3.4"], pattern=r"port (\d+)", repl=r"\1") == ["80, 1.2.3.4"]
