import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysandbox.core.errors import JobFailed
from raysandbox.executors.train._rows import read_columns

ROWS = [{"text": "a", "id": 1}, {"text": "b", "id": 2}]
REMAP = {"text": "src_txt"}


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_jsonl_json_and_parquet_give_the_same_columns(tmp_path):
    array = tmp_path / "a.json"
    array.write_text(json.dumps(ROWS))
    parquet = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), parquet)
    expected = [{"src_txt": "a", "id": 1}, {"src_txt": "b", "id": 2}]
    for path in (jsonl(tmp_path / "a.jsonl", ROWS), jsonl(tmp_path / "lines.json", ROWS), array, parquet):
        assert read_columns(path, REMAP, "train_dataset").to_pylist() == expected


def test_a_folder_is_read_in_order_without_hidden_files(tmp_path):
    jsonl(tmp_path / "b.jsonl", [{"text": "second", "extra": 1}])
    jsonl(tmp_path / "a.jsonl", [{"text": "first"}])
    jsonl(tmp_path / "_SUCCESS.json", [{"text": "no"}])
    (tmp_path / "notes.txt").write_text("no")
    assert read_columns(tmp_path, REMAP, "train_dataset")["src_txt"].to_pylist() == ["first", "second"]


def test_statistics_of_a_recipe_are_left_out(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"text": "a", "__dj__stats__": {"n": 1}}, {"text": "b", "__dj__stats__": 2}])
    assert read_columns(path, {}, "train_dataset").column_names == ["text"]


def test_a_remapped_column_replaces_one_of_that_name(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"text": "new", "src_txt": "old"}])
    assert read_columns(path, REMAP, "train_dataset").to_pylist() == [{"src_txt": "new"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "holds no rows"),
        ("a.jsonl", '{"text": "a"}\nnot json\n', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", "3\n", r"a\.jsonl:1: not a JSON object"),
        ("a.jsonl", '{"content": "a"}\n', "has no column 'text', which key_remapping names; its columns are content"),
        ("a.jsonl", '{"text": "a"}\n{"text": {"b": 1}}\n', "the values of 'text' have different types"),
        ("a.jsonl", '{"text": "a"}\n{"text": null}\n', "1 rows of .* have no value in the column 'text'"),
        ("a.json", "[1]", "something else than objects"),
        ("a.json", "[{]", "not a JSON array"),
        ("a.parquet", "nonsense", "no Parquet file"),
        ("a.csv", "text\na\n", r"is none of \.jsonl"),
    ],
)
def test_unfit_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(JobFailed, match=f"train_dataset: .*{message}"):
        read_columns(path, REMAP, "train_dataset")


def test_missing_paths_are_named(tmp_path):
    with pytest.raises(JobFailed, match=r"eval_dataset: .*gone does not exist"):
        read_columns(tmp_path / "gone", {}, "eval_dataset")
    with pytest.raises(JobFailed, match=r"holds no \.jsonl"):
        read_columns(tmp_path, {}, "eval_dataset")


@given(st.lists(st.text(), min_size=1))
def test_every_text_comes_back(tmp_path_factory, texts):
    path = jsonl(tmp_path_factory.mktemp("rows") / "a.jsonl", [{"text": text} for text in texts])
    assert read_columns(path, REMAP, "train_dataset")["src_txt"].to_pylist() == texts
