"""Outputs of recipes in several files or at URLs, between jobs, iterations and runs."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from raysandbox.config.schema import SandboxConfig
from raysandbox.core.errors import JobFailed
from raysandbox.core.events import read_events
from raysandbox.sandbox.experiment import run_experiment

Make = Callable[[str], SandboxConfig]

SHARDS = """
work_dir: work
max_iter_num: %s
execution_job_configs:
  - {hook: ProcessDataHook, meta_name: cut, output: [path],
     dj_configs: {dataset_path: in.jsonl, export_path: work/cut.jsonl, export_shard_size: 100, process: []}}
  - {hook: ProcessDataHook, meta_name: named, output: [path],
     dj_configs: {dataset_path: work/cut.jsonl, export_path: work/named.jsonl, process: []}}
  - {hook: ProcessDataHook, meta_name: linked, input: {dj_configs.dataset_path: anonymous.cut.path},
     dj_configs: {export_path: work/linked.jsonl, process: []}}
"""
ROWS = [{"text": "x" * n} for n in range(20)]


@pytest.fixture(autouse=True)
def data(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(workspace / "home"))
    (workspace / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


@pytest.fixture
def memory() -> Iterator[str]:
    name = f"bucket-{uuid.uuid4().hex}"
    system = fsspec.filesystem("memory")
    system.makedirs(f"/{name}")
    yield f"memory:///{name}"
    system.rm(f"/{name}", recursive=True)


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def cached(work_dir: Path) -> list[str]:
    return [event["job"] for event in read_events(work_dir / "journal.jsonl") if event["event"] == "job_cached"]


def test_an_output_in_shards_is_one_data_set(make_config: Make, workspace: Path) -> None:
    run_experiment(make_config(SHARDS % 1))
    work = workspace / "work"
    assert len(list(work.glob("cut-*-of-*.jsonl"))) > 1
    assert rows(work / "named.jsonl") == rows(work / "linked.jsonl") == ROWS
    run_experiment(make_config(SHARDS % 1), resume=True)
    assert len(cached(work)) == 3
    next(work.glob("cut-*-of-*.jsonl")).unlink()
    run_experiment(make_config(SHARDS % 1), resume=True)
    assert rows(work / "named.jsonl") == ROWS


def test_iterations_share_shards(make_config: Make, workspace: Path) -> None:
    run_experiment(make_config(SHARDS % 2))
    assert rows(workspace / "work/iter_2/linked.jsonl") == ROWS
    assert len(list((workspace / "work/iter_2").glob("cut-*-of-*.jsonl"))) > 1


def test_jobs_pass_data_through_a_store(make_config: Make, workspace: Path, memory: str) -> None:
    text = f"""
work_dir: work
execution_job_configs:
  - {{hook: ProcessDataHook, meta_name: out, output: [path],
     dj_configs: {{dataset_path: in.jsonl, export_path: '{memory}/out.jsonl', process: []}}}}
  - {{hook: ProcessDataHook, meta_name: back, input: {{dj_configs.dataset_path: anonymous.out.path}},
     dj_configs: {{export_path: work/back.jsonl, process: []}}}}
"""
    run_experiment(make_config(text))
    assert rows(workspace / "work/back.jsonl") == ROWS
    (workspace / "in.jsonl").write_text(json.dumps(ROWS[1]) + "\n")
    run_experiment(make_config(text), resume=True)
    assert rows(workspace / "work/back.jsonl") == ROWS[1:2]


def test_a_store_without_the_data(make_config: Make, memory: str) -> None:
    text = f"""
work_dir: work
execution_job_configs:
  - {{hook: ProcessDataHook, dj_configs: {{dataset_path: '{memory}/no.jsonl', export_path: work/a.jsonl, process: []}}}}
"""
    with pytest.raises(JobFailed, match=r"no\.jsonl: no such file, folder or match"):
        run_experiment(make_config(text))
