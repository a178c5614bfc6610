"""The NVIDIA GPUs of this machine: memory, driver, and who holds memory."""

from __future__ import annotations

import csv
import importlib
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Gpu", "GpuProcess", "Gpus", "find_gpus"]

_NVML = "ray._private.thirdparty.pynvml"  # Ray brings its own copy
_FIELDS = ("index", "name", "memory.total", "memory.used", "driver_version")
_SIGNS = ("/proc/driver/nvidia", "/dev/nvidiactl")  # of a driver
_SMI_S = 10.0
_MIB = 1 << 20


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory of a GPU: its id, name and bytes."""

    pid: int
    name: str
    memory: int


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: its number.
        name: its model.
        memory: bytes.
        used: bytes that are taken.
        processes: who holds them, as far as the driver tells.
    """

    index: int
    name: str
    memory: int
    used: int = 0
    processes: tuple[GpuProcess, ...] = ()


@dataclass(frozen=True)
class Gpus:
    """What the driver tells.

    Attributes:
        devices: the GPUs.
        driver: the driver's version, "" without one.
        cuda: the highest CUDA version that the driver runs, "" when not known.
        error: why nothing is known where a driver seems to be there.
    """

    devices: tuple[Gpu, ...] = ()
    driver: str = ""
    cuda: str = ""
    error: str = field(default="", compare=False)


def find_gpus() -> Gpus:
    """Asks NVML, and nvidia-smi where NVML cannot be loaded; empty on a machine without a driver."""
    if not any(map(os.path.exists, _SIGNS)) and shutil.which("nvidia-smi") is None:
        return Gpus()  # without importing Ray for its bindings
    try:
        nvml = importlib.import_module(_NVML)
        nvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - no library, driver or permission
        return _from_smi(str(error))
    try:
        return _from_nvml(nvml)
    except Exception as error:  # noqa: BLE001 - a driver that is there and does not answer
        return Gpus(error=str(error))
    finally:
        nvml.nvmlShutdown()


def _from_nvml(nvml: Any) -> Gpus:
    version = nvml.nvmlSystemGetCudaDriverVersion_v2()
    devices = []
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        name = _text(nvml.nvmlDeviceGetName(handle))
        devices.append(Gpu(index, name, int(memory.total), int(memory.used), _holders(nvml, handle)))
    driver = _text(nvml.nvmlSystemGetDriverVersion())
    return Gpus(tuple(devices), driver, f"{version // 1000}.{version % 1000 // 10}")


def _holders(nvml: Any, handle: Any) -> tuple[GpuProcess, ...]:
    try:
        found = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:  # a part of a GPU, or a container that must not look
        return ()
    return tuple(GpuProcess(item.pid, _process_name(item.pid), int(item.usedGpuMemory or 0)) for item in found)


def _process_name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:  # of another container
        return "unknown process"


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _from_smi(reason: str) -> Gpus:
    """What nvidia-smi says; `reason` is why NVML said nothing."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Gpus()
    command = [program, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Gpus(error=f"{reason}; {error}")
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        return Gpus(error=said.splitlines()[-1] if said else reason)
    rows = [[cell.strip() for cell in row] for row in csv.reader(done.stdout.splitlines()) if row]
    devices = tuple(Gpu(int(index), name, int(total) * _MIB, int(used) * _MIB) for index, name, total, used, _ in rows)
    return Gpus(devices, rows[0][4] if rows else "")
