"""Model folders: found, whole, digested; nothing of them runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raysandbox.core.component import FetchedLater
from raysandbox.core.errors import UserError
from raysandbox.core.keys import DigestMemo
from raysandbox.executors._video.models.layout import (
    PipelineSource,
    fetch,
    local_folder,
    missing_weights_of,
    model_digest,
    read_layout,
)


@pytest.fixture
def copy(tiny_easyanimate: Path, tmp_path: Path) -> Path:
    """A tiny model that a test may damage."""
    return Path(shutil.copytree(tiny_easyanimate, tmp_path / "model"))


def cached(cache: Path, folder: Path) -> None:
    """Lays a model into a hub's cache as some/model at commit abc."""
    repository = cache / "models--some--model"
    shutil.copytree(folder, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")


def test_the_index_names_parts_and_settings(copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    index |= {"image_encoder": [None, None], "expand_timesteps": True}
    (copy / "model_index.json").write_text(json.dumps(index))
    layout = read_layout(copy)

    assert set(layout.parts) == {"scheduler", "text_encoder", "tokenizer", "transformer", "vae"}
    assert layout.encoders == ("text_encoder", "tokenizer")
    assert layout.settings == {"image_encoder": None, "expand_timesteps": True}


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "has no '_class_name'"),
        ("{}", "has no '_class_name'"),
        ('{"_class_name": ["pipeline", "Mine"]}', "a pipeline of its own code, which is not run here"),
    ],
)
def test_a_damaged_or_foreign_index_is_refused(index: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(index)

    with pytest.raises(UserError, match=message):
        read_layout(tmp_path, "model")


def test_code_beside_the_weights_is_refused(copy: Path) -> None:
    (copy / "transformer" / "diffusers.py").write_text("raise SystemExit")

    with pytest.raises(UserError, match=r"^model: .*transformer/diffusers.py would run"):
        read_layout(copy)


def test_a_folder_that_is_no_model_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no model_index.json: it is no model folder of diffusers"):
        read_layout(tmp_path)


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("vae/diffusion_pytorch_model.safetensors", "vae/*.safetensors"),
        ("transformer/config.json", "transformer/config.json"),
        ("text_encoder", "text_encoder/"),
        ("tokenizer", "tokenizer/"),
    ],
)
def test_missing_files_are_named_without_torch(lost: str, named: str, copy: Path) -> None:
    target = copy / lost
    shutil.rmtree(target) if target.is_dir() else target.unlink()

    assert f"lacks {named} " in str(missing_weights_of(str(copy)))


def test_pieces_of_weights_are_counted_by_their_index(copy: Path) -> None:
    vae = copy / "vae"
    (vae / "diffusion_pytorch_model.safetensors").rename(vae / "a.safetensors")
    index = vae / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "a.safetensors"}}))
    assert missing_weights_of(str(copy)) is None

    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    assert "lacks vae/b.safetensors" in str(missing_weights_of(str(copy)))

    index.write_text("{")
    assert "it is damaged" in str(missing_weights_of(str(copy)))


def test_a_model_of_the_hub_is_fetched_later(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert isinstance(missing_weights_of("some/model"), FetchedLater)

    cached(tmp_path / "hub", copy)
    assert missing_weights_of("some/model") is None
    assert fetch(PipelineSource("some/model"), weights=True) == local_folder("some/model")


def test_a_path_that_is_not_there_is_not_looked_up_on_the_hub() -> None:
    with pytest.raises(UserError, match=r"^my_key: there is no folder \./nowhere"):
        fetch(PipelineSource("./nowhere", key="my_key"), weights=False)
    assert missing_weights_of("./nowhere") is None  # reported as a path
    assert missing_weights_of(None) is None


def test_a_model_that_cannot_be_fetched_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(self: object, name: str, timeout: float) -> None:
        assert timeout <= 30  # minutes of retries otherwise
        raise ConnectionError("no network. More")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    with pytest.raises(UserError) as refused:
        fetch(PipelineSource("some/model"), weights=True)
    assert str(refused.value).startswith(
        "model: the model 'some/model' is not on this machine and cannot be fetched from the Hugging Face hub: "
        "no network (correct the name; or run `hf download some/model`"
    )


def test_a_model_is_fetched_by_diffusers_and_its_index_alone_where_that_does(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda self, name, timeout: None)
    asked: list[str] = []
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda name, file, **_: asked.append(file) or str(copy / file)
    )
    assert fetch(PipelineSource("some/model"), weights=False) == copy
    assert asked == ["model_index.json", "vae/config.json"]

    monkeypatch.setattr("diffusers.DiffusionPipeline.download", lambda name: str(copy / "whole"))
    assert fetch(PipelineSource("some/model"), weights=True) == copy / "whole"


def test_the_digest_follows_what_is_used(copy: Path, tmp_path: Path) -> None:
    memo = DigestMemo(tmp_path / "memo")
    source = PipelineSource(str(copy))
    before = model_digest(source, memo)
    (copy / "README.md").write_text("about")
    assert model_digest(source, memo) == before

    config = copy / "transformer" / "config.json"
    other = PipelineSource(str(copy), str(shutil.copytree(copy / "transformer", tmp_path / "other")))
    replaced = model_digest(other, memo)
    config.write_text(config.read_text() + "\n")
    assert model_digest(source, memo) != before
    assert model_digest(other, memo) == replaced != before
    # A file has no configuration of its own.
    weights = next((copy / "transformer").glob("*.safetensors"))
    single = PipelineSource(str(copy), str(shutil.copy(weights, tmp_path / "other.safetensors")))
    replaced = model_digest(single, memo)
    config.write_text(config.read_text() + "\n")
    assert model_digest(single, memo) != replaced
    replaced = model_digest(single, memo)
    weights.write_bytes(b"x")
    assert model_digest(single, memo) == replaced
    with pytest.raises(UserError, match="transformer_path: there is nothing at /nowhere"):
        model_digest(PipelineSource(str(copy), "/nowhere"), memo)


def test_a_model_of_the_hub_is_known_by_its_commit(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    cached(tmp_path / "hub", copy)
    memo = DigestMemo(tmp_path / "memo")

    assert model_digest(PipelineSource("some/model"), memo)
    assert not (tmp_path / "memo").exists()  # no file was read


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, raysandbox.executors._video.models.pipelines, raysandbox.executors._video.models.lora\n"
        "print([name for name in ('torch', 'diffusers', 'transformers', 'peft', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
