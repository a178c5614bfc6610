"""Another user of the machine, who reaches loopback and reads what a usual umask leaves open, has no token."""

import json
import os
import subprocess
import sys
import tempfile

import pytest

pytest.importorskip("ray")

PROGRAM = """
import json, os, pathlib, subprocess, sys
os.umask(0o022)
import ray
from raysandbox.core.redact import redact_text
from raysandbox.runtime import local_ray
from raysandbox.runtime.session import ensure_ray, shutdown_ray

# What another user has: the address, and a token of their own.
STRANGER = '''
import ray, sys
try:
    ray.init(address=sys.argv[1], log_to_driver=False)
    print("let in")
except BaseException as error:
    print("refused", type(error).__name__)
'''

@ray.remote
class Actor:
    def work(self):
        return ray.get(ray.remote(num_cpus=0)(lambda: 42).remote(), timeout=60)

found, stranger, held, files = [], None, [], []
for _ in range(2):
    ensure_ray(num_cpus=1)
    found.append(ray.get(Actor.options(num_cpus=0).remote().work.remote(), timeout=60))
    if len(found) == 1 and "RAY_AUTH_TOKEN" not in os.environ:
        address = ray.get_runtime_context().gcs_address
        other = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
        try:
            stranger = subprocess.run(
                [sys.executable, "-c", STRANGER, address], env=other, capture_output=True, text=True, timeout=25
            ).stdout
        except subprocess.TimeoutExpired:  # Ray goes on knocking for minutes
            stranger = "refused"
        token = local_ray._token().encode()
        files = [path for path in pathlib.Path(os.environ["RAY_TMPDIR"]).rglob("*") if path.is_file()]
        held = [str(path) for path in files if token in path.read_bytes()]
    shutdown_ray()
made = "RAY_AUTH_TOKEN" not in (given := dict(os.environ))
print(json.dumps({
    "found": found, "stranger": stranger, "held": held, "files": len(files), "left": given.get("RAY_AUTH_TOKEN"),
    "mode": given.get("RAY_AUTH_MODE"),
    "shown": redact_text(local_ray._token()) if made else None,
}))
"""


def outcome(tmp_path, **more):
    home = tmp_path / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    with tempfile.TemporaryDirectory(prefix="rs-") as temporary:  # Ray's sockets need short paths
        environment |= {"HOME": str(home), "RAY_TMPDIR": temporary, **more}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=280, check=False
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), home / ".ray" / "auth_token"


@pytest.mark.timeout(300)
def test_a_local_ray_has_a_token_that_stands_in_no_file(tmp_path):
    found, file = outcome(tmp_path)
    assert found["found"] == [42, 42]  # a second one in the same process too
    assert found["stranger"].startswith("refused")
    assert found["left"] is None  # nothing that this process starts later, nor another cluster, gets it
    assert found["mode"] is None
    assert found["shown"] == "***"
    assert not file.exists()
    assert found["files"]
    assert found["held"] == []  # nor do Ray's logs tell it


@pytest.mark.timeout(300)
def test_a_token_that_is_given_counts(tmp_path):
    found, file = outcome(tmp_path, RAY_AUTH_TOKEN="1" * 64)
    assert found["found"] == [42, 42]
    assert found["left"] == "1" * 64
    assert not file.exists()
