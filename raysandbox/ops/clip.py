"""How well texts fit pictures, by a CLIP model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import numpy as np

from raysandbox.core.errors import UserError
from raysandbox.core.memory import batches_that_fit
from raysandbox.ops.pretrained import Network, Source, load_network, load_part, transformers_package

__all__ = ["Clip", "load_clip"]


@dataclass(frozen=True)
class Clip:
    """A CLIP model with its tokenizer."""

    network: Network
    tokenizer: Any

    def similarities(self, texts: Sequence[str], pictures: Sequence[Sequence[Any]]) -> np.ndarray:
        """The similarity of each text to its own pictures: its logit over 100, as in Data-Juicer.

        Args:
            texts: one per group of pictures.
            pictures: groups of PIL images or uint8 arrays of shape (H, W, 3).

        Returns:
            float32 array, one value per picture, group after group.
        """
        flat = list(chain.from_iterable(pictures))
        if not flat:
            return np.zeros(0, np.float32)
        model = self.network.model
        seen = _unit(self.network.apply(flat, lambda pixels: model.get_image_features(pixel_values=pixels)))
        read = _unit(self._embeddings(texts))
        owners = np.repeat(np.arange(len(texts)), [len(group) for group in pictures])
        cosines = np.einsum("nd,nd->n", seen, read[owners])
        scale, bias = float(model.logit_scale.exp()), float(getattr(model, "logit_bias", 0.0))
        return (cosines * scale + bias) / 100

    def _embeddings(self, texts: Sequence[str]) -> np.ndarray:
        """Texts of equal length go through the model together: padding could change what it says."""
        import torch

        model = self.network.model
        limit = model.config.text_config.max_position_embeddings
        tokens = [self.tokenizer(text, truncation=True, max_length=limit, return_tensors="pt") for text in texts]
        lengths = [token["input_ids"].shape[1] for token in tokens]
        order = sorted(range(len(texts)), key=lengths.__getitem__)
        found: dict[int, np.ndarray] = {}

        def read(some: Sequence[int]) -> np.ndarray:
            columns = {key: torch.cat([tokens[row][key] for row in some]) for key in tokens[some[0]]}
            inputs = {key: values.to(self.network.device) for key, values in columns.items()}
            return model.get_text_features(**inputs).float().cpu().numpy()

        refusal = "the memory does not hold the model and one text: use a GPU with more, or a smaller model"
        with torch.inference_mode():
            for _, same in groupby(order, key=lengths.__getitem__):
                for some, rows in batches_that_fit(list(same), self.network.batch_size, read, lambda _: refusal):
                    found |= zip(some, rows, strict=True)
        return np.stack([found[row] for row in range(len(texts))])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def load_clip(source: Source) -> Clip:
    """A model of the CLIP family.

    Raises:
        UserError: the model cannot be had, or does not compare texts with pictures.
        MissingExtraError: transformers or torch is not installed.
    """
    transformers = transformers_package()
    network = load_network(source, transformers.AutoModel)
    if not hasattr(network.model, "logit_scale"):
        found = type(network.model).__name__
        raise UserError(f"{source.key}: '{source.name}' is a {found}, which does not compare texts with pictures")
    return Clip(network, load_part(source, transformers.AutoTokenizer))
