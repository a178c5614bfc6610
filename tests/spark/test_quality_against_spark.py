"""The reader and the writer of quality models against PySpark itself, document by document.

Run with `pytest -m spark`; needs `pip install 'raysandbox[spark,quality]'` and Java.
"""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from raysandbox.evaluators._spark_features import word_features
from raysandbox.evaluators._spark_model import read_pipeline

pytestmark = [
    pytest.mark.spark,
    # PySpark's own warnings: its version of pandas, sockets that it leaves to the collector.
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

GOOD = ["the", "river", "city", "of", "science", "and", "history", "shows", "that", "analysis", "of", "data", "matters"]
POOR = ["click", "buy", "free", "now", "win", "cheap", "offer", "subscribe", "the", "of", "data"]
EDGE_CASES = [
    "",
    " ",
    " \t\n\r\f\x0b",
    " leading",
    "trailing  ",
    "a  b\tc\x0bd\fe\rf\ng",
    "İstanbul DİYARBAKIR ıI",
    "ΟΔΥΣΣΕΥΣ ΣΑΣ Σ ΑΣ1 1Σ Α1Σ ΑΣ. ΑΣ'Α ΑΣ-Α Σ́Α ΑΣ… ΑΣΑΣ ΆΣ,",
    "nul\x00inside \x00 \x00\x00",
    "unit\x1cseparators\x1d\x1e\x1f are not\x85 white\xa0space\u2003here\u3000\u2028for Java",
    "😀 👩‍👩‍👧 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐐀𐐁",
    "\u0301 \u0301a a\u0301 \u200d \ufeff",
    "ǅ ẞ ﬁ K Å ℌ Ⅷ Ⓐ",
    "中文文本 没有 空格 カタカナ ひらがな 한국어",
    "word " * 50_000,
    "x" * 300_000,
    *("x" * length for length in range(1, 9)),
    *("é" * length for length in range(1, 6)),
]


def documents(count=1000):
    rng = random.Random(7)
    alphabet = "abcXYZ éİıΣσςαΑß中カ😀\u0301\u200d.,'-_\t\n\x0b\f\r\x00\x85\xa0 0123456789"
    texts = list(EDGE_CASES)
    while len(texts) < count:
        if rng.random() < 0.5:
            texts.append("".join(rng.choice(alphabet) for _ in range(rng.randint(0, 200))))
        else:
            texts.append(" ".join(rng.choice(GOOD + POOR) for _ in range(rng.randint(0, 300))))
    return texts


def labelled(word_list, count, seed):
    rng = random.Random(seed)
    return [" ".join(rng.choice(word_list) for _ in range(rng.randint(3, 40))) for _ in range(count)]


@pytest.fixture(scope="module")
def spark():
    pyspark_sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed: the comparison was NOT made")
    if shutil.which("java") is None:
        pytest.skip("Java is not installed: the comparison was NOT made")
    session = (
        pyspark_sql.SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "1")
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.fixture(scope="module")
def trained_by_spark(spark, tmp_path_factory):
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.feature import HashingTF, Tokenizer

    rows = [(text, 1.0) for text in labelled(GOOD, 200, 1)] + [(text, 0.0) for text in labelled(POOR, 200, 2)]
    stages = [
        Tokenizer(inputCol="text", outputCol="words"),
        HashingTF(inputCol="words", outputCol="features"),
        LogisticRegression(),
    ]
    folder = tmp_path_factory.mktemp("spark") / "model"
    Pipeline(stages=stages).fit(spark.createDataFrame(rows, ["text", "label"])).save(str(folder))
    return folder


@pytest.fixture(scope="module")
def trained_by_us(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    for name, texts in (("good", labelled(GOOD, 200, 1)), ("poor", labelled(POOR, 200, 2))):
        (folder / f"{name}.txt").write_text("\n".join(texts))
    script = Path(__file__).parents[2] / "scripts" / "train_quality_model"
    arguments = ["--positive", folder / "good.txt", "--negative", folder / "poor.txt", "--out", folder / "model"]
    subprocess.run([sys.executable, script, *arguments], check=True)
    return folder / "model"


@pytest.mark.parametrize("origin", ["trained_by_spark", "trained_by_us"])
def test_words_features_and_probabilities_agree(spark, request, origin):
    from pyspark.ml import PipelineModel

    folder = request.getfixturevalue(origin)
    texts = documents()
    frame = spark.createDataFrame([(index, text) for index, text in enumerate(texts)], ["row", "text"])
    columns = PipelineModel.load(str(folder)).transform(frame).select("row", "words", "features", "probability")
    expected = sorted(columns.collect())

    model = read_pipeline(folder)
    features = word_features(texts, model.num_features)
    probabilities = model.probabilities(features)

    word_differences = feature_differences = 0
    for row, words, counts, _ in expected:
        indices = features.indices[features.starts[row] : features.starts[row + 1]]
        word_differences += len(words) != len(indices)
        ours = dict(zip(*np.unique(indices, return_counts=True), strict=True))
        feature_differences += ours != dict(zip(counts.indices, counts.values, strict=True))
    differences = np.abs(probabilities - [row.probability[1] for row in expected])
    print(
        f"\n{origin}: {len(texts)} documents, {word_differences} word differences, "
        f"{feature_differences} feature differences, largest difference in probability {differences.max():.1e}"
    )
    assert word_differences == 0
    assert feature_differences == 0
    assert differences.max() < 1e-12
