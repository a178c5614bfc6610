"""Loading text-to-video pipelines: whole, in parts, with other weights; what is damaged is named."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysandbox.core.errors import MissingExtraError, UserError
from raysandbox.executors._video.models.families import family_of
from raysandbox.executors._video.models.pipelines import (
    PipelineSource,
    generate,
    load_encoders,
    load_pipeline,
    load_scheduler,
    load_transformer,
    load_vae,
    peak_memory,
)
from raysandbox.executors._video.options import GenerationOptions

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(tiny_easyanimate: Path, tmp_path: Path) -> Path:
    """A tiny model that a test may damage."""
    return Path(shutil.copytree(tiny_easyanimate, tmp_path / "model"))


def options(**settings: Any) -> GenerationOptions:
    sizes: dict[str, Any] = {"dtype": "fp32", "height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2}
    return GenerationOptions.model_validate({**sizes, **settings})


def video(source: PipelineSource, **settings: Any) -> np.ndarray:
    wanted = options(**settings)
    pipe = load_pipeline(source, "cpu", wanted)
    return generate(pipe, family_of(source.model), wanted, 1, prompt="a cat", encoded=None)


def change(file: Path, edit: Callable[[dict[str, Any]], None]) -> str:
    """Edits the weights of a file; returns the name of the first."""
    from safetensors.torch import load_file, save_file

    state = load_file(file)
    first = sorted(state)[0]
    edit(state)
    save_file(state, file)
    return first


def test_a_pipeline_is_ready_to_generate(tiny_easyanimate: Path) -> None:
    pipe = load_pipeline(PipelineSource(str(tiny_easyanimate)), "cpu", options())

    networks = (pipe.transformer, pipe.vae, pipe.text_encoder)
    assert not any(network.training for network in networks)
    assert not any(parameter.requires_grad for network in networks for parameter in network.parameters())
    assert pipe._progress_bar_config == {"disable": True}


def test_parts_are_loaded_alone(tiny_easyanimate: Path, tiny_wan: Path) -> None:
    import torch

    source = PipelineSource(str(tiny_easyanimate))
    without = load_pipeline(source, "cpu", options(), encoders=False)
    encoders = load_encoders(source, "cpu", options(dtype="bf16"))

    assert (without.text_encoder, without.tokenizer) == (None, None)
    assert (encoders.transformer, encoders.vae, encoders.scheduler) == (None, None, None)
    assert encoders.text_encoder.dtype == torch.bfloat16
    assert load_transformer(source, "cpu", "bf16").dtype == torch.bfloat16
    assert load_vae(source, "cpu", "fp16").dtype == torch.float16
    assert load_vae(PipelineSource(str(tiny_wan)), "cpu", "bf16").dtype == torch.float32  # as its makers advise
    assert type(load_scheduler(source)).__name__ == "FlowMatchEulerDiscreteScheduler"
    assert peak_memory("cpu") is None


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_halved_numbers_generate_on_a_cpu_too(dtype: str, tiny_easyanimate: Path) -> None:
    exact = video(PipelineSource(str(tiny_easyanimate)))
    halved = video(PipelineSource(str(tiny_easyanimate)), dtype=dtype)

    difference = np.abs(exact.astype(int) - halved).mean()
    assert 0 < difference < 5


def test_what_only_saves_memory_leaves_the_video_as_it_is(
    tiny_easyanimate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = PipelineSource(str(tiny_easyanimate))
    plain = video(source)

    assert np.array_equal(plain, video(source, offload="sequential", vae_slicing=True, attention_backend="native"))
    assert "offload: sequential has no effect without a GPU" in caplog.text
    assert "vae_slicing is left out: it fails in EasyAnimatePipeline" in caplog.text


def test_tiling_and_slicing_reach_the_autoencoder(tiny_easyanimate: Path, tiny_wan: Path) -> None:
    pipe = load_pipeline(PipelineSource(str(tiny_easyanimate)), "cpu", options(vae_tiling=True))
    assert pipe.vae.use_tiling
    wan = load_pipeline(PipelineSource(str(tiny_wan)), "cpu", options(vae_slicing=True))
    assert wan.vae.use_slicing


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, at its first import of the compiler
def test_compilation_is_asked_for(tiny_easyanimate: Path) -> None:
    pipe = load_pipeline(PipelineSource(str(tiny_easyanimate)), "cpu", options(compile=True))
    assert pipe.transformer._compiled_call_impl is not None


def test_an_unknown_attention_names_those_there_are(tiny_easyanimate: Path) -> None:
    with pytest.raises(UserError, match=r"^attention_backend: 'bogus' cannot be used: .*native"):
        video(PipelineSource(str(tiny_easyanimate)), attention_backend="bogus")


def test_other_weights_of_the_transformer_come_from_a_file_or_a_folder(tiny_easyanimate: Path, copy: Path) -> None:
    model = str(tiny_easyanimate)
    weights = copy / "transformer" / WEIGHTS
    plain = video(PipelineSource(model))
    assert np.array_equal(plain, video(PipelineSource(model, str(weights))))

    change(weights, lambda state: state.update({"proj_out.weight": state["proj_out.weight"] * 2}))
    changed = video(PipelineSource(model, str(weights)))
    assert not np.array_equal(plain, changed)
    assert np.array_equal(changed, video(PipelineSource(model, str(copy / "transformer"))))
    assert np.array_equal(changed, video(PipelineSource(model, str(copy))))
    assert np.array_equal(changed, video(PipelineSource(str(copy))))


def test_weights_of_a_file_that_do_not_fit_are_counted_and_named(tiny_easyanimate: Path, copy: Path) -> None:
    import torch

    weights = copy / "transformer" / WEIGHTS

    def spoil(state: dict[str, Any]) -> None:
        del state["norm_final.bias"]
        state["proj_out.bias"] = torch.zeros(3)
        state["alien"] = torch.zeros(3)

    change(weights, spoil)
    with pytest.raises(UserError) as refused:
        load_transformer(PipelineSource(str(tiny_easyanimate), str(weights)), "cpu", "fp32")
    assert str(refused.value).startswith(f"transformer_path: the weights of {weights} do not fit ")
    assert "1 missing (norm_final.bias); 1 unknown (alien); 1 of another shape (proj_out.bias), of " in str(
        refused.value
    )


def test_a_transformer_of_another_kind_is_refused(tiny_easyanimate: Path, tiny_wan: Path, tmp_path: Path) -> None:
    def load(path: Path) -> None:
        load_transformer(PipelineSource(str(tiny_easyanimate), str(path)), "cpu", "fp32")

    with pytest.raises(UserError, match=r"holds WanTransformer3DModel, and the model needs EasyAnimateTransformer3D"):
        load(tiny_wan)
    with pytest.raises(UserError, match=r"^transformer_path: there is nothing at /nowhere"):
        load(Path("/nowhere"))
    with pytest.raises(UserError, match=r"has no config.json"):
        load(tmp_path)
    pickled = tmp_path / "model.ckpt"
    pickled.write_bytes(b"")
    with pytest.raises(UserError, match=r"is no .safetensors file \(convert it; others may run code\)"):
        load(pickled)
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"1234567890")
    with pytest.raises(UserError, match=r"torn.safetensors cannot be read: .* \(copy it again\)"):
        load(torn)


@pytest.mark.parametrize("part", ["vae", "transformer", "text_encoder"])
def test_torn_weights_are_named(part: str, copy: Path) -> None:
    file = next((copy / part).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-50])

    with pytest.raises(UserError, match=rf"^model: .*{part}.* cannot be loaded as "):
        load_pipeline(PipelineSource(str(copy)), "cpu", options())


@pytest.mark.parametrize("part", ["vae", "transformer", "text_encoder"])
def test_missing_weights_are_not_made_up(part: str, copy: Path) -> None:
    file = next((copy / part).glob("*.safetensors"))
    name = change(file, lambda state: state.pop(sorted(state)[0]))

    with pytest.raises(UserError, match=rf"{part} is no .*: it lacks weights for .*{name.rpartition('.')[2]}"):
        load_pipeline(PipelineSource(str(copy)), "cpu", options())


def test_weights_that_nothing_uses_are_named(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    import torch

    change(copy / "vae" / WEIGHTS, lambda state: state.update(alien=torch.zeros(1)))
    with caplog.at_level(logging.WARNING):
        load_vae(PipelineSource(str(copy)), "cpu", "fp32")
    assert "has weights that AutoencoderKLMagvit does not use: alien" in caplog.text


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("NoSuchPipeline", r"has no NoSuchPipeline"),
        ("CogVideoXImageToVideoPipeline", r"needs image: it makes no videos from text alone"),
        ("StableDiffusionPipeline", r"StableDiffusionPipeline makes no videos from text"),
    ],
)
def test_pipelines_of_another_kind_are_refused(pipeline: str, message: str, copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "_class_name": pipeline}))

    with pytest.raises(UserError, match=message):
        load_pipeline(PipelineSource(str(copy)), "cpu", options())


def test_a_part_that_is_unknown_here_is_named(copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "vae": ["diffusers", "AutoencoderOfTomorrow"]}))

    with pytest.raises(UserError, match="needs AutoencoderOfTomorrow of diffusers for its vae"):
        load_vae(PipelineSource(str(copy)), "cpu", "fp32")
    index.pop("scheduler")
    (copy / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"\(EasyAnimatePipeline\) has no scheduler"):
        load_scheduler(PipelineSource(str(copy)))


def test_a_package_that_is_not_installed_is_named(tiny_easyanimate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match=r"A text-to-video model needs diffusers: pip install"):
        load_vae(PipelineSource(str(tiny_easyanimate)), "cpu", "fp32")
