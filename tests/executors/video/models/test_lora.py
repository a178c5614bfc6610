"""LoRAs: in and out of a transformer, saved and loaded, formats that are understood and those that are not."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysandbox.core.errors import MissingExtraError, UserError
from raysandbox.executors._video.models.families import family_of
from raysandbox.executors._video.models.lora import (
    add_lora,
    find_lora,
    load_lora,
    lora_state,
    remove_lora,
    save_lora,
)
from raysandbox.executors._video.models.lora_formats import read_lora
from raysandbox.executors._video.models.pipelines import PipelineSource, generate, load_pipeline, load_transformer
from raysandbox.executors._video.options import GenerationOptions
from tests.executors.video.tiny_pipelines import SIZES

RANK, ALPHA = 4, 8.0


@pytest.fixture
def transformer(tiny_easyanimate: Path) -> Any:
    """A tiny transformer that a test may change."""
    return load_transformer(PipelineSource(str(tiny_easyanimate)), "cpu", "fp32")


@pytest.fixture
def umask() -> Iterator[None]:
    """Files are for their group too, and for nobody else."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def answer(transformer: Any, seed: int = 0) -> Any:
    """What a transformer makes of noise."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    latents, text = torch.randn(1, 4, 2, 4, 4, generator=generator), torch.randn(1, 6, 32, generator=generator)
    with torch.no_grad():
        made = transformer(latents, torch.tensor([500.0]), encoder_hidden_states=text, return_dict=False)[0]
    return made.clone()


def trained(transformer: Any, file: Path, targets: list[str] | None = None, **about: str) -> Path:
    """Adds a LoRA, changes it as training would, saves it."""
    import torch

    generator = torch.Generator().manual_seed(7)
    for parameter in add_lora(transformer, RANK, ALPHA, targets, seed=3):
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.2
    save_lora(file, lora_state(transformer), rank=RANK, alpha=ALPHA, about=about)
    return file


def rewritten(file: Path, target: Path, edit: Callable[[str, Any], dict[str, Any]], **metadata: str) -> Path:
    """A file with the tensors of another, edited one by one."""
    from safetensors.torch import load_file, save_file

    state: dict[str, Any] = {}
    for name, tensor in load_file(file).items():
        state.update(edit(name, tensor))
    save_file(state, target, metadata or None)
    return target


def original(file: Path, target: Path) -> Path:
    """A LoRA of ours as EasyAnimate's own scripts write it."""
    import torch

    renamed = [("attn1.add_q_proj", "attn2.to_q"), ("attn1.add_k_proj", "attn2.to_k")]
    renamed += [("attn1.add_v_proj", "attn2.to_v"), ("attn1.to_add_out", "attn2.to_out.0")]

    def edit(name: str, tensor: Any) -> dict[str, Any]:
        module, side = re.fullmatch(r"transformer\.(.+)\.lora_([AB])\.weight", name).groups()  # pyright: ignore
        for mine, theirs in renamed:
            module = module.replace(mine, theirs)
        key = f"lora_unet__{module.replace('.', '_')}"
        half = "lora_down" if side == "A" else "lora_up"
        return {f"{key}.{half}.weight": tensor, f"{key}.alpha": torch.tensor(ALPHA)}

    return rewritten(file, target, edit)


# --- into a transformer and out of it


def test_a_new_lora_changes_nothing_and_all_of_it_is_trained(transformer: Any) -> None:
    import torch

    before = answer(transformer)
    parameters = add_lora(transformer, RANK, ALPHA, None, seed=0)

    linear = [module for module in transformer.modules() if type(module) is torch.nn.Linear]
    assert len(parameters) == 66
    assert {id(one) for one in transformer.parameters() if one.requires_grad} == {id(one) for one in parameters}
    assert all(parameter.dtype == torch.float32 for parameter in parameters)
    assert torch.equal(before, answer(transformer))
    remove_lora(transformer)
    assert torch.equal(before, answer(transformer))
    assert len([module for module in transformer.modules() if type(module) is torch.nn.Linear]) == len(linear) // 3


