"""The actor that does units of work, in this environment or in another one.

It also runs where only Python's standard library and Ray are installed, so it imports nothing else.
"""

from __future__ import annotations

import importlib.util
import time
import traceback
from pathlib import Path
from typing import Any

from raysandbox.core.disk import write_failure
from raysandbox.core.errors import JobFailed, UserError
from raysandbox.runtime.gpu_load import GpuLoad
from raysandbox.runtime.worker_log import WorkerAddress

__all__ = ["UnitActor", "device_for", "guarded"]


class UnitActor:
    """Keeps what the work loaded from one unit to the next."""

    _work: Any
    _state: Any
    _device: str

    def start(self) -> WorkerAddress:
        """Redirects the output; returns where the worker is."""
        return WorkerAddress.of_this_process()

    def load(self, work: Any, has_gpu: bool) -> None:
        """Takes the work and loads its models."""
        self._work = work
        self._device = device_for(has_gpu)
        self._state = guarded(work.load, self._device)

    def run(self, unit: Any) -> tuple[Any, float, float | None]:
        """Does a unit.

        Returns:
            the result, the seconds that it took, and how busy the GPU was meanwhile, in percent,
            where that is known.
        """
        started = time.perf_counter()
        if self._device != "cuda":
            return guarded(self._work.run, unit, self._state), time.perf_counter() - started, None
        with GpuLoad() as load:
            result = guarded(self._work.run, unit, self._state)
        return result, time.perf_counter() - started, load.mean


def guarded(function: Any, *arguments: Any) -> Any:
    """Calls a function; whatever it raises becomes an error that every driver can read.

    Raises:
        UserError: as the function raised it.
        JobFailed: it raised something else, or ended its process.
    """
    try:
        return function(*arguments)
    except SystemExit as error:  # Ray would take it for the wish to end the actor
        raise JobFailed(f"the work ended its process with status {error.code}") from error
    except UserError:
        traceback.print_exc()  # into the job's log; the driver gets the message
        raise
    except Exception as error:  # whose class the driver may not have
        traceback.print_exc()
        if failed := write_failure(error, Path.cwd()):
            raise failed from error
        raise JobFailed(f"{type(error).__name__}: {error}") from error


def device_for(has_gpu: bool) -> str:
    """The torch device of a worker: "cuda" when its bundle holds a GPU that torch can use, else "cpu"."""
    if not has_gpu or importlib.util.find_spec("torch") is None:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
