"""Results that runs share: what is kept comes back as it was, in another folder, or not at all."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysandbox.core.keys import DigestMemo
from raysandbox.sandbox.contents import holds_text
from raysandbox.sandbox.shared import SharedResults, rebase

KEY = "ab" + "0" * 62


@dataclass
class Run:
    """A run's folder, with what one job of it made."""

    folder: Path

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts" / "job"

    @property
    def out(self) -> Path:
        return self.folder / "out.jsonl"

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def files(self) -> dict[str, str]:
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_text() for path in found}


@pytest.fixture
def shared(tmp_path: Path) -> SharedResults:
    return SharedResults(tmp_path / "cache" / "jobs", DigestMemo(tmp_path / "cache" / "digests"))


@pytest.fixture
def old(tmp_path: Path) -> Run:
    return Run(tmp_path / "trials" / "0000")


@pytest.fixture
def new(tmp_path: Path) -> Run:
    return Run(tmp_path / "trials" / "0001")


def keep(shared: SharedResults, run: Run, outputs: Mapping[str, Any], *paths: Path) -> bool:
    run.artifacts.mkdir(parents=True, exist_ok=True)
    named = [str(path) for path in paths]
    return shared.keep(KEY, outputs, named, run.artifacts, 1.5, "anonymous.job#0", place=str(run.folder))


def take(shared: SharedResults, run: Run, *paths: Path) -> Mapping[str, Any] | None:
    return shared.take(KEY, [str(path) for path in paths], run.artifacts)


def test_a_result_comes_back_in_another_folder(shared: SharedResults, old: Run, new: Run) -> None:
    old.write({"out.jsonl": "rows", "artifacts/job/plots/a.txt": "plot", "model/w.bin": "w", "model/sub/x": "x"})
    outputs = {"path": str(old.out), "folder": str(old.artifacts / "plots"), "model": [str(old.folder / "model/sub")]}
    assert shared.has(KEY) is None
    assert take(shared, new, new.out) is None
    assert keep(shared, old, {**outputs, "score": 0.5, "input": "/data/in"}, old.out, old.folder / "model")
    assert shared.has(KEY) == 1.5
    found = take(shared, new, new.out, new.folder / "model")
    assert found == {
        "path": str(new.out),
        "folder": str(new.artifacts / "plots"),
        "model": [str(new.folder / "model/sub")],
        "score": 0.5,
        "input": "/data/in",
    }
    assert new.files() == old.files()
    assert new.out.samefile(old.out)


def test_shards_keep_their_names_and_their_pattern(shared: SharedResults, old: Run, new: Run) -> None:
    old.write({"out-00-of-02.jsonl": "a", "out-01-of-02.jsonl": "b", ".out.jsonl.rows": "digests"})
    new.write({"out-00-of-01.jsonl": "of an attempt before", "other-00-of-01.jsonl": "another's"})
    pattern = "out-[0-9]*-of-02.jsonl"
    assert keep(shared, old, {"path": str(old.folder / pattern)}, old.out)
    assert take(shared, new, new.out) == {"path": str(new.folder / pattern)}
    assert new.files() == {**old.files(), "other-00-of-01.jsonl": "another's"}


def test_an_output_may_be_missing_and_have_another_name(shared: SharedResults, old: Run, new: Run) -> None:
    old.write({"out.jsonl": "rows", ".out.jsonl.rows": "digests", ".out.jsonl.done.json": "a note"})
    assert keep(shared, old, {"path": str(old.out)}, old.folder / "none.txt", old.out)
    other = new.folder / "deep" / "result.jsonl"
    assert take(shared, new, new.folder / "none.txt", other) == {"path": str(other)}
    assert new.files() == {"deep/result.jsonl": "rows", "deep/.result.jsonl.rows": "digests"}


def test_hidden_notes_stay_where_they_are(shared: SharedResults, old: Run, new: Run) -> None:
    old.write({"artifacts/job/.records/1": "x", "artifacts/job/.a.rows": "digests", "artifacts/job/a": "a"})
    assert keep(shared, old, {})
    assert take(shared, new) == {}
    assert new.files() == {"artifacts/job/a": "a", "artifacts/job/.a.rows": "digests"}


