"""GPT-3's text quality classifier, as Data-Juicer publishes it; runs without Spark."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from raysandbox.core.component import InputPath, ModelPath, OutputPath
from raysandbox.core.errors import JobFailed, MissingExtraError, UserError
from raysandbox.core.files import cache_dir
from raysandbox.core.keys import DigestMemo, code_version, library_versions
from raysandbox.core.registry import register
from raysandbox.core.runner import Scorers, WorkSession
from raysandbox.evaluators._java_text import java_lower
from raysandbox.evaluators._spark_features import piece_features, word_features
from raysandbox.evaluators._spark_model import HashedRegression, read_pipeline
from raysandbox.evaluators.base import DataEvaluator

__all__ = ["QualityScorer", "TextQualityClassifier", "find_model"]

KeepMethod = Literal["label", "gpt3"]

# Name → (sentencepiece model or None, keep method): the models that Data-Juicer publishes.
_PUBLISHED: dict[str, tuple[str | None, KeepMethod]] = {
    "gpt3": (None, "gpt3"),
    "chinese": ("zh.sp.model", "label"),
    "code": ("code.sp.model", "label"),
}
_PARETO_SHAPE = 9.0
_WORD_HASH = "raysandbox.evaluators._word_hash"  # imported when it is needed: it is compiled then
_FETCH = "raysandbox weights fetch dj_text_quality_classifier"


@register("dj_text_quality_classifier")
class TextQualityClassifier(DataEvaluator):
    """Scores texts with the GPT-3 style quality classifier; the result is the mean score.

    A row is kept when its score is above 0.5 (`label`), or above 1 - x with x drawn from a Pareto
    distribution of shape 9 (`gpt3`, the rule of the GPT-3 paper, appendix A).
    """

    example: ClassVar[Mapping[str, Any]] = {
        "dataset_path": "./outputs/demo/processed.jsonl",
        "model": "gpt3",
        "export_path": "./outputs/demo/quality.jsonl",
    }

    dataset_path: InputPath = Field(description="file, folder, glob or weighted mix to score")
    compare_with: InputPath | None = Field(
        None, description="another data set, e.g. the one before processing: its mean score is reported beside"
    )
    model: ModelPath = Field(
        "gpt3", description="gpt3, chinese, code, or the path of a saved Spark ML pipeline (directory or zip)"
    )
    tokenizer: ModelPath | None = Field(
        None, description="sentencepiece model that splits the text; by default the one that belongs to the model"
    )
    keep_method: KeepMethod | None = Field(None, description="label or gpt3; by default the model's own")
    text_key: str = Field("text", description="column of the text")
    export_path: OutputPath | None = Field(None, description="where to write the rows with doc_score and should_keep")
    seed: int = Field(42, description="seed of the Pareto draws of keep method gpt3")

    @classmethod
    def missing_weights(cls, raw: Mapping[str, Any]) -> Mapping[str, str]:
        """The published model and its tokenizer, when it is named and they are not on this machine."""
        model = raw.get("model", cls.model_fields["model"].default)
        if not isinstance(model, str) or model not in _PUBLISHED:
            return {}
        found = {}
        try:
            find_model(model)
        except UserError as error:
            found["model"] = str(error)
        own_tokenizer = _PUBLISHED[model][0]
        if own_tokenizer and not raw.get("tokenizer"):  # a tokenizer that is named is looked up by its path
            try:
                _find_tokenizer(None, own_tokenizer)
            except UserError as error:
                found["tokenizer"] = str(error)
        return found

    @classmethod
    def needed_extras(cls, raw: Mapping[str, Any]) -> Sequence[str]:
        """What a sentencepiece tokenizer needs, where the model has one or one is named."""
        own, _ = _PUBLISHED.get(str(raw.get("model", cls.model_fields["model"].default)), (None, ""))
        return ("quality",) if own or raw.get("tokenizer") else cls.extras

    @classmethod
    def surroundings(cls, raw: Mapping[str, Any]) -> Any:
        """The content of a published model and of its tokenizer, which no path in the configuration leads to."""
        model = raw.get("model", cls.model_fields["model"].default)
        if not isinstance(model, str) or model not in _PUBLISHED:
            return None
        memo = DigestMemo(cache_dir() / "digests")
        found: list[str | None] = []
        with contextlib.suppress(UserError):  # it is not there, which `missing_weights` tells
            found.append(memo.of(find_model(model)))
            tokenizer = _find_tokenizer(raw.get("tokenizer"), _PUBLISHED[model][0])
            found.append(memo.of(Path(tokenizer)) if tokenizer else None)
        return found

    def evaluate(self, session: WorkSession) -> float:
        """Returns the mean doc_score; reports it with the share of rows kept and their number.

        With `compare_with`, the same of that data set are reported with the prefix `compared_`.
        """
        export_path = Path(self.export_path) if self.export_path else None
        found = self._measure(session.scorers, self.dataset_path, export_path)
        session.report(found)
        if self.compare_with:
            compared = self._measure(session.scorers, self.compare_with, None)
            session.report({f"compared_{name}": value for name, value in compared.items()})
        return found["doc_score"]

    def _measure(self, scorers: Scorers, dataset_path: str, export_path: Path | None) -> dict[str, float]:
        scores = scorers.score(dataset_path, self.scorer(), export_path)
        if scores.num_rows == 0:
            raise JobFailed(f"{dataset_path} has no rows: there is no quality to measure")
        values = scores.column("doc_score").to_numpy()
        unscored = int(np.count_nonzero(np.isnan(values)))
        if unscored:
            raise JobFailed(
                f"{unscored} of {len(values)} rows of {dataset_path} have no score: "
                f"their '{self.text_key}' is missing, or the model {self.model} holds values that are no numbers"
            )
        kept = float(np.mean(scores.column("should_keep").to_numpy()))
        return {"doc_score": float(np.mean(values)), "kept_share": kept, "rows": float(len(values))}

    def scorer(self) -> QualityScorer:
        """The row scorer of this configuration.

        Raises:
            UserError: the model or its tokenizer is not on this machine.
        """
        own_tokenizer, own_method = _PUBLISHED.get(self.model, (None, "label"))
        return QualityScorer(
            model=str(find_model(self.model)),
            tokenizer=_find_tokenizer(self.tokenizer, own_tokenizer),
            keep_method=self.keep_method or own_method,
            text_key=self.text_key,
            seed=self.seed,
        )


@dataclass(frozen=True)
class QualityScorer:
    """Adds `doc_score` (probability of good text) and `should_keep` (0 or 1) to rows of text."""

    model: str
    tokenizer: str | None
    keep_method: KeepMethod
    text_key: str
    seed: int

    def cache_identity(self, memo: DigestMemo) -> Any:
        """The content of model and tokenizer, how rows are kept, and the code that makes scores of texts."""
        return {
            "scorer": "dj_text_quality_classifier",
            "model": memo.of(Path(self.model)),
            "tokenizer": memo.of(Path(self.tokenizer)) if self.tokenizer else None,
            "keep_method": self.keep_method,
            "seed": self.seed,
            "code": code_version(QualityScorer, HashedRegression, word_features, java_lower, _WORD_HASH),
            "libraries": library_versions("mmh3", "numba", "numpy", "sentencepiece"),
        }

    def cache_columns(self) -> tuple[str, ...]:
        """The column of the text."""
        return (self.text_key,)

    def load(self) -> tuple[HashedRegression, Any]:
        """Reads the pipeline and the sentencepiece model, if one belongs to it.

        Raises:
            UserError: pipeline and tokenizer do not fit together.
        """
        regression = read_pipeline(Path(self.model))
        if regression.splits_text and self.tokenizer:
            raise UserError(f"{self.model} splits texts by itself: remove `tokenizer` ({self.tokenizer})")
        if not regression.splits_text and not self.tokenizer:
            raise UserError(f"{self.model} needs the sentencepiece model it was trained with: set `tokenizer`")
        return regression, _load_tokenizer(self.tokenizer) if self.tokenizer else None

    def score(self, table: pa.Table, state: tuple[HashedRegression, Any]) -> Mapping[str, pa.Array]:
        """Returns `doc_score` (null where the text is null) and `should_keep` for every row.

        Raises:
            UserError: there is no column of text under `text_key`.
        """
        regression, tokenizer = state
        texts = self._texts(table)
        missing = np.array([text is None for text in texts], dtype=np.bool_)
        filled = [text or "" for text in texts]
        if tokenizer is None:
            features = word_features(filled, regression.num_features)
        else:
            features = piece_features(filled, tokenizer.encode_as_pieces, regression.num_features)
        scores = regression.probabilities(features)
        kept = (scores > self._limits(filled)) & ~missing
        return {"doc_score": pa.array(scores, mask=missing), "should_keep": pa.array(kept.astype(np.int32))}

    def _texts(self, table: pa.Table) -> list[str | None]:
        if self.text_key not in table.column_names:
            columns = ", ".join(name for name in table.column_names if not name.startswith("__"))
            raise UserError(f"the data has no column '{self.text_key}' (it has {columns}): set `text_key`")
        column = table.column(self.text_key)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise UserError(f"column '{self.text_key}' holds {column.type}, not text: set `text_key`")
        return column.to_pylist()

    def _limits(self, texts: list[str]) -> np.ndarray | float:
        """The score above which each row is kept.

        Each draw depends on the seed and the row's text only, so that the choice is the same for
        every layout of blocks. NumPy's `pareto` is the Lomax distribution, drawn here by inversion.
        """
        if self.keep_method == "label":
            return 0.5
        key = str(self.seed).encode()
        digests = (hashlib.blake2b(text.encode(), digest_size=8, key=key).digest() for text in texts)
        uniform = (np.frombuffer(b"".join(digests), dtype="<u8") >> 11) / 2.0**53  # in [0, 1), exactly
        return 1.0 - ((1.0 - uniform) ** (-1.0 / _PARETO_SHAPE) - 1.0)


def find_model(model: str) -> Path:
    """Where a model is: a published one by its name below the cache, another by its path.

    Raises:
        UserError: it is not there; the message says where it is expected.
    """
    if model not in _PUBLISHED:
        if Path(model).exists():
            return Path(model)
        raise UserError(
            f"there is no quality model at {model}: `model` is gpt3, chinese, code, "
            f"or the path of a saved Spark ML pipeline (directory or zip)"
        )
    folder = _weights_folder() / f"{model}_quality_model"
    archive = folder.with_suffix(".zip")
    for candidate in (folder, archive):
        if candidate.exists():
            return candidate
    raise UserError(
        f"the quality model '{model}' is not on this machine: put Data-Juicer's {archive.name} to {archive}, "
        f"or unpack it to {folder} (`{_FETCH} --part {model}` does it where there is a network), "
        f"or set `model` to the path of a saved Spark ML pipeline"
    )


def _find_tokenizer(tokenizer: str | None, published: str | None) -> str | None:
    if tokenizer is None and published is None:
        return None
    path = Path(tokenizer) if tokenizer else _weights_folder() / str(published)
    if path.is_file():
        return str(path)
    fetch = f" (`{_FETCH}` does it where there is a network)" if tokenizer is None else ""
    raise UserError(f"there is no sentencepiece model at {path}: put it there{fetch}, or set `tokenizer` to its path")


def _weights_folder() -> Path:
    return cache_dir() / "models" / "quality"


def _load_tokenizer(path: str) -> Any:
    try:
        from sentencepiece import SentencePieceProcessor
    except ModuleNotFoundError as error:
        raise MissingExtraError("sentencepiece", "quality", "The quality classifier's tokenizer") from error
    return SentencePieceProcessor(model_file=path)
