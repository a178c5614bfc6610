"""What every inference must be: an example that fits, a configuration that travels."""

import pickle

import pytest
import yaml

from raysandbox.core.component import PathRole, path_refs
from raysandbox.executors.base import INFERENCES
from raysandbox.executors.infer._text import TextInference
from raysandbox.hooks.infer_model import InferModelHook

NAMES = [name for name in INFERENCES.names() if issubclass(INFERENCES.get(name), TextInference)]


@pytest.mark.parametrize("name", NAMES)
def test_examples_travel(name):
    cls = INFERENCES.get(name)
    example = yaml.safe_load(yaml.safe_dump(dict(cls.example)))
    made = cls(**example)
    assert pickle.loads(pickle.dumps(made)) == made
    assert cls(**made.model_dump()) == made
    assert InferModelHook.component({"type": name, **example}) == made


@pytest.mark.parametrize("name", NAMES)
def test_paths_are_known_before_anything_runs(name):
    refs = list(path_refs(INFERENCES.get(name), {**INFERENCES.get(name).example, "dataset_path": ["a", "b"]}))
    assert [ref.path for ref in refs if ref.role is PathRole.INPUT] == ["a", "b"]
    assert [ref.path for ref in refs if ref.role is PathRole.OUTPUT] == ["./outputs/demo/inference"]
    assert len([ref for ref in refs if ref.role is PathRole.MODEL]) == (name != "api")
