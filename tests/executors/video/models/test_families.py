"""What is particular to a family, and requests that it would refuse or round."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from raysandbox.core.errors import UserError
from raysandbox.executors._video.models.families import Family, check_request, family_if_local, family_of
from raysandbox.executors._video.options import GenerationOptions


def model(folder: Path, pipeline: str, vae: object | None = None) -> str:
    (folder / "vae").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    if vae is not None:
        (folder / "vae" / "config.json").write_text(json.dumps(vae))
    return str(folder)


@pytest.mark.parametrize(
    ("pipeline", "vae", "multiple", "step"),
    [
        ("EasyAnimatePipeline", {}, 16, 4),
        ("CogVideoXPipeline", {}, 16, 8),
        ("WanPipeline", {}, 16, 4),
        ("WanPipeline", {"scale_factor_spatial": 16}, 32, 4),
        ("WanPipeline", None, 16, 4),
        ("LTXPipeline", {}, 32, 8),
        ("HunyuanVideoPipeline", {}, 16, 4),
        ("MochiPipeline", {}, 16, 6),
        ("AnimateDiffPipeline", {}, 1, 1),
    ],
)
def test_a_family_is_known_by_its_index(pipeline: str, vae: object, multiple: int, step: int, tmp_path: Path) -> None:
    family = family_of(model(tmp_path / "model", pipeline, vae))

    assert (family.name, family.size_multiple, family.frame_step) == (pipeline, multiple, step)
    assert bool(family.encoded) == (pipeline != "AnimateDiffPipeline")
    assert family.safe_slicing == (pipeline != "EasyAnimatePipeline")


def test_nothing_is_fetched_to_look_at_a_model() -> None:
    assert family_if_local("nobody/has-this") is None
    assert family_if_local("/nowhere/at/all") is None


def test_the_index_of_a_cached_hub_model_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--some--model"
    model(repository / "snapshots" / "abc", "LTXPipeline")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")

    assert family_of("some/model").name == "LTXPipeline"


def test_the_sizes_of_a_hub_model_are_known_before_its_weights_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    there = Path(model(tmp_path / "there", "WanPipeline", {"scale_factor_spatial": 16}))
    index = {"_class_name": "WanPipeline", "vae": ["diffusers", "AutoencoderKLWan"]}
    (there / "model_index.json").write_text(json.dumps(index))
    repository = tmp_path / "models--some--model"

    def download(name: str, file: str, etag_timeout: float) -> str:
        target = repository / "snapshots" / "abc" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        return str(shutil.copy(there / file, target))

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda self, name, timeout: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert family_of("some/model").size_multiple == 32

    # An index that another program fetched alone.
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc" / "vae" / "config.json").unlink()
    assert family_of("some/model").size_multiple == 32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 100}, "height is 100: EasyAnimatePipeline needs a multiple of 16 (set 96 or 112)"),
        ({"width": 17}, "width is 17: EasyAnimatePipeline needs a multiple of 16 (set 16 or 32)"),
        ({"num_frames": 16}, "num_frames is 16: EasyAnimatePipeline needs 4k + 1 frames (set 13 or 17)"),
        ({"num_frames": 2}, "num_frames is 2: EasyAnimatePipeline needs 4k + 1 frames (set 1 or 5)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_those_that_do(settings: dict[str, int], message: str) -> None:
    family = Family("EasyAnimatePipeline", 16, 4)

    with pytest.raises(UserError) as refused:
        check_request(family, GenerationOptions.model_validate(settings))
    assert str(refused.value) == message


def test_sizes_that_fit_and_families_without_rules_pass() -> None:
    for settings in ({"height": 384, "width": 672, "num_frames": 49}, {"num_frames": 1}, {}):
        check_request(Family("EasyAnimatePipeline", 16, 4), GenerationOptions.model_validate(settings))
    odd = GenerationOptions.model_validate({"height": 101, "num_frames": 16})
    check_request(Family("AnimateDiffPipeline"), odd)