def test_the_first_weights_depend_on_the_seed_alone(transformer: Any) -> None:
    import torch

    def drawn(seed: int) -> dict[str, Any]:
        torch.rand(seed + 5)  # what was drawn elsewhere does not matter
        add_lora(transformer, RANK, ALPHA, None, seed)
        return lora_state(transformer)

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_state_of_torchs_own_generator_is_left_alone(transformer: Any) -> None:
    import torch

    before = torch.get_rng_state()
    add_lora(transformer, RANK, ALPHA, None, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_weights_in_bf16_have_a_lora_in_fp32(tiny_easyanimate: Path) -> None:
    import torch

    network = load_transformer(PipelineSource(str(tiny_easyanimate)), "cpu", "bf16")
    assert {one.dtype for one in add_lora(network, RANK, ALPHA, ["to_q"], seed=0)} == {torch.float32}
    assert {one.dtype for one in network.parameters()} == {torch.float32, torch.bfloat16}


def test_targets_are_names_or_their_last_parts(transformer: Any) -> None:
    add_lora(transformer, RANK, ALPHA, ["to_q", "transformer_blocks.0.attn1.to_k"], seed=0)
    modules = sorted({name.removeprefix("transformer.").rsplit(".", 2)[0] for name in lora_state(transformer)})
    assert modules == [
        "transformer_blocks.0.attn1.to_k",
        "transformer_blocks.0.attn1.to_q",
        "transformer_blocks.1.attn1.to_q",
    ]
    with pytest.raises(UserError, match=r"^targets: the transformer has no linear module 'to_p'; did you mean 'to_"):
        add_lora(transformer, RANK, ALPHA, ["to_p"], seed=0)


# --- saved and loaded


@pytest.mark.parametrize("name", SIZES)
def test_a_lora_of_every_family_is_loaded_as_it_was_trained(
    name: str, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    import torch

    source = PipelineSource(str(tiny_models(name)))
    network = load_transformer(source, "cpu", "fp32")
    trained(network, tmp_path / "lora.safetensors")
    fresh = load_transformer(source, "cpu", "fp32")
    load_lora(fresh, tmp_path / "lora.safetensors", 1.0)

    ours, theirs = lora_state(network), lora_state(fresh)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not any(parameter.requires_grad for parameter in fresh.parameters())


@pytest.mark.parametrize("name", [name for name in SIZES if name != "easyanimate"])
def test_diffusers_own_loader_reads_a_lora_of_ours(
    name: str, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    import torch
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    network = load_transformer(PipelineSource(str(tiny_models(name))), "cpu", "fp32")
    file = trained(network, tmp_path / "lora.safetensors")
    pipe = DiffusionPipeline.from_pretrained(tiny_models(name), torch_dtype=torch.float32)
    pipe.load_lora_weights(file, adapter_name="default")

    ours, theirs = lora_state(network), lora_state(pipe.transformer)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    layers = [module for module in pipe.transformer.modules() if hasattr(module, "lora_A")]
    assert {layer.scaling["default"] for layer in layers} == {ALPHA / RANK}


def test_a_round_trip_gives_equal_answers(transformer: Any, tiny_easyanimate: Path, tmp_path: Path) -> None:
    import torch

    before = answer(transformer)
    file = trained(transformer, tmp_path / "lora.safetensors")
    fresh = load_transformer(PipelineSource(str(tiny_easyanimate)), "cpu", "fp32")
    load_lora(fresh, file, 1.0)

    assert torch.equal(answer(transformer), answer(fresh))
    assert not torch.equal(before, answer(fresh))


def test_the_weight_scales_the_change_exactly(transformer: Any, tmp_path: Path) -> None:
    import torch

    base = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    file = trained(transformer, tmp_path / "lora.safetensors", ["proj_out"])
    load_lora(transformer, file, 0.55)
    layer = transformer.proj_out
    change = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * (0.55 * ALPHA / RANK)
    pieces = torch.randn(3, layer.in_features)

    with torch.no_grad():
        expected = torch.nn.functional.linear(pieces, base["proj_out.weight"] + change, base["proj_out.bias"])
        assert torch.allclose(layer(pieces), expected, atol=1e-5)
    assert torch.equal(layer.base_layer.weight, base["proj_out.weight"])


def test_loading_again_replaces(transformer: Any, tmp_path: Path) -> None:
    import torch

    before = answer(transformer)
    first = trained(transformer, tmp_path / "first.safetensors")
    alone = answer(transformer)
    second = trained(transformer, tmp_path / "second.safetensors", ["to_q"])
    load_lora(transformer, second, 1.0)
    load_lora(transformer, first, 1.0)
    assert torch.equal(alone, answer(transformer))
    load_lora(transformer, first, 0.0)
    assert torch.equal(before, answer(transformer))


def test_a_lora_of_zeros_leaves_the_videos_byte_for_byte(tiny_easyanimate: Path, tmp_path: Path) -> None:
    source, family = PipelineSource(str(tiny_easyanimate)), family_of(str(tiny_easyanimate))
    for dtype in ("fp32", "bf16"):
        options = GenerationOptions.model_validate(
            {"dtype": dtype, "height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2}
        )
        network = load_transformer(source, "cpu", dtype)
        add_lora(network, RANK, ALPHA, None, seed=0)
        save_lora(tmp_path / "zeros.safetensors", lora_state(network), rank=RANK, alpha=ALPHA, about={})
        changed = trained(network, tmp_path / "lora.safetensors")

        def video(lora: Path | None) -> np.ndarray:
            pipe = load_pipeline(source, "cpu", options, lora=None if lora is None else (lora, 1.0))  # noqa: B023
            return generate(pipe, family, options, 1, prompt="cat", encoded=None)  # noqa: B023

        assert np.array_equal(video(None), video(tmp_path / "zeros.safetensors"))
        assert not np.array_equal(video(None), video(changed))


def test_equal_weights_give_equal_bytes_with_the_mode_of_the_umask(
    transformer: Any, tmp_path: Path, umask: None
) -> None:
    about = {"model": "m", "step": "3", "seed": "1", "base": "x"}
    file = trained(transformer, tmp_path / "a.safetensors", ["to_q"], **about)
    content = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    for _ in range(8):  # the library writes metadata in any order
        save_lora(file, lora_state(transformer), rank=RANK, alpha=ALPHA, about=about)
        assert file.read_bytes() == content
    assert os.listdir(tmp_path) == ["a.safetensors"]


# --- formats


def test_the_original_format_is_converted(transformer: Any, tmp_path: Path) -> None:
    import torch

    file = trained(transformer, tmp_path / "ours.safetensors")
    made = answer(transformer)
    converted = original(file, tmp_path / "theirs.safetensors")
    from safetensors import safe_open

    with safe_open(converted, "pt") as content:
        assert "lora_unet__transformer_blocks_0_attn2_to_out_0.lora_down.weight" in set(content.keys())
    load_lora(transformer, converted, 1.0)
    assert torch.equal(made, answer(transformer))


def plain(name: str) -> str:
    return name.removeprefix("transformer.")


@pytest.mark.parametrize(
    ("rename", "beside", "metadata"),
    [
        (lambda name: name, None, {"lora_adapter_metadata": '{"transformer.r": 4, "transformer.lora_alpha": 8}'}),
        (lambda name: f"base_model.model.{plain(name)}", {"r": 4, "lora_alpha": 8}, {}),
        (lambda name: plain(name).replace(".weight", ".default.weight"), {"r": 4, "lora_alpha": 8}, {}),
        (plain, {"r": 4, "lora_alpha": 4, "use_rslora": True}, {}),
        (
            plain,
            {"r": 4, "lora_alpha": 1, "alpha_pattern": {r"transformer_blocks\.\d+\.attn1\.to_q": 8, "to_k": 8}},
            {},
        ),
    ],
)
def test_what_peft_and_diffusers_write_is_read(
    rename: Callable[[str], str],
    beside: dict[str, Any] | None,
    metadata: dict[str, str],
    transformer: Any,
    tmp_path: Path,
) -> None:
    import torch

    file = trained(transformer, tmp_path / "ours.safetensors", ["to_q", "to_k"])
    made = answer(transformer)
    target = tmp_path / "adapter_model.safetensors"
    rewritten(file, target, lambda name, tensor: {rename(name): tensor}, **metadata)
    if beside is not None:
        (tmp_path / "adapter_config.json").write_text(json.dumps(beside))

    load_lora(transformer, target, 1.0)
    assert torch.equal(made, answer(transformer))


def test_alpha_is_the_rank_where_nothing_is_said_and_may_differ_by_module(transformer: Any, tmp_path: Path) -> None:
    import torch

    file = trained(transformer, tmp_path / "ours.safetensors", ["to_q"])
    silent = rewritten(file, tmp_path / "silent.safetensors", lambda name, tensor: {name: tensor})
    assert {pair.alpha for pair in read_lora(silent, []).values()} == {float(RANK)}

    def edit(name: str, tensor: Any) -> dict[str, Any]:
        if ".0." not in name or "lora_A" not in name:
            return {name: tensor}
        return {name: tensor, name.replace("lora_A.weight", "alpha"): torch.tensor(6.0)}

    mixed = rewritten(file, tmp_path / "mixed.safetensors", edit)
    load_lora(transformer, mixed, 1.0)
    blocks = transformer.transformer_blocks
    assert blocks[0].attn1.to_q.scaling == {"default": 6.0 / RANK}
    assert blocks[1].attn1.to_q.scaling == {"default": 1.0}


def test_the_rank_may_differ_by_module(transformer: Any, tmp_path: Path) -> None:
    import torch

    file = trained(transformer, tmp_path / "ours.safetensors", ["to_q", "to_k"])
    made = answer(transformer)

    def edit(name: str, tensor: Any) -> dict[str, Any]:
        if "to_k" not in name:
            return {name: tensor}
        shape = (2, tensor.shape[1]) if "lora_A" in name else (tensor.shape[0], 2)  # rows of zeros change nothing
        return {name: torch.cat([tensor, torch.zeros(shape)], 0 if "lora_A" in name else 1)}

    settings = {"r": 4, "lora_alpha": 8.0, "alpha_pattern": {"to_k": 12.0}}
    wider = rewritten(file, tmp_path / "wide.safetensors", edit, **{"raysandbox.lora": json.dumps(settings)})
    load_lora(transformer, wider, 1.0)
    assert transformer.transformer_blocks[0].attn1.to_k.r == {"default": 6}
    assert torch.allclose(made, answer(transformer), atol=1e-6)


def test_parts_for_a_text_encoder_are_left_out_and_counted(
    transformer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    file = trained(transformer, tmp_path / "ours.safetensors")
    converted = original(file, tmp_path / "theirs.safetensors")
    more = {"lora_te_layers_0_q.lora_down.weight": torch.ones(2, 2), "lora_te_layers_0_q.alpha": torch.ones(())}
    mixed = rewritten(converted, tmp_path / "mixed.safetensors", lambda name, tensor: {name: tensor, **more})

    with caplog.at_level(logging.WARNING):
        assert len(read_lora(mixed, [])) == 33
    assert "the LoRA changes a text encoder too, which is left as it is: 2 tensors" in caplog.text


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("diffusion_model.blocks.0.to_q.lora_A.weight", "a LoRA of the original model's own layout"),
        ("transformer_2.blocks.0.to_q.lora_A.weight", "a LoRA of a second transformer"),
        ("lora_unet_blocks_0_to_q.lora_down.weight", "a LoRA of Kohya's layout"),
        ("lora_unet__blocks_0_to_q.hada_w1_a", "a LoHa"),
        ("lora_unet__blocks_0_to_q.lokr_w1", "a LoKr"),
        ("transformer.to_q.oft_R.weight", "an OFT"),
        ("transformer.to_q.lora_magnitude_vector.weight", "a DoRA"),
        ("transformer.to_q.lora_B.bias", "a LoRA with biases"),
        ("unet.to_q.processor.to_q_lora.down.weight", "a LoRA of an old diffusers"),
        ("blocks.0.lora.strange", "a LoRA of an unknown layout"),
        ("transformer_blocks.0.attn1.to_q.weight", "no LoRA"),
        ("lora_te_layers_0.alpha", "no LoRA"),
    ],
)
def test_other_formats_are_refused_by_name(key: str, message: str, transformer: Any, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    file = tmp_path / "other.safetensors"
    save_file({key: torch.ones(2, 2)}, file)
    with pytest.raises(UserError) as refused:
        load_lora(transformer, file, 1.0)
    assert str(refused.value).startswith(f"lora_path: {file} is {message} ({key})")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"raysandbox.lora": "[]"}, r"\[\] is no mapping"),
        ({"lora_adapter_metadata": "[]"}, "has no attribute 'items'"),
        ({"raysandbox.lora": '{"lora_alpha": "x"}'}, "lora_alpha is 'x', which is no number"),
        ({"lora_adapter_metadata": '{"transformer.lora_alpha": [1]}'}, r"lora_alpha is \[1\], which is no number"),
        ({"raysandbox.lora": '{"lora_alpha": NaN}'}, "lora_alpha is nan, which is no number"),
        ({"raysandbox.lora": '{"alpha_pattern": [1]}'}, r"alpha_pattern is \[1\], which is no mapping"),
        ({"raysandbox.lora": '{"alpha_pattern": {"to_q": "x"}}'}, "to_q is 'x', which is no number"),
        ({"raysandbox.lora": '{"alpha_pattern": {"(": 1}}'}, "missing \\), unterminated subpattern"),
    ],
)
def test_what_a_file_says_of_its_alpha_must_be_numbers(
    metadata: dict[str, str], message: str, transformer: Any, tmp_path: Path
) -> None:
    file = trained(transformer, tmp_path / "ours.safetensors", ["to_q"])
    bad = rewritten(file, tmp_path / "bad.safetensors", lambda name, tensor: {name: tensor}, **metadata)
    with pytest.raises(UserError, match=rf"^lora_path: what .*bad.safetensors says of its alpha .*{message}"):
        load_lora(transformer, bad, 1.0)


