import importlib
import json
import sys
from pathlib import Path

import pytest

from raysandbox.core.errors import JobFailed
from raysandbox.executors.train import _modelscope_hub
from raysandbox.executors.train._megatron_shim import _megatron_stand_ins
from raysandbox.executors.train._modelscope_hub import read_configuration, resolve_model, without_hub

pytestmark = pytest.mark.usefixtures("modelscope_stack")

HUB_ID = "owner/model"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def model_at(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "configuration.json").write_text("{}")
    return path


def test_a_local_directory_is_itself(tmp_path):
    model = model_at(tmp_path / "model")
    assert resolve_model(str(model)) == model


def test_a_directory_without_configuration_is_refused(tmp_path):
    with pytest.raises(JobFailed, match=r"no ModelScope model directory: it has no configuration\.json"):
        resolve_model(str(tmp_path))


def test_a_cached_snapshot_is_found_without_a_network(cache):
    snapshot = model_at(cache / "models" / "owner--model" / "snapshots" / "master")
    assert resolve_model(HUB_ID) == snapshot


def test_an_unreachable_hub_is_one_error(cache, monkeypatch):
    monkeypatch.setattr(_modelscope_hub, "_HUB_URL", "http://127.0.0.1:9")
    with pytest.raises(JobFailed, match=r"'owner/model' is not cached in .*cache and .* cannot be reached"):
        resolve_model(HUB_ID, allow_download=True)


def test_without_leave_nothing_is_fetched(cache, monkeypatch):
    monkeypatch.setattr(_modelscope_hub, "_download", None)
    with pytest.raises(JobFailed, match="allow_download: true"):
        resolve_model(HUB_ID)


@pytest.mark.parametrize("text", ["nonsense", "[]"])
def test_a_broken_configuration_is_named(tmp_path, text):
    (tmp_path / "configuration.json").write_text(text)
    with pytest.raises(JobFailed, match=r"configuration\.json (is not JSON|does not hold)"):
        read_configuration(tmp_path)


def test_the_hub_is_not_asked_inside_and_may_be_outside():
    import modelscope.trainers.trainer as asking

    original = asking.check_local_model_is_latest
    with without_hub():
        assert asking.check_local_model_is_latest is not original
    assert asking.check_local_model_is_latest is original


def test_the_stand_ins_for_megatron_stay_only_for_the_import(monkeypatch):
    monkeypatch.setitem(sys.modules, "megatron_util", json)  # stands for an installed package
    with _megatron_stand_ins():
        model = importlib.import_module("megatron_util.model")
        with pytest.raises(
            NotImplementedError, match=r"megatron_util\.model\.AttnMaskType\.padding belongs to Megatron"
        ):
            model.AttnMaskType.padding()
    assert sys.modules["megatron_util"] is json
    assert "megatron_util.model" not in sys.modules
