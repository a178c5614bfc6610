"""A work_dir in an object store, against moto's server and against memory."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest

from raysandbox.api import check, run
from raysandbox.core.errors import ConfigError, JobFailed, RunInterrupted, WorkDirBusyError
from raysandbox.core.keys import DigestMemo
from raysandbox.sandbox import remote_dir
from raysandbox.sandbox.mirror import Mirror
from raysandbox.sandbox.storage import ObjectStore, url_problem
from raysandbox.sandbox.storage_lock import LOCK, STALE_S
from raysandbox.sandbox.view import RunView
from tests.chaos.raylets import free_port

needs_moto = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("moto", "s3fs")),
    reason="needs moto[server] and s3fs",
)


class Notes(RunView):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def write_config(folder: Path, url: str) -> Path:
    (folder / "a.jsonl").write_text('{"text": "one two three"}\n{"text": "x"}\n')
    (folder / "second.yaml").write_text(
        f"export_path: {url}/second.jsonl\nprocess: [{{text_length_filter: {{min_len: 3}}}}]\n"
    )
    config = folder / "sandbox.yaml"
    config.write_text(f"""
experiment_name: stored
work_dir: {url}
execution_job_configs:
  - hook: ProcessDataHook
    meta_name: first
    output: [path]
    dj_configs:
      dataset_path: {folder}/a.jsonl
      export_path: {url}/first.jsonl
      process: [{{text_length_filter: {{min_len: 2}}}}]
  - hook: ProcessDataHook
    meta_name: second
    output: [path]
    input: {{dj_configs.dataset_path: anonymous.first.path}}
    dj_configs: {folder}/second.yaml
""")
    return config


@pytest.fixture
def memory() -> Iterator[str]:
    name = f"bucket-{uuid.uuid4().hex}"
    yield f"memory://{name}/run1"
    system = fsspec.filesystem("memory")
    if system.exists(f"/{name}"):
        system.rm(f"/{name}", recursive=True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_dir, "_INTERVAL_S", 0.05)


@dataclass
class Bucket:
    """A bucket of a server in a process of its own."""

    url: str
    endpoint: str
    server: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "nobodys",
            "AWS_SECRET_ACCESS_KEY": "nothing-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }


@pytest.fixture(scope="module")
def _server() -> Iterator[Bucket]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            assert time.monotonic() < end, "moto's server does not start"
            time.sleep(0.1)
        yield Bucket("", f"http://127.0.0.1:{port}", server)
    finally:
        server.kill()
        server.wait(timeout=10)


@pytest.fixture
def bucket(_server: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in _server.environment.items():
        monkeypatch.setenv(name, value)
    name = f"b-{uuid.uuid4().hex}"
    fsspec.filesystem("s3", config_kwargs={"connect_timeout": 5}).mkdir(name)
    return Bucket(f"s3://{name}/run1", _server.endpoint, _server.server)


def command(config: Path, *more: str, home: Path) -> subprocess.Popen[str]:
    """A run in a process and on a machine of its own: nothing is in its home."""
    home.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "raysandbox", "run", str(config), *more],
        env={**os.environ, "HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=120)
    return process.returncode, " ".join(output.split())


def states(store: ObjectStore) -> dict[str, str]:
    return json.loads(store.read("status.json") or b"{}")["jobs"]


def forget(home: Path) -> None:
    """Makes this another machine: nothing is cached, no mirror is there."""
    shutil.rmtree(home / ".cache", ignore_errors=True)


@needs_moto
def test_a_run_on_s3_resumed_elsewhere(tmp_path: Path, bucket: Bucket) -> None:
    config, store = write_config(tmp_path, bucket.url), ObjectStore(bucket.url)
    run(config)
    forget(Path.home())
    assert store.read("first.jsonl") == b'{"text":"one two three"}\n'
    assert [b["path"] for b in json.loads(store.read("context_infos.json") or b"")[0]["pipeline_infos"][0]["job_infos"]]
    assert str(Path.home()).encode() not in (store.read("context_infos.json") or b"")
    assert json.loads(store.read("status.json") or b"")["state"] == "done"
    assert store.read(LOCK) is None  # given back

    result = run(config, resume=True)
    assert set(states(store).values()) == {"cached"}
    assert (result.work_dir / "second.jsonl").read_text() == '{"text":"one two three"}\n'

    run(config)  # anew: the earlier state is kept beside
    assert set(states(store).values()) == {"done"}
    assert json.loads(store.read("previous/1/status.json") or b"")["state"] == "done"


def test_a_marker_whose_objects_are_missing_or_differ_is_none(tmp_path: Path, memory: str) -> None:
    config, store = write_config(tmp_path, memory), ObjectStore(memory)
    run(config)
    forget(Path.home())
    store.write("second.jsonl", b'{"text":"ONE two three"}\n')  # as long as it was
    notes = Notes()
    run(config, resume=True, view=notes)
    assert states(store) == {"anonymous.first#0": "cached", "anonymous.second#1": "done"}
    assert any("missing or differ" in text for text in notes.texts)
    assert store.read("second.jsonl") == b'{"text":"one two three"}\n'
    forget(Path.home())
    store.remove("first.jsonl")
    run(config, resume=True)
    assert states(store)["anonymous.first#0"] == "done"


def test_names_in_a_marker_stay_inside(tmp_path: Path, memory: str) -> None:
    config, store = write_config(tmp_path, memory), ObjectStore(memory)
    run(config)
    [name, *_] = [name for name in store.sizes() if "/markers/" in name]
    marker = json.loads(store.read(name) or b"")
    content = b"not yours"
    marker["objects"]["../../../outside"] = {"sha256": "0" * 64, "size": len(content), "places": False}
    store.write(name, json.dumps(marker).encode())
    forget(Path.home())
    notes = Notes()
    run(config, resume=True, view=notes)
    assert any("missing or differ" in text for text in notes.texts)
    assert not list(tmp_path.rglob("outside"))
    assert not list(Path.home().rglob("outside"))


_KILLED = """
import os, sys
from raysandbox.sandbox.mirror import Mirror
write = Mirror._send
def send(self, name):
    write(self, name)
    if name == "second.jsonl":
        os.kill(os.getpid(), 9)