@pytest.mark.parametrize(("value", "count"), [(1.0, 2), (float("nan"), 1), (float("inf"), 1), (1.0, 0)])
def test_an_alpha_that_is_not_one_number_is_refused(value: float, count: int, transformer: Any, tmp_path: Path) -> None:
    import torch

    file = original(trained(transformer, tmp_path / "ours.safetensors", ["to_q"]), tmp_path / "theirs.safetensors")
    alpha = torch.full((count,), value)
    bad = rewritten(
        file,
        tmp_path / "bad.safetensors",
        lambda name, tensor: {name: alpha.clone() if name.endswith("alpha") else tensor},
    )
    with pytest.raises(UserError, match=r"the alpha of transformer_blocks\.0.*bad\.safetensors is not one number"):
        load_lora(transformer, bad, 1.0)


@pytest.mark.parametrize("half", ["lora_A", "lora_B"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_lora_with_broken_numbers_is_refused(half: str, value: float, transformer: Any, tmp_path: Path) -> None:
    file = trained(transformer, tmp_path / "ours.safetensors", ["to_q"])

    def edit(name: str, tensor: Any) -> dict[str, Any]:
        tensor = tensor.bfloat16()
        if half in name and ".1." in name:
            tensor[0, 0] = value
        return {name: tensor}

    bad = rewritten(file, tmp_path / "bad.safetensors", edit)
    with pytest.raises(
        UserError, match=r"transformer_blocks\.1\.attn1\.to_q in .*bad\.safetensors holds NaN or infinite"
    ):
        load_lora(transformer, bad, 1.0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("lora.bin", b"", "may run code when it is read"),
        ("lora.ckpt", b"", "may run code when it is read"),
        ("lora.json", b"", "is no .safetensors file"),
        ("lora.safetensors", b"12345678901", "cannot be read"),
        ("lora.safetensors", b"", "cannot be read"),
    ],
)
def test_files_that_are_not_read_are_refused(
    name: str, content: bytes, message: str, transformer: Any, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"^my_key: .*{name} {message}"):
        load_lora(transformer, tmp_path / name, 1.0, "my_key")


def test_damaged_loras_are_refused(transformer: Any, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    def refused(tensors: dict[str, Any], message: str, **metadata: str) -> None:
        save_file(
            {name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "bad.safetensors", metadata or None
        )
        with pytest.raises(UserError, match=message):
            load_lora(transformer, tmp_path / "bad.safetensors", 1.0)

    down, up = "transformer.proj_out.lora_A.weight", "transformer.proj_out.lora_B.weight"
    half = torch.ones(2, 2)
    refused({down: half}, "has one half only of the LoRA of proj_out")
    refused({down: half, up: torch.ones(2, 3)}, r"do not fit each other: \(2, 2\) and \(2, 3\)")
    refused({down: half, up: half}, "says of its alpha cannot be read", lora_adapter_metadata="{")
    refused({down: half, up: half}, "is a DoRA", **{"raysandbox.lora": '{"use_dora": true}'})
    several = {f"proj_out.lora_{side}.{adapter}.weight": half for side in "AB" for adapter in ("one", "two")}
    refused(several, r"holds several LoRAs \(one, two\)")
    with pytest.raises(UserError, match=r"^lora_path: there is no file /nowhere\.safetensors"):
        load_lora(transformer, Path("/nowhere.safetensors"), 1.0)


def test_a_lora_of_another_model_says_what_does_not_fit(
    transformer: Any, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    import torch

    file = trained(transformer, tmp_path / "ours.safetensors")
    other = load_transformer(PipelineSource(str(tiny_models("wan"))), "cpu", "fp32")
    before = trained(other, tmp_path / "other.safetensors", ["proj_out"])
    with pytest.raises(UserError) as refused:
        load_lora(other, file, 1.0)
    message = str(refused.value)
    assert message.startswith(f"lora_path: the LoRA {file} does not fit the model: of its 33 modules 32 are not in its")
    assert "and 1 have another shape (proj_out [" in message
    assert message.endswith("(use a LoRA that was trained on this model)")
    # What was there stays.
    assert lora_state(other).keys() == {f"transformer.{name}" for name in _names(before)}
    assert torch.is_tensor(next(iter(lora_state(other).values())))


def _names(file: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(file, "pt") as content:
        return [name.removeprefix("transformer.") for name in content.keys()]  # noqa: SIM118


def test_the_newest_checkpoint_of_a_folder_is_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no checkpoint-\*\.safetensors"):
        find_lora(str(tmp_path))
    (tmp_path / "adapter_model.safetensors").touch()
    assert find_lora(str(tmp_path)).name == "adapter_model.safetensors"
    for step in (900, 1000, 20):
        (tmp_path / f"checkpoint-{step}.safetensors").touch()
    (tmp_path / "checkpoint-2000").mkdir()
    assert find_lora(str(tmp_path)).name == "checkpoint-1000.safetensors"
    assert find_lora(str(tmp_path / "checkpoint-20.safetensors")).name == "checkpoint-20.safetensors"
    for name in ("checkpoint-20.safetensors", "../checkpoint-20.safetensors", 3, "checkpoint-21.safetensors"):
        (tmp_path / "training.json").write_text(json.dumps({"checkpoint": name}))
        trained_last = (
            "checkpoint-20.safetensors" if name == "checkpoint-20.safetensors" else "checkpoint-1000.safetensors"
        )
        assert find_lora(str(tmp_path)).name == trained_last
    for content in ("{}", "[]", "{"):
        (tmp_path / "training.json").write_text(content)
        assert find_lora(str(tmp_path)).name == "checkpoint-1000.safetensors"
    with pytest.raises(UserError, match=r"^my_key: there is nothing at /nowhere"):
        find_lora("/nowhere", "my_key")


def test_without_peft_it_is_named(transformer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft.tuners.lora", None)
    with pytest.raises(MissingExtraError, match=r"A LoRA needs peft: pip install"):
        add_lora(transformer, RANK, ALPHA, None, seed=0)


def test_a_second_transformer_stays_as_it_is_and_that_is_said(
    tiny_wan: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Path(shutil.copytree(tiny_wan, tmp_path / "model"))
    shutil.copytree(model / "transformer", model / "transformer_2")
    index = json.loads((model / "model_index.json").read_text())
    index |= {"transformer_2": index["transformer"], "boundary_ratio": 0.5}
    (model / "model_index.json").write_text(json.dumps(index))
    source = PipelineSource(str(model))
    file = trained(load_transformer(source, "cpu", "fp32"), tmp_path / "lora.safetensors")

    options = GenerationOptions.model_validate({"dtype": "fp32"})
    pipe = load_pipeline(source, "cpu", options, lora=(file, 1.0))
    assert lora_state(pipe.transformer)
    assert not lora_state(pipe.transformer_2)
    assert pipe.config.boundary_ratio == 0.5
    assert "WanPipeline has two transformers; the LoRA changes the first alone" in caplog.text
