"""The tracer shows rows before and after."""

import json

import pytest

from raysandbox.recipe.api import process

STEPS = [
    "whitespace_normalization_mapper",
    {"text_length_filter": {"min_len": 0, "max_len": 12}},
    {"words_num_filter": {"min_num": 1}},
]


@pytest.fixture
def traced(tmp_path, write_jsonl, read_jsonl):
    def traced(steps, rows, **keys):
        recipe = {"dataset_path": str(write_jsonl(rows)), "export_path": str(tmp_path / "out" / "o.jsonl")}
        process({**recipe, "process": steps, "open_tracer": True, **keys}, shared=tmp_path, block_bytes=120)
        return {path.name: read_jsonl(path) for path in sorted((tmp_path / "out" / "trace").glob("*"))}

    return traced


def test_rows_before_and_after(traced, tmp_path):
    rows = [{"id": 0, "text": "a\tb"}, {"id": 1, "text": "same"}, {"id": 2, "text": "much too long, this"}]
    files = traced(STEPS, rows, trace_keys=["id"])
    assert list(files) == ["01-whitespace_normalization_mapper.jsonl", "02-text_length_filter.jsonl"]
    place = {"file": str(tmp_path / "in.jsonl"), "line": 1, "id": 0}
    assert files["01-whitespace_normalization_mapper.jsonl"] == [
        {**place, "original": {"text": "a\tb"}, "processed": {"text": "a b"}}
    ]
    (dropped,) = files["02-text_length_filter.jsonl"]
    assert (dropped["line"], dropped["stats"], dropped["row"]) == (3, {"text_len": 19}, {"text": rows[2]["text"]})


def test_the_first_rows_in_input_order_of_the_operators_asked_for(traced):
    rows = [{"text": f"row\t{number} which is long"} for number in range(40)]
    files = traced(STEPS, rows, trace_num=3, op_list_to_trace=["text_length_filter"])
    assert list(files) == ["02-text_length_filter.jsonl"]
    assert [row["line"] for row in files["02-text_length_filter.jsonl"]] == [1, 2, 3]


def test_what_the_store_knows_is_traced_too(traced):
    rows = [{"text": "x" * number} for number in range(20)]
    first = traced([{"text_length_filter": {"min_len": 12}}], rows, trace_num=20)
    again = traced([{"text_length_filter": {"min_len": 13}}], rows, trace_num=20)
    assert len(again["01-text_length_filter.jsonl"]) == len(first["01-text_length_filter.jsonl"]) + 1
    assert json.dumps(again)


@pytest.mark.parametrize("after", [[], [{"text_length_filter": {"min_len": 0}}]])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_pairs_of_duplicates(traced, tmp_path, after, suffix):
    rows = [{"id": number, "text": f"{number % 7} words"} for number in range(20)]
    steps = [{"text_length_filter": {"min_len": 3}}, "document_deduplicator", *after]
    files = traced(steps, rows, trace_num=3, export_path=str(tmp_path / "out" / f"o.{suffix}"))
    pairs = [(pair["kept"]["id"], pair["dropped"]["id"]) for pair in files["02-document_deduplicator.jsonl"]]
    assert pairs == [(0, 7), (1, 8), (2, 9)]
