"""Submitted from a folder that only the head sees: what a worker does not see is refused, by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chaos.cluster import machines, why_not
from tests.chaos.demos import DEMOS

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]


def test_outputs_that_a_node_does_not_share_are_refused_early(tmp_path: Path) -> None:
    demo = DEMOS["text"]
    with machines(tmp_path, (3,)) as cluster:
        demo.place(cluster.submitted)
        one_by_one = ("-o", "max_parallel_jobs=1")  # else the job beside the training may be refused first
        arguments = [*demo.arguments(tmp_path / "home/cache"), *one_by_one]
        hidden, log = tmp_path / "home/outputs", tmp_path / "job.log"
        assert cluster.submit(log, "hidden", hidden, *arguments).wait(timeout=400) == 1, log.read_text()
        output = " ".join(log.read_text().split())
        assert "node 127.0.0.3: " in output, output
        assert "it is not the same folder there" in output
        assert "set RAYSANDBOX_ROOT to a folder that all nodes share" in output
        status = json.loads((hidden / demo.work_dir / "status.json").read_text())
        assert status["jobs"]["anonymous.train_model#3"] == "failed"

        shown = cluster.shared / "outputs"
        assert cluster.submit(log, "shown", shown, *arguments).wait(timeout=400) == 0, log.read_text()
        assert json.loads((shown / demo.work_dir / "status.json").read_text())["state"] == "done"
