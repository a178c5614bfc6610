import pytest


@pytest.mark.parametrize(
    ("parameters", "text", "expected"),
    [
        ({}, "see http://x.y or  www.z\nthe end", "see or\nthe end"),
        ({}, "// comment \t(www) a//b", "// comment"),  # without its special characters the first word is empty
        ({}, "nothing here", "nothing here"),
        ({"substrings": ["不好"]}, "很好 太不好了 a", "很好 a"),
        ({"substrings": []}, "a http://b", "a http://b"),
    ],
)
def test_words(mapped, parameters, text, expected):
    assert mapped("remove_words_with_incorrect_substrings_mapper", [text], **parameters) == [expected]


def test_tokenization_needs_a_tokenizer(mapped):
    with pytest.raises(ValueError, match="tokenizer"):
        mapped("remove_words_with_incorrect_substrings_mapper", [], tokenization=True)
