"""Real wandb with a server that answers badly or not: nobody waits for it, nothing is lost, the process ends."""

import http.server
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from raysandbox.core.events import read_events
from raysandbox.watcher import wandb as wandb_sink
from raysandbox.watcher.wandb import silence_of_server

REPORTS = 200
RUN = """
import json, logging, sys, time
from pathlib import Path
from raysandbox.runtime.watcher_actor import start_watcher
from raysandbox.watcher.config import WatchConfig

logging.basicConfig(level=logging.WARNING)
folder, reports = Path(sys.argv[1]), int(sys.argv[2])
watcher = start_watcher(WatchConfig("run-1", "p", "e", folder, wandb="online"), actor=False)
begun, blocked = time.monotonic(), 0.0
for step in range(reports):
    start = time.monotonic()
    watcher.watch(step / 2, "train.loss", step)
    if step % 50 == 0:
        watcher.flush()  # as when a job ends
    blocked += time.monotonic() - start
    time.sleep(0.02)
said = {"seconds": time.monotonic() - begun, "blocked": blocked}
state = watcher.finish(30)
said |= {"given": state.given, "error": state.error, "ended": time.monotonic()}
(folder / "said.json").write_text(json.dumps(said))
"""


class Server(http.server.ThreadingHTTPServer):
    """Answers each request with a status after some seconds."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, status, seconds=0.0):
        self.status, self.seconds, self.over = status, seconds, threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.shutdown()
        self.server_close()
        self.thread.join(10)


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.over.wait(self.server.seconds)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *args):
        """Says nothing."""


def run_with(url, folder, monkeypatch):
    """A run of a few seconds whose metrics go to a server; returns what it said and how long its exit took."""
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    folder.mkdir()
    command = [sys.executable, "-W", "ignore", "-c", RUN, str(folder), str(REPORTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    gone = time.monotonic()  # the same clock in all processes of a machine
    assert done.returncode == 0, done.stderr
    said = json.loads((folder / "said.json").read_text())
    return said, gone - said["ended"], done.stderr


def check(said, folder, stderr):
    values = [line["value"] for line in read_events(folder / "metrics.jsonl")]
    assert values == [step / 2 for step in range(REPORTS)]
    assert said["blocked"] < max(0.01 * said["seconds"], 0.5)  # half a second for busy machines
    assert stderr.count("wandb failed") == 1
    assert "metrics.jsonl" in stderr


@pytest.mark.parametrize("status", [429, 500])
def test_an_offline_run_is_left_where_the_server_refuses(tmp_path, monkeypatch, status):
    pytest.importorskip("wandb")
    with Server(status) as server:
        said, exit_s, stderr = run_with(server.url, tmp_path / "run", monkeypatch)
    check(said, tmp_path / "run", stderr)
    assert f"answers {status}" in said["error"]
    assert "wandb sync" in said["error"]
    assert said["given"] == REPORTS
    [files] = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert list(files.glob("*.wandb"))
    assert not (tmp_path / "run" / "metrics.wandb.json").exists()  # --resume gives them all
    assert exit_s < 20


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hangs", "refuses connections", "takes 10 s per call", "answers nonsense after 10 s"])
def test_slow_and_absent_servers(tmp_path, monkeypatch, how):
    pytest.importorskip("wandb")
    seconds, status = {"hangs": (300.0, 200), "takes 10 s per call": (10.0, 500)}.get(how, (10.0, 200))
    with Server(status, seconds) as server:
        url = "http://127.0.0.1:9" if how == "refuses connections" else server.url
        said, exit_s, stderr = run_with(url, tmp_path / "run", monkeypatch)
    check(said, tmp_path / "run", stderr)
    assert said["error"]
    assert exit_s < 20


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, ""), (401, ""), (404, ""), (429, "answers 429"), (500, "answers 500"), (503, "answers 503")],
)
def test_what_a_server_says(monkeypatch, status, expected):
    pytest.importorskip("wandb")
    with Server(status) as server:
        monkeypatch.setattr(wandb_sink, "_wandb", lambda: (settings_of(server.url), None))
        reason = silence_of_server()
    assert expected in reason
    assert bool(reason) == bool(expected)


def test_a_server_that_is_not_there_or_hangs(monkeypatch):
    monkeypatch.setattr(wandb_sink, "_ANSWER_S", 0.3)
    with Server(200, 30.0) as server:
        monkeypatch.setattr(wandb_sink, "_wandb", lambda: (settings_of(server.url), None))
        assert "does not answer" in silence_of_server()
    monkeypatch.setattr(wandb_sink, "_wandb", lambda: (settings_of("http://127.0.0.1:9"), None))
    assert "does not answer" in silence_of_server()
    monkeypatch.setattr(wandb_sink, "_wandb", lambda: (settings_of("file:///etc/passwd"), None))
    assert "no address" in silence_of_server()


def settings_of(url):
    """Stands for wandb, set up for a server."""

    class Settings:
        base_url = url

    class Setup:
        settings = Settings

        @staticmethod
        def setup():
            return Setup

    return Setup


def test_the_module_is_imported_quietly(tmp_path):
    """What wandb says of its own errors goes nowhere, unless the user wants it."""
    text = (
        "from raysandbox.watcher.wandb import _wandb; _wandb(); import os; print(os.environ['WANDB_ERROR_REPORTING'])"
    )
    pytest.importorskip("wandb")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", text], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "false", done.stderr
    assert list(Path(tmp_path).iterdir()) == []
