import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from raysandbox.core.errors import ConfigError, JobFailed
from raysandbox.recipe.blocks import ROW_COLUMN, Needs
from raysandbox.recipe.inputs import find_files, plan_reads
from raysandbox.recipe.readers import count_rows, read_task

TEXT = Needs(texts=("text",))


def read(path, needs=None, block_bytes=1 << 20, suffixes=frozenset()):
    """Rows and bad rows of a path."""
    files, _ = find_files(str(path), suffixes)
    rows, bad = [], []
    for task in plan_reads(files, block_bytes):
        for block in read_task(task, needs or Needs()):
            rows += block.rows if block.rows is not None else block.table.drop_columns([ROW_COLUMN]).to_pylist()
            bad += block.bad
    return rows, bad


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))), st.integers(1, 60), st.booleans(), st.booleans())
def test_any_cut_of_a_file_gives_the_same_lines(tmp_path_factory, texts, block_bytes, ends_with_newline, windows):
    path = tmp_path_factory.mktemp("data") / "a.jsonl"
    newline = b"\r\n" if windows else b"\n"
    data = newline.join(json.dumps({"n": n, "text": text}).encode() for n, text in enumerate(texts))
    path.write_bytes(data + (newline if ends_with_newline else b""))
    rows, bad = read(path, block_bytes=block_bytes)
    assert rows == [{"n": n, "text": text} for n, text in enumerate(texts)]
    assert not bad


def test_bad_lines_are_set_aside_with_their_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [b'{"text": "a"}', b"", b'{"text": ', b'{"text": "\xff"}', b"[]", b"{}", b'{"text": null}', b'{"text": 3}']
    path.write_bytes(b"\n".join([*lines, b'{"text": "b"}']))
    for block_bytes in (1 << 20, 7):
        rows, bad = read(path, TEXT, block_bytes)
        assert rows == [{"text": "a"}, {"text": "b"}]
        assert [(row.place.line(), row.reason.split(":")[0]) for row in bad] == [
            (3, "broken JSON"),
            (4, "broken UTF-8 at byte 10"),
            (5, "not a JSON object but a list"),
            (6, "no 'text'"),
            (7, "'text' is null"),
            (8, "'text' is not a string"),
        ]
    assert str(bad[0]).startswith(f"{path}:3: broken JSON")


def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\n')
    assert read(path) == ([{"text": "a"}], [])


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_a_long_line(tmp_path, suffix):
    rows = [{"text": "a"}, {"text": "é" * 20_000_000}, {"text": "b"}]
    data = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    path = tmp_path / f"a{suffix}"
    pack = {".jsonl": bytes, ".jsonl.gz": lambda data: gzip.compress(data, 1), ".jsonl.zst": zstandard.compress}
    path.write_bytes(pack[suffix](data))
    found, bad = read(path, TEXT)
    assert [len(row["text"]) for row in found] == [1, 20_000_000, 1]
    assert found == rows
    assert not bad


def test_packed_files_of_several_frames(tmp_path):
    lines = [b'{"text": "a"}\n', b'{"text": "b"}\n']
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(map(gzip.compress, lines)))
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(map(zstandard.compress, lines)))
    for name in ("a.jsonl.gz", "a.jsonl.zst"):
        assert read(tmp_path / name)[0] == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.json.gz", "a.parquet", "a.json"])
def test_a_damaged_file_is_named(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"[{" + b"nonsense" * 100)
    with pytest.raises((JobFailed, ConfigError), match=name):
        read(path, block_bytes=100)


def test_json_lists_and_lines(tmp_path):
    rows = [{"text": "a", "n": 2**70}, {"text": "b"}]
    (tmp_path / "list.json").write_text(" " + json.dumps([*rows, 3], indent=2))
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, rows)))
    found, bad = read(tmp_path / "list.json")
    assert found == rows
    assert [(row.place.line(), row.reason) for row in bad] == [(3, "not a JSON object")]
    assert read(tmp_path / "lines.json")[0] == rows


