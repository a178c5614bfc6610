"""Prompts from every kind of file, each once; what is none is named with its place."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.executors._video.generation.prompts import read_prompts

INFO = [
    {"prompt_en": "a dog", "dimension": ["motion_smoothness"], "auxiliary_info": {"object_class": {"object": "dog"}}},
    {"prompt_en": "A dog", "dimension": ["scene"], "auxiliary_info": {"scene": {"scene": 3}}},
    {"prompt_en": "a dog", "dimension": "temporal_flickering"},
]


def test_prompt_information_of_vbench(tmp_path):
    path = tmp_path / "info.json"
    path.write_text(json.dumps(INFO))
    found = read_prompts(path)
    assert found.texts == ("a dog", "A dog")
    assert found.dimensions["a dog"] == ("motion_smoothness", "temporal_flickering")
    assert (found.repeated, found.limited) == (1, 0)


def test_text_files(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\ufeffa cat\r\n\n  a dog  \na cat\n", encoding="utf-8")
    found = read_prompts(path)
    assert found.texts == ("a cat", "a dog")
    assert found.repeated == 1


def test_a_limit_takes_the_first_ones(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a\nb\nb\nc\nd\n")
    found = read_prompts(path, limit=2)
    assert (found.texts, found.repeated, found.limited) == (("a", "b"), 1, 2)
    assert read_prompts(path, limit=9).limited == 0


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "folder"])
def test_columns_of_data_sets(tmp_path, kind):
    rows = [{"text": "one", "other": "1"}, {"text": "two", "other": "2"}]
    path = tmp_path / f"data.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.mkdir()
        for number, row in enumerate(rows):
            (path / f"{number}.jsonl").write_text(json.dumps(row) + "\n")
    assert read_prompts(path).texts == ("one", "two")
    assert read_prompts(path, prompt_key="other").texts == ("1", "2")


def test_json_lines_may_be_called_json(tmp_path):
    path = tmp_path / "data.json"
    path.write_text('{"text": "one"}\n{"text": "two"}\n')
    assert read_prompts(path).texts == ("one", "two")


def test_a_list_of_texts(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text('["one", "two", "one"]')
    assert read_prompts(path).texts == ("one", "two")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.json",
            '[{"caption": "x", "n": 1}]',
            "no column 'prompt_en' or 'text'; its columns are caption, n: set prompt",
        ),
        ("a.json", '{"prompt_en": 1}', "is no text but 1|is not a list"),
        ("a.json", "[1, 2]", "is not a list"),
        ("a.json", "no JSON", "a.json"),
        ("a.json", '[{"prompt_en": "x"}, {"prompt_en": null}]', "entry 2 is no text but None"),
        ("a.json", '["x", 3]', "prompt 2 is no text but 3"),
        ("a.json", '[{"prompt_en": "\\ud800"}]', "entry 1 holds half of a surrogate pair"),
        ("a.txt", "\n \n", "holds no prompts"),
        ("a.json", "[]", "holds no prompts|no column"),
    ],
)
def test_what_is_no_prompt_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises((UserError, JobFailed), match=message):
        read_prompts(path)


def test_a_column_that_is_not_there(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(INFO))
    with pytest.raises(UserError, match=r"no column 'caption', which prompt_key names; its columns are prompt_en, dim"):
        read_prompts(path, prompt_key="caption")


@pytest.mark.parametrize("name", ["a.csv", "a.yaml", "a.jsonl.gz"])
def test_other_kinds_of_files_are_refused(tmp_path, name):
    (tmp_path / name).write_text("text\na cat\n")
    with pytest.raises(UserError, match=rf"prompts: .*{name} is none of .jsonl, .*, .txt, .text: convert it"):
        read_prompts(tmp_path / name)
    (tmp_path / "prompts").write_text("a cat\n")
    assert read_prompts(tmp_path / "prompts").texts == ("a cat",)


@pytest.mark.parametrize(("name", "content"), [("a.txt", "a cat"), ("a.json", '["a cat"]')])
def test_a_column_of_a_file_without_columns_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=r"prompt_key: .* holds prompts alone, and no columns.*'caption'"):
        read_prompts(tmp_path / name, prompt_key="caption")


def test_files_that_are_missing_or_no_text(tmp_path):
    with pytest.raises(UserError, match=r"prompts: there is no file .*absent.txt"):
        read_prompts(tmp_path / "absent.txt")
    (tmp_path / "a.txt").write_bytes(b"abc\xff")
    with pytest.raises(UserError, match=r"is no text in UTF-8 \(byte 3\)"):
        read_prompts(tmp_path / "a.txt")
