"""The decoder's process: `python -m raysandbox.ops.media.worker FD` answers jobs on a socket until it is closed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Generator
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from raysandbox.ops.media import decoding, editing, sampling

JOBS = {
    "audio_info": decoding.audio_info,
    "resize": editing.resize,
    "sampled_clip": sampling.sampled_clip,
    "split": editing.split,
    "video_digest": decoding.video_digest,
    "video_frames": decoding.video_frames,
    "video_info": decoding.video_info,
}


def main() -> None:
    """Answers each job with (True, result) or (False, reason), in order.

    A generator says with each (None, None) that it goes on; what it returns is its result.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that it serves
    connection = Connection(int(sys.argv[1]))
    jobs: SimpleQueue[tuple[str, tuple[Any, ...]]] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, jobs), daemon=True).start()
    connection.send((True, None))
    while True:
        name, arguments = jobs.get()  # waits: for work, as long as the process it serves lives
        try:
            result = JOBS[name](*arguments)
            answer = (True, _watched(connection, result) if isinstance(result, Generator) else result)
        except decoding.UNREADABLE as error:
            answer = (False, f"cannot be decoded: {getattr(error, 'strerror', None) or error}")
        connection.send(answer)


def _watched(connection: Connection, steps: Generator[None, None, Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        connection.send((None, None))


def _receive(connection: Connection, jobs: SimpleQueue[tuple[str, tuple[Any, ...]]]) -> None:
    """Takes jobs from the socket; its end is that of the process it serves, even amid a file that hangs."""
    while True:
        try:
            jobs.put(connection.recv())  # waits: the socket ends with the process it serves
        except (EOFError, ConnectionError):
            os._exit(0)


if __name__ == "__main__":
    main()
