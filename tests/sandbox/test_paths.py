from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysandbox.sandbox import paths
from raysandbox.sandbox.drafts import same_path
from raysandbox.sandbox.paths import PathMap, is_inside, output_root, standing

names = st.text("abc", min_size=1, max_size=3)


def test_where_outputs_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert output_root(in_cluster_job=False) is None
    assert output_root(in_cluster_job=True) == Path.home() / "raysandbox"
    monkeypatch.setenv("RAYSANDBOX_ROOT", "/shared")
    assert output_root(in_cluster_job=True) == Path("/shared")


def test_in_a_cluster_job_inputs_are_looked_up_here_then_below_the_root(workspace: Path) -> None:
    root = workspace / "root"
    (root / "data").mkdir(parents=True)
    for place in (workspace / "here.jsonl", root / "here.jsonl", root / "data/there.jsonl"):
        place.write_text("")
    paths = PathMap(root / "work", root, {same_path("out/x.jsonl"): ""})
    assert paths.locate("here.jsonl") == "here.jsonl"
    assert paths.locate("data/there.jsonl") == str(root / "data/there.jsonl")
    assert paths.locate("data/*.jsonl") == str(root / "data/*.jsonl")
    assert paths.locate("nowhere.jsonl") == "nowhere.jsonl"
    assert paths.locate("out/x.jsonl") == str(root / "out/x.jsonl")
    assert paths.locate("/absolute/x.jsonl") == "/absolute/x.jsonl"


def test_outputs_inside_work_dir_are_scoped_with_every_reference(workspace: Path) -> None:
    written = {same_path("work/a.jsonl"): "iter_2", same_path("work/model"): "iter_2", same_path("out.jsonl"): "iter_2"}
    paths = PathMap(workspace / "work", None, written, {"iter_1", "iter_2"})
    work = str(workspace / "work")
    config = {
        "dataset_path": "0.3 work/a.jsonl 0.7 other.jsonl",
        "deep": ["./work/model/output", {"path": "out.jsonl"}],
        "text": "work",
        "many": "work/a.jsonl\nis prose",
    }
    assert paths.apply(config) == {
        "dataset_path": f"0.3 {work}/iter_2/a.jsonl 0.7 other.jsonl",
        "deep": [f"{work}/iter_2/model/output", {"path": "out.jsonl"}],
        "text": "work",
        "many": "work/a.jsonl\nis prose",
    }
    assert paths.placeless({"x": [f"{work}/iter_1/m", f"{work}/iter_2/m"]}) == {"x": ["<work_dir>/m", "<work_dir>/m"]}


@given(st.lists(names, min_size=1, max_size=3), st.lists(names, max_size=3))
def test_what_is_inside(folder: list[str], below: list[str]) -> None:
    path = "/" + "/".join(folder)
    assert is_inside("/".join([path, *below]), path)
    assert not is_inside(path + "x", path)


def test_literal_names_come_before_patterns(workspace: Path) -> None:
    for name in ("d[1].txt", "d1.txt", "e1.txt"):
        (workspace / name).write_text("")
    assert standing("d[1].txt") == ["d[1].txt"]
    assert standing("e[1].txt") == ["e1.txt"]
    assert standing("*1*.txt") == ["d1.txt", "d[1].txt", "e1.txt"]
    assert standing("none") == []


def test_only_the_place_goes_from_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = PathMap(tmp_path, None, {f"{tmp_path}/out": "trials/0001"}, {"trials/0001"})
    for text in ("a//b", "a/./b", "./b", "out//x", "see a/b"):  # regular expressions, prompts
        assert paths.placeless(text, ()) == (text if not text.startswith("out") else "out//x")
    inputs = ("./in.jsonl", f"{tmp_path}/trials/0001/out/x.jsonl")
    assert [paths.placeless(path, inputs) for path in inputs] == ["<work_dir>/in.jsonl", "<work_dir>/out/x.jsonl"]
    assert paths.placeless("0.3 ./in.jsonl 0.7 b/c.jsonl", inputs) == "0.3 <work_dir>/in.jsonl 0.7 b/c.jsonl"


def test_what_is_in_a_scope_already_stays_where_it_is(tmp_path: Path) -> None:
    folder, scopes = f"{tmp_path}/trials/0001", {"trials/0001", "trials/0001/iter_1"}
    paths = PathMap(tmp_path, None, {str(tmp_path): "trials/0001/iter_1"}, scopes)  # an output that is the work_dir
    for path in (f"{folder}/kept.jsonl", f"{folder}/iter_1/model"):
        assert paths.locate(path) == path
    assert paths.locate(str(tmp_path)) == f"{folder}/iter_1"
    assert paths.locate(f"{tmp_path}/x") == f"{folder}/iter_1/x"


def test_a_large_submitted_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outputs/run").mkdir(parents=True)
    (tmp_path / "outputs/run/model.bin").write_bytes(b"x" * 3000)
    (tmp_path / "sandbox.yaml").write_bytes(b"x" * 10)
    assert paths.submitted_note(tmp_path) is None
    monkeypatch.setattr(paths, "_LARGE_BYTES", 3000)
    note = str(paths.submitted_note(tmp_path))
    assert "0 MB (outputs 0 MB, sandbox.yaml 0 MB)" in note
    assert '"excludes": ["outputs", ".venv", ".git"]' in note
