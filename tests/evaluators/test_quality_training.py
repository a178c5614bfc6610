import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from raysandbox.core.errors import UserError
from raysandbox.evaluators._quality_training import read_texts, train
from raysandbox.evaluators._spark_model import read_pipeline

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_quality_model"
GOOD = [f"the river {number} of science science" for number in range(40)]
POOR = [f"click buy {number} now now" for number in range(30)]


def test_the_model_separates_the_classes_and_says_so():
    model, (fitted, held_out) = train(GOOD, POOR, num_features=4096, held_out=0.2)
    assert (fitted.documents, held_out.documents) == (56, 14)
    assert fitted.accuracy == held_out.accuracy == 1.0
    assert fitted.positive_score > 0.9 > 0.1 > fitted.negative_score
    assert model.num_features == 4096


def test_the_same_seed_gives_the_same_model():
    first, second = (train(GOOD, POOR, num_features=256, seed=3)[0] for _ in range(2))
    assert np.array_equal(first.coefficients, second.coefficients)
    assert not np.array_equal(first.coefficients, train(GOOD, POOR, num_features=256, seed=4)[0].coefficients)


def test_too_few_texts_are_refused():
    with pytest.raises(UserError, match="at least 2 negative texts"):
        train(GOOD, ["one"])


def test_texts_come_from_the_usual_files(tmp_path):
    lines = "".join(json.dumps({"content": text}) + "\n" for text in GOOD[:2]) + "\n"
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    (tmp_path / "c.txt").write_text("\n".join(GOOD[:2]))
    pq.write_table(pa.table({"content": [*GOOD[:2], None]}), tmp_path / "d.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert read_texts([path], "content") == GOOD[:2]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_file_without_the_key_is_named(tmp_path, name):
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"content": ["x"]}), path)
    else:
        path.write_text('{"content": "x"}\n')
    with pytest.raises(UserError, match=rf"{path}.*'text'.*--text-key"):
        read_texts([path], "text")


def test_the_script_saves_a_model_and_prints_a_table(tmp_path):
    for name, texts in (("good", GOOD), ("poor", POOR)):
        (tmp_path / f"{name}.txt").write_text("\n".join(texts))
    arguments = ["--positive", "good.txt", "--negative", "poor.txt", "--out", "model", "--features", "512"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["split", "train", "held", "saved"]
    assert read_pipeline(tmp_path / "model").num_features == 512
    arguments[1] = "missing.txt"
    failed = subprocess.run(
        [sys.executable, SCRIPT, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert failed.returncode == 2
    assert "missing.txt" in failed.stderr
    assert "Traceback" not in failed.stderr
