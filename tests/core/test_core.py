from __future__ import annotations

import io
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysandbox.core.component import Component, InputPath, InputPaths, OutputPath, PathRole, path_refs
from raysandbox.core.errors import Problem, UnknownNameError, UserError
from raysandbox.core.events import Journal, read_events
from raysandbox.core.files import atomic_dir, atomic_path, atomic_write, link_or_copy
from raysandbox.core.keys import DigestMemo, FileStamps, _Table, digest, file_stamp
from raysandbox.core.redact import REDACTED, redact, redact_text
from raysandbox.core.registry import Registry, register


class Nested(Component):
    inner: InputPath = ""


class Sample(Component):
    registry: ClassVar[Registry] = Registry("test sample", planned=["later"])
    data: InputPath
    more: InputPaths = ""
    maybe: InputPath | None = None
    out: OutputPath = "default-out"
    nested: Nested = Nested()


def test_paths_are_found_by_role_in_incomplete_configurations() -> None:
    raw = {"more": ["b", "c"], "maybe": "d", "nested": {"inner": "e"}, "unknown": "x"}
    found = {(ref.key, ref.path, ref.role) for ref in path_refs(Sample, raw)}
    assert found == {
        (("more", 0), "b", PathRole.INPUT),
        (("more", 1), "c", PathRole.INPUT),
        (("maybe",), "d", PathRole.INPUT),
        (("out",), "default-out", PathRole.OUTPUT),
        (("nested", "inner"), "e", PathRole.INPUT),
    }


def test_registry_suggests_refuses_twice_and_knows_what_comes() -> None:
    register("sample")(Sample)
    registry = Sample.registry
    assert registry.get("sample") is Sample
    with pytest.raises(UnknownNameError, match=r"unknown test sample 'sampel'; did you mean 'sample'\?"):
        registry.get("sampel")
    with pytest.raises(UnknownNameError, match="is not in this version"):
        registry.get("later")
    with pytest.raises(UserError, match="registered twice"):
        register("sample")(type("Other", (Sample,), {}))


def test_problem_reads_as_file_line_path_message_fix() -> None:
    assert str(Problem("a.yaml", 3, "x.y", "is wrong", "mend it")) == "a.yaml:3: x.y: is wrong (mend it)"


def test_problems_do_not_steer_terminals() -> None:
    text = str(Problem("a.yaml", 3, "x", "not 'a\x1b[2J\u202eb\ud800'"))
    assert text == r"a.yaml:3: x: not 'a\x1b[2J\u202eb\ud800'"


def test_atomic_files_keep_the_old_content_on_failure(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    atomic_write(target, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text(str(1 / 0))
    assert target.read_text() == "old"
    folder = tmp_path / "folder"
    with atomic_dir(folder) as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(ZeroDivisionError), atomic_dir(folder) as temporary:
        (temporary / "a").write_text(str(1 / 0))
    assert (folder / "a").read_text() == "1"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] in (["file.txt", "a"], ["a", "file.txt"])


def test_link_or_copy_files_and_trees(tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "a").write_text("1")
    link_or_copy(tmp_path / "tree", tmp_path / "copy")
    link_or_copy(tmp_path / "tree" / "sub" / "a", tmp_path / "x" / "a")
    assert (tmp_path / "copy" / "sub" / "a").read_text() == (tmp_path / "x" / "a").read_text() == "1"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
)


@given(st.dictionaries(st.text(max_size=4), json_values, max_size=5), st.randoms())
def test_digest_ignores_the_order_of_keys_only(value: dict, random: object) -> None:
    keys = list(value)
    random.shuffle(keys)
    assert digest({key: value[key] for key in keys}) == digest(value)
    assert digest({**value, "one more": 1}) != digest({**value, "one more": 2})


def test_digest_memo_sees_content_not_names(tmp_path: Path) -> None:
    memo = DigestMemo(tmp_path / "memo")
    for name in ("a", "b"):
        (tmp_path / name).write_text("same")
    first = memo.of(tmp_path / "a")
    assert first == memo.of(tmp_path / "b") == memo.of(tmp_path / "a")
    (tmp_path / "a").write_text("other")
    assert memo.of(tmp_path / "a") != first
    assert memo.of(tmp_path / "none") is None
    for path in (tmp_path / "memo").iterdir():
        path.write_text("")  # a torn memo is computed again
    assert memo.of(tmp_path / "b") == first


