"""Runs commands as `python -m raysandbox` does, each in a fork of this process, which has imported what they need.

Reads lines `{"arguments": […], "output": path}` and answers each with `{"status": …, "cpu_s": …, "wall_s": …}`.
Nothing here starts Ray or a thread before it forks.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import threading
import time
import traceback
from typing import Any

import raysandbox.api  # with what is below it: what a command imports first
import raysandbox.cli.console
import raysandbox.hpo.planning
import raysandbox.sandbox.preview  # noqa: F401

LIMIT_S = 60.0


def main() -> None:
    """Serves until its input ends."""
    for line in sys.stdin:
        assert threading.active_count() == 1
        print(json.dumps(_served(json.loads(line))), flush=True)


def _served(command: dict[str, Any]) -> dict[str, float]:
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become(command)
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        wall = time.monotonic() - began
        if ended:
            break
        if wall > LIMIT_S:
            os.kill(pid, 9)
        time.sleep(0.005)
    code = os.waitstatus_to_exitcode(status)
    return {"status": code, "cpu_s": usage.ru_utime + usage.ru_stime, "wall_s": wall}


def _become(command: dict[str, Any]) -> None:
    """Is the command from here on, and ends as an interpreter does."""
    output = os.open(command["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["raysandbox", *command["arguments"]]
    code: Any = 0
    try:
        runpy.run_module("raysandbox", run_name="__main__")
    except SystemExit as end:
        code = end.code or 0
    except BaseException as error:  # noqa: BLE001  # as an interpreter does
        traceback.print_exception(error)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main()
