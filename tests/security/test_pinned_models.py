"""Rule 4: where code of a model may run, the commit that it comes from can be pinned, and is said otherwise."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from raysandbox.core.errors import UserError
from raysandbox.core.names import pinned
from raysandbox.ops import pretrained
from raysandbox.ops.pretrained import Source, hub_commit, load_part, missing_weights_of
from tests.executors.tiny_language_models import llama

OLD, NEW = "a" * 40, "b" * 40

CODE = """
from transformers import LlamaConfig
with open({mark!r}, "a") as file:
    file.write({commit!r} + " ")
class Config(LlamaConfig):
    model_type = "unheard_of"
"""


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """A cache of the hub with two commits of `org/model`; each notes that its code was run."""
    cache = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    model = Path(llama(tmp_path / "llama", ["a b c"]))
    for commit in (OLD, NEW):
        folder = shutil.copytree(model, cache / "models--org--model" / "snapshots" / commit)
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "unheard_of", "auto_map": {"AutoConfig": "configuration_x.Config"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "configuration_x.py").write_text(CODE.format(mark=str(tmp_path / "mark"), commit=commit))
    (cache / "models--org--model" / "refs").mkdir()
    (cache / "models--org--model" / "refs" / "main").write_text(NEW)
    return tmp_path / "mark"


def load(name: str) -> None:
    from transformers import AutoConfig

    load_part(Source("op: model", name, "cpu", 1, trust_remote_code=True), AutoConfig)


def test_the_code_of_the_commit_runs(hub, caplog):
    with caplog.at_level(logging.WARNING, logger=pretrained.__name__):
        load(f"org/model@{OLD}")
    assert set(hub.read_text().split()) == {OLD}
    assert caplog.messages == []


def test_without_one_the_commit_is_said(hub, caplog):
    with caplog.at_level(logging.WARNING, logger=pretrained.__name__):
        load("org/model")
    assert set(hub.read_text().split()) == {NEW}
    (said,) = caplog.messages
    assert f"now commit {NEW}" in said
    assert f"pin it as org/model@{NEW}" in said


def test_what_is_known_of_a_pinned_model(hub):
    assert hub_commit("org/model") == NEW
    assert hub_commit(f"org/model@{OLD}") == OLD
    assert hub_commit(f"org/model@{'c' * 40}") is None
    assert missing_weights_of(f"org/model@{OLD}") is None
    assert missing_weights_of(f"org/model@{'c' * 40}") is not None


def test_a_commit_is_one():
    assert pinned(f"org/model@{OLD}") == ("org/model", OLD)
    assert pinned("org/model@main") == ("org/model@main", None)
    assert pinned("org/model") == ("org/model", None)


def test_a_branch_is_none(hub):
    with pytest.raises(UserError, match="org/model@main"):
        load("org/model@main")
    assert not hub.exists()
