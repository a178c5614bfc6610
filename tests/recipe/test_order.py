"""Filters change places on request, and keep the same rows."""

from pathlib import Path

import pytest

from raysandbox.ops.base import OPERATORS
from raysandbox.recipe.api import process
from raysandbox.recipe.order import cheap_first

SLOW_FIRST = [
    "whitespace_normalization_mapper",
    {"word_repetition_filter": {"rep_len": 3}},
    {"character_repetition_filter": {"rep_len": 5}},
    {"text_length_filter": {"min_len": 60}},
    "document_deduplicator",
    {"words_num_filter": {"min_num": 3}},
    {"text_length_filter": {"max_len": 200}},
]


@pytest.mark.parametrize("strategy", ["probe", "greedy"])
def test_the_same_rows_remain(tmp_path, write_jsonl, strategy):
    rows = [{"text": f"some words and number {number} " * (number % 9)} for number in range(80)]
    recipe = {"dataset_path": str(write_jsonl(rows)), "process": SLOW_FIRST}
    plain = process({**recipe, "export_path": str(tmp_path / "a" / "o.jsonl")}, cache=False)
    keys = {"op_fusion": True, "fusion_strategy": strategy, "export_path": str(tmp_path / "b" / "o.jsonl")}
    fused = process({**recipe, **keys}, cache=False)
    assert Path(fused.path).read_bytes() == Path(plain.path).read_bytes()
    names = [op.name for op in fused.ops]
    assert sorted(names) == sorted(op.name for op in plain.ops)
    assert (names[0], names[4]) == ("whitespace_normalization_mapper", "document_deduplicator")
    if strategy == "probe":
        assert names[1] == "text_length_filter"  # drops most, costs least
    for before, after in zip(fused.ops, fused.ops[1:], strict=False):
        assert before.rows_out == after.rows_in


def test_kinds_go_from_texts_to_models():
    names = [
        "video_nsfw_filter",
        "video_motion_score_filter",
        "image_shape_filter",
        "text_length_filter",
        "video_duration_filter",
        "whitespace_normalization_mapper",
        "video_nsfw_filter",
        "text_length_filter",
    ]
    operators = [OPERATORS.get(name)(**OPERATORS.get(name).example) for name in names]
    assert [op.type_name for op in cheap_first(operators)] == [
        "text_length_filter",
        "image_shape_filter",
        "video_duration_filter",
        "video_motion_score_filter",
        "video_nsfw_filter",
        "whitespace_normalization_mapper",
        "text_length_filter",
        "video_nsfw_filter",
    ]
