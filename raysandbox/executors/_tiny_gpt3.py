"""Builds a tiny model directory of ModelScope's GPT-3 class, for demos and tests without a hub.

The layout is what `GPT3ForTextGeneration` and its preprocessor load: `vocab.txt` for
transformers' BertTokenizer, `config.json`, `pytorch_model.bin` and `configuration.json`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysandbox.core.errors import MissingExtraError, UserError
from raysandbox.core.files import atomic_dir
from raysandbox.executors.train._megatron_shim import import_plain_gpt3

__all__ = ["TinyGpt3", "build_tiny_gpt3", "read_texts"]

# BertTokenizer's special tokens; their indices are their ids.
_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_END_ID = _SPECIAL_TOKENS.index("[SEP]")


@dataclass(frozen=True)
class TinyGpt3:
    """Size of the model; the default has about 0.23 M parameters.

    Attributes:
        layers: transformer layers.
        hidden: width of the hidden states; a multiple of `heads`.
        heads: attention heads.
        vocab_size: upper bound of the vocabulary; few texts give a smaller one.
        max_length: tokens of a training example and positions of the model.
        seed: seed of the initial weights.
    """

    layers: int = 2
    hidden: int = 64
    heads: int = 2
    vocab_size: int = 2000
    max_length: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise UserError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")


def read_texts(path: Path, text_key: str = "text") -> Iterator[str]:
    """Yields the texts of a JSONL file.

    Raises:
        UserError: a line is not a JSON object with the key.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield str(json.loads(line)[text_key])
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path}:{number}: not a JSON object with the key '{text_key}'") from error


def build_tiny_gpt3(out_dir: Path, texts: Iterable[str], size: TinyGpt3 | None = None) -> Path:
    """Writes an untrained model directory whose vocabulary covers the texts.

    Args:
        out_dir: the model directory; replaced when it exists.
        texts: what the WordPiece vocabulary is learned from.
        size: size of the model.

    Returns:
        `out_dir`.

    Raises:
        MissingExtraError: modelscope or torch is not installed.
        UserError: there are no texts.
    """
    size = size or TinyGpt3()
    with atomic_dir(out_dir) as folder:
        vocabulary = _learn_vocabulary(texts, size.vocab_size)
        (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
        _write_json(folder / "tokenizer_config.json", {"do_lower_case": True, "model_max_length": size.max_length})
        _write_json(folder / "configuration.json", _configuration(size.max_length))
        _write_model(folder, size, len(vocabulary))
    return out_dir


def _learn_vocabulary(texts: Iterable[str], vocab_size: int) -> list[str]:
    """WordPiece tokens in the order of their ids.

    All characters, then the word beginnings and word endings that save the most tokens: count
    times (length - 1). The tokenizers library's own training breaks ties at random, so that two
    runs give two vocabularies.
    """
    try:
        from tokenizers.normalizers import BertNormalizer
        from tokenizers.pre_tokenizers import BertPreTokenizer
    except ImportError as error:
        raise MissingExtraError("tokenizers", "modelscope", "a tiny GPT-3") from error

    normalize, split = BertNormalizer(lowercase=True).normalize_str, BertPreTokenizer().pre_tokenize_str
    words = Counter(word for text in texts for word, _ in split(normalize(text)))
    if not words:
        raise UserError("there are no texts to learn a vocabulary from")
    saved: Counter[str] = Counter()
    for word, count in words.items():
        for cut in range(1, len(word)):
            saved[word[: cut + 1]] += count * cut
            saved[f"##{word[cut:]}"] += count * (len(word) - cut - 1)
    characters = sorted(set("".join(words)))
    pieces = sorted((piece for piece in saved if saved[piece]), key=lambda piece: (-saved[piece], piece))
    vocabulary = [*_SPECIAL_TOKENS, *characters, *(f"##{character}" for character in characters), *pieces]
    return vocabulary[:vocab_size]


def _write_model(folder: Path, size: TinyGpt3, vocab_size: int) -> None:
    """Writes `config.json` and the seeded initial weights."""
    import_plain_gpt3()
    import torch
    from modelscope.models.nlp.gpt3 import GPT3Config, GPT3Model

    # Not written by the class's own save_pretrained: it adds a key that its constructor refuses.
    config = {
        "model_type": "gpt3",
        "vocab_size": vocab_size,
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": 4 * size.hidden,
        "max_position_embeddings": size.max_length,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "eod_id": _END_ID,
    }
    _write_json(folder / "config.json", config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(size.seed)
        model = GPT3Model(GPT3Config(**config))
        # Its constructor leaves torch's N(0, 1) embeddings, with which the loss starts above 20.
        model.apply(model._init_weights)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def _configuration(max_length: int) -> dict[str, Any]:
    """ModelScope's `configuration.json`: task, classes, and defaults of training and evaluation."""
    return {
        "framework": "pytorch",
        "task": "text-generation",
        "model": {"type": "gpt3"},
        "preprocessor": {"type": "text-gen-tokenizer", "first_sequence": "src_txt", "max_length": max_length},
        "pipeline": {"type": "text-generation"},
        "train": {
            "max_epochs": 2,
            "dataloader": {"batch_size_per_gpu": 16, "workers_per_gpu": 0},
            "optimizer": {"type": "AdamW", "lr": 1e-3},
            "lr_scheduler": {"type": "ConstantLR", "factor": 1.0},
        },
        "evaluation": {"dataloader": {"batch_size_per_gpu": 16, "workers_per_gpu": 0, "shuffle": False}},
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
