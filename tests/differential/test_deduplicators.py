"""Compares the deduplicators of near-equal texts, and of videos, with those of the installed Data-Juicer."""

import importlib
import os
import random
import shutil
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raysandbox.ops.base import OPERATORS
from raysandbox.ops.batch import Batch
from raysandbox.ops.minhash import best_bands, hash_functions
from tests.ops import tiny_clips

pytest.importorskip("data_juicer", reason="py-data-juicer is not installed: pip install 'raysandbox[datajuicer]'")

ODD = [
    "",
    " ",
    "\n",
    "a",
    "!",
    "one two three",
    "İstanbul ΣΊΣΥΦΟΣ ΑΣ",
    "你好，世界！" * 9,
    "😀 é ü " * 9,
    "?! - ,, " * 9,
]


@pytest.fixture(scope="module")
def rows():
    """Pieces of the standard library's sources, odd texts, and altered copies of some of them."""
    chance = random.Random(0)
    library = Path(os.__file__).parent
    paths = [*sorted(library.glob("*.py"))[:40], *sorted((library / "test" / "cjkencodings").glob("*-utf8.txt"))]
    texts = list(ODD)
    for path in paths:
        source = path.read_text(encoding="utf-8")
        starts = range(0, len(source), 4000)
        texts += [source[start : start + chance.randrange(100, 4000)] for start in starts][:3]
    copies = [_altered(text, chance) for text in texts[::2]]
    texts += [*copies, *(text.swapcase() for text in texts[::5]), *texts[::7]]
    chance.shuffle(texts)
    return texts


def _altered(text, chance):
    words = text.split(" ")
    for _ in range(len(words) // 60 + 1):
        words[chance.randrange(len(words))] = "changed"
    return " ".join(words)


def theirs(name, parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from data_juicer.ops import load_ops

        (operator,) = load_ops([{name: dict(parameters)}])
    return operator


def kept_by_theirs(operator, columns):
    from datasets import Dataset

    count = len(next(iter(columns.values())))
    samples = [operator.compute_hash({key: values[row] for key, values in columns.items()}) for row in range(count)]
    dataset = Dataset.from_list([{"id": row, **sample} for row, sample in enumerate(samples)])
    return operator.process(dataset)[0]["id"]


def kept_by_ours(operator, columns):
    batch = Batch(pa.table({name: pa.array(values) for name, values in columns.items()}))
    features = pa.table(operator.features(batch, operator.load()))
    return np.flatnonzero(operator.decide(features, batch.num_rows, 0)).tolist()


def compare(name, parameters, columns):
    expected = kept_by_theirs(theirs(name, parameters), columns)
    assert kept_by_ours(OPERATORS.get(name)(**parameters), columns) == expected
    assert 1 < len(expected) < len(next(iter(columns.values())))


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"tokenization": "character", "window_size": 9},
        {"tokenization": "punctuation", "window_size": 2, "lowercase": False},
        {"ignore_pattern": r"[aeiou]\w", "jaccard_threshold": 0.5},
        {"num_permutations": 32, "num_bands": 5, "num_rows_per_band": 4},
    ],
)
def test_minhash(parameters, rows):
    compare("document_minhash_deduplicator", parameters, {"text": rows})


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"tokenization": "character", "window_size": 9},
        {"tokenization": "punctuation", "window_size": 2, "lowercase": False},
        {"ignore_pattern": r"[aeiou]\w", "window_size": 3},
        {"num_blocks": 10, "hamming_distance": 9},
    ],
)
def test_simhash(parameters, rows):
    pytest.importorskip("simhash")
    compare("document_simhash_deduplicator", parameters, {"text": rows})


def test_same_bands(rows):
    """The signatures themselves are equal: so are the bands, and with them the candidates."""
    parameters = {"num_permutations": 40, "num_bands": 40, "num_rows_per_band": 1}
    operator = theirs("document_minhash_deduplicator", parameters)
    theirs_bands = [band for text in rows for band in operator.compute_hash({"text": text})["__dj__minhash"]]
    ours = OPERATORS.get("document_minhash_deduplicator")(**parameters)
    features = ours.features(Batch(pa.table({"text": pa.array(rows, pa.large_string())})), None)
    our_bands = features["__dj__minhash"].flatten().to_pylist()
    pairs = set(zip(theirs_bands, our_bands, strict=True))
    assert len(pairs) == len(set(theirs_bands)) == len(set(our_bands)) > 100


def test_same_hash_functions():
    operator = theirs("document_minhash_deduplicator", {})
    factors, summands = hash_functions(256)
    assert factors.tolist() == operator.perm_a.tolist()
    assert summands.tolist() == operator.perm_b.tolist()


def test_same_choice_of_bands():
    from data_juicer.ops.deduplicator.document_minhash_deduplicator import optimal_param

    for threshold in (0, 0.3, 0.5, 0.7, 0.85, 1.0):
        for count in (1, 16, 100, 128):
            assert best_bands(threshold, count) == optimal_param(threshold, count)


def test_sentencepiece(rows, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    prefix = tmp_path / "tiny"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(rows), model_prefix=str(prefix), vocab_size=2000, minloglevel=3, num_threads=1
    )
    parameters = {"tokenization": "sentencepiece", "tokenizer_model": f"{prefix}.model"}
    compare("document_minhash_deduplicator", parameters, {"text": rows})


@pytest.mark.parametrize("parameters", [{}, {"consider_text": True}, {"consider_text": True, "lowercase": True}])
def test_videos(parameters, tmp_path, monkeypatch):
    module = importlib.import_module("data_juicer.ops.deduplicator.video_deduplicator")
    monkeypatch.setattr(module, "close_video", lambda container: container.close())  # theirs is for an older PyAV
    one, other = (tiny_clips.save_clip(tmp_path / f"{seed}.mp4", seed, seconds=0.5) for seed in (1, 2))
    same = str(shutil.copy(one, tmp_path / "same.mp4"))
    videos = [[one], [other], [same], [], [one, other], [one, one], [], [same, other], [one]]
    texts = ["a", "a", "a", "b", "a", "A", "b", "a", "b"]
    compare("video_deduplicator", parameters, {"videos": videos, "text": texts})
