"""A cluster of several machines, on one: each worker has file systems of its own.

Every node but the head runs in a mount namespace in which the submitted folder, the driver's home,
the checkout and the head's session are not there. What all nodes see is the shared folder, and what
is installed on each: the Python environment, and the isolated environments of components.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.chaos.raylets import HEAD, RAY, Raylets

ROOT = Path(__file__).parents[2]
VENV = RAY.parents[1]
MARK = "RAYSANDBOX_CHAOS"
ENVIRONMENTS = ".cache/raysandbox/environments"
WORKERS = (3, 4, 5)
# What Ray Data keeps for the whole cluster.
_RAYS_OWN = ("_StatsActor", "_AutoscalingCoordinatorActor", "AutoscalingRequester", "ActorLocationTracker")
_LEFT_OVER = """
import json
from ray.util.state import list_actors, list_placement_groups
actors = [(a.class_name, a.state, a.pid) for a in list_actors(limit=1000) if a.state != "DEAD"]
groups = [(g.placement_group_id, g.state) for g in list_placement_groups(limit=1000) if g.state != "REMOVED"]
print(json.dumps([actors, groups]))
"""
# Ray's agents notice the end of their raylet only after about a minute when it was killed.
_SLOW_TO_NOTICE = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
_OBJECT_STORE = 150_000_000  # bytes; the least that Ray takes is 75 MB
_LEAVE_S = 20.0  # for the processes of a raylet to end after it


def why_not() -> str:
    """Why there can be no such cluster here; "" where there can."""
    if os.geteuid() != 0:
        return "mount namespaces need root"
    if not shutil.which("unshare"):
        return "there is no `unshare` (util-linux)"
    tried = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False, timeout=30
    )
    return "" if tried.returncode == 0 else f"no mount namespaces here: {tried.stderr.decode().strip()}"


class _Folders:
    """What is submitted, and where outputs go."""

    folder: Path

    @property
    def submitted(self) -> Path:
        """What is submitted; of a cluster, only the head sees it."""
        return self.folder / "submitted"

    @property
    def shared(self) -> Path:
        """Where outputs go; all nodes see it."""
        return self.folder / "shared"


@dataclass
class ChaosCluster(_Folders, Raylets):
    """Machines with files of their own, and a folder that all of them share.

    Attributes:
        mark: stands in the environment of every process of the cluster.
        session: where the head's Ray has its sessions; each worker has a folder of its own there.
        environments: isolated environments that every machine has.
        others: the nodes besides the head that may be killed.
        clients: every `ray job submit`; they end with the cluster.
    """

    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    session: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp")))
    environments: Path = Path("/nowhere")
    others: Sequence[int] = ()
    clients: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for folder in (self.submitted, self.shared, self.folder / "home" / ENVIRONMENTS, self.package):
            folder.mkdir(parents=True, exist_ok=True)
        if self.environments.is_dir():
            for built in self.environments.iterdir():
                if not built.name.startswith("."):
                    (self.folder / "home" / ENVIRONMENTS / built.name).symlink_to(built.resolve())
        shutil.copytree(ROOT / "raysandbox", self.package / "raysandbox", ignore=shutil.ignore_patterns("__pycache__"))

    @property
    def package(self) -> Path:
        """The package as it lies in the isolated environments of a node."""
        return self.folder / "package"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **super().environment,
            MARK: self.mark,
            "OMP_NUM_THREADS": "1",
            "WANDB_MODE": "offline",
            "RAY_enable_worker_prestart": "0",
            "RAY_prestart_worker_first_driver": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def command(self, number: int) -> list[str]:
        command = [*super().command(number), f"--object-store-memory={_OBJECT_STORE}"]
        if number == HEAD:
            without = [each for each in command if not each.startswith("--num-gpus")]
            return [*without, "--num-gpus=0", f"--temp-dir={self.session}"]
        return ["unshare", "-m", "bash", "-c", self._other_machine(number) + f"exec {shlex.join(command)}"]

    def _other_machine(self, number: int) -> str:
        """Shell lines that hide what is the head's, and bring what is this node's own."""
        own, kept = self.folder / f"machine-{number}", self.folder / "kept"
        shutil.rmtree(own, ignore_errors=True)  # a machine that starts again has lost what it had
        own.mkdir()
        kept.mkdir(exist_ok=True)
        home = self.folder / "home"
        lines = ["set -e", "mount --make-rprivate /", f"mount --bind {VENV} {kept}"]
        lines += [
            f"mount --bind {self.package} {built.resolve() / 'package'}"
            for built in (home / ENVIRONMENTS).iterdir()
            if (built.resolve() / "package").is_dir()
        ]
        lines += [f"mount -t tmpfs -o size=64m,mode=755 {MARK} {hidden}" for hidden in (self.submitted, home, ROOT)]
        lines += [f"mkdir -p {VENV} {home / ENVIRONMENTS}", f"mount --bind {kept} {VENV}"]
        lines += [
            f"ln -s {built.resolve()} {home / ENVIRONMENTS / built.name}" for built in (home / ENVIRONMENTS).iterdir()
        ]
        return "\n".join([*lines, f"mount --bind {own} {self.session}", "cd /", ""])

    def kill_raylet(self, number: int) -> None:
        """Kills the raylet alone; its workers and agents end by themselves, or are an error."""
        all_of_it = self.processes(number)
        [raylet] = [p for p in all_of_it if _name(p) == "raylet"]
        raylet.kill()
        _, left = psutil.wait_procs(all_of_it[1:], timeout=_LEAVE_S)
        for process in left:  # Ray's agents notice after a minute only
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.kill(number)

    def marked(self) -> list[psutil.Process]:
        """Every process of this cluster."""
        return marked(self.mark)

    def orphans(self) -> list[str]:
        """Processes of this cluster that are no node's."""
        ours = {process.pid for number in self.nodes for process in self.processes(number)}
        found = []
        for process in self.marked():
            with contextlib.suppress(psutil.Error):
                if process.pid not in ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid}: {' '.join(process.cmdline())[:160]}")
        return found

    def left_in_ray(self) -> list[str]:
        """Actors and placement groups that live, besides Ray Data's own."""
        asked = subprocess.run(
            [sys.executable, "-c", _LEFT_OVER],
            env={**self.environment, "RAY_ADDRESS": self.dashboard},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if asked.returncode != 0:
            return [f"Ray's state cannot be asked: {asked.stderr.strip().splitlines()[-1]}"]
        actors, groups = json.loads(asked.stdout.strip().splitlines()[-1])
        return [f"actor {each}" for each in actors if each[0] not in _RAYS_OWN] + [f"group {each}" for each in groups]

    def stop(self, submission: str) -> None:
        """Ends a job."""
        self.ray("job", "stop", "--address", self.dashboard, submission)

    def ray(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Runs a command of Ray's as a user does."""
        return subprocess.run(
            [RAY, *arguments],
            cwd=self.submitted,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def submit(self, log: Path, submission: str, root: Path, *run: str) -> subprocess.Popen[bytes]:
        """`ray job submit` of `raysandbox run …` from the submitted folder.

        Args:
            log: for its output.
            submission: id of the job.
            root: where relative outputs start; below the shared folder.
            run: arguments of `run`.
        """
        variables = f'{{"env_vars": {{"RAYSANDBOX_ROOT": "{root}"}}}}'
        command = [RAY, "job", "submit", "--address", self.dashboard, "--working-dir", "."]
        command += ["--submission-id", submission, "--runtime-env-json", variables]
        command += ["--", "python", "-m", "raysandbox", "run", *run]
        with log.open("ab") as output:
            client = subprocess.Popen(
                command, cwd=self.submitted, env=self.environment, stdout=output, stderr=output, start_new_session=True
            )
        self.clients.append(client)
        return client

    def wait_for_jobs(self, seconds: float = 60) -> None:
        """Waits for the job server, which comes after the raylet."""
        end = time.monotonic() + seconds
        while (asked := self.ray("job", "list", "--address", self.dashboard)).returncode != 0:
            assert time.monotonic() < end, asked.stderr
            time.sleep(1)

    def end(self) -> None:
        super().end()
        for process in self.marked():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for client in self.clients:
            client.wait(timeout=30)
        shutil.rmtree(self.session, ignore_errors=True)


@dataclass
class OneMachine(_Folders):
    """This machine alone: a submission is a driver, which starts a Ray of its own.

    Attributes:
        folder: for everything.
        mark: stands in the environment of every process of a run.
        others: there are none.
    """

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    others: Sequence[int] = ()

    def __post_init__(self) -> None:
        for folder in (self.submitted, self.shared, self.folder / "home"):
            folder.mkdir(parents=True, exist_ok=True)

    def marked(self) -> list[psutil.Process]:
        """Every process of a run."""
        return marked(self.mark)

    def orphans(self) -> list[str]:
        """Processes that outlive their run."""
        found = []
        for process in self.marked():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if process.status() != psutil.STATUS_ZOMBIE and (line[:1] or [""])[0] not in _SLOW_TO_NOTICE:
                    found.append(f"{process.pid}: {' '.join(line)[:160]}")
        return found

    def left_in_ray(self) -> list[str]:
        """Nothing: Ray has ended."""
        return []

    def stop(self, submission: str) -> None:
        """Nothing: the driver has been killed."""

    def kill(self, number: int) -> None:
        """There is no other node."""
        raise NotImplementedError

    kill_raylet = start = kill

    def submit(self, log: Path, submission: str, root: Path, *run: str) -> subprocess.Popen[bytes]:
        """Starts a driver; see `ChaosCluster.submit`."""
        root.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "HOME": str(self.folder / "home"),
            "WANDB_MODE": "disabled",
            "RAY_worker_niceness": "0",
            MARK: self.mark,
        }
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "raysandbox", "run", *run],
                cwd=root,
                env=environment,
                stdout=output,
                stderr=output,
            )

    def end(self) -> None:
        """Ends what is left."""
        for process in self.marked():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def marked(mark: str) -> list[psutil.Process]:
    """Every other process with a mark in its environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.name()
    return ""


@contextlib.contextmanager
def machines(
    folder: Path, workers: Sequence[int] = WORKERS, gpus: int = 1, environments: Path | None = None
) -> Iterator[ChaosCluster]:
    """A running cluster: a head without GPUs and workers with some, which do not see what is the head's.

    Args:
        folder: for everything.
        workers: their numbers.
        gpus: logical GPUs of each.
        environments: isolated environments that every machine has; the user's by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environments = environments or Path.home() / ENVIRONMENTS
    cluster = ChaosCluster(folder, cpus=2, gpus=gpus, environments=environments, others=workers)
    try:
        cluster.start(HEAD)
        cluster.start(*workers)
        cluster.wait_for_jobs()
        yield cluster
    finally:
        cluster.end()
