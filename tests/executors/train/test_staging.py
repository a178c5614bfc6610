import json

import pytest

from raysandbox.core.errors import JobFailed
from raysandbox.executors.train._staging import MARKER, staged


def publish(work_dir, *, fail: bool = False, **files: str) -> None:
    with staged(work_dir) as (folder, summary):
        for name, text in files.items():
            (folder / name).write_text(text)
        if fail:
            raise JobFailed("on purpose")
        summary["seed"] = 1


def test_files_and_a_marker_appear(tmp_path):
    work_dir = tmp_path / "a" / "model"
    publish(work_dir, weights="w")
    assert (work_dir / "weights").read_text() == "w"
    assert json.loads((work_dir / MARKER).read_text()) == {"seed": 1, "files": ["weights"]}
    assert [path.name for path in work_dir.parent.iterdir()] == ["model"]


def test_an_earlier_training_is_replaced_and_other_files_stay(tmp_path):
    work_dir = tmp_path / "shared"
    work_dir.mkdir()
    (work_dir / "processed.jsonl").write_text("{}")
    publish(work_dir, old="1", both="1")
    publish(work_dir, new="2", both="2")
    assert sorted(path.name for path in work_dir.iterdir()) == ["both", "new", "processed.jsonl", MARKER]
    assert (work_dir / "both").read_text() == "2"


def test_a_failure_leaves_the_earlier_training_and_its_own_logs(tmp_path):
    work_dir = tmp_path / "model"
    publish(work_dir, weights="first")
    with pytest.raises(JobFailed):
        publish(work_dir, fail=True, weights="half")
    assert (work_dir / "weights").read_text() == "first"
    assert (tmp_path / "model.partial" / "weights").read_text() == "half"
    publish(work_dir, weights="second")
    assert (work_dir / "weights").read_text() == "second"
    assert not (tmp_path / "model.partial").exists()
