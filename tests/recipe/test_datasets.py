import gzip
import json

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from raysandbox.core.errors import ConfigError
from raysandbox.core.registry import register
from raysandbox.ops.base import Filter, Stat
from raysandbox.ops.batch import SUFFIX_COLUMN
from raysandbox.recipe.api import process
from raysandbox.recipe.inputs import find_files, plan_reads
from raysandbox.recipe.mixture import Window, parse_split
from raysandbox.recipe.paths import recipe_paths
from raysandbox.recipe.problems import recipe_problems
from raysandbox.recipe.readers import count_rows

datasets = pytest.importorskip("datasets")

ROWS = [{"text": f"t{n}", "n": n} for n in range(60)]


@register("of_suffix_test_filter")
class OfSuffixFilter(Filter):
    """Keeps rows of JSON files."""

    reads = ("suffix",)
    stats = (Stat("is_json", "low", "high"),)
    low: float = 1
    high: float = 1

    def compute(self, batch, state):
        suffixes = batch.table.column(SUFFIX_COLUMN).to_pylist()
        return {"is_json": pa.array([float(suffix.startswith(".json")) for suffix in suffixes])}


@pytest.fixture
def saved(tmp_path):
    """A data set on disk with two splits, of which one has several files."""
    datasets.disable_progress_bars()
    folder = tmp_path / "saved"
    parts = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:3])}
    datasets.DatasetDict(parts).save_to_disk(folder, num_shards={"train": 4, "test": 1})
    return folder


@pytest.fixture
def hub(tmp_path):
    """A folder in the layout of a hub."""
    folder = tmp_path / "hub"
    folder.mkdir()
    for split, rows in (("train", ROWS), ("test", ROWS[:3])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def numbers(tmp_path, part, **keys):
    """The rows that a part of a data set gives."""
    recipe = {"export_path": str(tmp_path / "out.jsonl"), "process": [], **keys}
    recipe |= {"dataset_path": part} if isinstance(part, str) else {"dataset": {"configs": [part]}}
    process(recipe, engine="local", cache=False, block_bytes=200)
    return [json.loads(line).get("n") for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def test_a_saved_data_set_is_read_in_order(saved, tmp_path):
    assert numbers(tmp_path, str(saved / "train")) == list(range(60))
    assert numbers(tmp_path, {"path": str(saved), "split": "test+train"}) == [0, 1, 2, *range(60)]


def test_arrow_files_of_both_formats_are_cut_at_record_batches(tmp_path):
    table = pa.Table.from_pylist(ROWS)
    for name, new in (("a.arrow", ipc.new_file), ("b.arrow", ipc.new_stream)):
        with new(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table, max_chunksize=10)
    files, _ = find_files(str(tmp_path), frozenset())
    tasks = plan_reads(files, 300)
    assert len(tasks) > 4
    assert sum(count_rows(span) for task in tasks for span in task.spans) == 120
    assert numbers(tmp_path, str(tmp_path / "*.arrow")) == [*range(60), *range(60)]


def test_a_damaged_arrow_file_is_named(tmp_path):
    (tmp_path / "a.arrow").write_bytes(b"nonsense" * 100)
    with pytest.raises(ConfigError, match=r"a\.arrow: not an Arrow file"):
        numbers(tmp_path, str(tmp_path / "a.arrow"))


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_a_folder_in_the_layout_of_a_hub(hub, tmp_path, source):
    part = {"type": "remote", "source": source, "path": str(hub)}
    assert numbers(tmp_path, {**part, "split": "train"}) == list(range(60))
    assert numbers(tmp_path, {**part, "data_files": "test.jsonl"}) == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"has the splits train, test \(set split\)"):
        numbers(tmp_path, part)
    with pytest.raises(ConfigError, match="has no split 'trian'; did you mean 'train'"):
        numbers(tmp_path, {**part, "split": "trian"})
    with pytest.raises(ConfigError, match=r"BuilderConfig 'x' not found"):
        numbers(tmp_path, {**part, "name": "x", "split": "train"})


def test_files_whose_suffix_says_nothing(tmp_path):
    (tmp_path / "rows.data").write_text(json.dumps(ROWS[0]) + "\n")
    part = {"type": "remote", "source": "huggingface", "path": "json", "data_files": str(tmp_path / "rows.data")}
    assert numbers(tmp_path, part) == [0]


def test_a_data_set_of_pictures_is_refused(tmp_path):
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "a.png").write_bytes(b"")
    with pytest.raises(ConfigError, match="imagefolder data"):
        numbers(tmp_path, {"type": "remote", "source": "huggingface", "path": str(tmp_path / "hub")})