def test_parquet_keeps_types_and_numbers_rows_across_row_groups(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["a", None, "c", "d"], "d": pa.array([1, 2, 3, 4], pa.date32())})
    pq.write_table(table, path, row_group_size=1)
    rows, bad = read(path, TEXT, block_bytes=1)
    assert [row["text"] for row in rows] == ["a", "c", "d"]
    assert rows[0]["d"] == table["d"][0].as_py()
    assert [(row.place.line(), row.reason) for row in bad] == [(2, "'text' is null")]


def test_parquet_without_the_text(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": [1, 2]}), path)
    rows, bad = read(path, TEXT)
    assert rows == []
    assert [row.reason for row in bad] == ["no 'text'"] * 2


def test_csv_types_hold_for_the_whole_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,n,x,zip,flag,note\n"a, ""b""\nc",1,1,007,true,\nd,,2.5,123,False,2024-01-01\n')
    assert read(path)[0] == [
        {"text": 'a, "b"\nc', "n": 1, "x": 1.0, "zip": "007", "flag": True, "note": ""},
        {"text": "d", "n": None, "x": 2.5, "zip": "123", "flag": False, "note": "2024-01-01"},
    ]


def test_csv_bad_rows(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"text\tn\na\t1\nb\nc\t\xff\nd\t4\te\nf\tz\n")
    rows, bad = read(path, TEXT)
    assert rows == [{"text": "a", "n": "1"}, {"text": "f", "n": "z"}]
    assert [(row.place.line(), row.reason) for row in bad] == [
        (3, "1 fields where the header has 2"),
        (4, "broken UTF-8 in 'n'"),
        (5, "3 fields where the header has 2"),
    ]


def test_csv_row_longer_than_a_block(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text\na\n" + "b" * 20_000_000 + "\n")
    assert [len(row["text"]) for row in read(path)[0]] == [1, 20_000_000]


def test_a_text_file_is_one_row(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.txt").write_bytes(b"\xff")
    rows, bad = read(tmp_path, TEXT)
    assert rows == [{"text": "one\ntwo\n"}]
    assert [row.reason for row in bad] == ["broken UTF-8 at byte 0"]


def test_folders_are_read_in_order_without_hidden_files(tmp_path):
    for name in ("b/2.jsonl", "a.jsonl", "b/1.jsonl", ".hidden/x.jsonl", ".x.jsonl", "_SUCCESS", "readme.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"text": name}) + "\n")
    files, warnings = find_files(str(tmp_path), frozenset())
    assert [file.path.removeprefix(f"{tmp_path}/") for file in files] == ["a.jsonl", "b/1.jsonl", "b/2.jsonl"]
    assert "1 text files" in warnings[0]
    assert [row["text"] for row in read(tmp_path, suffixes=frozenset({".txt"}))[0]] == ['{"text": "readme.txt"}\n']
    assert len(read(tmp_path / "**" / "*.jsonl")[0]) == 3


def test_small_files_share_a_task(tmp_path):
    for n in range(10):
        (tmp_path / f"{n}.jsonl").write_text('{"text": "a"}\n')
    files, _ = find_files(str(tmp_path), frozenset())
    assert len(plan_reads(files, 1 << 20)) == 1
    assert len(plan_reads(files, 20)) == 10


@pytest.mark.parametrize("name", ["nothing", "*.jsonl", "a.exe", "folder"])
def test_no_input_is_an_error_of_the_configuration(tmp_path, name):
    (tmp_path / "a.exe").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="dataset_path"):
        find_files(str(tmp_path / name), frozenset())


def test_relative_media_start_at_the_data(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"videos": ["v/1.mp4", "/abs.mp4", "https://x/y.mp4"], "images": []}\n')
    assert read(path)[0] == [{"videos": [f"{tmp_path}/v/1.mp4", "/abs.mp4", "https://x/y.mp4"], "images": []}]


def test_counting_rows_includes_bad_ones(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n\n{\n')
    files, _ = find_files(str(path), frozenset())
    assert [count_rows(span) for span in plan_reads(files, 100)[0].spans] == [2]
