import pytest


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, "你好, world 42（）"),
        ({"keep_alphabet": False}, "你好,  42（）"),
        ({"keep_number": False, "keep_punc": False}, "你好world"),
    ],
)
def test_characters(mapped, parameters, expected):
    texts = ["你好, world\n 42（é）", "\n\u9fa6", ""]
    assert mapped("remove_non_chinese_character_mapper", texts, **parameters) == [expected, "", ""]
