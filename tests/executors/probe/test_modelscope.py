"""ModelScope's pipelines as probes: losses of a text generation model, verdicts of a classification."""

import json
import math
import pickle
import time
import warnings

import pyarrow as pa
import pytest

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.executors.base import MODEL_PROBES
from raysandbox.executors.probe.modelscope import ModelscopeProbe, _verdict
from tests.executors.conftest import WORDS, texts
from tests.executors.tiny_language_models import classifier

TABLE = pa.table({"text": pa.array([*texts(5), None, "the data"])})


def scored(table=TABLE, **config):
    scorer = pickle.loads(pickle.dumps(ModelscopeProbe.model_validate(config).scorer()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ModelScope's own
        columns = scorer.score(table, scorer.load())
    return {name: column.to_pylist() for name, column in columns.items()}


@pytest.fixture(scope="module")
def bert(modelscope_stack, tmp_path_factory):
    """A tiny classifier in ModelScope's layout."""
    import torch
    from safetensors.torch import load_file

    folder = tmp_path_factory.mktemp("models") / "bert"
    classifier(folder, WORDS, ["good", "bad"])
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(WORDS))]))
    configuration = {
        "framework": "pytorch",
        "task": "text-classification",
        "model": {"type": "bert"},
        "preprocessor": {"type": "sen-cls-tokenizer", "first_sequence": "sentence", "max_length": 32},
        "pipeline": {"type": "text-classification"},
    }
    (folder / "configuration.json").write_text(json.dumps(configuration))
    return folder


def test_it_is_registered_and_its_example_holds():
    assert MODEL_PROBES.get("modelscope") is ModelscopeProbe
    ModelscopeProbe.model_validate(ModelscopeProbe.example)


def test_text_generation_gives_losses(tiny_model):
    found = scored(task="text-generation", model=str(tiny_model), max_length=16)
    assert found["model_tokens"][5] is None
    assert found["model_loss"][5] is None
    assert all(0 < loss < 20 for loss in found["model_loss"][:5])
    assert found["model_tokens"][0] > found["model_tokens"][6] > 1


def test_a_classification_gives_labels(bert):
    started = time.perf_counter()
    found = scored(task="text-classification", model=str(bert), batch_size=2)
    assert time.perf_counter() - started < 10  # the hub is not asked
    for loss, score, label in zip(*found.values(), strict=True):
        if label is None:
            assert loss is score is None
        else:
            assert label in ("good", "bad")
            assert 0.5 <= score <= 1
            assert loss == pytest.approx(-math.log(score))
    assert found["model_label"].index(None) == 5


def test_blocks_without_text_are_fine(bert):
    empty = pa.table({"text": pa.nulls(2, pa.string())})
    assert scored(empty, task="text-classification", model=str(bert))["model_loss"] == [None, None]


def test_what_is_no_classification_is_named(bert):
    with pytest.raises(UserError, match="the pipeline of task 'summarization' gives text: a probe needs scores"):
        _verdict({"text": "x"}, "summarization")
    with pytest.raises(UserError, match=r"gives the score 3\.0, which is no probability"):
        _verdict({"scores": [3.0], "labels": ["a"]}, "regression")
    assert _verdict({"score": 0.5, "label": "a"}, "x").label == "a"
    with pytest.raises(JobFailed, match="model: the directory /no/model does not exist"):
        scored(task="text-classification", model="/no/model")
    with pytest.raises(JobFailed, match="ModelScope makes no pipeline for task 'no-such-task' of"):
        scored(task="no-such-task", model=str(bert))
