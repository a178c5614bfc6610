"""Writes a `HashedRegression` as a Spark ML pipeline that both Spark and our reader load."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysandbox.core.files import atomic_dir
from raysandbox.evaluators._spark_model import HASHING, PIPELINE, REGRESSION, TOKENIZER, HashedRegression

__all__ = ["write_pipeline"]

# Spark chooses its loaders by this version; the layout below is that of Spark 3 and 4.
_FORMAT_VERSION = "3.5.0"
_PARAMETER_DEFAULTS = {
    "Tokenizer": {},
    "HashingTF": {"binary": False, "numFeatures": 262144},
    "LogisticRegression": {
        "featuresCol": "features",
        "labelCol": "label",
        "predictionCol": "prediction",
        "probabilityCol": "probability",
        "rawPredictionCol": "rawPrediction",
        "threshold": 0.5,
    },
}


def write_pipeline(model: HashedRegression, folder: Path) -> None:
    """Saves a model as `PipelineModel.save` would; an earlier one at `folder` is replaced.

    Equal models give equal bytes (no time, no random ids), so that keys made of content agree.
    """
    identity = hashlib.sha256(model.coefficients.tobytes() + repr(model.intercept).encode()).hexdigest()[:12]
    hashing = {
        "inputCol": "words",
        "outputCol": "features",
        "numFeatures": model.num_features,
        "binary": model.binary,
    }
    stages = [("HashingTF", HASHING, hashing), ("LogisticRegression", REGRESSION, {})]
    if model.splits_text:
        stages.insert(0, ("Tokenizer", TOKENIZER, {"inputCol": "text", "outputCol": "words"}))
    uids = [f"{name}_{identity}" for name, _, _ in stages]
    with atomic_dir(folder) as temporary:
        _write_metadata(temporary, PIPELINE, f"PipelineModel_{identity}", {"stageUids": uids}, {})
        for index, (name, cls, parameters) in enumerate(stages):
            stage = temporary / "stages" / f"{index}_{uids[index]}"
            _write_metadata(stage, cls, uids[index], parameters, _PARAMETER_DEFAULTS[name])
            if cls == REGRESSION:
                _write_data(stage / "data", model)


def _write_metadata(
    folder: Path, cls: str, uid: str, parameters: Mapping[str, Any], defaults: Mapping[str, Any]
) -> None:
    metadata = {
        "class": cls,
        "timestamp": 0,
        "sparkVersion": _FORMAT_VERSION,
        "uid": uid,
        "paramMap": parameters,
        "defaultParamMap": defaults,
    }
    target = folder / "metadata"
    target.mkdir(parents=True)
    (target / "part-00000").write_text(json.dumps(metadata) + "\n", encoding="utf-8")
    (target / "_SUCCESS").touch()


def _write_data(target: Path, model: HashedRegression) -> None:
    """One row: the intercept as a dense vector, the coefficients as a sparse matrix by rows."""
    columns = np.flatnonzero(model.coefficients)
    row = {
        "numClasses": 2,
        "numFeatures": model.num_features,
        "interceptVector": {"type": 1, "size": None, "indices": None, "values": [model.intercept]},
        "coefficientMatrix": {
            "type": 0,
            "numRows": 1,
            "numCols": model.num_features,
            "colPtrs": [0, len(columns)],
            "rowIndices": columns,
            "values": model.coefficients[columns],
            "isTransposed": True,
        },
        "isMultinomial": False,
    }
    # Spark turns the structs into its vector and matrix types only when the footer says so.
    spark_schema = {"type": "struct", "fields": [_spark_field(field) for field in _SCHEMA]}
    schema = _SCHEMA.with_metadata({"org.apache.spark.sql.parquet.row.metadata": json.dumps(spark_schema)})
    target.mkdir()
    pq.write_table(pa.Table.from_pylist([row], schema=schema), target / "part-00000.snappy.parquet")
    (target / "_SUCCESS").touch()


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_INTEGERS = pa.list_(_required("element", pa.int32()))
_DOUBLES = pa.list_(_required("element", pa.float64()))
_VECTOR = pa.struct([_required("type", pa.int8()), ("size", pa.int32()), ("indices", _INTEGERS), ("values", _DOUBLES)])
_MATRIX = pa.struct(
    [
        _required("type", pa.int8()),
        _required("numRows", pa.int32()),
        _required("numCols", pa.int32()),
        ("colPtrs", _INTEGERS),
        ("rowIndices", _INTEGERS),
        ("values", _DOUBLES),
        _required("isTransposed", pa.bool_()),
    ]
)
_SCHEMA = pa.schema(
    [
        _required("numClasses", pa.int32()),
        _required("numFeatures", pa.int32()),
        ("interceptVector", _VECTOR),
        ("coefficientMatrix", _MATRIX),
        _required("isMultinomial", pa.bool_()),
    ]
)
_SPARK_NAMES = {pa.int8(): "byte", pa.int32(): "integer", pa.float64(): "double", pa.bool_(): "boolean"}
_USER_TYPES = {"interceptVector": "VectorUDT", "coefficientMatrix": "MatrixUDT"}


def _spark_field(field: pa.Field) -> dict[str, Any]:
    kind = _spark_type(field.type)
    if field.name in _USER_TYPES:
        name = _USER_TYPES[field.name]
        kind = {
            "type": "udt",
            "class": f"org.apache.spark.ml.linalg.{name}",
            "pyClass": f"pyspark.ml.linalg.{name}",
            "sqlType": kind,
        }
    return {"name": field.name, "type": kind, "nullable": field.nullable, "metadata": {}}


def _spark_type(kind: pa.DataType) -> Any:
    """An Arrow type in the JSON of Spark's schemas."""
    if pa.types.is_struct(kind):
        return {"type": "struct", "fields": [_spark_field(kind.field(i)) for i in range(kind.num_fields)]}
    if pa.types.is_list(kind):
        return {"type": "array", "elementType": _spark_type(kind.value_type), "containsNull": False}
    return _SPARK_NAMES[kind]
