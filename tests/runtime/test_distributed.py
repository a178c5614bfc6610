"""Several workers that train together."""

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from raysandbox.core.errors import JobFailed, JobTimeout, RunInterrupted, UserError
from raysandbox.executors.base import ModelTrainer
from raysandbox.runtime.placement import Resources, placement_group_for
from raysandbox.runtime.signals import deadline, interruptible
from raysandbox.runtime.workers import run_in_worker
from tests.runtime.elastic import groups_held
from tests.runtime.test_workers import Context, Job, alive, context  # noqa: F401 - a fixture

TWO = Resources(num_workers=2)


class Trainer(ModelTrainer):
    """A training of a few lines in several workers; what it does is in `act`."""

    distributed = True
    act: str = ""
    folder: str = ""

    def train(self, session):
        Path(self.folder, f"pid-{session.rank}").write_text(str(os.getpid()))
        return getattr(self, f"_{self.act}")(session)

    def _sum(self, session):
        import torch
        from torch import distributed

        numbers = torch.tensor([float(session.rank + 1), session.prepared])
        distributed.all_reduce(numbers)
        print("rank", session.rank, "of", session.world_size, "on", session.device, "by", distributed.get_backend())
        listening = [
            c.laddr.ip.removeprefix("::ffff:") for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN"
        ]
        print(os.environ.get("MINE"), Path.cwd(), *sorted(set(listening)))
        session.report({f"sum_{session.rank}": float(numbers[0])}, 0)
        return f"{numbers.tolist()} {session.rank}"

    def _fail(self, session):
        if session.rank == 1:
            raise UserError("clip.mp4 has no frames")
        self._wait(session)

    def _break(self, session):
        if session.rank == 1:
            print("last words")
            raise KeyError("x")
        self._wait(session)

    def _die_once(self, session):
        flag = Path(self.folder, "died")
        if session.rank == 1 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._sum(session)

    def _die(self, session):
        if session.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        self._wait(session)

    def _wait(self, session):
        from torch import distributed

        distributed.barrier()  # in which a lost worker shows as an error
        time.sleep(600)


def all_gone(folder):
    pids = [int(path.read_text()) for path in folder.glob("pid-*")]
    end = time.monotonic() + 60
    while (any(map(alive, pids)) or groups_held()) and time.monotonic() < end:
        time.sleep(0.05)
    return len(pids) == 2 and not any(map(alive, pids)) and not groups_held()


def test_two_workers(context, tmp_path):  # noqa: F811
    job = Job(Resources(num_workers=2, num_gpus=1), {"env_vars": {"MINE": "from the job"}})
    result = run_in_worker(Trainer(act="sum", folder=str(tmp_path)), job, context, prepared=0.5)
    assert result == "[3.0, 1.0] 0"
    for rank, name in enumerate(("train.log", "train.1.log")):
        lines = (tmp_path / "logs" / name).read_text().splitlines()
        assert [line.split("| ")[1] for line in lines[-2:]] == [
            f"rank {rank} of 2 on cpu by gloo",
            f"from the job {Path.cwd()} 127.0.0.1",
        ]
        assert context.watcher.query(f"train.sum_{rank}") == 3
    assert list(Path.home().iterdir()) == []
    assert all_gone(tmp_path)


@pytest.mark.parametrize(
    ("act", "message"),
    [("fail", "^clip.mp4 has no frames$"), ("break", r"^KeyError: 'x'\nlast lines of .*train.1.log:\nlast words")],
)
def test_a_failure_is_named_by_the_worker_that_failed_first(context, tmp_path, act, message):  # noqa: F811
    with pytest.raises(JobFailed, match=message):
        run_in_worker(Trainer(act=act, folder=str(tmp_path)), Job(TWO), context)
    assert all_gone(tmp_path)


def test_a_lost_worker_starts_the_group_again(context, tmp_path):  # noqa: F811
    assert run_in_worker(Trainer(act="die_once", folder=str(tmp_path)), Job(TWO), context, 1.0) == "[3.0, 2.0] 0"


def test_a_worker_that_dies_too_often(context, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr("raysandbox.runtime.workers.LOST_TRIES", 0)
    with pytest.raises(JobFailed, match="the worker died 1 times: "):
        run_in_worker(Trainer(act="die", folder=str(tmp_path)), Job(TWO), context)
    assert all_gone(tmp_path)


def interrupt_when_started(folder):
    while len(list(folder.glob("pid-*"))) < 2:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


def test_an_interruption_ends_all_workers(context, tmp_path):  # noqa: F811
    threading.Thread(target=interrupt_when_started, args=[tmp_path]).start()
    with pytest.raises(RunInterrupted), interruptible():
        run_in_worker(Trainer(act="wait", folder=str(tmp_path)), Job(TWO), context)
    assert all_gone(tmp_path)


def test_a_deadline_while_it_starts(context, tmp_path):  # noqa: F811
    with pytest.raises(JobTimeout), deadline(3):
        run_in_worker(Trainer(act="wait", folder=str(tmp_path)), Job(TWO), context)
    end = time.monotonic() + 60
    while groups_held() and time.monotonic() < end:
        time.sleep(0.05)
    assert groups_held() == []


def test_resources_that_cannot_be_had(context, tmp_path):  # noqa: F811
    trainer = Trainer(act="sum", folder=str(tmp_path))
    with pytest.raises(JobFailed, match="5 workers are asked for, the cluster holds 3"):
        run_in_worker(trainer, Job(Resources(num_workers=5)), context)
    others_work = placement_group_for(Resources(num_gpus=1))
    with others_work, pytest.raises(JobFailed, match="other work holds what is missing"):
        run_in_worker(trainer, Job(Resources(num_workers=2, num_gpus=1, timeout_s=1)), context)
