"""What every inference must be: an example that fits, a configuration that travels."""

import pickle

import pytest
import yaml

from raysandbox.core.component import PathRole, path_refs
from raysandbox.core.errors import UserError
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


@pytest.mark.parametrize("name", NAMES)
def test_null_is_the_default(name):
    cls = INFERENCES.get(name)
    keys = ["model_params", "sampling_params", "func_kwargs", "api_endpoint", "response_path", "max_retry_num"]
    example = {key: value for key, value in cls.example.items() if key not in keys}
    assert cls(**example, **dict.fromkeys(keys)) == cls(**example)


@pytest.mark.parametrize("name", ["huggingface", "vllm"])
def test_a_relative_folder_is_sent_to_workers_by_its_whole_path(name, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    cls = INFERENCES.get(name)
    for given in ("model", "./model"):
        assert cls(**{**cls.example, "model": given})._work().model == str(tmp_path / "model")
    assert cls(**{**cls.example, "model": "some/name"})._work().model == "some/name"


@pytest.mark.parametrize("name", ["huggingface", "vllm"])
def test_keys_of_servers_are_named_in_one_warning(name, session, caplog, tmp_path):
    cls = INFERENCES.get(name)
    config = {**cls.example, "dataset_path": str(tmp_path / "absent.jsonl")}
    more = {"api_endpoint": "https://host/v1", "response_path": None, "max_retry_num": 3}
    with pytest.raises(UserError, match="there is no file"):
        cls(**config, **more).infer(session)
    (record,) = caplog.records
    assert record.getMessage() == f"{name}: no effect here, where no server is asked: api_endpoint, max_retry_num"
    caplog.clear()
    with pytest.raises(UserError, match="there is no file"):
        cls(**config).infer(session)
    assert not caplog.records