def test_threads_that_catch_up_at_once_skip_no_line(tmp_path: Path) -> None:
    class Interrupted(io.BytesIO):  # between two lines another thread reads them all
        def __next__(self):
            if table.path is slow:
                table.path = file
                table._catch_up()
            return super().__next__()

    file, slow = tmp_path / "memo.jsonl", SimpleNamespace()
    slow.stat, slow.open = file.stat, lambda mode: Interrupted(file.read_bytes())
    first, second = b'["a",1, "', b'["b",1, "'
    file.write_bytes(first + b"0f" * 32 + b'"]\n')
    table = _Table(slow)
    table._catch_up()
    with file.open("ab") as more:
        more.write(second + b"1f" * 32 + b'"]\n')
    assert table.find(second) == "1f" * 32
    assert table.find(first) == "0f" * 32


def test_a_file_that_is_replaced_by_one_of_equal_size_and_time_is_seen(tmp_path):
    memo = DigestMemo(tmp_path / "memo")
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_text("one")
    first, stamps, noted = memo.of(path), FileStamps.of([path]), path.stat()
    assert not stamps.changed
    other.write_text("two")
    os.utime(other, ns=(noted.st_atime_ns, noted.st_mtime_ns))
    other.replace(path)
    assert stamps.changed
    assert memo.of(path) != first
    path.unlink()
    assert stamps.changed


def test_a_noted_digest_holds_for_a_hard_link(tmp_path):
    memo = DigestMemo(tmp_path / "memo")
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    memo.note(tmp_path / "b", "0f" * 32)
    assert memo.of(tmp_path / "b") == "0f" * 32
    assert DigestMemo(tmp_path / "memo").of(tmp_path / "b") == "0f" * 32
    assert file_stamp(tmp_path / "a") == file_stamp(tmp_path / "b")


def test_journal_numbers_go_on_and_a_torn_tail_is_repaired(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, "one")
    journal.emit("a", value=1)
    journal.emit("b", api_key="s3cret-value")
    journal.close()
    with path.open("a") as file:
        file.write('{"t": 1, "torn')
    journal = Journal(path, "two")
    journal.emit("c")
    journal.close()
    events = list(read_events(path))
    assert [(event["seq"], event["run"], event["event"]) for event in events] == [
        (0, "one", "a"),
        (1, "one", "b"),
        (2, "two", "c"),
    ]
    assert "s3cret-value" not in path.read_text()


def test_redaction_by_key_and_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "canary-0123456789")
    config = {
        "api_key": "k",
        "nested": [{"password": "pw-123456789", "text": "uses pw-123456789 here"}],
        "image_special_token": "<img>",
        "tokenizer": "bert",
        "text": "and canary-0123456789",
        "hf_token": "x",
    }
    clean = redact(config)
    assert clean["api_key"] == clean["hf_token"] == clean["nested"][0]["password"] == REDACTED
    assert clean["image_special_token"] == "<img>"
    assert clean["tokenizer"] == "bert"
    assert "canary" not in json.dumps(clean)
    assert "pw-1234" not in json.dumps(clean)
    camel = {
        "env_vars": {"HUGGING_FACE_HUB_TOKEN": "a-long-value"},
        "secretKey": ["another-long-one"],
        "eos_token": "</s>",
    }
    assert redact(camel) == {
        "env_vars": {"HUGGING_FACE_HUB_TOKEN": REDACTED},
        "secretKey": REDACTED,
        "eos_token": "</s>",
    }
    words = {"think_end_token": "</think>", "prefix_token_id": 1, "eot_token_id": 2, "suppress_tokens": [1, 2]}
    assert redact(words) == words
    assert redact({"api_key_env": "MY_API_KEY"}) == {"api_key_env": "MY_API_KEY"}  # a name is no secret
    assert redact_text("not 'another-long-one'") == f"not '{REDACTED}'"
    assert redact_text(f"error: {os.environ['MY_API_KEY']}") == f"error: {REDACTED}"
