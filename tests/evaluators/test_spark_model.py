import json
import math
import shutil
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysandbox.core.errors import UserError
from raysandbox.evaluators._spark_features import word_features
from raysandbox.evaluators._spark_model import HashedRegression, read_pipeline
from raysandbox.evaluators._spark_writer import write_pipeline

SIZE = 32


@pytest.fixture
def model():
    coefficients = np.zeros(SIZE)
    coefficients[[1, 5, 30]] = [0.5, -2.25, 1e-9]
    return HashedRegression(coefficients, -0.125)


@pytest.fixture
def saved(model, tmp_path):
    write_pipeline(model, tmp_path / "model")
    return tmp_path / "model"


def edit_metadata(folder, **changes):
    (part,) = (folder / "metadata").glob("part-*")
    part.write_text(json.dumps({**json.loads(part.read_text()), **changes}))


def regression_data(saved):
    return next(saved.glob("stages/*LogisticRegression*/data/*.parquet"))


def with_matrix(saved, **changes):
    """Writes the coefficients in another of Spark's layouts."""
    table = pq.read_table(regression_data(saved))
    row = table.to_pylist()[0]
    row["coefficientMatrix"].update(changes)
    pq.write_table(pa.Table.from_pylist([row], schema=table.schema), regression_data(saved))


@pytest.mark.parametrize("splits_text", [True, False])
@pytest.mark.parametrize("binary", [True, False])
def test_reads_what_was_written(model, tmp_path, splits_text, binary):
    written = HashedRegression(model.coefficients, model.intercept, splits_text, binary)
    write_pipeline(written, tmp_path / "model")
    read = read_pipeline(tmp_path / "model")
    assert (read.intercept, read.splits_text, read.binary) == (-0.125, splits_text, binary)
    assert np.array_equal(read.coefficients, model.coefficients)


def test_equal_models_give_equal_bytes(model, tmp_path):
    for name in "ab":
        write_pipeline(model, tmp_path / name)
    files = [sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*")) for name in "ab"]
    assert files[0] == files[1]
    assert all(
        (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
        for path in files[0]
        if (tmp_path / "a" / path).is_file()
    )


@pytest.mark.parametrize("nested", [True, False])
def test_reads_a_zip_of_the_directory(model, saved, tmp_path, nested):
    archive = shutil.make_archive(str(tmp_path / "m"), "zip", saved.parent if nested else saved)
    assert np.array_equal(read_pipeline(type(saved)(archive)).coefficients, model.coefficients)


def test_reads_every_layout_of_the_matrix(model, saved):
    columns = np.flatnonzero(model.coefficients)
    with_matrix(
        saved,
        colPtrs=np.cumsum([0, *(model.coefficients != 0)]).tolist(),
        rowIndices=[0] * len(columns),
        isTransposed=False,
    )
    assert np.array_equal(read_pipeline(saved).coefficients, model.coefficients)
    for transposed in (True, False):
        with_matrix(
            saved, type=1, colPtrs=None, rowIndices=None, values=model.coefficients.tolist(), isTransposed=transposed
        )
        assert np.array_equal(read_pipeline(saved).coefficients, model.coefficients)


def test_probabilities_are_the_sigmoid_of_the_summed_coefficients(model):
    features = word_features(["spark a a", "", " "], SIZE)
    sums = [model.coefficients[part].sum() - 0.125 for part in np.split(features.indices, features.starts[1:-1])]
    assert model.probabilities(features) == pytest.approx([1 / (1 + math.exp(-value)) for value in sums])


def test_extreme_margins_saturate():
    features = word_features(["a", "b"], 262_144)
    coefficients = np.zeros(262_144)
    coefficients[features.indices] = [1e6, -1e6]
    assert HashedRegression(coefficients, 0.0).probabilities(features).tolist() == [1.0, 0.0]


def test_a_binary_model_counts_a_word_once():
    twice, once = word_features(["a a b", "b a"], 262_144), word_features(["a b", "b a"], 262_144)
    coefficients = np.random.default_rng(0).normal(size=262_144)
    binary = HashedRegression(coefficients, 0.0, binary=True)
    assert binary.probabilities(twice).tolist() == binary.probabilities(once).tolist()


def test_a_model_of_spark_2_is_refused(saved):
    edit_metadata(next(saved.glob("stages/*HashingTF*")), sparkVersion="2.4.8")
    with pytest.raises(UserError, match=r"saved by Spark 2\.4\.8.*Spark 3 or later"):
        read_pipeline(saved)


def test_another_kind_of_stage_is_refused(saved):
    edit_metadata(next(saved.glob("stages/*Tokenizer*")), **{"class": "org.apache.spark.ml.feature.RegexTokenizer"})
    with pytest.raises(UserError, match=r"RegexTokenizer where .*Tokenizer is expected"):
        read_pipeline(saved)


def damage(saved, how):
    data = regression_data(saved)
    if how == "truncated":
        data.write_bytes(data.read_bytes()[:100])
    elif how == "no data":
        data.unlink()
    elif how == "empty metadata":
        next(saved.glob("metadata/part-*")).write_text("")
    elif how == "no stage":
        shutil.rmtree(next(saved.glob("stages/*HashingTF*")))
    else:
        shutil.rmtree(saved / "metadata")


@pytest.mark.parametrize("how", ["truncated", "no data", "empty metadata", "no stage", "no metadata"])
def test_a_damaged_model_is_named(saved, how):
    damage(saved, how)
    with pytest.raises(UserError, match=f"{saved}: not a readable Spark ML pipeline"):
        read_pipeline(saved)


def test_a_file_that_is_no_zip_is_named(tmp_path):
    path = tmp_path / "model.zip"
    path.write_text("html")
    with pytest.raises(UserError, match="not a readable Spark ML pipeline"):
        read_pipeline(path)
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(UserError, match="no folder with metadata/ and stages/"):
        read_pipeline(path)
