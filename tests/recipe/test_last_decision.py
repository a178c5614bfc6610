"""A recipe that ends with a decision over all rows: they are written once, and some are dropped where they stand."""

import json

import pyarrow.parquet as pq
import pytest

from raysandbox.recipe.processing import process

ROWS = [{"id": row, "text": f"{'word ' * (row % 7)}{row % 5}", "tags": ["a\nb"] * (row % 3)} for row in range(60)]
STEPS = [{"text_length_filter": {"min_len": 3}}, {"document_deduplicator": {}}, {"random_selector": {"select_num": 9}}]


@pytest.fixture
def run(write_jsonl, tmp_path):
    source = write_jsonl(ROWS)

    def run(name, **keys):
        recipe = {"dataset_path": str(source), "export_path": str(tmp_path / name), "process": STEPS, **keys}
        return process(recipe, cache=False, engine="local", block_bytes=400)

    return run


@pytest.mark.parametrize("keys", [{}, {"keep_stats_in_res_ds": True, "keep_hashes_in_res_ds": True}])
def test_same_rows_and_counts_as_with_a_second_pass(run, read_jsonl, keys):
    """Parquet takes the second pass: its types are found from the rows that are left."""
    lines, table = run("out.jsonl", **keys), run("out.parquet", **keys)
    rows = read_jsonl(lines.path)
    assert rows == pq.read_table(table.path).to_pylist()
    assert len(rows) == lines.rows_out == 9
    assert lines.stats == table.stats
    assert lines.stats["text_len"].count == 9
    assert [(op.name, op.rows_in, op.rows_out) for op in lines.ops] == [
        (op.name, op.rows_in, op.rows_out) for op in table.ops
    ]


def test_list_and_shards(run, read_jsonl, tmp_path):
    rows = read_jsonl(run("out.jsonl").path)
    assert json.loads((tmp_path / run("out.json").path).read_text()) == rows
    run("shards.jsonl", export_shard_size=100)
    shards = sorted(tmp_path.glob("shards-*.jsonl"))
    assert len(shards) > 2
    assert [row for shard in shards for row in read_jsonl(shard)] == rows


def test_rows_in_memory(run, read_jsonl):
    result = process({"process": STEPS}, rows=ROWS)
    assert result.rows == read_jsonl(run("out.jsonl").path)
    assert result.stats["text_len"].count == result.rows_out == 9


def test_nothing_is_left(run, read_jsonl):
    result = run("out.jsonl", process=[{"random_selector": {"select_ratio": 0}}])
    assert (result.rows_out, read_jsonl(result.path), result.stats) == (0, [], {})
