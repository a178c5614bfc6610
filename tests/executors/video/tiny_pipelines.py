"""Tiny video models of several families with random weights, made on the spot."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raysandbox.executors._video.models.tiny import byte_symbols, make_tiny_easyanimate

_TEXT_WIDTH = 16
_SPECIAL = ("<pad>", "</s>", "<unk>")


def tiny_model(name: str, folder: Path, seed: int = 0) -> Path:
    """Writes the tiny model of a family, a key of `SIZES`; returns `folder`."""
    if name == "easyanimate":
        return make_tiny_easyanimate(folder, seed)
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe = _BUILDERS[name](importlib.import_module("diffusers"))
        pipe.save_pretrained(folder)
    return folder


# The smallest sizes that a family takes with more than one latent frame: frames, height, width.
SIZES = {
    "easyanimate": (9, 32, 32),
    "cogvideox": (9, 16, 16),
    "wan": (9, 16, 16),
    "skyreels": (9, 16, 16),
    "ltx": (9, 32, 32),
    "hunyuan": (9, 16, 16),
    "mochi": (7, 16, 16),
}


def _cogvideox(diffusers: Any) -> Any:
    return diffusers.CogVideoXPipeline(
        tokenizer=_tokenizer(),
        text_encoder=_t5(),
        vae=diffusers.AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2
        ),
        transformer=diffusers.CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            time_embed_dim=8,
            text_embed_dim=_TEXT_WIDTH,
            num_layers=1,
            sample_width=2,
            sample_height=2,
            sample_frames=9,
            use_rotary_positional_embeddings=True,
        ),
        scheduler=diffusers.CogVideoXDPMScheduler(),
    )


def _wan(diffusers: Any, name: str = "Wan") -> Any:
    return getattr(diffusers, f"{name}Pipeline")(
        tokenizer=_tokenizer(),
        text_encoder=_t5("UMT5"),
        vae=diffusers.AutoencoderKLWan(
            base_dim=4,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        transformer=getattr(diffusers, f"{name}Transformer3DModel")(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=4,
            text_dim=_TEXT_WIDTH,
            freq_dim=16,
            ffn_dim=16,
            num_layers=1,
            rope_max_seq_len=32,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def _ltx(diffusers: Any) -> Any:
    return diffusers.LTXPipeline(
        tokenizer=_tokenizer(),
        text_encoder=_t5(),
        vae=diffusers.AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
        ),
        transformer=diffusers.LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=2,
            attention_head_dim=16,
            cross_attention_dim=32,
            num_layers=1,
            caption_channels=_TEXT_WIDTH,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def _hunyuan(diffusers: Any) -> Any:
    import transformers

    width = {"hidden_size": _TEXT_WIDTH, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    ids = {"vocab_size": _VOCABULARY, "pad_token_id": 256, "bos_token_id": None, "eos_token_id": 257}
    return diffusers.HunyuanVideoPipeline(
        tokenizer=_tokenizer(),
        text_encoder=transformers.LlamaModel(transformers.LlamaConfig(**width, **ids)).eval(),
        tokenizer_2=_tokenizer(77),
        text_encoder_2=transformers.CLIPTextModel(transformers.CLIPTextConfig(**width, **ids)).eval(),
        vae=diffusers.AutoencoderKLHunyuanVideo(
            latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2
        ),
        transformer=diffusers.HunyuanVideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            text_embed_dim=_TEXT_WIDTH,
            pooled_projection_dim=_TEXT_WIDTH,
            rope_axes_dim=(4, 6, 6),
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def _mochi(diffusers: Any) -> Any:
    return diffusers.MochiPipeline(
        tokenizer=_tokenizer(256),
        text_encoder=_t5(),
        vae=diffusers.AutoencoderKLMochi(
            latent_channels=12,  # the pipeline counts on it
            encoder_block_out_channels=(32, 32, 32, 32),  # its norms have 32 groups
            decoder_block_out_channels=(32, 32, 32, 32),
            layers_per_block=(1, 1, 1, 1, 1),
            add_attention_block=(False,) * 5,
        ),
        transformer=diffusers.MochiTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            pooled_projection_dim=16,
            in_channels=12,
            text_embed_dim=_TEXT_WIDTH,
            time_embed_dim=4,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


_BUILDERS: dict[str, Callable[[Any], Any]] = {
    "cogvideox": _cogvideox,
    "wan": _wan,
    "skyreels": lambda diffusers: _wan(diffusers, "SkyReelsV2"),
    "ltx": _ltx,
    "hunyuan": _hunyuan,
    "mochi": _mochi,
}
_VOCABULARY = 256 + len(_SPECIAL)


def _tokenizer(longest: int = 512) -> Any:
    """One token per byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(byte_symbols(), []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    pad, end, unknown = _SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, eos_token=end, unk_token=unknown, model_max_length=longest
    )


def _t5(kind: str = "T5") -> Any:
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=_VOCABULARY, d_model=_TEXT_WIDTH, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=256
    )
    return getattr(transformers, f"{kind}EncoderModel")(config).eval()
