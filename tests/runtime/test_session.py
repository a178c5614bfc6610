import subprocess
import sys
from pathlib import Path

import pytest

from raysandbox.core.errors import UserError
from raysandbox.runtime import session


def listening_addresses():
    """Hexadecimal local addresses of the listening TCP sockets of this machine."""
    lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {line.split()[1] for line in lines if line.split()[3] == "0A"}


def test_a_local_ray_listens_on_loopback_only(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from pathlib import Path\n"
        "from tests_helper import listening_addresses as listening\n"
        "before = listening()\n"
        "from raysandbox.runtime.session import ensure_ray, shutdown_ray\n"
        "ensure_ray(num_cpus=1, num_gpus=0)\n"
        "ensure_ray()\n"
        "import ray\n"
        "ray.get(ray.remote(lambda: 1).remote())\n"
        "print(*(listening() - before))\n"
        "shutdown_ray()\n"
        "print(ray.is_initialized())\n"
    )
    (tmp_path / "tests_helper.py").write_text(
        Path(__file__).read_text().split("def test_")[0].replace("import pytest\n", "")
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=100)
    addresses, connected = done.stdout.splitlines()
    loopback = ("0100007F", "0000000000000000FFFF00000100007F")
    ours = [address for address in addresses.split() if address.split(":")[0] not in loopback]
    assert len(addresses.split()) > 4
    assert ours == []
    assert connected == "False"
    assert done.stderr == ""


def test_summary(cluster):
    summary = session.cluster_summary()
    assert [(node.cpus, node.gpus) for node in summary.nodes] == [(3, 2)]
    assert summary.total("GPU") == 2
    assert summary.local
    assert set(summary.versions) == {"ray", "python"}


def test_a_local_ray_starts_what_it_needs(cluster):
    ray = pytest.importorskip("ray")
    started = ray._private.worker._global_node.all_processes
    assert set(started) == {"gcs_server", "raylet"}


def test_a_cluster_that_is_not_there(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(UserError, match="cannot connect to the Ray cluster at 127"):
        session.ensure_ray()


def test_job_environment(monkeypatch):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert not session.in_ray_job()
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert session.in_ray_job()


def test_refused_token(monkeypatch):
    ray = pytest.importorskip("ray")

    def refuse(**_):
        raise ray.exceptions.AuthenticationError("401")

    monkeypatch.setattr(session, "_check_port", lambda address: None)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(UserError, match="RAY_AUTH_MODE=token"):
        session.ensure_ray()


def test_importing_does_not_import_ray():
    modules = "raysandbox.runtime.session, raysandbox.runtime.workers, raysandbox.runtime.placement"
    program = f"import sys, {modules}; print([m for m in ('ray', 'torch', 'wandb') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def test_a_handler_for_sigterm_stays(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("""
import signal
from raysandbox.runtime.session import ensure_ray, shutdown_ray
from raysandbox.runtime.signals import interruptible
with interruptible():
    ours = signal.getsignal(signal.SIGTERM)
    ensure_ray(num_cpus=1)
    print("ours:", signal.getsignal(signal.SIGTERM) is ours)
    shutdown_ray()
""")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=100)
    assert done.stdout == "ours: True\n", done.stderr
