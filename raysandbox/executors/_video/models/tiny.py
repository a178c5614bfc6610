"""A tiny untrained EasyAnimate, for demos and tests without a download."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

from raysandbox.core.errors import MissingExtraError
from raysandbox.core.files import atomic_dir

__all__ = ["byte_symbols", "make_tiny_easyanimate"]

_SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXT_WIDTH = 32
_LATENT_CHANNELS = 4


def make_tiny_easyanimate(folder: Path, seed: int = 0) -> Path:
    """Writes a model folder in diffusers' layout that `EasyAnimatePipeline` loads: all parts, under 1 MB.

    It has the parts of EasyAnimate 5.1 (Qwen2-VL as text encoder, the multi-modal transformer, the MagViT
    autoencoder, flow matching) at toy sizes; heights and widths are multiples of 16, frames 4k + 1. Equal
    seeds give equal bytes.

    Args:
        folder: the model folder; replaced when it exists.
        seed: of the random weights.

    Returns:
        `folder`.

    Raises:
        MissingExtraError: torch, transformers or diffusers is not installed.
    """
    try:
        import torch
        import transformers  # noqa: F401  # diffusers imports without it, and lacks the pipeline

        diffusers = importlib.import_module("diffusers")
    except ImportError as error:
        raise MissingExtraError(error.name or "diffusers", "video", "A tiny video model") from error

    with atomic_dir(folder) as temporary, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = _tokenizer(temporary)
        diffusers.EasyAnimatePipeline(
            vae=_autoencoder(diffusers),
            text_encoder=_text_encoder(len(tokenizer)),
            tokenizer=tokenizer,
            transformer=_transformer(diffusers),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        ).save_pretrained(temporary)
        for weights in temporary.rglob("*.safetensors"):  # written with mode 0600 whatever the umask says
            shutil.copymode(temporary / "model_index.json", weights)
    return folder


def byte_symbols() -> dict[str, int]:
    """The symbols by which byte-level tokenizers write the 256 bytes, with their ids.

    Printable characters stand for themselves, the others for those from U+0100 on, as in GPT-2.
    """
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in set(shown))
    symbols = {byte: chr(byte) for byte in shown}
    symbols.update((byte, chr(0x100 + position)) for position, byte in enumerate(others))
    return {symbols[byte]: byte for byte in range(256)}


def _tokenizer(folder: Path) -> Any:
    """One token per byte; the files it is made of go again, the pipeline writes its own."""
    import transformers

    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    end_of_text, start, end = _SPECIAL_TOKENS
    tokens = {**byte_symbols(), **{token: 256 + index for index, token in enumerate(_SPECIAL_TOKENS)}}
    vocab.write_text(json.dumps(tokens, ensure_ascii=False), encoding="utf-8")
    merges.write_text("", encoding="utf-8")
    kind: Any = transformers.Qwen2TokenizerFast
    tokenizer = kind(
        vocab_file=str(vocab),
        merges_file=str(merges),
        unk_token=None,
        bos_token=None,
        eos_token=end,
        pad_token=end_of_text,
        additional_special_tokens=[start],
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    vocab.unlink()
    merges.unlink()
    return tokenizer


def _text_encoder(vocabulary: int) -> Any:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    text = {
        "vocab_size": vocabulary,
        "hidden_size": _TEXT_WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},  # halves of the head's 16 numbers
        "bos_token_id": None,
        "eos_token_id": 258,
        "tie_word_embeddings": True,
    }
    vision = {"depth": 1, "embed_dim": 8, "hidden_size": _TEXT_WIDTH, "num_heads": 1, "mlp_ratio": 1, "patch_size": 2}
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision)).eval()


def _transformer(diffusers: Any) -> Any:
    return diffusers.EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=_LATENT_CHANNELS,
        out_channels=_LATENT_CHANNELS,
        time_embed_dim=16,
        text_embed_dim=_TEXT_WIDTH,
        num_layers=2,
        sample_width=16,
        sample_height=16,
        patch_size=2,
        add_norm_text_encoder=True,
    )


def _autoencoder(diffusers: Any) -> Any:
    def blocks(direction: str) -> tuple[str, ...]:
        return (f"Spatial{direction}Block3D", *([f"SpatialTemporal{direction}Block3D"] * 3))

    return diffusers.AutoencoderKLMagvit(
        latent_channels=_LATENT_CHANNELS,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=blocks("Down"),
        up_block_types=blocks("Up"),
    )
