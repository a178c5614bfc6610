"""Stop words and flagged words: where the lists come from, and what is wrong with some."""

import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysandbox.core.errors import UserError
from raysandbox.ops.base import OPERATORS
from raysandbox.ops.batch import Batch
from raysandbox.ops.word_lists import Listed
from raysandbox.recipe.problems import recipe_problems


def stopwords(**parameters):
    return OPERATORS.get("stopwords_filter")(**parameters)


def ratios(operator, texts, state=None):
    batch = Batch(pa.table({"text": pa.array(texts, pa.string())}))
    return operator.compute(batch, state or operator.load())["stopwords_ratio"].to_pylist()


def test_lists_of_the_package():
    assert ratios(stopwords(), ["The fox and the hound.", "", "Fuchs Hund"]) == [3 / 5, 0, 0]
    assert ratios(stopwords(lang="de"), ["Der Fuchs und der Hund"]) == [3 / 5]
    assert ratios(stopwords(lang="all"), ["the und der et fox"]) == [4 / 5]


def test_a_file_or_a_folder(tmp_path):
    (tmp_path / "stopwords.json").write_text(json.dumps({"en": ["fox"], "xx": ["hound"]}))
    (tmp_path / "flagged_words.json").write_text(json.dumps({"en": ["hound"]}))
    (tmp_path / "stopwords.txt").write_text("hound")
    for path in (tmp_path, tmp_path / "stopwords.json"):
        assert ratios(stopwords(stopwords_dir=str(path)), ["the fox, the hound"]) == [1 / 4]
        assert ratios(stopwords(stopwords_dir=str(path), lang="all"), ["the fox, the hound"]) == [2 / 4]


def test_all_may_be_a_list_of_its_own(tmp_path):
    (tmp_path / "words.json").write_text(json.dumps({"en": ["fox"], "all": ["hound", "the"]}))
    operator = stopwords(stopwords_dir=str(tmp_path / "words.json"), lang="all")
    assert ratios(operator, ["the fox, the hound"]) == [3 / 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a word list"),
        ('{"en": "the"}', "is not a word list"),
        ('{"en": [1]}', "is not a word list"),
        ('{"de": ["der"]}', "stopwords_filter: lang: no 'en' in .* \\(there are: de, all\\)"),
    ],
)
def test_wrong_lists(content, message, tmp_path):
    path = tmp_path / "words.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        stopwords(stopwords_dir=str(path)).load()


def test_no_list(tmp_path):
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(UserError, match=r"no word list at .*give a JSON file, or a folder"):
            stopwords(stopwords_dir=str(path)).load()


def test_flagged_words_need_a_list():
    (problem,) = recipe_problems({"process": ["flagged_words_filter"]})
    assert problem.path == ("process", 0, "flagged_words_filter", "flagged_words_dir")
    assert "is required: no list comes with raysandbox" in problem.message


def test_a_language_without_a_list():
    (problem,) = recipe_problems({"process": [{"stopwords_filter": {"lang": "english"}}]})
    assert problem.path[-1] == "stopwords_dir"
    assert problem.message == "is required: the package stopwordsiso has no list of the language 'english'"


WORDS = st.sampled_from(["a", "b", "ab", "ba", "aa", "A", "b!", "é", "你", "你好"])


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.lists(WORDS, max_size=8), min_size=1, max_size=5), listed=st.frozensets(WORDS, min_size=1))
def test_counts_are_exact(rows, listed):
    expected = [[word.lower().strip("!") for word in row] for row in rows]
    expected = [sum(word in listed for word in row) / max(len(row), 1) for row in expected]
    assert ratios(stopwords(), [" ".join(row) for row in rows], Listed(listed, None)) == expected


def test_joined_neighbours():
    operator = stopwords(use_words_aug=True, words_aug_group_sizes=[2, 3])
    state = Listed(frozenset({"ab", "abc", "c"}), None)
    assert ratios(operator, ["a b c", "c", ""], state) == [3 / 6, 1, 0]  # a, b, c, ab, bc, abc
