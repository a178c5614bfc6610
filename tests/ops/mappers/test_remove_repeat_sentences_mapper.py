import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("parameters", "text", "expected"),
    [
        ({}, "Good day. Good day. Bad day.\nGood day!", "Good day. Bad day.\n"),
        ({}, "你好。世界！你好，世界？你好。", "你好。世界！你好，世界？"),
        ({}, "A. A. Ab.", "A. A. Ab."),
        ({}, "Good day. good day.", "Good day. good day."),
        ({"lowercase": True}, "Good day. good day.", "Good day."),
        ({"ignore_special_character": False}, "Good day. Good-day. Good day.", "Good day. Good-day."),
        ({"min_repeat_sentence_length": 9}, "Good day. Good day.", "Good day. Good day."),
        ({"lowercase": True, "ignore_special_character": False}, "ΑΣ! ας! ασ! İx. i̇x. ΑΣ!", "ΑΣ! ασ! İx."),
        ({}, "He said “stop.” He said “stop.” Then.", "He said “stop.” Then."),
    ],
)
def test_sentences(mapped, parameters, text, expected):
    assert mapped("remove_repeat_sentences_mapper", [text, "Good day."], **parameters) == [expected, "Good day."]


def plain(text):
    """The operator in its simplest form, with default parameters."""
    seen, lines = set(), []
    for line in text.split("\n"):
        for pattern in (r"([.。!！？\?])", r"(\.{6})", r"(…{2})", r"([.。!！？\?\.{6}…{2}][’”])"):
            line = re.sub(pattern + "([^’”])", r"\1\n\2", line)
        left = []
        for sentence in line.split("\n"):
            key = re.sub("[^a-zA-Z0-9\u4e00-\u9fa5\n\t ]", "", sentence.strip())
            if len(key) < 2 or key not in seen:
                left.append(sentence)
            if len(key) >= 2:
                seen.add(key)
        lines.append("".join(left))
    return "\n".join(lines)


PARTS = [
    "ab.",
    "ab!",
    "好的。",
    "？",
    "a",
    "6”",
    "{’",
    "”",
    "’",
    "…",
    "……",
    ".",
    "......",
    "\n",
    " ",
    "\u3000",
    "-",
    "AB",
    "\x1c",
]


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(PARTS), max_size=30).map("".join), max_size=6))
def test_equals_the_plain_form(mapped, texts):
    assert mapped("remove_repeat_sentences_mapper", texts) == [plain(text) for text in texts]


def test_functions_in_recipes_are_refused(mapped):
    with pytest.raises(ValueError, match="not run"):
        mapped("remove_repeat_sentences_mapper", [], tokenizer="lambda text: [text]")
