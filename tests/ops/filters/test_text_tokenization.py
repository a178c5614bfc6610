"""`tokenization: true`: what it needs, and what loading may fail at."""

import json

import numpy as np
import pyarrow as pa
import pytest

from raysandbox.core.component import PathRole, path_refs
from raysandbox.core.errors import UserError
from raysandbox.ops.base import OPERATORS
from raysandbox.ops.batch import Batch
from raysandbox.ops.tokenization import Splitter, load_hf_tokenizer, load_splitter, words_of
from raysandbox.recipe.problems import recipe_problems

TOKENIZING = [
    "alphanumeric_filter",
    "flagged_words_filter",
    "stopwords_filter",
    "word_repetition_filter",
    "words_num_filter",
]


def batch_of(*texts):
    return Batch(pa.table({"text": pa.array(texts, pa.string())}))


@pytest.mark.parametrize("name", TOKENIZING)
def test_a_tokenizer_is_required(name):
    example = dict(OPERATORS.get(name).example)
    (problem,) = recipe_problems({"process": [{name: {**example, "tokenization": True}}]})
    assert problem.path[-1] == "tokenizer"
    assert "is required with `tokenization: true`" in problem.message
    assert recipe_problems({"process": [{name: {**example, "tokenization": True, "tokenizer": "./some.model"}}]}) == []


@pytest.mark.parametrize("name", TOKENIZING)
def test_the_tokenizer_is_a_model(name):
    (ref,) = [ref for ref in path_refs(OPERATORS.get(name), {"tokenizer": "m"}) if ref.role is PathRole.MODEL]
    assert ref.key == ("tokenizer",)


def test_without_tokenization_the_tokenizer_is_not_loaded():
    assert OPERATORS.get("words_num_filter")(tokenizer="./nowhere").load() is None


def test_pieces_are_stripped_and_lowered_one_by_one():
    splitter = Splitter("letters", lambda texts: [list(text) for text in texts])
    batch = batch_of("Ab, Σ", "", "!!", "x")
    found = words_of(batch, splitter, lower=True)
    assert [found.codes[a:b].tobytes().decode("utf-32-le") for a, b in zip(found.starts, found.ends, strict=True)] == [
        *"abσx"
    ]
    assert (found.firsts.tolist(), found.lasts.tolist()) == ([0, 3, 3, 3], [3, 3, 3, 4])
    left = words_of(batch.select(np.array([False, True, False, True])), splitter, lower=True)
    assert (left.lasts - left.firsts).tolist() == [0, 1]
    assert words_of(batch, splitter, lower=False).codes[0] == ord("A")


def test_letters_by_tokens():
    operator = OPERATORS.get("alphanumeric_filter")(tokenization=True, tokenizer="pairs", min_ratio=1.5)
    pairs = Splitter("pairs", lambda texts: [[text[i : i + 2] for i in range(0, len(text), 2)] for text in texts])
    stats = operator.compute(batch_of("abcd", "ab12", ""), pairs)
    assert stats["alpha_token_ratio"].to_pylist() == [2, 1, 0]
    assert operator.keep(stats).tolist() == [True, False, False]


def test_a_file_that_is_no_model(tmp_path):
    path = tmp_path / "broken.model"
    path.write_text("no model")
    with pytest.raises(UserError, match=r"broken\.model is not a sentencepiece model"):
        load_splitter(str(path))


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"^tokenizer: there is no folder"):
        load_splitter(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"^token_num_filter: hf_tokenizer: there is no folder"):
        OPERATORS.get("token_num_filter")(hf_tokenizer=str(tmp_path / "none")).load()


def test_whole_texts_are_tokenized(tmp_path):
    """Also where the tokenizer was saved with a limit, padding and special tokens of a model."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "a": 2, "b": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(pad_token="[UNK]")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=3).save_pretrained(tmp_path)
    operator = OPERATORS.get("token_num_filter")(hf_tokenizer=str(tmp_path))
    state = operator.load()
    long = "a b " * 50
    assert operator.compute(batch_of(long, "", "a c"), state)["num_token"].to_pylist() == [100, 0, 2]
    assert operator.compute(batch_of(*["a"] * 300), state)["num_token"].to_pylist() == [1] * 300
    splitter = load_splitter(str(tmp_path))
    assert splitter.pieces(batch_of(long, "a c")) == [["a", "b"] * 50, ["a", "[UNK]"]]


def test_a_tokenizer_without_a_fast_form(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"<unk>": 0, "a": 1}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CTRLTokenizer"}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(UserError, match="has no fast tokenizer"):
        load_hf_tokenizer("tokenizer", str(tmp_path))
