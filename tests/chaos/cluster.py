"""A cluster of several machines, on one: each worker has file systems of its own.

Every node but the head runs in a mount namespace in which the submitted folder, the driver's home,
the checkout and the head's session are not there. What all nodes see is the shared folder, and what
is installed on each: the Python environment, and the isolated environments of components.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
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


@dataclass
class ChaosCluster(Raylets):
    """Machines with files of their own, and a folder that all of them share.

    Attributes:
        mark: stands in the environment of every process of the cluster.
        session: where the head's Ray has its sessions; each worker has a folder of its own there.
        environments: isolated environments that every machine has.
    """

    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    session: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp")))
    environments: Path = field(default_factory=lambda: Path.home() / ENVIRONMENTS)

    def __post_init__(self) -> None:
        for folder in (self.submitted, self.shared, self.folder / "home" / ENVIRONMENTS, self.package):
            folder.mkdir(parents=True, exist_ok=True)
        if self.environments.is_dir():
            for built in self.environments.iterdir():
                if not built.name.startswith("."):
                    (self.folder / "home" / ENVIRONMENTS / built.name).symlink_to(built.resolve())
        shutil.copytree(ROOT / "raysandbox", self.package / "raysandbox", ignore=shutil.ignore_patterns("__pycache__"))

    @property
    def submitted(self) -> Path:
        """What is submitted; only the head sees it."""
        return self.folder / "submitted"

    @property
    def shared(self) -> Path:
        """What all nodes see."""
        return self.folder / "shared"

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
            # Ray's workers run at nice 15, and starve where something else keeps the machine busy.
            "RAY_worker_niceness": "0",
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
        """Every process of this cluster, by its environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def orphans(self) -> list[str]:
        """Processes of this cluster that are no node's."""
        ours = {process.pid for number in self.nodes for process in self.processes(number)}
        found = []
        for process in self.marked():
            with contextlib.suppress(psutil.Error):
                if process.pid not in ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid}: {' '.join(process.cmdline())[:160]}")
        return found

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
            return subprocess.Popen(
                command, cwd=self.submitted, env=self.environment, stdout=output, stderr=output, start_new_session=True
            )

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
        shutil.rmtree(self.session, ignore_errors=True)


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.name()
    return ""


@contextlib.contextmanager
def machines(folder: Path, workers: Sequence[int] = WORKERS, gpus: int = 1) -> Iterator[ChaosCluster]:
    """A running cluster: a head without GPUs and workers with some, which do not see what is the head's."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = ChaosCluster(folder, cpus=2, gpus=gpus)
    try:
        cluster.start(HEAD)
        cluster.start(*workers)
        cluster.wait_for_jobs()
        yield cluster
    finally:
        cluster.end()
