import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysandbox.core.errors import ConfigError
from raysandbox.recipe.api import process
from raysandbox.recipe.inputs import find_files, shard_pattern, split_name
from raysandbox.recipe.problems import recipe_problems
from raysandbox.recipe.rows import exact_table
from raysandbox.recipe.schema import Recipe, export_format
from raysandbox.recipe.sizes import content_size
from raysandbox.recipe.writers import shard_sizes

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | TEXTS | st.lists(st.integers(0, 3))
ROWS = st.lists(st.fixed_dictionaries({"text": TEXTS}, optional={"v": VALUES, "w": VALUES}), min_size=1, max_size=15)


def run(source, target, **keys):
    block_bytes = keys.pop("block_bytes", None)
    recipe = {"dataset_path": str(source), "export_path": str(target), "process": [], **keys}
    return process(recipe, engine="local", cache=False, block_bytes=block_bytes)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@given(st.integers(0, 1000), st.integers(0, 50))
def test_shards_are_the_whole(rows, shards):
    sizes = shard_sizes(rows, shards)
    assert sum(sizes) == rows
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(1, 200), st.integers(1, 300), st.sampled_from(["jsonl", "json", "parquet", "csv", "tsv"]))
def test_shards_together_are_the_output_whatever_the_blocks(tmp_path_factory, rows, block_bytes, shard_bytes, suffix):
    folder = tmp_path_factory.mktemp("data")
    source = write(folder / "in.jsonl", rows)
    for name, size in (("a", None), ("b", block_bytes)):
        (folder / name).mkdir()
        run(source, folder / name / f"out.{suffix}", export_shard_size=shard_bytes, block_bytes=size)
    shards = sorted((folder / "a").glob("out-*"))
    assert [path.name for path in shards] == [path.name for path in sorted((folder / "b").glob("out-*"))]
    for path in shards:
        assert path.read_bytes() == (folder / "b" / path.name).read_bytes()
    run(source, folder / f"out.{suffix}")
    run(folder / "a" / f"out-*.{suffix}", folder / "joined.jsonl")
    run(folder / f"out.{suffix}", folder / "whole.jsonl")
    if suffix in ("jsonl", "json", "parquet"):  # the types in a CSV file depend on all of its values
        assert (folder / "joined.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()
    assert len((folder / "joined.jsonl").read_bytes().splitlines()) == len(rows)


def test_shards_of_parquet_do_not_show_blocks(tmp_path):
    table = pa.Table.from_pylist([{"text": "x" * n, "l": [1.5] * (n % 3), "s": {"a": n}} for n in range(200)])
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=7)
    for name, block_bytes in (("a", 1), ("b", 1 << 20)):
        (tmp_path / name).mkdir()
        run(tmp_path / "in.parquet", tmp_path / name / "out.parquet", export_shard_size=5000, block_bytes=block_bytes)
    shards = sorted((tmp_path / "a").iterdir())
    assert [path.name for path in shards if not path.name.startswith(".")] == [
        path.name for path in sorted((tmp_path / "b").iterdir()) if not path.name.startswith(".")
    ]
    written = [path for path in shards if path.suffix == ".parquet"]
    assert len(written) > 3
    assert pa.concat_tables(map(pq.read_table, written)).to_pylist() == table.to_pylist()


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_cells(tmp_path, suffix, delimiter):
    rows = [
        {"text": 'a "b",\t\nc', "n": 1, "x": 1.5, "ok": True, "list": [1, "z"], "map": {"k": "é"}, "mixed": 1},
        {"text": "", "n": None, "x": float("nan"), "ok": None, "list": [], "mixed": "1"},
    ]
    target = tmp_path / f"out.{suffix}"
    run(write(tmp_path / "in.jsonl", rows), target)
    with target.open(newline="", encoding="utf-8") as stream:
        cells = list(csv.DictReader(stream, delimiter=delimiter))
    assert cells == [
        {
            "text": 'a "b",\t\nc',
            "n": "1",
            "x": "1.5",
            "ok": "true",
            "list": '[1,"z"]',
            "map": '{"k":"é"}',
            "mixed": "1",
        },
        {"text": "", "n": "", "x": "", "ok": "", "list": "[]", "map": "", "mixed": '"1"'},
    ]


