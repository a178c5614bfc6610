"""A session without Ray, and a chat server."""

import json
import threading
from types import SimpleNamespace

import pytest

from raysandbox.core.progress import Progress
from tests.executors.infer.chat_server import ChatServer


@pytest.fixture
def server():
    server = ChatServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def session(tmp_path):
    """A `WorkSession` without workers; `metrics` holds what was reported."""
    metrics = {}
    return SimpleNamespace(
        report=lambda found, step=None: metrics.update(found),
        metrics=metrics,
        progress=Progress(),
        workers=None,
        artifacts=tmp_path / "artifacts",
        quarantine=tmp_path / "quarantine",
        cache_dir=tmp_path / "cache",
        use_cache=True,
        allow_user_code=False,
    )


@pytest.fixture
def questions(tmp_path):
    """Writes a file of questions; returns its path."""

    def write(texts, name="questions.jsonl", **more):
        path = tmp_path / name
        path.write_text("".join(json.dumps({"id": n, "query": text, **more}) + "\n" for n, text in enumerate(texts)))
        return str(path)

    return write
