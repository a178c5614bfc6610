"""One video per call: the same bits again and again, with encoded prompts and without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.executors._video.models.families import Family, check_request, family_of
from raysandbox.executors._video.models.pipelines import (
    PipelineSource,
    encode_prompts,
    generate,
    load_encoders,
    load_pipeline,
)
from raysandbox.executors._video.options import GenerationOptions
from tests.executors.video.tiny_pipelines import SIZES

EASYANIMATE = Family("EasyAnimatePipeline", 16, 4)


def options(name: str = "easyanimate", **settings: Any) -> GenerationOptions:
    frames, height, width = SIZES[name]
    sizes = {"dtype": "fp32", "height": height, "width": width, "num_frames": frames, "num_inference_steps": 2}
    return GenerationOptions.model_validate({**sizes, **settings})


@pytest.fixture(scope="module")
def pipe(tiny_easyanimate: Path) -> Any:
    """A tiny EasyAnimate, loaded."""
    return load_pipeline(PipelineSource(str(tiny_easyanimate)), "cpu", options())


@pytest.mark.filterwarnings("ignore:In CPU autocast")  # of Mochi
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("guidance", [None, 1.0])
def test_encoded_prompts_give_the_same_bits(
    name: str, guidance: float | None, tiny_models: Callable[[str], Path]
) -> None:
    source = PipelineSource(str(tiny_models(name)))
    family, wanted = family_of(source.model), options(name, guidance_scale=guidance, negative_prompt="grey")
    check_request(family, wanted)
    whole = load_pipeline(source, "cpu", wanted)
    plain = generate(whole, family, wanted, 1, prompt="cat", encoded=None)

    encoded = encode_prompts(load_encoders(source, "cpu", wanted), family, "cat", wanted)
    bare = load_pipeline(source, "cpu", wanted, encoders=False)
    assert np.array_equal(plain, generate(bare, family, wanted, 1, prompt=None, encoded=encoded))
    assert (plain.shape, plain.dtype) == ((*SIZES[name], 3), np.uint8)
    assert plain.std() > 1
    # Neither the seed nor the prompt may be lost on the way.
    assert not np.array_equal(plain, generate(bare, family, wanted, 2, prompt=None, encoded=encoded))
    assert not np.array_equal(plain, generate(whole, family, wanted, 1, prompt="dog", encoded=None))
    # What was generated before does not matter.
    assert np.array_equal(plain, generate(whole, family, wanted, 1, prompt="cat", encoded=None))


def test_a_negative_prompt_that_is_encoded_apart_counts(tiny_models: Callable[[str], Path]) -> None:
    source = PipelineSource(str(tiny_models("hunyuan")))
    family = family_of(source.model)
    whole = load_pipeline(source, "cpu", options("hunyuan"))

    def both(**settings: Any) -> np.ndarray:
        wanted = options("hunyuan", **settings)
        plain = generate(whole, family, wanted, 1, prompt="cat", encoded=None)
        encoded = encode_prompts(whole, family, "cat", wanted)
        assert np.array_equal(plain, generate(whole, family, wanted, 1, prompt=None, encoded=encoded))
        return plain

    guided = both(negative_prompt="grey", arguments={"true_cfg_scale": 4.0})
    assert not np.array_equal(guided, both(negative_prompt="grey"))
    assert not np.array_equal(guided, both(negative_prompt="loud", arguments={"true_cfg_scale": 4.0}))
    both(negative_prompt="grey", arguments={"true_cfg_scale": 4.0, "prompt_2": "x", "negative_prompt_2": "y"})


def test_arguments_of_the_encoder_are_passed_on(tiny_easyanimate: Path, tiny_ltx: Path) -> None:
    source = PipelineSource(str(tiny_ltx))
    wanted = options("ltx", arguments={"max_sequence_length": 16})
    encoded = encode_prompts(load_encoders(source, "cpu", wanted), family_of(source.model), "cat", wanted)

    assert encoded["prompt_embeds"].shape[:2] == (1, 16)


def test_an_interrupted_video_leaves_nothing_for_the_next(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = options()
    plain = generate(pipe, EASYANIMATE, wanted, 1, prompt="cat", encoded=None)
    forward, calls = pipe.vae.decoder.forward, []

    def failing(*args: Any, **more: Any) -> Any:
        calls.append(0)
        if len(calls) == 2:  # the first frame is decoded, and kept for those after it
            raise KeyboardInterrupt
        return forward(*args, **more)

    monkeypatch.setattr(pipe.vae.decoder, "forward", failing)
    with pytest.raises(KeyboardInterrupt):
        generate(pipe, EASYANIMATE, wanted, 2, prompt="dog", encoded=None)
    monkeypatch.undo()
    assert any(getattr(module, "prev_features", None) is not None for module in pipe.vae.modules())
    assert np.array_equal(plain, generate(pipe, EASYANIMATE, wanted, 1, prompt="cat", encoded=None))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"guidance_rescal": 1}, r"has no argument 'guidance_rescal'; did you mean 'guidance_rescale'\? \(it has eta"),
        ({"height": 16}, r"^arguments.height is a key of its own"),
        ({"latents": 1}, r"^arguments.latents is set for every video"),
        ({"num_images_per_prompt": 2}, r"^arguments.num_images_per_prompt is set for every video"),
    ],
)
def test_arguments_that_the_call_has_not_or_that_are_ours_are_refused(
    arguments: dict[str, Any], message: str, pipe: Any
) -> None:
    wanted = options(arguments=arguments)

    with pytest.raises(UserError, match=message):
        generate(pipe, EASYANIMATE, wanted, 1, prompt="cat", encoded=None)
    with pytest.raises(UserError, match=message):
        encode_prompts(pipe, family_of_easyanimate(), "cat", wanted)


def family_of_easyanimate() -> Family:
    return Family("EasyAnimatePipeline", 16, 4, ("prompt_embeds",))


def test_prompts_of_an_unknown_family_are_not_encoded_first(pipe: Any) -> None:
    with pytest.raises(UserError, match=r"^encode_prompts_first: .* \(set it to false\)"):
        encode_prompts(pipe, Family("AnimateDiffPipeline"), "cat", options())


def test_a_request_that_the_pipeline_refuses_says_why(pipe: Any) -> None:
    with pytest.raises(JobFailed, match="EasyAnimatePipeline refuses the request: could not convert"):
        generate(pipe, EASYANIMATE, options(arguments={"timesteps": "some"}), 1, prompt="cat", encoded=None)


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (np.nan, "fp16", r"no numbers: an overflow with dtype fp16 \(set dtype to bf16 or fp32\)"),
        (np.nan, "bf16", r"no numbers: an overflow with dtype bf16 \(set dtype to fp32\)"),
        (0.0, "fp16", r"every pixel of the video is black, as after an overflow with dtype fp16"),
    ],
)
def test_black_videos_and_no_numbers_fail(value: float, dtype: str, message: str) -> None:
    with pytest.raises(JobFailed, match=message):
        generate(
            Stub(np.full((1, 9, 32, 32, 3), value)), EASYANIMATE, options(dtype=dtype), 1, prompt="x", encoded=None
        )


def test_numbers_are_rounded_to_the_nearest_halves_to_even() -> None:
    frames = np.zeros((1, 9, 32, 32, 3), np.float32)
    frames[0, 0, 0, 0] = [0.5 / 255, 1.5 / 255, 1.0]
    made = generate(Stub(frames), EASYANIMATE, options(), 1, prompt="x", encoded=None)

    assert made[0, 0, 0].tolist() == [0, 2, 255]


def test_a_wrong_number_of_frames_fails() -> None:
    with pytest.raises(JobFailed, match="made 12 frames, not 9"):
        generate(Stub(np.ones((1, 12, 32, 32, 3))), EASYANIMATE, options(), 1, prompt="x", encoded=None)


def test_a_setting_that_the_pipeline_lacks_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    frames = np.ones((1, 9, 32, 32, 3))
    for _ in range(3):
        generate(Stub(frames), Family("BarePipeline"), options(guidance_scale=2.0), 1, prompt="x", encoded=None)

    assert caplog.text.count("BarePipeline has no guidance_scale: without effect") == 1


class Stub:
    """A pipeline that returns given frames, and knows no guidance."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames

    def __call__(
        self,
        prompt: str,
        height: int,
        width: int,
        num_frames: int,
        num_inference_steps: int,
        generator: object = None,
        output_type: str = "pil",
    ) -> Any:
        """Returns the frames."""
        return SimpleNamespace(frames=self.frames)


def test_a_full_gpu_is_said_with_what_helps(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def full(*args: Any, **more: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried")

    monkeypatch.setattr(type(pipe), "__call__", full)
    with pytest.raises(JobFailed, match="no memory for a video of 9×32×32: lower it, or set offload or vae_tiling"):
        generate(pipe, EASYANIMATE, options(), 1, prompt="cat", encoded=None)
    monkeypatch.setattr(type(pipe), "encode_prompt", full)
    with pytest.raises(JobFailed, match="no memory for the text encoder: set offload to 'model'"):
        encode_prompts(pipe, family_of_easyanimate(), "cat", options())


def test_a_models_own_fps_is_the_users_to_give() -> None:
    class Timed:
        def __call__(self, fps: int, **more: Any) -> Any:
            """Shows the argument as a brightness."""
            return SimpleNamespace(frames=np.full((1, 9, 32, 32, 3), fps / 255))

    made = generate(Timed(), Family("AnyPipeline"), options(arguments={"fps": 30}), 1, prompt="x", encoded=None)
    assert made[0, 0, 0].tolist() == [30, 30, 30]
