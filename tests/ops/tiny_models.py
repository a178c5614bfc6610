"""Builders of tiny networks with random weights, saved as transformers saves the real ones."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

SIZE = 32  # of the pictures that they look at
_ENCODER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_PICTURE = {"image_size": SIZE, "patch_size": 8}


def image_classifier(folder: Path, seed: int = 0) -> str:
    """A ViT of two classes with its image processor; returns the folder."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    with _seeded(seed):
        model = ViTForImageClassification(ViTConfig(num_labels=2, **_ENCODER, **_PICTURE))
        model.classifier.weight.data *= 20  # far from undecided, so that pictures differ
    return _saved(folder, model, ViTImageProcessor(size={"height": SIZE, "width": SIZE}))


def clip(folder: Path, seed: int = 0) -> str:
    """A CLIP of pictures and English words with its processor; returns the folder."""
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor

    tokenizer = _tokenizer(folder)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**_ENCODER, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 24, "projection_dim": 8}
    with _seeded(seed):
        config = CLIPConfig(text_config=text, vision_config={**_ENCODER, **_PICTURE}, projection_dim=8)
        model = CLIPModel(config)
        _shake(model)
    return _saved(folder, model, CLIPProcessor(_picture_processor(), tokenizer))


def aesthetics_predictor(
    folder: Path, architecture: str = "AestheticsPredictorV2Linear", seed: int = 0, *, tokenizer: bool = False
) -> str:
    """A predictor as the package simple-aesthetics-predictor saves it; returns the folder.

    Data-Juicer also needs a tokenizer beside it, and finds the architecture in the folder's name.
    """
    from transformers import CLIPProcessor, CLIPVisionConfig

    from raysandbox.ops.aesthetics import predictor_class

    with _seeded(seed):
        model = predictor_class(architecture)(CLIPVisionConfig(**_ENCODER, **_PICTURE, projection_dim=8))
        _shake(model)
    processor = _picture_processor()
    _saved(folder, model, CLIPProcessor(processor, _tokenizer(folder)) if tokenizer else processor)
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "architectures": [architecture]}))
    return str(folder)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _shake(model: object) -> None:
    """Moves all weights: as transformers makes them, everything looks alike to the model."""
    for parameter in model.parameters():
        parameter.data += 0.05 * parameter.data.new_empty(parameter.shape).normal_()


def _saved(folder: Path, *parts: object) -> str:
    for part in parts:
        part.save_pretrained(folder)
    return str(folder)


def _picture_processor() -> object:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})


def _tokenizer(folder: Path) -> object:
    """CLIP's tokenizer with one token per byte, whether a word ends with it or not."""
    from transformers import CLIPTokenizerFast
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    folder.mkdir(parents=True, exist_ok=True)
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    merges.write_text("#version: 0.2\n")
    return CLIPTokenizerFast(str(vocabulary), str(merges))
