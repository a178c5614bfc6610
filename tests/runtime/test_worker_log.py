"""Output of workers on its way to their logs."""

import errno
import re

import pytest

from raysandbox.runtime import worker_log
from raysandbox.runtime.log_file import append, read_piece, stamped
from raysandbox.runtime.worker_log import LogFollower, WorkerAddress

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d 10.0.0.7 worker "


@pytest.fixture
def follower(tmp_path, monkeypatch):
    """Makes followers of a file that this test writes, on this machine."""
    monkeypatch.setattr(LogFollower, "_is_here", lambda self: True)

    def make(number=0, limit=worker_log.MOST_BYTES, secrets=()):
        output = tmp_path / "output"
        output.touch()
        address = WorkerAddress("id", 4711, str(output), frozenset(secrets), node="10.0.0.7")
        return LogFollower(address, tmp_path / "logs" / "job.log", number, limit)

    return make


def add(path, text):
    with path.open("a") as file:
        file.write(text)


def test_lines_say_when_where_and_who(follower, tmp_path):
    copying = follower(secrets=["canary-of-the-worker"])
    (tmp_path / "output").write_text("one\ntwo canary-of-the-worker\nth")
    copying.pull()
    assert copying.tail == "one\ntwo ***"
    add(tmp_path / "output", "ree")
    copying.pull(last=True)
    lines = (tmp_path / "logs" / "job.log").read_text().splitlines()
    assert [re.sub(f"^{STAMP}", "", line) for line in lines] == [
        "0| starts with pid 4711",
        "0| one",
        "0| two ***",
        "0| three",
    ]


def test_the_log_of_a_job_says_where_the_output_of_others_is(follower, tmp_path):
    copying = follower(number=2)
    (tmp_path / "output").write_text("hello\n")
    copying.pull()
    own, main = ((tmp_path / "logs" / name).read_text() for name in ("job.2.log", "job.log"))
    assert re.fullmatch(f"{STAMP}2\\| starts with pid 4711; its output is in job.2.log\n", main)
    assert re.search(f"(?m)^{STAMP}2\\| hello$", own)


def test_a_log_that_grows_is_put_aside(follower, tmp_path):
    copying = follower(limit=1000)
    for number in range(60):
        add(tmp_path / "output", f"line {number:03d}\n")
        copying.pull()
    log, old = tmp_path / "logs" / "job.log", tmp_path / "logs" / "job.log.old"
    assert log.stat().st_size < 1100
    assert old.stat().st_size < 1100
    assert "earlier lines are in job.log.old" in log.read_text().splitlines()[0]
    assert "lines before those are gone" in log.read_text().splitlines()[0]
    text = old.read_text() + log.read_text()
    assert "line 059" in text
    numbers = [int(n) for n in re.findall(r"line (\d+)", text)]
    assert numbers == list(range(numbers[0], 60))


def test_output_that_comes_faster_than_it_is_copied_is_left_out_aloud(tmp_path, follower, monkeypatch):
    monkeypatch.setattr(worker_log, "read_piece", lambda path, offset: read_piece(path, offset, 1000))
    copying = follower()
    (tmp_path / "output").write_text("".join(f"{number:09d}\n" for number in range(1000)))
    copying.pull(last=True)
    text = (tmp_path / "logs" / "job.log").read_text()
    assert "wrote faster than it can be copied: 9000 bytes of its output are left out here" in text
    assert "000000899" not in text
    assert "000000900" in text
    assert "000000999" in text


def test_what_is_copied_takes_no_room(tmp_path):
    path = tmp_path / "output"
    path.write_bytes(b"x" * (9 << 20))
    before = path.stat().st_blocks
    piece = read_piece(str(path), 0)
    assert (piece.start, len(piece.data)) == (0, 4 << 20)
    assert read_piece(str(path), 8 << 20).data == b"x" * (1 << 20)
    after = path.stat()
    assert after.st_size == 9 << 20
    if after.st_blocks == before:
        pytest.skip("this file system cannot give back parts of files")
    assert after.st_blocks < before / 2


def test_a_line_without_an_end_is_cut(tmp_path, follower):
    copying = follower(limit=1000)
    (tmp_path / "output").write_text("y" * 5000)
    copying.pull()
    assert len((tmp_path / "logs" / "job.log").read_text()) > 5000


def test_nothing_there(tmp_path):
    assert read_piece(str(tmp_path / "none"), 7) == (7, b"")
    assert stamped("", "me").endswith(" me| \n")


def test_a_disk_that_is_full_stops_nothing(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "open", refuse)
    append(tmp_path / "job.log", "text\n")
    assert not (tmp_path / "job.log").exists()


def test_addresses_of_workers(cluster):
    import ray

    class Actor:
        def where(self):
            return WorkerAddress.of_this_process()

    actor = ray.remote(num_cpus=0.1)(Actor).remote()
    address = ray.get(actor.where.remote(), timeout=60)
    assert worker_log.where_is(address) == {"node": "127.0.0.1", "pid": address.pid, "actor": actor._actor_id.hex()}
    ray.kill(actor)