def test_an_id_that_nobody_has(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("Couldn't reach the Hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset_builder", unreachable)
    with pytest.raises(
        ConfigError, match="'nobody/x' of huggingface cannot be found: Couldn't reach the Hub"
    ) as caught:
        numbers(tmp_path, {"type": "remote", "source": "huggingface", "path": "nobody/x"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train[:10%]", range(6)),
        ("train[-3:]", range(57, 60)),
        ("train[10:20]", range(10, 20)),
        ("train[50%:55]", range(30, 55)),
        ("train[90:]", range(0)),
    ],
)
def test_pieces_of_splits(saved, tmp_path, split, expected):
    wanted = list(datasets.load_from_disk(saved / "train").to_list()[expected.start : expected.stop])
    assert numbers(tmp_path, {"path": str(saved), "split": split}) == [row["n"] for row in wanted]


def test_limits(saved, tmp_path):
    part = {"path": str(saved), "split": "train"}
    assert numbers(tmp_path, {**part, "limit": 7}) == list(range(7))
    assert numbers(tmp_path, {**part, "split": "train[10:]", "limit": 3}) == [10, 11, 12]
    assert numbers(tmp_path, {**part, "limit": 0}) == []
    assert numbers(tmp_path, {**part, "limit": 15}) == list(range(15))  # exactly the first file
    assert numbers(tmp_path, {**part, "limit": 99}) == list(range(60))


def test_a_mix_draws_from_what_the_limits_leave(saved, tmp_path):
    parts = [{"path": str(saved), "split": "train", "limit": 10}, {"path": str(saved), "split": "train[30:]"}]
    recipe = {"dataset": {"configs": parts, "max_sample_num": 12}, "export_path": str(tmp_path / "out.jsonl")}
    process(recipe, engine="local", cache=False)
    found = [json.loads(line)["n"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len([n for n in found if n < 10]) == len([n for n in found if n >= 30]) == 6
    assert found == sorted(found)


@given(
    st.integers(0, 50),
    st.none() | st.integers(-60, 60),
    st.none() | st.integers(-60, 60),
    st.none() | st.integers(0, 9),
)
def test_windows_are_slices(total, start, stop, limit):
    text = f"x[{'' if start is None else start}:{'' if stop is None else stop}]"
    (name,), window = parse_split(text)
    window = Window(window.start, window.stop, limit)
    expected = list(range(total))[start:stop][:limit]
    assert name == "x"
    assert list(window.rows(total)) == expected
    if window.enough is not None:
        assert list(window.rows(min(total, window.enough))) == expected


@pytest.mark.parametrize("text", ["", "a[", "a[1]", "a[x:]", "a[:1]+b", "a b"])
def test_what_is_no_split(text):
    with pytest.raises(ValueError, match="split"):
        parse_split(text)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "remote", "path": "x"}, "needs a source"),
        ({"type": "remote", "source": "hugingface", "path": "x"}, "did you mean 'huggingface'?"),
        ({"type": "remote", "source": "arxiv", "path": "x"}, "not in this version"),
        ({"type": "remote", "source": "commoncrawl", "start_snapshot": "x"}, "not in this version"),
        ({"type": "remote", "source": "s3", "path": "s3://x", "aws_access_key_id": "SECRET"}, "from the environment"),
        ({"path": "x", "split": "a[1]"}, "is no split"),
        ({"path": "x", "revision": "main"}, "only a data set of huggingface or modelscope"),
        ({"path": "x", "limt": 3}, "did you mean 'limit'?"),
        ({"path": "x", "limit": -1}, "greater than or equal to 0"),
        ({"path": "x", "trust_remote_code": True}, "should be False"),
    ],
)
def test_problems_of_parts(part, message):
    (problem,) = recipe_problems({"dataset": {"configs": [part]}})
    assert problem.path[:3] == ("dataset", "configs", 0)
    assert message in f"{problem.message} {problem.fix}"
    assert "SECRET" not in problem.message


