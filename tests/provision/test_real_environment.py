"""The environment that `raysandbox env create vbench` built: actors of this driver run in it."""

import os
import pwd
from pathlib import Path

import pytest

from raysandbox.provision.environments import find, interpreter
from raysandbox.runtime.worker_log import WorkerAddress

pytestmark = [pytest.mark.vbench, pytest.mark.usefixtures("cluster")]


@pytest.fixture
def vbench(monkeypatch):
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # not the test's own
    given = os.environ.get("RAYSANDBOX_ENVIRONMENTS", str(home / ".cache/raysandbox/environments"))
    monkeypatch.setenv("RAYSANDBOX_ENVIRONMENTS", given)
    if find("vbench") is None:
        pytest.skip("raysandbox env create vbench")
    return interpreter("vbench")


def test_an_actor_runs_in_it_and_sees_only_raysandbox_of_ours(vbench):
    import ray

    class Looker:
        def look(self, address: WorkerAddress) -> tuple[str, str, str, bool]:
            import importlib.util
            import sys

            import numpy

            import raysandbox.core.errors

            ours = importlib.util.find_spec("modelscope") is not None
            return (
                sys.executable,
                raysandbox.core.errors.__file__,
                f"{type(address).__name__} {numpy.__version__}",
                ours,
            )

    actor = ray.remote(Looker).options(num_cpus=1, runtime_env={"py_executable": vbench}).remote()
    executable, errors, seen, ours = ray.get(actor.look.remote(WorkerAddress("node", 1, "log")), timeout=120)
    ray.kill(actor)
    assert executable == vbench
    assert Path(errors).samefile(Path(__file__).parents[2] / "raysandbox/core/errors.py")
    assert seen == f"WorkerAddress {find('vbench').manifest['packages']['numpy']}"
    assert not ours
