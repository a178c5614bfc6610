import os

import numpy as np
import pyarrow as pa
import pytest

from raysandbox.ops.batch import JSON_TEXT
from raysandbox.recipe.api import process
from raysandbox.recipe.row_digests import RowDigests, digest_lines, read_digests, sidecar_of, text_digests

ROWS = [{"text": "a"}, {"text": "bb"}, {"text": "ccc"}, {"text": "a"}, {"text": "dddd"}]


@pytest.fixture
def source(write_jsonl):
    return write_jsonl(ROWS)


@pytest.fixture
def run(tmp_path, source):
    def run(min_len=0, name="out.jsonl", steps=(), **more):
        recipe = {
            "dataset_path": str(source),
            "export_path": str(tmp_path / name),
            "process": [{"text_length_filter": {"min_len": min_len}}, *steps],
            **more,
        }
        return process(recipe, engine="local", shared=tmp_path / "cache", block_bytes=20)

    return run


def lines_of(path):
    return RowDigests.of_lines(path.read_bytes().splitlines(keepends=True))


def assert_beside(path):
    found, expected = read_digests(path, sidecar_of(path)), lines_of(path)
    assert found is not None
    assert found.digests.tolist() == expected.digests.tolist()
    assert found.sizes.tolist() == expected.sizes.tolist()


def test_computed_and_replayed_outputs_have_the_digests_of_their_lines(tmp_path, run):
    run(0)
    assert_beside(tmp_path / "out.jsonl")
    assert run(2).recalled == len(ROWS)
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 3
    assert_beside(tmp_path / "out.jsonl")
    run(100)
    assert len(read_digests(tmp_path / "out.jsonl", sidecar_of(tmp_path / "out.jsonl"))) == 0


def test_dropped_lines_have_no_digests(tmp_path, run):
    assert run(steps=[{"document_deduplicator": {}}]).rows_out == 4
    assert_beside(tmp_path / "out.jsonl")


@pytest.mark.parametrize(("name", "more"), [("out.jsonl.gz", {}), ("out.parquet", {}), ("out.jsonl", {"shard": 10})])
def test_other_outputs_have_none_and_lose_earlier_ones(tmp_path, run, name, more):
    stale = sidecar_of(tmp_path / name)
    stale.write_bytes(b"x")
    run(name=name, **({"export_shard_size": more["shard"]} if more else {}))
    assert not stale.exists()


def test_digests_of_another_content_or_damaged_ones_are_none(tmp_path, run):
    run()
    path = tmp_path / "out.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b" \n")
    os.utime(path, ns=(1, 1))
    assert read_digests(path, sidecar_of(path)) is None
    run()
    damaged = bytearray(sidecar_of(path).read_bytes())
    damaged[60] ^= 255
    sidecar_of(path).write_bytes(damaged)
    assert read_digests(path, sidecar_of(path)) is None
    sidecar_of(path).unlink()
    assert read_digests(path, sidecar_of(path)) is None


def test_digests_belong_to_the_file_and_its_hard_links(tmp_path):
    path, other, target = tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "rows"
    path.write_text('{"n":1}\n')
    digest_lines(path, target)
    other.hardlink_to(path)
    assert len(read_digests(other, target)) == 1
    noted = path.stat()
    other.unlink()
    other.write_text('{"n":2}\n')
    os.utime(other, ns=(noted.st_atime_ns, noted.st_mtime_ns))
    other.replace(path)
    assert read_digests(path, target) is None


def test_lines_of_a_file_are_digested_unless_one_is_blank(tmp_path):
    path, target = tmp_path / "a.jsonl", tmp_path / "digests"
    path.write_bytes(b'{"text": "a"}\n{"text": "b"}')
    digest_lines(path, target)
    assert read_digests(path, target).sizes.tolist() == [14, 13]
    path.write_bytes(b'{"text": "a"}\n\n{"text": "b"}')
    digest_lines(path, target)
    assert read_digests(path, target) is None


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_digests_of_texts_depend_on_the_texts_only(kind):
    table = pa.table({"a": pa.array(["x", None, "é", "", "x"], kind), "b": pa.array(["1", "2", "3", "4", "5"], kind)})
    digests, present = text_digests(table, ("a",))
    assert present.tolist() == [True, False, True, True, True]
    again, _ = text_digests(pa.concat_tables([table.slice(2), table.slice(0, 1)]), ("a",))
    assert again.tolist() == digests[[2, 3, 4, 0]].tolist()
    assert digests[0].tolist() == digests[4].tolist()
    assert digests[0].tolist() == RowDigests.of_lines([b"x"]).digests[0].tolist()
    both, present = text_digests(table, ("a", "b"))
    assert len(np.unique(both[present], axis=0)) == 4
    swapped, _ = text_digests(table, ("b", "a"))
    assert both[0].tolist() != swapped[0].tolist()


def test_rows_without_common_text_have_no_digests():
    json_text = pa.schema([pa.field("text", pa.large_string(), metadata=JSON_TEXT)])
    for table in (
        pa.table({"other": ["a"]}),
        pa.table({"text": [1]}),
        pa.table({"text": pa.nulls(2)}),
        pa.table({"text": pa.array(["1"], pa.large_string())}, schema=json_text),
    ):
        assert text_digests(table, ("text",)) is None
