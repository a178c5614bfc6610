"""The decoder's process: `python -m raysandbox.ops.media.worker FD` answers jobs on a socket until it is closed."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from collections.abc import Generator
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from raysandbox.ops.media import decoding, editing, sampling

_MOST_BYTES = 8 * 2**30

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
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = _memory() if hard == resource.RLIM_INFINITY else min(_memory(), hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))  # a damaged file may ask for any amount
    connection = Connection(int(sys.argv[1]))
    jobs: SimpleQueue[tuple[str, tuple[Any, ...]]] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, jobs), daemon=True).start()
    connection.send((True, None))
    while True:
        name, arguments = jobs.get()  # waits: for work, as long as the process it serves lives
        try:
            result = JOBS[name](*arguments)
            connection.send((True, _watched(connection, result) if isinstance(result, Generator) else result))
        except decoding.UNREADABLE as error:
            connection.send((False, f"cannot be decoded: {getattr(error, 'strerror', None) or error}"))
        except MemoryError:  # also while the answer is packed
            connection.send((False, f"needs more than {_memory() / 2**30:.0f} GB of memory"))


def _memory() -> int:
    """The most bytes that it may hold."""
    return min(_MOST_BYTES, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)


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