def test_what_a_recipe_reads(tmp_path):
    parts = [
        {"path": "a.jsonl"},
        {"type": "remote", "source": "huggingface", "path": "user/name"},
        {"type": "remote", "source": "huggingface", "path": str(tmp_path)},
        {"type": "remote", "source": "s3", "path": "s3://b/c.jsonl"},
        {"path": "file:///d.jsonl"},
    ]
    raw = {"dataset": {"configs": parts}, "export_path": "s3://b/out.jsonl"}
    assert recipe_paths(raw) == (("a.jsonl", str(tmp_path), "s3://b/c.jsonl", "/d.jsonl"), None)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=40), st.integers(1, 40), st.sampled_from([".gz", ".zst"]))
def test_pieces_of_a_packed_file_are_the_file(tmp_path_factory, texts, block_bytes, suffix):
    rows = [{"n": n, "text": text} for n, text in enumerate(texts)]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    path = tmp_path_factory.mktemp("data") / f"a.jsonl{suffix}"
    path.write_bytes(gzip.compress(data) if suffix == ".gz" else zstandard.compress(data))
    files, _ = find_files(str(path), frozenset())
    spans = [span for task in plan_reads(files, block_bytes) for span in task.spans]
    assert len(spans) <= 8
    assert sum(map(count_rows, spans)) == len(rows)


def test_bad_lines_of_packed_pieces_have_their_numbers(tmp_path):
    lines = [json.dumps(row).encode() for row in ROWS]
    lines[50] = b"{"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    recipe = {"dataset_path": str(tmp_path / "a.jsonl.gz"), "export_path": str(tmp_path / "out.jsonl")}
    result = process({**recipe, "max_bad_rows": 1}, engine="local", cache=False, block_bytes=50)
    with open(result.quarantine) as stream:
        assert json.loads(stream.read())["line"] == 51


def test_lines_in_a_json_file_are_cut_and_a_list_is_not(tmp_path):
    (tmp_path / "lines.json").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "list.json").write_text(json.dumps(ROWS))
    assert len(plan_reads(find_files(str(tmp_path / "lines.json"), frozenset())[0], 200)) > 3
    assert len(plan_reads(find_files(str(tmp_path / "list.json"), frozenset())[0], 200)) == 1
    assert numbers(tmp_path, str(tmp_path / "*.json")) == [*range(60), *range(60)]


def test_rows_know_the_suffix_of_their_file_where_an_operator_asks(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text(json.dumps(ROWS[1]) + "\n")
    (tmp_path / "data" / "b.txt").write_text("some text")
    recipe = {"dataset_path": str(tmp_path / "data"), "suffixes": ["jsonl", "txt"]}
    target = tmp_path / "out.jsonl"
    steps = ["document_deduplicator", "of_suffix_test_filter"]
    process({**recipe, "export_path": str(target), "process": steps}, engine="local", cache=False)
    assert [json.loads(line) for line in target.read_text().splitlines()] == [ROWS[1]]


@pytest.mark.parametrize("name", ["a.docx", "a.pdf"])
def test_documents_are_refused_by_name(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match="convert it to text"):
        find_files(str(tmp_path / name), frozenset())


def test_code_is_text(tmp_path):
    (tmp_path / "a.py").write_text("print()\n")
    assert find_files(str(tmp_path), frozenset())[0][0].format == "text"
