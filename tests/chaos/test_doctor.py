"""`raysandbox doctor --cluster` on machines with files of their own, one of which hangs."""

import json
import signal
import subprocess
import sys

import psutil
import pytest

from tests.chaos.cluster import ChaosCluster, why_not

pytestmark = [pytest.mark.chaos, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]


def doctor(cluster, *arguments):
    environment = {**cluster.environment, "RAY_ADDRESS": cluster.address, "RAYSANDBOX_ROOT": str(cluster.shared)}
    command = [sys.executable, "-m", "raysandbox", "doctor", "--cluster", "--json", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["lines"]


@pytest.mark.timeout(600)
def test_two_machines(tmp_path):
    cluster = ChaosCluster(tmp_path)
    try:
        cluster.start(2)
        cluster.start(3)
        status, lines = doctor(cluster)
        nodes = [line for line in lines if line["what"].startswith("node ")]
        assert [line["state"] for line in nodes] == ["green", "green"]
        storage = {(line["what"], line["node"]): line for line in lines if line["group"] == "storage"}
        assert storage["storage: RAYSANDBOX_ROOT", ""]["state"] == "green"
        assert storage["storage: cache", "127.0.0.3"]["state"] == "red"  # below the driver's home
        assert status == 1
        assert not list(cluster.shared.glob(".raysandbox-probe-*"))

        frozen = [p for p in psutil.Process(cluster.nodes[3].pid).children(recursive=True) if p.name() == "raylet"]
        for process in frozen:
            process.send_signal(signal.SIGSTOP)
        try:
            status, lines = doctor(cluster, "--node-limit", "5")
        finally:
            for process in frozen:
                process.send_signal(signal.SIGCONT)
        (line,) = [line for line in lines if line["what"].startswith("node 127.0.0.3")]
        assert (status, line["state"]) == (1, "red")
        assert "no answer in 5 s" in line["found"]
    finally:
        cluster.end()