Mirror._send = send
from raysandbox.sandbox import remote_dir
remote_dir._INTERVAL_S = 0.05
from raysandbox.api import run
run(sys.argv[1])
"""


@needs_moto
def test_killed_between_objects_and_marker(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    config, store = write_config(tmp_path, bucket.url), ObjectStore(bucket.url)
    home = tmp_path / "first-machine"
    home.mkdir()
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(config)],
        env={**os.environ, "HOME": str(home)},
        timeout=120,
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    names = store.sizes()
    assert "second.jsonl" in names
    assert sum("/markers/" in name for name in names) == 1

    with pytest.raises(WorkDirBusyError, match=r"stored-\w{8} \(pid \d+ on .*, seen \d+ s ago\)"):
        run(config, resume=True)  # another machine: the dead one's lock is fresh
    monkeypatch.setattr(ObjectStore, "age", lambda self, name, probe: STALE_S + 1)
    run(config, resume=True)
    assert states(store) == {"anonymous.first#0": "cached", "anonymous.second#1": "done"}


@needs_moto
def test_a_second_run_is_refused(tmp_path: Path, bucket: Bucket) -> None:
    config, store = write_config(tmp_path, bucket.url), ObjectStore(bucket.url)
    holder = {"run": "other-1234", "host": "elsewhere", "pid": 77, "time": time.time(), "place": "p", "token": "t"}
    assert store.create(LOCK, json.dumps(holder).encode())
    assert not store.create(LOCK, b"{}")  # the store itself excludes
    status, output = outcome(command(config, home=tmp_path / "home"))
    assert status == 2
    assert "in use by run other-1234 (pid 77 on elsewhere" in output
    assert set(store.sizes()) == {LOCK}  # nothing was touched


def test_a_stale_lock_is_taken_over(tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, store = write_config(tmp_path, memory), ObjectStore(memory)
    holder = {"run": "dead", "host": "elsewhere", "pid": 77, "time": time.time(), "place": "p", "token": "t"}
    store.write(LOCK, json.dumps(holder).encode())
    with pytest.raises(WorkDirBusyError, match="dead"):
        run(config)
    monkeypatch.setattr(ObjectStore, "age", lambda self, name, probe: STALE_S + 1)
    run(config)
    assert set(states(store).values()) == {"done"}


def test_a_lock_that_a_dead_process_of_this_mirror_left(tmp_path: Path, memory: str) -> None:
    config, store = write_config(tmp_path, memory), ObjectStore(memory)
    place = remote_dir._place(run(config).work_dir.parent)
    holder = {"run": "dead", "host": "here", "pid": 77, "time": time.time(), "place": place, "token": "t"}
    store.write(LOCK, json.dumps(holder).encode())
    run(config, resume=True)
    assert set(states(store).values()) == {"cached"}


@pytest.mark.parametrize("what", ["host", "boot"])
def test_a_lock_of_another_machine_that_shares_the_mirrors(
    tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("RAYSANDBOX_ROOT", str(tmp_path / "shared"))
    config, store = write_config(tmp_path, memory), ObjectStore(memory)
    base = run(config).work_dir.parent
    (tmp_path / "boot_id").write_text("another\n")
    with monkeypatch.context() as elsewhere:
        if what == "host":
            elsewhere.setattr(socket, "gethostname", lambda: "elsewhere")
        else:
            elsewhere.setattr(remote_dir, "_BOOT", tmp_path / "boot_id", raising=False)
        place = remote_dir._place(base)
    holder = {"run": "live", "host": "elsewhere", "pid": 77, "time": time.time(), "place": place, "token": "t"}
    store.write(LOCK, json.dumps(holder).encode())
    with pytest.raises(WorkDirBusyError, match="live"):
        run(config, resume=True)
    assert json.loads(store.read(LOCK) or b"") == holder


def test_a_lock_that_was_taken_ends_the_run(tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysandbox.sandbox.storage_lock.RENEW_S", 0.01)
    config, store = write_config(tmp_path, memory), ObjectStore(memory)
    other = {"run": "other", "host": "elsewhere", "pid": 77, "time": time.time(), "place": "p", "token": "t"}

    worked: list[str] = []

    class Taken(Notes):
        def run_started(self, plan: object, work_dir: str) -> None:
            worked.append(work_dir)
            for _ in range(400):  # again: a renewal may be under way
                store.write(LOCK, json.dumps(other).encode())
                time.sleep(0.05)
            worked.append("to the end")

    notes = Taken()
    with pytest.raises(JobFailed, match="was taken by run other"):
        run(config, view=notes)
    [folder] = worked  # it is interrupted: what it computes is nobody's
    status = json.loads((Path(folder) / "status.json").read_text())
    assert (status["state"], status["exit"]) == ("failed", 1)
    assert "was taken by run other" in status["error"]
    assert any("was taken by run other" in text for text in notes.texts)
    assert not [name for name in store.sizes() if "/markers/" in name]
    assert json.loads(store.read(LOCK) or b"")["run"] == "other"


def test_the_mark_of_a_signal_is_sent_before_the_run_has_ended(
    tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_dir, "_INTERVAL_S", 600.0)  # the next look would come too late
    config, store, seen = write_config(tmp_path, memory), ObjectStore(memory), []

    class Signalled(RunView):
        def run_started(self, *_: object) -> None:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(20)
            except KeyboardInterrupt:  # what ends the run takes its time
                end = time.monotonic() + 20
                while not (content := store.read("status.json")) and time.monotonic() < end:
                    time.sleep(0.01)
                seen.append(json.loads(content or b"{}").get("state"))
                raise

    with pytest.raises(RunInterrupted):
        run(config, view=Signalled())
    assert seen == ["interrupted"]
    assert json.loads(store.read("status.json") or b"")["exit"] == 128 + signal.SIGTERM


def test_a_store_that_stops_answering(tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    config, store, notes = write_config(tmp_path, memory), ObjectStore(memory), Notes()
    monkeypatch.setattr(remote_dir, "_RUN_PATIENCE_S", 0.1)
    monkeypatch.setattr(remote_dir, "_END_PATIENCE_S", 0.1)
    answers = MemoryFileSystem.pipe_file

    def refuse(self: MemoryFileSystem, path: str, *arguments: object, **named: object) -> None:
        if "/markers/" in path:
            raise ConnectionError("nobody is there")
        answers(self, path, *arguments, **named)

    with monkeypatch.context() as broken:
        broken.setattr(MemoryFileSystem, "pipe_file", refuse)
        with pytest.raises(JobFailed, match=r"nobody is there.*the results stand in .*--resume") as failed:
            run(config, view=notes)
    folder = Path(str(failed.value).partition("stand in ")[2].partition(";")[0])
    assert json.loads((folder / "status.json").read_text())["exit"] == 1
    assert (folder / "second.jsonl").exists()
    run(config, resume=True)
    assert states(store) == {"anonymous.first#0": "cached", "anonymous.second#1": "cached"}
    assert sum("/markers/" in name for name in store.sizes()) == 2


@needs_moto
def test_a_store_that_cannot_be_written_refuses_the_run(tmp_path: Path, bucket: Bucket) -> None:
    config = write_config(tmp_path, "s3://no-such-bucket/run1")
    assert not check(config)  # no network is asked
    with pytest.raises(ConfigError, match=r"work_dir: s3://no-such-bucket/run1 cannot write .*bucket"):
        run(config)
    assert not (tmp_path / "s3:").exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket", "names no folder"),
        ("s3://key:secret@bucket/run", "holds credentials"),
        ("https://host/run", "cannot be written"),
        ("s4://bucket/run", "unknown protocol"),
        ("s3://bucket/../run", "holds . or .."),
        ("s3://bucket/r?un", "not the URL"),
        ("dropbox://bucket/run", "needs dropboxdrivefs"),
    ],
)
def test_urls_that_are_none(tmp_path: Path, url: str, message: str) -> None:
    found = url_problem(url)
    assert found is not None
    assert message in found[0]
    [problem] = [p for p in check(write_config(tmp_path, url)) if p.path == "work_dir"]
    assert message in problem.message
    assert problem.line == 3


def test_a_refused_configuration_is_said_in_the_store(tmp_path: Path, memory: str) -> None:
    config = write_config(tmp_path, memory)
    config.write_text(config.read_text().replace("output: [path]", "outptu: [path]", 1))
    with pytest.raises(ConfigError):
        run(config)
    assert json.loads(ObjectStore(memory).read("status.json") or b"")["state"] == "config_error"


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    run(write_config(tmp_path, str(tmp_path / "out")), [f"work_dir=file://{tmp_path}/out"])
    assert (tmp_path / "out/status.json").exists()


def test_unfinished_work_travels_whole_or_not_at_all(tmp_path: Path, memory: str) -> None:
    sending, fetching = (
        Mirror(ObjectStore(memory), tmp_path / name / "run1", DigestMemo(tmp_path / "digests")) for name in "ab"
    )
    work = sending.folder / "artifacts/00-train"
    work.mkdir(parents=True)
    (work / "weights.bin").write_bytes(b"half of the work")
    (work / "state.json").write_text(json.dumps({"weights": str(work / "weights.bin")}))
    sending.send_rest()
    assert fetching.fetch() == []
    fetched = fetching.folder / "artifacts/00-train"
    assert json.loads((fetched / "state.json").read_text()) == {"weights": str(fetched / "weights.bin")}

    shutil.rmtree(fetching.folder)
    sending.store.write("artifacts/00-train/weights.bin", b"HALF of the work")
    [note] = Mirror(fetching.store, fetching.folder, fetching.memo).fetch()
    assert "is not complete" in note
    assert not (fetched / "weights.bin").exists()
