"""Losses of texts: equal to transformers' own, whatever else is in the batch."""

import math

import pytest

from raysandbox.core.errors import UserError
from raysandbox.executors._causal_lm import LanguageModel, Window, windows
from tests.executors.conftest import texts
from tests.executors.tiny_language_models import classifier, llama


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("models") / "llama", texts(18))


@pytest.fixture(scope="module")
def varied():
    return [" ".join(texts(9, offset)[: 1 + offset % 9])[: 7 + 31 * (offset % 13)] for offset in range(20)]


def by_transformers(folder, text, max_length, stride):
    """The loop of transformers' guide, with every loss times the tokens that it is the mean of."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    total, tokens, last_end = 0.0, 0, 0
    for begin in range(0, ids.shape[1], stride):
        end = min(begin + max_length, ids.shape[1])
        piece = ids[:, begin:end]
        labels = piece.clone()
        labels[:, : -(end - last_end)] = -100
        count = int((labels[:, 1:] != -100).sum())
        if count:
            total += model(piece, labels=labels).loss.item() * count
        tokens, last_end = tokens + count, end
        if end == ids.shape[1]:
            break
    return total, tokens


def test_windows_slide():
    assert list(windows(5, 8, 4)) == [Window(0, 5, 1)]
    assert list(windows(10, 4, 2)) == [Window(0, 4, 1), Window(2, 6, 4), Window(4, 8, 6), Window(6, 10, 8)]
    assert list(windows(5, 4, 4)) == [Window(0, 4, 1)]  # the fifth has nothing before it
    assert list(windows(6, 4, 4)) == [Window(0, 4, 1), Window(4, 6, 5)]
    assert [list(windows(tokens, 4, 2)) for tokens in (0, 1)] == [[], []]
    for tokens in range(1, 60):
        scored = [at for one in windows(tokens, 8, 3) for at in range(one.scored, one.end)]
        assert scored == list(range(1, tokens))


@pytest.mark.parametrize(("max_length", "stride"), [(None, None), (16, 4), (16, 16), (2, 1)])
def test_losses_are_those_of_transformers(model, varied, max_length, stride):
    loaded = LanguageModel(model, "huggingface", max_length=max_length, stride=stride, batch_size=7).load("cpu")
    assert (loaded.max_length, loaded.stride) == (max_length or 32, stride or 16)
    for text, loss in zip(varied, loaded.losses(varied), strict=True):
        total, tokens = by_transformers(model, text, loaded.max_length, loaded.stride)
        assert loss.tokens == tokens
        assert math.isclose(loss.total, total, rel_tol=1e-6)


def test_the_rest_of_the_batch_does_not_matter(model, varied):
    by_size = [LanguageModel(model, "huggingface", batch_size=size).load("cpu").losses(varied) for size in (1, 3, 64)]
    for one, three, many in zip(*by_size, strict=True):
        assert one.tokens == three.tokens == many.tokens
        assert many.total == pytest.approx(one.total, rel=1e-6)
        assert three.total == pytest.approx(one.total, rel=1e-6)
    assert LanguageModel(model, "huggingface").load("cpu").losses([]) == []


def test_what_does_not_fit_is_named(model, tmp_path):
    with pytest.raises(UserError, match=r"max_length is 64, and the model '.*' sees 32 tokens"):
        LanguageModel(model, "huggingface", max_length=64).load("cpu")
    with pytest.raises(UserError, match=r"stride is 40, more than max_length \(32\)"):
        LanguageModel(model, "huggingface", stride=40).load("cpu")
    with pytest.raises(UserError, match="there is no folder /no/model"):
        LanguageModel("/no/model", "huggingface").load("cpu")
    other = classifier(tmp_path / "bert", texts(18), ["good", "bad"])
    with pytest.raises(UserError, match="is no AutoModelForCausalLM: it has no weights for"):
        LanguageModel(other, "huggingface").load("cpu")


def test_code_beside_the_weights_does_not_run_unasked(tmp_path):
    folder = llama(tmp_path / "model", texts(3))
    (tmp_path / "model" / "custom_generate").mkdir()
    (tmp_path / "model" / "custom_generate" / "generate.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError, match=r"generate\.py would run when the model is loaded: set trust_remote_code"):
        LanguageModel(folder, "huggingface").load("cpu")
    assert not (tmp_path / "ran").exists()


def test_a_model_of_modelscopes_own_class(tiny_model):
    loaded = LanguageModel(str(tiny_model), "modelscope", max_length=16).load("cpu")
    first, second = loaded.losses([texts(1)[0], " ".join(texts(4))])
    assert first.tokens == len(loaded.encode([texts(1)[0]])[0]) - 1
    assert 0 < first.total / first.tokens < 20
    assert second.tokens > 3 * first.tokens
    with pytest.raises(UserError, match="model: the directory /no/model does not exist"):
        LanguageModel("/no/model", "modelscope").load("cpu")


def test_a_model_of_modelscopes_hub_that_transformers_knows(modelscope_stack, tmp_path):
    folder = tmp_path / "llama"
    llama(folder, texts(18))
    (folder / "configuration.json").write_text('{"framework": "pytorch", "task": "text-generation"}')
    models = [LanguageModel(str(folder), hub) for hub in ("huggingface", "modelscope")]
    assert models[0].load("cpu").losses(texts(3)) == models[1].load("cpu").losses(texts(3))