def test_what_belongs_to_others_is_not_kept(shared: SharedResults, old: Run, new: Run) -> None:
    old.write({"all/mine": "m", "all/logs/log": "l"})
    new.write({"all/logs/log": "of this run"})
    old.artifacts.mkdir(parents=True)
    folder, logs = str(old.folder / "all"), str(old.folder / "all" / "logs")
    assert shared.keep(KEY, {}, [folder], old.artifacts, 1.0, "job", others=[logs])
    others = [str(new.folder / "all" / "logs")]
    assert shared.take(KEY, [str(new.folder / "all")], new.artifacts, others=others) == {}
    assert new.files() == {"all/mine": "m", "all/logs/log": "of this run"}


def test_a_file_that_was_changed_in_place_is_noticed(shared: SharedResults, old: Run, new: Run) -> None:
    old.write({"out.jsonl": "rows"})
    assert keep(shared, old, {}, old.out)
    with old.out.open("a") as file:  # the kept file is the same one
        file.write("more")
    assert take(shared, new, new.out) is None
    assert shared.has(KEY) is None
    assert keep(shared, old, {}, old.out)
    assert take(shared, new, new.out) == {}
    assert new.out.read_text() == "rowsmore"


def test_a_file_that_is_gone_is_noticed(shared: SharedResults, old: Run, new: Run, tmp_path: Path) -> None:
    old.write({"artifacts/job/a": "a", "artifacts/job/b": "b"})
    assert keep(shared, old, {})
    next(tmp_path.glob("cache/jobs/ab/*/artifacts/b")).unlink()
    assert take(shared, new) is None
    assert not new.artifacts.exists()


def test_artefacts_of_an_attempt_before_are_replaced(shared: SharedResults, old: Run, new: Run) -> None:
    old.write({"artifacts/job/a": "a"})
    new.write({"artifacts/job/half": "h", "out.jsonl": "half"})
    assert keep(shared, old, {})
    assert take(shared, new) == {}
    assert new.files() == {"artifacts/job/a": "a", "out.jsonl": "half"}


def test_what_names_its_own_place_is_not_kept(shared: SharedResults, old: Run) -> None:
    old.write({"out.jsonl": "rows", "artifacts/job/list.txt": "fine"})
    assert not keep(shared, old, {"other": str(old.folder / "elsewhere")}, old.out)
    old.write({"artifacts/job/list.txt": f"see {old.out}"})
    assert not keep(shared, old, {}, old.out)
    old.write({"artifacts/job/list.txt": "fine", "artifacts/job/train.log": f"saved to {old.out}"})
    assert keep(shared, old, {"path": str(old.out)}, old.out)


@pytest.mark.parametrize("form", ["plain", "gzip", "zstd", "parquet", "json"])
def test_a_text_is_found_whatever_it_is_packed_in(tmp_path: Path, form: str) -> None:
    text = "/runs/größe/trials/0007"
    filler = "x" * ((4 << 20) - 10)  # the text lies across the border of two chunks
    content = {True: filler + text + "tail", False: filler + text[:-1] + "8"}
    for holds, value in content.items():
        path = tmp_path / f"file-{holds}"
        if form == "gzip":
            path.write_bytes(gzip.compress(value.encode(), 1))
        elif form == "zstd":
            half = len(value) // 2  # two frames, as parallel writers leave
            parts = [value[:half].encode(), value[half:].encode()]
            path.write_bytes(b"".join(zstandard.compress(part) for part in parts))
        elif form == "parquet":
            pq.write_table(pa.table({"n": [1, 2], "path": pa.array([None, value])}), path, compression="zstd")
        else:
            path.write_text(json.dumps(value) if form == "json" else value)
        assert holds_text(path, {text}) is holds


def test_a_full_disk_fails_no_job(
    shared: SharedResults, old: Run, new: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    old.write({"out.jsonl": "rows"})
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        patch.setattr(shutil, "copy2", full)
        assert not keep(shared, old, {}, old.out)
    assert "No space left" in caplog.text
    assert keep(shared, old, {}, old.out)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        patch.setattr(shutil, "copy2", full)
        assert take(shared, new, new.out) is None
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)  # another file system: copies
        assert take(shared, new, new.out) == {}
    assert new.out.read_text() == "rows"
    assert not new.out.samefile(old.out)


