"""The demos on four machines by `ray job submit`, from a folder that only the head sees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysandbox.core.events import read_events
from tests.chaos.cluster import ENVIRONMENTS, HEAD, ChaosCluster, machines, why_not
from tests.chaos.demos import SMALL

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "there are mount namespaces"),
]
_USERS_HOME = Path.home()  # before a test has a home of its own


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosCluster]:
    with machines(tmp_path_factory.mktemp("chaos"), environments=_USERS_HOME / ENVIRONMENTS) as running:
        yield running


def run(cluster: ChaosCluster, name: str) -> Path:
    """Runs a demo; returns its work_dir."""
    demo, root, log = SMALL[name], cluster.shared / name, cluster.folder / f"{name}.log"
    demo.place(cluster.submitted)
    assert cluster.submit(log, name, root, *demo.arguments(root / "cache")).wait(900) == 0, log.read_text()
    work = root / demo.work_dir
    status = json.loads((work / "status.json").read_text())
    assert (status["state"], status["exit"], set(status["jobs"].values())) == ("done", 0, {"done"})
    assert [*root.rglob(".tmp-*")] == []
    return work


def test_workers_do_not_see_what_is_the_heads(cluster: ChaosCluster) -> None:
    (cluster.submitted / "seen").write_text("by the head")
    (cluster.shared / "seen").write_text("by all")
    [worker] = [p for p in cluster.processes(cluster.others[0]) if p.name() == "raylet"]
    inside = Path(f"/proc/{worker.pid}/root")
    assert not (inside / cluster.submitted.relative_to("/") / "seen").exists()
    assert (inside / cluster.shared.relative_to("/") / "seen").exists()
    [head] = [p for p in cluster.processes(HEAD) if p.name() == "raylet"]
    assert (Path(f"/proc/{head.pid}/root") / cluster.submitted.relative_to("/") / "seen").exists()


def test_the_text_demo(cluster: ChaosCluster) -> None:
    pytest.importorskip("modelscope")
    work = run(cluster, "text")
    started = [event for event in read_events(work / "journal.jsonl") if event["event"] == "job_started"]
    assert len(started) == 6
    assert (work / "processed.jsonl").stat().st_size > 100_000


def test_the_video_demo(cluster: ChaosCluster) -> None:
    if not (_USERS_HOME / ENVIRONMENTS / "vbench").exists():
        pytest.skip("needs `raysandbox env create vbench`")
    work = run(cluster, "video")
    assert len([*(work / "generated_videos").glob("*.mp4")]) == 4
    started = [event for event in read_events(work / "journal.jsonl") if event["event"] == "worker_started"]
    nodes = {event["node"] for event in started if "generate" in event["job"]}
    assert nodes
    assert "127.0.0.2" not in nodes  # the head has no GPU


def test_a_search(cluster: ChaosCluster) -> None:
    work = run(cluster, "hpo")
    ended = [event for event in read_events(work / "journal.jsonl") if event["event"] == "trial_ended"]
    assert [event["state"] for event in ended] == ["done"] * 6
    assert (work / "best_config.yaml").exists()
