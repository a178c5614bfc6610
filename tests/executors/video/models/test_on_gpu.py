"""A training step and a video on a GPU, at toy and at middle size; skipped aloud where there is none."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from raysandbox.executors._video.models.families import family_of
from raysandbox.executors._video.models.pipelines import PipelineSource, generate, load_pipeline, peak_memory
from raysandbox.executors._video.models.tiny import make_tiny_easyanimate
from raysandbox.executors._video.options import GenerationOptions
from tests.executors.video.training_setup import clips_in, trained, trainer_of


@pytest.fixture(autouse=True)
def _on_a_gpu() -> None:
    if not importlib.import_module("torch").cuda.is_available():
        pytest.skip("no GPU: nothing here was seen on cuda")


MIDDLE = {"num_attention_heads": 16, "attention_head_dim": 64, "num_layers": 12, "time_embed_dim": 256}


def easyanimate(folder: Path, size: str) -> Path:
    """An EasyAnimate with random weights; the middle one's transformer has about 0.5 billion."""
    make_tiny_easyanimate(folder)
    if size == "middle":
        diffusers = importlib.import_module("diffusers")
        config = json.loads((folder / "transformer/config.json").read_text())
        known = {name: value for name, value in config.items() if not name.startswith("_")}
        diffusers.EasyAnimateTransformer3DModel(**{**known, **MIDDLE}).save_pretrained(folder / "transformer")
    return folder


@pytest.mark.parametrize("size", ["tiny", "middle"])
def test_a_step_and_a_video_in_bf16(tmp_path: Path, size: str) -> None:
    model = easyanimate(tmp_path / "model", size)
    trainer = trainer_of(model, clips_in(tmp_path, 4), tmp_path / "lora", dtype="bf16", max_steps=2)
    told = trained(trainer, tmp_path, device="cuda")
    memory = told.values("peak_memory_gb")
    assert set(memory) == {1, 2}
    assert min(memory.values()) > 0

    options = GenerationOptions(dtype="bf16", num_frames=9, height=64, width=64, num_inference_steps=4)
    lora = (tmp_path / "lora/checkpoint-2.safetensors", 1.0)
    pipe = load_pipeline(PipelineSource(str(model)), "cuda", options, lora=lora)
    video = generate(pipe, family_of(str(model)), options, 1, prompt="a red ball", encoded=None)
    assert video.shape == (9, 64, 64, 3)
    assert (peak_memory("cuda") or 0) > 0
    print(f"{size}: training {max(memory.values()):.2f} GB, generation {peak_memory('cuda')} bytes")