def test_outputs_that_are_no_json_fail_no_job(shared: SharedResults, old: Run) -> None:
    assert not keep(shared, old, {"x": object()})


def test_pruning_removes_what_was_not_used_longest(tmp_path: Path, shared: SharedResults, new: Run) -> None:
    keys = [f"{index}{'f' * 63}" for index in range(4)]
    for index, key in enumerate(keys):
        run = Run(tmp_path / "runs" / str(index))
        run.write({"artifacts/job/a": str(index) * 1000})
        assert shared.keep(key, {}, [], run.artifacts, 1.0, "job")
        record = tmp_path / "cache" / "jobs" / key[:2] / key / "entry.json"
        os.utime(record, (1000 + index, 1000 + index))
    assert shared.take(keys[0], [], new.artifacts) == {}
    shared.prune(limit=2000)
    assert [shared.has(key) is not None for key in keys] == [True, False, False, True]
    shared.prune()
    assert [shared.has(key) is not None for key in keys] == [True, False, False, True]
    assert new.files() == {"artifacts/job/a": "0" * 1000}


_WORKER = """
import sys
from pathlib import Path
from raysandbox.core.keys import DigestMemo
from raysandbox.sandbox.shared import SharedResults
folder, me = Path(sys.argv[1]), sys.argv[2]
shared = SharedResults(folder / "jobs", DigestMemo(folder / "digests"))
for number in range(25):
    key = f"{number % 3}" * 64
    run = folder / "runs" / me / str(number)
    artifacts = run / "artifacts"
    artifacts.mkdir(parents=True)
    for name in "abc":
        (artifacts / name).write_text(name * 1000)
    if me == "pruner":
        shared.prune(limit=0)
    else:
        assert shared.keep(key, {"path": str(artifacts)}, [], artifacts, 1.0, "job")
        taken = run / "taken"
        outputs = shared.take(key, [], taken)
        assert outputs in (None, {"path": str(taken)}), outputs
        if outputs:
            assert sorted(path.read_text()[:1] for path in taken.iterdir()) == ["a", "b", "c"]
            print("taken")
"""


def test_processes_keep_take_and_prune_at_once(tmp_path: Path) -> None:
    def start(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", _WORKER, str(tmp_path), name], stdout=subprocess.PIPE, text=True)

    processes = [start(name) for name in ("first", "second", "pruner")]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert "taken" in outputs[0] + outputs[1]
    assert not list(tmp_path.glob("jobs/*/.tmp-*"))
    assert not list(tmp_path.glob("jobs/.locks/*"))


_NAMES = st.text("ab", min_size=1, max_size=3)
_PATHS = st.lists(_NAMES, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))
_VALUES = st.recursive(
    st.none() | st.integers() | _PATHS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(_VALUES, _PATHS)
def test_rebasing_there_and_back_gives_the_same(value: Any, old: str) -> None:
    new = "/never/there"
    assert rebase(rebase(value, {old: new}), {new: old}) == value
    assert rebase(value, {old: old}) == value


@given(_PATHS, _PATHS)
def test_paths_below_are_moved_and_others_are_not(path: str, old: str) -> None:
    below = path == old or path.startswith(old + "/")
    assert rebase([path], {old: "/new"}) == [("/new" + path.removeprefix(old)) if below else path]


def test_the_longest_of_several_counts() -> None:
    moves = {"/a": "/x", "/a/b": "/y"}
    assert rebase({"p": ["/a/b/c", "/a/bc", "/a"]}, moves) == {"p": ["/y/c", "/x/bc", "/x"]}


_TREES = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "ü", "x.y"]), min_size=1, max_size=3).map("/".join), st.text(max_size=20)
).filter(lambda tree: not any(a != b and b.startswith(a + "/") for a in tree for b in tree))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_TREES, _TREES)
def test_what_is_taken_is_what_was_kept(tmp_path: Path, made: dict[str, str], written: dict[str, str]) -> None:
    for path in tmp_path.iterdir():
        shutil.rmtree(path)
    shared = SharedResults(tmp_path / "jobs", DigestMemo(tmp_path / "digests"))
    old, new = Run(tmp_path / "0"), Run(tmp_path / "1")
    old.write({f"artifacts/job/{name}": text for name, text in made.items()})
    old.write({f"written/{name}": text for name, text in written.items()})
    outputs = {name: str(old.folder / "written" / name) for name in written}
    assert keep(shared, old, outputs, old.folder / "written")
    assert take(shared, new, new.folder / "written") == {name: str(new.folder / "written" / name) for name in written}
    assert new.files() == old.files()


