import gzip
import json
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from raysandbox.core.errors import BadRowsError, ConfigError
from raysandbox.core.registry import register
from raysandbox.ops.base import Filter, Mapper, Stat
from raysandbox.ops.batch import Batch
from raysandbox.recipe.api import process
from raysandbox.recipe.engines import LocalEngine

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5).filter(lambda name: not name.startswith("__"))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ROWS = st.lists(
    st.builds(lambda row, text: {**row, "text": text}, st.dictionaries(NAMES, VALUES, max_size=3), TEXTS), max_size=12
)


@register("brittle_test_filter")
class BrittleFilter(Filter):
    """Fails on texts that hold "bad"."""

    stats: ClassVar[tuple[Stat, ...]] = (Stat("brittle", "low", "high"),)
    low: float = 0
    high: float = 100

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        if any("bad" in text for text in batch.texts):
            raise ValueError("cannot stand it")
        return {"brittle": pa.array([len(text) for text in batch.texts])}


@register("repeat_test_mapper")
class RepeatMapper(Mapper):
    """Repeats every row and numbers the copies."""

    def process(self, batch: Batch, state: Any) -> Batch:
        index = [row for row in range(batch.num_rows) for _ in range(2)]
        table = batch.table.take(index)
        return Batch(table.append_column("copy", pa.array([0, 1] * batch.num_rows)), batch.keys)


def run(source, target, steps=(), **keys):
    options = {name: keys.pop(name) for name in ("engine", "cache", "block_bytes", "quarantine_dir") if name in keys}
    recipe = {"dataset_path": str(source), "export_path": str(target), "process": list(steps), **keys}
    return process(recipe, **{"engine": "local", "cache": False, **options})


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 400))
def test_values_survive_and_blocks_do_not_show(tmp_path_factory, rows, block_bytes):
    folder = tmp_path_factory.mktemp("data")
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps = ["whitespace_normalization_mapper", {"text_length_filter": {"min_len": 3}}, "document_deduplicator"]
    whole = run(source, folder / "a.jsonl", steps, keep_stats_in_res_ds=True)
    cut = run(source, folder / "b.jsonl", steps, keep_stats_in_res_ds=True, block_bytes=block_bytes)
    assert (folder / "a.jsonl").read_bytes() == (folder / "b.jsonl").read_bytes()
    assert [op.rows_out for op in whole.ops] == [op.rows_out for op in cut.ops]
    for line in (folder / "a.jsonl").read_bytes().splitlines():
        row = json.loads(line)
        row.pop("__dj__stats__")
        candidates = [repr({**other, "text": row["text"]}) for other in rows]
        assert repr(row) in candidates


@settings(max_examples=30, deadline=None)
@given(ROWS, st.integers(1, 400))
def test_parquet_does_not_show_blocks_either(tmp_path_factory, rows, block_bytes):
    folder = tmp_path_factory.mktemp("data")
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(source, folder / "a.parquet")
    run(source, folder / "b.parquet", block_bytes=block_bytes)
    assert pq.read_table(folder / "a.parquet").equals(pq.read_table(folder / "b.parquet"))


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "jsonl.gz", "jsonl.zst"])
@pytest.mark.parametrize("origin", ["jsonl", "parquet"])
def test_formats(tmp_path, write_jsonl, suffix, origin):
    rows = [{"text": "æ", "n": 1, "meta": {"a": [1.5]}}, {"text": "b", "n": None, "meta": {"a": []}}]
    source = write_jsonl(rows)
    if origin == "parquet":
        source = tmp_path / "in.parquet"
        pq.write_table(pa.Table.from_pylist(rows), source)
    target = tmp_path / f"out.{suffix}"
    result = run(source, target)
    assert result.path == str(target)
    assert result.rows_out == 2
    readers = {
        "jsonl": lambda: [json.loads(line) for line in target.read_text().splitlines()],
        "json": lambda: json.loads(target.read_text()),
        "parquet": lambda: pq.read_table(target).to_pylist(),
        "jsonl.gz": lambda: [json.loads(line) for line in gzip.decompress(target.read_bytes()).splitlines()],
        "jsonl.zst": lambda: [
            json.loads(line)
            for line in zstandard.ZstdDecompressor().decompressobj().decompress(target.read_bytes()).splitlines()
        ],
    }
    assert readers[suffix]() == rows
    again = run(target, tmp_path / "again.jsonl")
    assert again.rows_out == 2
    assert "æ" in (tmp_path / "again.jsonl").read_text()


