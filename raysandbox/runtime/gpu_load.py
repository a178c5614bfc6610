"""How busy the GPU of a worker is while it does something.

Like `unit_actor` it imports nothing but Python's standard library and Ray, which brings its own
copy of NVML's bindings.
"""

from __future__ import annotations

import importlib
import os
import statistics
import threading
from typing import Any

__all__ = ["GpuLoad"]

_NVML = "ray._private.thirdparty.pynvml"
_ANSWER_S = 5.0
_EVERY_S = 0.2  # NVML's own numbers are means over the last sixth of a second to a second


class GpuLoad:
    """Samples the load of this process's first GPU while the block runs, in a thread.

    Attributes:
        mean: percent of the time in which the GPU did something; None where nothing tells.
    """

    def __init__(self) -> None:
        self.mean: float | None = None
        self._samples: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="gpu load", daemon=True)

    def __enter__(self) -> GpuLoad:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(_EVERY_S + _ANSWER_S)  # waits: a driver that answers no more costs this number only
        self.mean = statistics.fmean(self._samples) if self._samples else None

    def _sample(self) -> None:
        try:
            nvml = importlib.import_module(_NVML)
            nvml.nvmlInit()
            gpu = _first_visible(nvml)
            # waits: until the block ends; what is short has a sample, too
            while not self._ended.wait(_EVERY_S) or not self._samples:
                self._samples.append(float(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu))
        except Exception:  # noqa: BLE001 - no bindings, driver or permission, or a part of a GPU: a number less, no failure
            return


def _first_visible(nvml: Any) -> Any:
    """NVML's handle of the GPU that CUDA calls number 0 here; Ray sets the variable to what a worker holds."""
    name = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    return nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)
