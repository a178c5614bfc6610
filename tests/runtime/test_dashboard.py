"""Links to Ray's dashboard."""

import os
import subprocess
import sys

import pytest

from raysandbox.runtime import dashboard
from raysandbox.runtime.dashboard import dashboard_page, this_driver
from tests.chaos.raylets import HEAD, Raylets

DRIVER = """
from raysandbox.runtime.session import ensure_ray
from raysandbox.runtime.dashboard import dashboard_page, this_driver

ensure_ray()
page = dashboard_page()
said = this_driver(page)
assert page.endswith(said["ray_job"])
print(page)
"""


def test_a_ray_of_ones_own_has_none(cluster):
    assert dashboard_page() is None
    said = this_driver(None)
    assert (said["pid"], said["dashboard"]) == (os.getpid(), None)
    assert said["ray_job"]


def test_without_ray_there_is_none(monkeypatch):
    monkeypatch.setattr(dashboard, "is_connected", lambda: False)
    assert dashboard_page() is None
    assert this_driver(None)["ray_job"] is None


@pytest.mark.chaos
def test_on_a_cluster(tmp_path):
    nodes = Raylets(tmp_path)
    nodes.start(HEAD)
    try:
        environment = {**nodes.environment, "RAY_ADDRESS": nodes.address}
        command = [sys.executable, "-W", "ignore", "-c", DRIVER]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    finally:
        nodes.kill(HEAD)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{nodes.dashboard}/#/jobs/")