def test_parquet_of_rows_that_differ(tmp_path, write_jsonl):
    rows = [
        {"text": "a", "n": 1, "m": {"x": 1}},
        {"text": "b", "n": 2.5, "k": "new"},
        {"text": "c", "n": None, "m": {"y": "z"}},
    ]
    result = run(write_jsonl(rows), tmp_path / "out.parquet", block_bytes=1)
    assert pq.read_table(result.path).to_pylist() == [
        {"text": "a", "n": 1.0, "m": {"x": 1, "y": None}, "k": None},
        {"text": "b", "n": 2.5, "m": None, "k": "new"},
        {"text": "c", "n": None, "m": {"x": None, "y": "z"}, "k": None},
    ]


def test_bad_rows_end_the_job_and_leave_no_output(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "long enough"}\n{"tex\n{"text": null}\n')
    with pytest.raises(BadRowsError, match=r"in\.jsonl:2: broken JSON") as caught:
        run(source, tmp_path / "out.jsonl", ["text_length_filter"])
    assert "in.jsonl:3: 'text' is null" in str(caught.value)
    assert not (tmp_path / "out.jsonl").exists()
    records = [json.loads(line) for line in (tmp_path / "out.jsonl.quarantine").read_text().splitlines()]
    assert records[0] == {"file": str(source), "line": 2, "reason": records[0]["reason"], "raw": '{"tex'}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []


@pytest.mark.parametrize("budget", [{"max_bad_rows": 2}, {"max_bad_rows": 0.7}, {"skip_op_error": True}])
def test_bad_rows_within_the_budget(tmp_path, budget):
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "long enough"}\n{"tex\n{"text": null}\n')
    result = run(source, tmp_path / "out.jsonl", ["text_length_filter"], **budget)
    assert (result.rows_in, result.rows_out, result.quarantined) == (3, 1, 2)
    assert result.quarantine == str(tmp_path / "out.jsonl.quarantine")
    run(tmp_path / "out.jsonl", tmp_path / "out.jsonl", ["text_length_filter"])
    assert not (tmp_path / "out.jsonl.quarantine").exists()


@pytest.mark.parametrize("budget", [{"max_bad_rows": 1}, {"max_bad_rows": 0.6}])
def test_bad_rows_beyond_the_budget(tmp_path, budget):
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "long enough"}\n{"tex\n{"text": null}\n')
    with pytest.raises(BadRowsError, match="2 bad rows"):
        run(source, tmp_path / "out.jsonl", ["text_length_filter"], **budget)


def test_rows_that_an_operator_fails_on(tmp_path, write_jsonl, read_jsonl):
    rows = [{"text": f"text {n}{'bad' * (n in (3, 7))}"} for n in range(10)]
    source = write_jsonl(rows)
    steps = ["brittle_test_filter", "document_deduplicator"]
    result = run(source, tmp_path / "out.jsonl", steps, max_bad_rows=2, quarantine_dir=tmp_path / "q")
    assert result.rows_out == 8
    assert (result.ops[0].rows_in, result.ops[0].rows_out, result.ops[0].failed) == (10, 8, 2)
    records = read_jsonl(tmp_path / "q" / "out.jsonl.quarantine")
    assert [(record["line"], record["operator"]) for record in records] == [
        (4, "brittle_test_filter"),
        (8, "brittle_test_filter"),
    ]
    assert records[0]["reason"] == "ValueError: cannot stand it"
    assert json.loads(records[0]["raw"]) == rows[3]
    with pytest.raises(BadRowsError, match=r"in\.jsonl:4: brittle_test_filter: ValueError"):
        run(source, tmp_path / "out.jsonl", steps)


def test_failures_after_a_dataset_operator_know_their_line(tmp_path, write_jsonl):
    rows = [{"text": "same"}, {"text": "same"}, {"text": "bad"}]
    steps = ["document_deduplicator", "brittle_test_filter"]
    with pytest.raises(BadRowsError, match=r"in\.jsonl:3: brittle_test_filter"):
        run(write_jsonl(rows), tmp_path / "out.jsonl", steps)


def test_a_mapper_may_add_rows(tmp_path, write_jsonl, read_jsonl):
    rows = [{"text": "a", "x": 1}, {"text": "b", "x": "y"}]
    run(write_jsonl(rows), tmp_path / "out.jsonl", ["repeat_test_mapper"])
    assert read_jsonl(tmp_path / "out.jsonl") == [{**row, "copy": n} for row in rows for n in (0, 1)]


def test_empty_inputs_give_an_empty_output(tmp_path):
    (tmp_path / "in.jsonl").touch()
    for suffix in ("jsonl", "json", "parquet"):
        result = run(tmp_path / "in.jsonl", tmp_path / f"out.{suffix}", ["text_length_filter"])
        assert (result.rows_in, result.rows_out) == (0, 0)
        assert result.warnings == (f"{tmp_path}/in.jsonl is empty", "the input has no rows; the output is empty")
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    assert json.loads((tmp_path / "out.json").read_text()) == []
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


def test_everything_dropped(tmp_path, write_jsonl):
    source = write_jsonl([{"text": "a"}])
    steps = [{"text_length_filter": {"min_len": 5}}, "document_deduplicator"]
    result = run(source, tmp_path / "out.jsonl", steps)
    assert result.rows_out == 0
    assert result.warnings == ("text_length_filter dropped all of its 1 rows",)


def test_statistics_stay_when_asked_for(tmp_path, write_jsonl, read_jsonl):
    source = write_jsonl([{"text": "abc", "__dj__stats__": {"old": 1}, "__dj__meta__": {"m": 1}}])
    steps = [{"text_length_filter": {"min_len": 1}}]
    run(source, tmp_path / "out.jsonl", steps)
    assert read_jsonl(tmp_path / "out.jsonl") == [{"text": "abc"}]
    run(source, tmp_path / "out.jsonl", steps, keep_stats_in_res_ds=True)
    assert read_jsonl(tmp_path / "out.jsonl") == [
        {"text": "abc", "__dj__stats__": {"old": 1, "text_len": 3}, "__dj__meta__": {"m": 1}}
    ]


def test_hashes_stay_when_asked_for(tmp_path, write_jsonl, read_jsonl):
    source = write_jsonl([{"text": "abc"}])
    run(source, tmp_path / "out.jsonl", ["document_deduplicator"], keep_hashes_in_res_ds=True)
    assert read_jsonl(tmp_path / "out.jsonl") == [{"text": "abc", "__dj__hash": "900150983cd24fb0d6963f7d28e17f72"}]


def test_shards(tmp_path, write_jsonl, read_jsonl):
    source = write_jsonl([{"text": f"{n:03d}"} for n in range(10)])
    stale = tmp_path / "out-00-of-99.jsonl"
    stale.touch()
    result = run(source, tmp_path / "out.jsonl", export_shard_size=60)
    names = sorted(path.name for path in tmp_path.glob("out-*"))
    assert names == ["out-00-of-03.jsonl", "out-01-of-03.jsonl", "out-02-of-03.jsonl"]
    assert [len(read_jsonl(tmp_path / name)) for name in names] == [4, 3, 3]
    assert result.path == f"{tmp_path}/out-[0-9]*-of-03.jsonl"
    assert run(result.path, tmp_path / "all.jsonl").rows_out == 10
    assert (tmp_path / "all.jsonl").read_bytes() == source.read_bytes().replace(b": ", b":")


def test_mix_takes_shares_in_order_and_does_not_depend_on_blocks(tmp_path, write_jsonl, read_jsonl):
    a = write_jsonl([{"text": f"a{n}"} for n in range(100)], "a.jsonl")
    b = write_jsonl([{"text": f"b{n}"} for n in range(100)], "b.jsonl")
    outputs = []
    for block_bytes in (1 << 20, 100):
        run(f"0.3 {a} 0.7 {b}", tmp_path / "out.jsonl", block_bytes=block_bytes)
        outputs.append([row["text"] for row in read_jsonl(tmp_path / "out.jsonl")])
    assert outputs[0] == outputs[1]
    assert [text[0] for text in outputs[0]] == ["a"] * 43 + ["b"] * 100
    numbers = [int(text[1:]) for text in outputs[0][:43]]
    assert numbers == sorted(set(numbers))
    other = run(f"0.3 {a} 0.7 {b}", tmp_path / "out.jsonl", seed=1)
    assert other.rows_out == 143
    assert [row["text"] for row in read_jsonl(tmp_path / "out.jsonl")] != outputs[0]


def test_a_number_of_rows_over_all_parts(tmp_path, write_jsonl, read_jsonl):
    parts = [write_jsonl([{"text": f"{name}{n}"} for n in range(50)], f"{name}.jsonl") for name in "ab"]
    configs = [
        {"type": "local", "path": str(path), "weight": weight} for path, weight in zip(parts, (1, 3), strict=True)
    ]
    recipe = {"dataset": {"configs": configs, "max_sample_num": 20}, "export_path": str(tmp_path / "out.jsonl")}
    assert process(recipe, engine="local").rows_out == 20
    assert [row["text"][0] for row in read_jsonl(tmp_path / "out.jsonl")] == ["a"] * 5 + ["b"] * 15


def test_rows_in_memory():
    rows = [{"text": "a", "x": {1, 2}}, {"text": "long enough", "x": 2}]
    result = process({"process": [{"text_length_filter": {"min_len": 5}}]}, rows=rows)
    assert result.rows == [rows[1]]
    assert result.stats["text_len"].mean == 11
    assert process({"process": ["document_deduplicator"]}, rows=[]).rows == []
    twice = process({"process": ["document_deduplicator", "text_length_filter"]}, rows=[rows[1], rows[1]])
    assert twice.rows == [rows[1]]


def test_random_choice_depends_on_seed_and_position_only(tmp_path, write_jsonl, read_jsonl):
    source = write_jsonl([{"text": f"{n}"} for n in range(200)])
    steps = [{"random_selector": {"select_ratio": 0.5}}, {"random_selector": {"select_ratio": 0.5}}]
    run(source, tmp_path / "a.jsonl", steps)
    run(source, tmp_path / "b.jsonl", steps, block_bytes=64)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert len(read_jsonl(tmp_path / "a.jsonl")) == 50


def test_an_equal_run_is_not_repeated(tmp_path, write_jsonl, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    source = write_jsonl([{"text": "long enough"}])
    steps = [{"text_length_filter": {"min_len": 5}}]
    first = run(source, tmp_path / "out.jsonl", steps, cache=True)
    second = run(source, tmp_path / "out.jsonl", steps, cache=True)
    assert (first.cached, second.cached) == (False, True)
    assert second.ops == first.ops
    assert second.stats == first.stats
    assert not run(source, tmp_path / "out.jsonl", steps, cache=False).cached
    assert not run(source, tmp_path / "out.jsonl", [{"text_length_filter": {"min_len": 6}}], cache=True).cached
    (tmp_path / "out.jsonl").write_text("touched")
    assert not run(source, tmp_path / "out.jsonl", steps, cache=True).cached
    write_jsonl([{"text": "something else"}])
    assert not run(source, tmp_path / "out.jsonl", steps, cache=True).cached


def test_small_inputs_stay_in_this_process(tmp_path, write_jsonl, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "raysandbox.recipe.processing.engine_named", lambda name, most: asked.append(name) or LocalEngine()
    )
    run(write_jsonl([{"text": "a"}]), tmp_path / "out.jsonl", engine="auto")
    monkeypatch.setattr("raysandbox.recipe.plan.LOCAL_LIMIT", 5)
    run(write_jsonl([{"text": "a"}]), tmp_path / "out.jsonl", engine="auto")
    assert asked == ["local", "ray"]


def test_a_recipe_from_a_file(tmp_path, write_jsonl):
    source = write_jsonl([{"text": "a"}])
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"dataset_path: {source}\nexport_path: {tmp_path}/out.jsonl\nuse_cache: true\n")
    assert process(recipe).warnings == ("these keys of Data-Juicer have no effect here: use_cache",)
    recipe.write_text("process: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        process(recipe)
    with pytest.raises(ConfigError, match="cannot be read"):
        process(tmp_path / "no.yaml")


@pytest.mark.parametrize("recipe", [{"export_path": "x.jsonl"}, {"dataset_path": "x.jsonl"}])
def test_input_and_output_are_required(recipe):
    with pytest.raises(ConfigError):
        process(recipe)
