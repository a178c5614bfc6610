"""Ray Tune writes pickles into the work_dir; a search that goes on reads none of them, whoever put them there."""

import json
from pathlib import Path

import pytest

from raysandbox.api import run
from raysandbox.sandbox.trials import read_trials
from tests.hpo.conftest import texts  # noqa: F401 - fixture
from tests.hpo.tiny_searches import filtering
from tests.security.traps import plain, springs

WORK = Path("outputs/search")
SEARCH = {
    "method": "grid",
    "metric": {"name": "process.rows_out", "goal": "minimize"},
    "parameters": {"text_length_filter.min_len": {"values": [5, 10]}},
    "max_concurrent": 1,
}
NAMES = ("tuner.pkl", "trainable.pkl", "searcher-state-x.pkl", "search_gen_state-x.json", ".validate_storage_marker")


@pytest.mark.usefixtures("cluster", "texts")
@pytest.mark.timeout(300)
def test_a_resumed_search_reads_no_pickle(workspace: Path) -> None:
    config = filtering(workspace, SEARCH)
    run(config)
    journal = WORK / "journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    kept = [event for event in events if not (event["event"] == "trial_ended" and event["trial"].endswith("1"))]
    assert len(kept) == len(events) - 1  # the second trial has still to end
    journal.write_text("".join(json.dumps(event) + "\n" for event in kept))

    mark, folder = workspace / "mark", WORK / "artifacts" / "tune"
    states = [path for path in folder.rglob("*") if path.is_file()]
    assert states
    for path in [*states, *(folder / name for name in NAMES)]:
        plain(path, mark)
    assert springs(workspace / "trap.pkl")
    run(config, resume=True)
    assert [trial.state for trial in read_trials(journal)] == ["done"] * 2
    assert not mark.exists()
