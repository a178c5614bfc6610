"""State of a search, damaged: trials run again, or the file is refused by its name; the best is the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysandbox.api import run
from raysandbox.cli.main import main
from raysandbox.core.errors import RunInterrupted
from raysandbox.hpo.recorder import Recorder
from raysandbox.report.markdown import write_report
from raysandbox.sandbox.trials import read_trials
from tests.faults.damages import DAMAGES, Snapshot, problems_with
from tests.hpo.conftest import texts as texts
from tests.hpo.tiny_searches import ROWS

pytestmark = pytest.mark.usefixtures("cluster", "texts")
LENGTHS = (5, 10)


class SmallSearch:
    """Two trials of one filter."""

    def __init__(self, folder: Path) -> None:
        self.live = folder / "live"
        self.work = self.live / "work"
        self.config = folder / "search.yaml"
        values = {"text_length_filter.min_len": {"values": list(LENGTHS)}}
        recipe = {
            "dataset_path": str(folder / "texts.jsonl"),
            "export_path": str(self.work / "kept.jsonl"),
            "process": [{"text_length_filter": {"min_len": 1}}],
        }
        config: dict[str, Any] = {
            "experiment_name": "search",
            "work_dir": str(self.work),
            "cache_dir": str(self.live / "cache"),
            "hpo_config": {
                "method": "grid",
                "metric": {"name": "process.rows_out", "goal": "minimize"},
                "parameters": values,
                "max_concurrent": 1,
            },
            "execution_job_configs": [
                {"hook": "ProcessDataHook", "meta_name": "process", "dj_configs": recipe, "output": ["kept"]}
            ],
        }
        self.config.write_text(yaml.safe_dump(config, sort_keys=False))

    def results(self) -> dict[str, Any]:
        values = {r.params["text_length_filter.min_len"]: r.value for r in read_trials(self.work / "journal.jsonl")}
        kept = {n: (self.work / f"trials/{n:04d}/kept.jsonl").read_text() for n in range(len(LENGTHS))}
        state = json.loads((self.work / "status.json").read_text())["state"]
        return {"values": values, "kept": kept, "best": (self.work / "best_config.yaml").read_text(), "state": state}

    def plan(self) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["plan", str(self.config)])
        assert ended.value.code == 0


@pytest.fixture
def search(workspace: Path) -> SmallSearch:
    return SmallSearch(workspace)


def interrupted_after_one(search: SmallSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        real = Recorder.suggested

        def suggested(self: Recorder, suggestion: Any) -> None:
            real(self, suggestion)
            if suggestion.number:
                raise KeyboardInterrupt

        patched.setattr(Recorder, "suggested", suggested)
        with pytest.raises((RunInterrupted, KeyboardInterrupt)):
            run(search.config)


def one_of_each_kind(files: list[Path]) -> set[Path]:
    """Of files whose names differ in numbers and digests only, the first."""
    kinds: dict[str, Path] = {}
    for path in files:
        kinds.setdefault(re.sub(r"[0-9a-f]{6,}|\d+", "*", str(path)), path)
    return set(kinds.values())


def test_all_files_damaged_at_once(search: SmallSearch, capsys: pytest.CaptureFixture[str]) -> None:
    run(search.config)
    wanted = search.results()
    assert wanted["values"] == {n: ROWS - n + 1 for n in LENGTHS}
    for path in Snapshot(search.live).files():
        path.write_bytes(DAMAGES["half"](path.read_bytes()))
    search.plan()
    run(search.config, resume=True)
    assert search.results() == wanted


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("damage", ["empty", "half", "other shape"])
@pytest.mark.parametrize("finished", [True, False])
def test_each_file(
    search: SmallSearch,
    finished: bool,
    damage: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if finished:
        run(search.config)
    else:
        interrupted_after_one(search, monkeypatch)
    snapshot = Snapshot(search.live)
    run(search.config, resume=True)
    wanted, problems = search.results(), list[str]()
    acts = {
        "report": lambda: write_report(search.work),
        "plan": search.plan,
    }
    # What a finished trial made is a result and no state: tests/hpo/test_search.py asks for what is said of it.
    chosen = one_of_each_kind([p for p in snapshot.files() if not p.match("trials/*/kept.jsonl")])
    for path in snapshot.damaged(damage, chosen.__contains__):
        name = str(path.relative_to(search.live))
        problems += problems_with(path, name, acts)
        again = {"resume": lambda: run(search.config, resume=True)}
        problems += problems_with(path, name, again, lambda: search.results() == wanted)
    capsys.readouterr()
    assert not problems, "\n".join(problems)