def test_the_runs_folder_as_an_output_keeps_what_is_the_runs(shared: SharedResults, old: Run, new: Run) -> None:
    old.write({"model.json": "m"})
    new.write({"journal.jsonl": "j", "logs/log": "l", "half": "of an attempt before"})
    old.artifacts.mkdir(parents=True)
    assert shared.keep(KEY, {"model": f"{old.folder}/./model.json"}, [f"{old.folder}/."], old.artifacts, 1.0, "job")
    others = [str(new.folder / name) for name in ("journal.jsonl", "logs", "artifacts")]
    for known in (others, None):
        outputs = shared.take(KEY, [f"{new.folder}/."], new.artifacts, others=known)
        assert outputs == {"model": f"{new.folder}/./model.json"}
        assert new.files() == {"journal.jsonl": "j", "logs/log": "l", "half": "of an attempt before", "model.json": "m"}


def test_a_folder_is_replaced_unless_it_holds_what_is_not_the_jobs(
    shared: SharedResults, old: Run, new: Run, tmp_path: Path
) -> None:
    old.write({"out/0": "a"})
    left = {"out/1": "of an attempt before", "out/checkpoint-3/x": "x"}
    new.write(left)
    assert keep(shared, old, {}, old.folder / "out")
    paths = [str(new.folder / "out")]
    assert shared.take(KEY, paths, new.artifacts, others=[str(new.folder / "out" / "1")]) == {}
    assert new.files() == {**left, "out/0": "a"}
    assert shared.take(KEY, paths, new.artifacts, others=[str(new.folder / "outer")]) == {}
    assert new.files() == {"out/0": "a"}


def test_shards_replace_a_whole_file_and_no_name_that_a_glob_would_match(
    shared: SharedResults, old: Run, new: Run
) -> None:
    old.write({"k[1]-0-of-1.jsonl": "new"})
    new.write({"k[1].jsonl": "old", "k1.jsonl": "another job's", "k1-0-of-1.jsonl": "another job's"})
    assert keep(shared, old, {}, old.folder / "k[1].jsonl")
    assert take(shared, new, new.folder / "k[1].jsonl") == {}
    others = {"k1.jsonl": "another job's", "k1-0-of-1.jsonl": "another job's"}
    assert new.files() == {"k[1]-0-of-1.jsonl": "new", **others}


def test_a_place_is_found_by_its_real_name_and_in_relative_outputs(
    shared: SharedResults, old: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = Run(tmp_path / "linked")
    old.write({"out.jsonl": str(old.folder / "x")})
    linked.folder.symlink_to(old.folder)
    assert not keep(shared, linked, {}, linked.out)
    old.write({"out.jsonl": "rows"})
    monkeypatch.chdir(tmp_path)
    assert not keep(shared, old, {"data": "./trials/0000/data/in.jsonl"}, old.out)
    assert keep(shared, old, {"data": "./data/in.jsonl"}, old.out)


def test_what_is_appended_to_is_copied(shared: SharedResults, old: Run, new: Run) -> None:
    old.write({"artifacts/job/own/log": "a", "artifacts/job/rest": "r"})
    assert shared.keep(KEY, {}, [], old.artifacts, 1.0, "job", copied={"own"})
    with (old.artifacts / "own" / "log").open("a") as file:
        file.write("b")
    assert shared.take(KEY, [], new.artifacts, copied={"own"}) == {}
    assert new.files() == {"artifacts/job/own/log": "a", "artifacts/job/rest": "r"}
    assert not (old.artifacts / "own" / "log").samefile(new.artifacts / "own" / "log")
    assert (old.artifacts / "rest").samefile(new.artifacts / "rest")
