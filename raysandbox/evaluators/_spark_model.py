"""Reads the quality classifier's saved Spark ML pipelines without Spark.

A saved pipeline is a directory: `metadata/part-*` (one JSON object) and `stages/N_uid/`, each with
its own `metadata`, the regression with `data/part-*.parquet` besides. The stages are, in order, a
`Tokenizer` (absent when a sentencepiece model splits the text), a `HashingTF` and a
`LogisticRegressionModel`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysandbox.core.errors import UserError
from raysandbox.evaluators._spark_features import Features

__all__ = ["HASHING", "PIPELINE", "REGRESSION", "TOKENIZER", "HashedRegression", "read_pipeline"]

PIPELINE = "org.apache.spark.ml.PipelineModel"
TOKENIZER = "org.apache.spark.ml.feature.Tokenizer"
HASHING = "org.apache.spark.ml.feature.HashingTF"
REGRESSION = "org.apache.spark.ml.classification.LogisticRegressionModel"

Folder = Path | zipfile.Path


@dataclass(frozen=True, eq=False)
class HashedRegression:
    """A binary logistic regression over hashed word counts.

    Attributes:
        coefficients: float64 array of shape (num_features,).
        intercept: the constant term.
        splits_text: whether the pipeline splits texts at spaces; otherwise it wants words.
        binary: whether a word that occurs several times counts once.
    """

    coefficients: np.ndarray
    intercept: float
    splits_text: bool = True
    binary: bool = False

    @property
    def num_features(self) -> int:
        """Size of the feature space."""
        return len(self.coefficients)

    def probabilities(self, features: Features) -> np.ndarray:
        """Spark's `probability[1]` of each text, float64 of shape (rows,).

        Spark computes it as 1 - 1 / (1 + exp(margin)); so do we, to the last bit that matters.
        """
        from raysandbox.evaluators import _word_hash

        used = features.distinct() if self.binary else features
        margins = _word_hash.sum_rows(used.starts, used.indices, self.coefficients) + self.intercept
        with np.errstate(over="ignore"):  # exp(margin) = inf is a probability of 1
            return 1.0 - 1.0 / (1.0 + np.exp(margins))


def read_pipeline(path: Path) -> HashedRegression:
    """Reads a saved pipeline: its directory, or a zip file of it.

    Raises:
        UserError: it is damaged, of another kind, or saved by Spark 2.
    """
    try:
        if path.is_dir():
            return _read(_pipeline_folder(path))
        with zipfile.ZipFile(path) as archive:
            return _read(_pipeline_folder(zipfile.Path(archive)))
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable Spark ML pipeline: {error}") from error
    except _UnsupportedModelError as error:
        raise UserError(f"{path}: {error}") from error


class _UnsupportedModelError(Exception):
    """The pipeline can be read but not applied."""


def _pipeline_folder(root: Folder) -> Folder:
    """The published archives hold the pipeline one level down."""
    for folder in (root, *(item for item in root.iterdir() if item.is_dir())):
        if (folder / "metadata").is_dir() and (folder / "stages").is_dir():
            return folder
    raise ValueError("no folder with metadata/ and stages/ in it")


def _read(folder: Folder) -> HashedRegression:
    uids = _metadata(folder, PIPELINE)["paramMap"]["stageUids"]
    folders = {item.name.split("_", 1)[1]: item for item in (folder / "stages").iterdir() if "_" in item.name}
    stages = [folders[uid] for uid in uids]
    splits_text = len(stages) == 3
    if splits_text:
        _metadata(stages.pop(0), TOKENIZER)
    if len(stages) != 2:
        raise _UnsupportedModelError(f"expected the stages Tokenizer, HashingTF, LogisticRegression; got {uids}")
    hashing = _metadata(stages[0], HASHING)
    parameters = {**hashing["defaultParamMap"], **hashing["paramMap"]}
    _metadata(stages[1], REGRESSION)
    row = _data_row(stages[1])
    if row["isMultinomial"] or row["numClasses"] != 2:
        raise _UnsupportedModelError("the regression is not binomial: train it on two classes, family 'auto'")
    coefficients = _matrix_row(row["coefficientMatrix"])
    if len(coefficients) != parameters["numFeatures"]:
        raise ValueError(f"{len(coefficients)} coefficients for {parameters['numFeatures']} features")
    return HashedRegression(
        coefficients, float(_vector(row["interceptVector"])[0]), splits_text, bool(parameters["binary"])
    )


def _metadata(folder: Folder, expected: str) -> dict[str, Any]:
    parts = sorted(_parts(folder / "metadata"), key=lambda part: part.name)
    metadata = json.loads("".join(part.read_text(encoding="utf-8") for part in parts))
    if metadata["class"] != expected:
        raise _UnsupportedModelError(f"stage {metadata['class']} where {expected} is expected")
    version = metadata["sparkVersion"]
    if int(version.split(".")[0]) < 3:
        raise _UnsupportedModelError(
            f"saved by Spark {version}, whose HashingTF hashes words in another way; "
            f"train and save the model with Spark 3 or later"
        )
    return metadata


def _parts(folder: Folder) -> list[Folder]:
    return [item for item in folder.iterdir() if item.name.startswith("part-")]


def _data_row(folder: Folder) -> dict[str, Any]:
    tables = [pq.read_table(pa.BufferReader(part.read_bytes())) for part in _parts(folder / "data")]
    rows = [row for table in tables for row in table.to_pylist()]
    if len(rows) != 1:
        raise ValueError(f"{len(rows)} rows of coefficients in {folder.name}/data instead of one")
    return rows[0]


def _vector(vector: Mapping[str, Any]) -> np.ndarray:
    """A `VectorUDT`: type 0 is sparse, type 1 dense."""
    if vector["type"] == 1:
        return np.asarray(vector["values"], dtype=np.float64)
    dense = np.zeros(vector["size"])
    dense[vector["indices"]] = vector["values"]
    return dense


def _matrix_row(matrix: Mapping[str, Any]) -> np.ndarray:
    """The only row of a `MatrixUDT`: type 0 is sparse, type 1 dense.

    A sparse matrix is compressed by columns, or, when transposed, by rows; then its `rowIndices`
    hold column numbers. A dense one has the same layout both ways, since it has one row.
    """
    if matrix["numRows"] != 1:
        raise ValueError(f"{matrix['numRows']} rows of coefficients instead of one")
    if matrix["type"] == 1:
        return np.asarray(matrix["values"], dtype=np.float64)
    row = np.zeros(matrix["numCols"])
    if matrix["isTransposed"]:
        row[matrix["rowIndices"]] = matrix["values"]
    else:
        columns = np.repeat(np.arange(matrix["numCols"]), np.diff(matrix["colPtrs"]))
        row[columns] = matrix["values"]
    return row