def test_bytes_in_cells_are_base64(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "data": [b"\xff\x00"]}), tmp_path / "in.parquet")
    run(tmp_path / "in.parquet", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == '"a","/wA="'


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl", "json"])
def test_no_rows(tmp_path, suffix):
    assert run(write(tmp_path / "in.jsonl", []), tmp_path / f"out.{suffix}").rows_out == 0
    assert (tmp_path / f"out.{suffix}").exists()


@given(ROWS)
def test_exact_columns_hold_every_value(rows):
    table, schema = exact_table(rows)
    assert table.column_names == schema.names
    for field, column in zip(table.schema, table.columns, strict=True):
        values = [row.get(field.name) for row in rows]
        if field.metadata is None:
            assert list(map(repr, column.to_pylist())) == list(map(repr, values))
        else:
            assert [None if text is None else repr(json.loads(text)) for text in column.to_pylist()] == [
                None if value is None else repr(value) for value in values
            ]


@given(st.lists(st.none() | st.lists(st.none() | st.floats(), max_size=3)), st.integers(0, 10))
def test_content_has_one_size(values, cut):
    table = pa.table({"a": pa.array(values, pa.list_(pa.float64())), "b": ["é" * n for n in range(len(values))]})
    pieces = [table.slice(0, cut), table.slice(cut)]
    assert sum(map(content_size, pieces)) == content_size(table)
    assert content_size(table) == 8 * sum(x is not None for v in values for x in v or ()) + sum(range(len(values))) * 2


@pytest.mark.parametrize(
    ("text", "size"), [(5, 5), ("64", 64), ("2K", 2048), ("1.5 MiB", 3 << 19), ("1g", 1 << 30), ("1TB", 1 << 40)]
)
def test_sizes_with_a_unit(text, size):
    assert Recipe(export_shard_size=text).export_shard_size == size


@pytest.mark.parametrize("value", ["1X", "M", "-1", -1, ""])
def test_what_is_no_size(value):
    (problem,) = recipe_problems({"export_shard_size": value})
    assert problem.path == ("export_shard_size",)


def test_formats_by_suffix_or_type():
    assert export_format("s3://b/out.csv") == ("csv", "csv")
    assert export_format("out.data", "tsv") == ("tsv", "data")
    with pytest.raises(ConfigError, match=r"known suffixes: .*\.tsv"):
        export_format("out.xlsx")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("out.jsonl", ("out", ".jsonl")),
        ("data.v1.jsonl", ("data.v1", ".jsonl")),
        ("data.v1.JSONL.ZST", ("data.v1", ".JSONL.ZST")),
        ("out", ("out", "")),
    ],
)
def test_stem_and_suffix(name, parts):
    assert split_name(name) == parts


@pytest.mark.parametrize(
    "names", [("data.v1.jsonl", "data.v2.jsonl"), ("train.jsonl.gz", "train-val.jsonl.gz"), ("a{}.JSONL", "a*.JSONL")]
)
def test_shards_of_outputs_side_by_side(tmp_path, names):
    folder = tmp_path / "run[1]"
    sources = [
        write(tmp_path / f"{word}.jsonl", [{"text": f"{word} {number}"} for number in range(9)]) for word in "ab"
    ]
    results = [run(source, folder / name, export_shard_size=60) for source, name in zip(sources, names, strict=True)]
    for result, name, source in zip(results, names, sources, strict=True):
        shards, _ = find_files(result.path, frozenset())
        assert len(shards) > 1
        assert [file.path for file in shards] == [file.path for file in find_files(str(folder / name), frozenset())[0]]
        assert run(result.path, tmp_path / "all.jsonl").rows_out == 9
        lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
        assert lines == [json.loads(line) for line in source.read_text().splitlines()]


def test_a_pattern_takes_digits_only():
    assert shard_pattern("/a[1]/b*.json.gz", "07") == "/a[[]1]/b[*]-[0-9]*-of-07.json.gz"
