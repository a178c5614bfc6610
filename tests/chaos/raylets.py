"""Raylets on loopback addresses of this machine, started and killed one by one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

RAY = Path(sys.executable).with_name("ray")
HEAD = 2
START_S = 180.0  # on a busy machine; 10 s on an idle one


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Raylets:
    """A cluster; the head is 127.0.0.2, other nodes are named by the last number of their address.

    Attributes:
        folder: for logs and the home folder.
        cpus: logical CPUs of a node.
        gpus: logical GPUs of a node.
        more: further arguments of `ray start`, by node.
    """

    folder: Path
    cpus: int = 2
    gpus: int = 0
    more: Mapping[int, Sequence[str]] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    dashboard_port: int = field(default_factory=free_port)
    nodes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def dashboard(self) -> str:
        """Address of the job server."""
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def environment(self) -> dict[str, str]:
        """For drivers; RAY_ADDRESS is not in it, since a submitted job gets it from its node."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return {
            **os.environ,
            "PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray's workers run at nice 15, and starve where something else keeps the machine busy.
            "RAY_worker_niceness": "0",
        }

    @property
    def address(self) -> str:
        """RAY_ADDRESS of a driver on this machine."""
        return f"127.0.0.2:{self.port}"

    def log(self, number: int) -> Path:
        """What a node's `ray start` says."""
        return self.folder / f"node-{number}.log"

    def command(self, number: int) -> list[str]:
        """What starts a node."""
        own = [f"--node-ip-address=127.0.0.{number}", f"--num-cpus={self.cpus}", f"--num-gpus={self.gpus}"]
        head = [
            "--head",
            f"--port={self.port}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self.dashboard_port}",
        ]
        role = head if number == HEAD else [f"--address={self.address}"]
        command = [str(RAY), "start", *role, *own, "--block", "--disable-usage-stats"]
        return [*command, f"--dashboard-agent-listen-port={free_port()}", *self.more.get(number, ())]

    def start(self, *numbers: int) -> None:
        """Starts nodes, several at the same time; 2 is the head.

        On a machine that is too busy `ray start` may give up: then it is tried again.
        """
        for number in numbers:
            self._launch(number)
        end = time.monotonic() + START_S
        for number in numbers:
            while b"Ray runtime started" not in self.log(number).read_bytes():
                assert time.monotonic() < end, self.log(number).read_text()
                if self.nodes[number].poll() is not None:
                    self._launch(number)
                time.sleep(0.2)

    def _launch(self, number: int) -> None:
        with self.log(number).open("wb") as output:
            self.nodes[number] = subprocess.Popen(
                self.command(number), env=self.environment, stdout=output, stderr=output, start_new_session=True
            )

    def processes(self, number: int) -> list[psutil.Process]:
        """All processes of a node that are children of its `ray start`, itself first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            node = psutil.Process(self.nodes[number].pid)
            return [node, *node.children(recursive=True)]
        return []

    def kill(self, number: int) -> None:
        """Ends a node and all of its processes at once, as a power failure does."""
        doomed = self.processes(number)
        node = self.nodes.pop(number)
        for process in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        node.wait(timeout=30)

    def drain(self, number: int, seconds: int) -> None:
        """Tells Ray that a node goes within seconds, as a cloud does that takes a machine back."""
        tell = (
            "import ray, sys; ray.init(log_to_driver=False, logging_level='ERROR'); "
            "print(*(n['NodeID'] for n in ray.nodes() if n['Alive'] and n['NodeManagerAddress'] == sys.argv[1]))"
        )
        environment = {**self.environment, "RAY_ADDRESS": self.address}
        address = f"127.0.0.{number}"
        found = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", tell, address],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        which = ["--address", self.address, "--node-id", found.stdout.split()[-1]]
        subprocess.run(
            [RAY, "drain-node", *which, *why, "--deadline-remaining-seconds", str(seconds)],
            env=environment,
            capture_output=True,
            check=True,
            timeout=120,
        )

    def workers(self, name: str) -> list[psutil.Process]:
        """Processes of actors of a class, on all nodes."""
        found = []
        for number in self.nodes:
            for process in self.processes(number):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if f"ray::{name}" in " ".join(process.cmdline()):
                        found.append(process)
        return found

    def end(self) -> None:
        """Ends all nodes."""
        for number in sorted(self.nodes, reverse=True):
            self.kill(number)


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, **given: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A driver that is ended with its block, whatever happens there.

    Args:
        command: what starts it.
        log: for its output.
        given: other arguments of `Popen`.
    """
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, **given) as driver:
        try:
            yield driver
        finally:
            driver.kill()  # and no more where it has ended


@contextlib.contextmanager
def raylets(
    folder: Path, *numbers: int, cpus: int = 2, gpus: int = 0, more: Mapping[int, Sequence[str]] | None = None
) -> Iterator[Raylets]:
    """A running cluster of the nodes of these numbers; the first is 2, the head."""
    cluster = Raylets(folder, cpus, gpus, more or {})
    try:
        cluster.start(numbers[0])
        cluster.start(*numbers[1:])
        yield cluster
    finally:
        cluster.end()
