"""A search whose work_dir is in an object store: killed, and gone on with on another machine."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import yaml

from raysandbox.sandbox.storage import ObjectStore
from tests.sandbox.test_remote_dir import Bucket, command, needs_moto, outcome
from tests.sandbox.test_remote_dir import _server as _server
from tests.sandbox.test_remote_dir import bucket as bucket

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600), needs_moto]

LENGTHS = (5, 10, 20)


def configuration(folder: Path, url: str) -> Path:
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": "x" * n}) + "\n" for n in range(1, 41)))
    recipe = {
        "dataset_path": str(folder / "texts.jsonl"),
        "export_path": f"{url}/kept.jsonl",
        "process": [{"text_length_filter": {"min_len": 1}}],
    }
    config = {
        "work_dir": url,
        "hpo_config": {
            "method": "grid",
            "metric": {"name": "process.rows_out", "goal": "minimize"},
            "parameters": {"text_length_filter.min_len": {"values": list(LENGTHS)}},
            "max_concurrent": 1,
        },
        "execution_job_configs": [
            {"hook": "ProcessDataHook", "meta_name": "process", "dj_configs": recipe, "output": ["kept"]}
        ],
    }
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def ended(store: ObjectStore) -> list[int]:
    """Numbers of the trials that ended, as the store tells."""
    lines = (store.read("journal.jsonl") or b"").splitlines()
    events = [json.loads(line) for line in lines]
    return [event["number"] for event in events if event["event"] == "trial_ended"]


def test_a_killed_search_goes_on_elsewhere(tmp_path: Path, bucket: Bucket) -> None:
    config, store = configuration(tmp_path, bucket.url), ObjectStore(bucket.url)
    driver = command(config, home=tmp_path / "here")
    end = time.monotonic() + 240
    while not ended(store):
        assert driver.poll() is None, outcome(driver)
        assert time.monotonic() < end
        time.sleep(0.2)
    driver.kill()
    outcome(driver)  # closes its pipe too
    before = ended(store)
    again = command(config, "--resume", home=tmp_path / "there")
    status, text = outcome(again)
    if status:  # the lock of a process that was killed on another machine lasts for a while
        assert "is in use" in text or "holds" in text, text
        again = command(config, "--resume", home=tmp_path / "here")
        status, text = outcome(again)
    assert status == 0, text
    assert sorted(ended(store)) == list(range(len(LENGTHS)))
    assert ended(store)[: len(before)] == before
    assert json.loads(store.read("status.json") or b"{}")["state"] == "done"
    assert b"= 21" in (store.read("best_config.yaml") or b"")
    assert (store.read("trials/0002/kept.jsonl") or b"").count(b"\n") == 21
    assert os.fsencode(tmp_path) not in (store.read("best_config.yaml") or b"").replace(
        os.fsencode(config.parent / "texts.jsonl"), b""
    )
