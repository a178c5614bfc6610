import json
import subprocess
import sys
from pathlib import Path

import pytest

from raysandbox.core.errors import UserError
from raysandbox.executors._tiny_gpt3 import TinyGpt3, build_tiny_gpt3, read_texts

pytestmark = pytest.mark.usefixtures("modelscope_stack")

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_tiny_gpt3"
SMALL = TinyGpt3(layers=1, hidden=8, heads=2, vocab_size=60, max_length=16)


def test_the_same_texts_and_seed_give_the_same_files(tmp_path, train_file):
    first, second = (build_tiny_gpt3(tmp_path / name, read_texts(train_file), SMALL) for name in "ab")
    for file in first.iterdir():
        if file.suffix != ".bin":  # a zip whose entries carry the archive's name
            assert file.read_bytes() == (second / file.name).read_bytes()


def test_its_vocabulary_starts_with_berts_special_tokens(tiny_model):
    vocabulary = (tiny_model / "vocab.txt").read_text().splitlines()
    assert vocabulary[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert {"data", "filters", "model"} <= set(vocabulary)
    config = json.loads((tiny_model / "config.json").read_text())
    assert config["vocab_size"] == len(vocabulary)


def test_mistakes_are_named(tmp_path, train_file):
    with pytest.raises(UserError, match="no texts"):
        build_tiny_gpt3(tmp_path / "model", [], SMALL)
    assert not (tmp_path / "model").exists()
    with pytest.raises(UserError, match=r"hidden \(10\) must be a multiple of heads \(4\)"):
        TinyGpt3(hidden=10, heads=4)
    with pytest.raises(UserError, match=r"train\.jsonl:1: not a JSON object with the key 'content'"):
        list(read_texts(train_file, "content"))


def test_the_script_says_what_is_wrong_in_one_line(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text("nonsense\n")
    command = [sys.executable, str(SCRIPT), str(tmp_path / "model"), "--vocab-from", str(bad)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "bad.jsonl:1: not a JSON object" in done.stderr
    assert "Traceback" not in done.stderr
