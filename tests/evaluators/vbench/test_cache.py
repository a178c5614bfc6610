"""Results are read as they were kept, or not at all."""

import json
import logging

import pytest

from raysandbox.core.keys import DigestMemo, digest
from raysandbox.evaluators._vbench.cache import ResultCache
from raysandbox.evaluators._vbench.shards import ClipKeys
from raysandbox.evaluators._vbench.suite import Clip

KEY = digest("a")
RESULT = {"video_results": 0.1 + 0.2, "frame_results": [1e-17, 1 / 3], "left_out": False}


def test_kept_to_the_last_bit(tmp_path):
    cache = ResultCache(tmp_path)
    assert cache.get(KEY) is None
    cache.put(KEY, RESULT)
    assert cache.get(KEY) == RESULT
    assert ResultCache(tmp_path, read=False).get(KEY) is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": 1}', None])
def test_a_damaged_file_is_not_read(tmp_path, damage, caplog):
    cache = ResultCache(tmp_path)
    cache.put(KEY, RESULT)
    (path,) = tmp_path.rglob("*.json")
    content = json.loads(path.read_text())
    content["result"]["video_results"] = 0.5
    path.write_text(json.dumps(content) if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        assert cache.get(KEY) is None
    assert "is damaged: the video is scored again" in caplog.text


def test_keys_follow_what_a_result_depends_on(tmp_path):
    first, same, other = (tmp_path / name for name in ("first.mp4", "same.mp4", "other.mp4"))
    first.write_text("x")
    same.write_text("x")
    other.write_text("y")

    def key(path=first, prompt="a cat", dimension="motion_smoothness", versions="0.1.5", weights="1"):
        keys = ClipKeys(DigestMemo(tmp_path / "memo"), {"vbench": versions}, {dimension: [weights]})
        return keys.of(dimension, Clip(path, prompt))

    assert key() == key(path=same) == key(prompt="a dog")  # which this dimension does not look at
    different = [
        key(),
        key(path=other),
        key(dimension="imaging_quality"),
        key(dimension="temporal_style"),
        key(dimension="temporal_style", prompt="a dog"),
        key(versions="0.1.4"),
        key(weights="2"),
    ]
    assert len(set(different)) == len(different)
