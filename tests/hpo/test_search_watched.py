"""What a search leaves in wandb and beside it."""

from __future__ import annotations

import csv
import json
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysandbox.api import run
from raysandbox.core.events import read_events
from raysandbox.sandbox.trials import read_trials
from tests.hpo.tiny_searches import ROWS, filtering

pytestmark = pytest.mark.usefixtures("cluster", "texts")

WORK = Path("outputs/search")
NAME = "text_length_filter.min_len"
LENGTHS = [5, 10, 20]
HPO = {
    "method": "grid",
    "metric": {"name": "process.rows_out", "goal": "minimize"},
    "parameters": {NAME: {"values": LENGTHS}},
}
_BLOCK = 32_768
_START_OF_FILE = 7
_COMPLETE, _LAST = 1, 4
_SHOWN = ("history.png", "parallel_coordinates.png", "search.html")


def records(path: Path) -> Iterator[Any]:
    """The records of wandb's transaction log: LevelDB's log format after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    parse = vars(wandb_internal_pb2)["Record"].FromString
    data, at, record = path.read_bytes(), _START_OF_FILE, b""
    assert data.startswith(b":W&B")
    while at + 7 <= len(data):
        rest = _BLOCK - at % _BLOCK
        if rest < 7:  # too short for a header: filled up
            at += rest
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (_COMPLETE, _LAST):
            yield parse(record)
            record = b""
    assert at == len(data), "the log ends within a record"


def seen(path: Path) -> dict[str, Any]:
    """Of a run in wandb's log: id, group, name, last configuration, all values of each metric."""
    found: dict[str, Any] = {"config": {}, "metrics": {}, "ended": False}
    for record in records(path):
        if record.HasField("run"):
            found |= {"id": record.run.run_id, "group": record.run.run_group, "name": record.run.display_name}
        for update in record.config.update:
            found["config"][update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
        for item in record.history.item:
            name = item.key or ".".join(item.nested_key)
            found["metrics"].setdefault(name, []).append(json.loads(item.value_json))
        found["ended"] = found["ended"] or record.HasField("exit")
    return found


def logs_below(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*/*.wandb"))


def assert_no_secrets() -> None:
    """No file of the search or of what runs share holds a secret."""
    files = [path for folder in (WORK, Path.home() / ".cache") for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if b"canary" in path.read_bytes()]
    assert "SERVICE_API_KEY: '***'" in (WORK / "config.yaml").read_text()


def results(work_dir: Path) -> dict[str, int]:
    """Sizes of what a search shows."""
    pictures = {name: (work_dir / "artifacts/search" / name).stat().st_size for name in _SHOWN}
    return pictures | {name: (work_dir / name).stat().st_size for name in ("trials.csv", "report.md")}


@pytest.fixture
def search(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search of three trials that knows secrets: by a key of its configuration, and of the environment."""
    monkeypatch.setenv("MY_API_KEY", "canary-in-env")
    path = filtering(workspace, HPO)
    content = yaml.safe_load(path.read_text())
    variables = {"SERVICE_API_KEY": "canary-in-config", "SERVICE_URL": "http://localhost/canary-in-env"}
    content["execution_job_configs"][0]["runtime_env"] = {"env_vars": variables}
    path.write_text(yaml.safe_dump(content))
    return path


def test_one_run_per_trial_in_one_group(search: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run(search)
    trials = read_trials(WORK / "journal.jsonl")
    assert [trial.state for trial in trials] == ["done"] * len(LENGTHS)
    runs = {}
    for trial in trials:
        [path] = logs_below(WORK / "trials" / trial.name)
        runs[trial.name] = seen(path)
    assert all(found["ended"] for found in runs.values())
    assert len({found["id"] for found in runs.values()}) == len(runs)
    [group] = {found["group"] for found in runs.values()}
    assert group.startswith("sweep-")
    for trial in trials:
        found = runs[trial.name]
        assert found["name"] == f"search-{trial.name}"
        assert found["config"]["params"] == trial.params
        sweep: Mapping[str, Any] = found["config"]["sweep"]
        assert sweep["id"] == group
        assert {key: sweep[key] for key in HPO} == HPO
        [job] = found["config"]["sandbox"]["execution_job_configs"]
        assert job["dj_configs"]["process"] == [{"text_length_filter": {"min_len": trial.params[NAME]}}]
        assert found["metrics"]["process.rows_out"] == [ROWS - trial.params[NAME] + 1] == [trial.value]

    [path] = logs_below(WORK)
    own = seen(path)  # the search's own run: its curve over trials, outside of the group
    assert (own["group"], own["config"]["hpo_config"]) == ("", HPO)
    assert sorted(own["metrics"]["trial.value"]) == sorted(ROWS - length + 1 for length in LENGTHS)
    assert own["metrics"]["best.value"][-1] == ROWS - max(LENGTHS) + 1

    folders = [str(path.parent) for path in sorted(WORK.glob("**/offline-run-*/*.wandb"))]
    command = [sys.executable, "-m", "wandb", "sync", "--dry-run", *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert f"Would sync {len(trials) + 1} run(s)" in done.stdout + done.stderr
    assert_no_secrets()


def test_without_wandb_everything_stands_in_work_dir(search: Path) -> None:
    run(search)
    assert not list(WORK.glob("**/*.wandb"))
    assert min(results(WORK).values()) > 0
    rows = list(csv.DictReader((WORK / "trials.csv").read_text().splitlines()))
    assert [float(row["value"]) for row in rows] == [ROWS - length + 1 for length in LENGTHS]
    own = {(line["name"], line["step"]): line["value"] for line in read_events(WORK / "metrics.jsonl")}
    assert {own["trial.value", number] for number in range(len(LENGTHS))} == {ROWS - n + 1 for n in LENGTHS}
    assert_no_secrets()
