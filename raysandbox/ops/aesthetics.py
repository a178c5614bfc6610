"""Networks that say how beautiful a picture is: CLIP's picture half and a small head on top.

The checkpoints are those of the package simple-aesthetics-predictor; their weights have the names
that its classes give them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from raysandbox.core.errors import UserError
from raysandbox.ops.pretrained import PictureScorer, Source, load_network, load_part, transformers_package

__all__ = ["PREDICTOR", "load_aesthetics", "predictor_class"]

# What Data-Juicer uses when no model is named.
PREDICTOR = "shunk031/aesthetics-predictor-v2-sac-logos-ava1-l14-linearMSE"

# Architecture in the checkpoint's configuration → name of its head.
_HEAD_NAMES = {
    "AestheticsPredictorV1": "predictor",
    "AestheticsPredictorV2Linear": "layers",
    "AestheticsPredictorV2ReLU": "layers",
}
_WIDTHS = (1024, 128, 64, 16, 1)


def load_aesthetics(source: Source) -> PictureScorer:
    """A predictor as a scorer.

    As in Data-Juicer, scores are brought from 0 … 10 to 0 … 1 where the model's name says
    `aesthetics-predictor`.

    Raises:
        UserError: the model cannot be had, or is no such predictor.
        MissingExtraError: transformers or torch is not installed.
    """
    config = load_part(source, transformers_package().AutoConfig)
    architecture = (config.architectures or ["model without a name"])[0]
    if architecture not in _HEAD_NAMES:
        raise UserError(f"{source.key}: '{source.name}' is a {architecture}; known are {', '.join(_HEAD_NAMES)}")
    network = load_network(source, predictor_class(architecture))
    model = network.model
    head = getattr(model, _HEAD_NAMES[architecture])
    highest = 10.0 if "aesthetics-predictor" in source.name else 1.0

    def score(pixels: Any) -> Any:
        embedding = model(pixel_values=pixels).image_embeds
        return head(embedding / embedding.norm(dim=-1, keepdim=True))[:, 0] / highest

    return PictureScorer(network, score)


def predictor_class(architecture: str) -> Any:
    """The class of models that have CLIP's picture half and, beside it, the head of an architecture."""
    from transformers import CLIPVisionModelWithProjection

    class AestheticsPredictor(CLIPVisionModelWithProjection):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            setattr(self, _HEAD_NAMES[architecture], _head(architecture, config.projection_dim))
            self.post_init()

    return AestheticsPredictor


def _head(architecture: str, width: int) -> Any:
    from torch import nn

    if architecture.endswith("V1"):
        return nn.Linear(width, 1)
    bent = architecture.endswith("ReLU")
    layers: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(pairwise((width, *_WIDTHS))):
        layers.append(nn.Linear(inputs, outputs))
        if bent and index < 4:
            layers.append(nn.ReLU())
        if index < 3:
            layers.append(nn.Identity())  # dropout stood here in training: weights are named by position
    return nn.Sequential(*layers)
