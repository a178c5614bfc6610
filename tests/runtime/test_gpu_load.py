"""How busy a GPU is while a worker does a unit, with a stand-in for NVML."""

import importlib
import sys
import time
from types import SimpleNamespace

import pytest

from raysandbox.runtime import unit_actor
from raysandbox.runtime.gpu_load import _NVML, GpuLoad
from raysandbox.runtime.unit_actor import UnitActor

USED = ("nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetUtilizationRates")


class Nvml:
    """A GPU that is as busy as it is told."""

    def __init__(self):
        self.busy, self.asked = 0, []

    def nvmlInit(self):
        """Nothing to do."""

    def nvmlDeviceGetHandleByIndex(self, index):
        self.asked.append(index)

    def nvmlDeviceGetHandleByUUID(self, uuid):
        self.asked.append(uuid)

    def nvmlDeviceGetUtilizationRates(self, handle):
        return SimpleNamespace(gpu=self.busy)


@pytest.fixture
def nvml(monkeypatch):
    stand_in = Nvml()
    monkeypatch.setitem(sys.modules, _NVML, stand_in)
    return stand_in


class Work:
    """Computes, and writes a file."""

    def __init__(self, nvml):
        self.nvml = nvml

    def load(self, device):
        return device

    def run(self, unit, state):
        self.nvml.busy = 80
        time.sleep(unit)
        self.nvml.busy = 0
        time.sleep(unit)
        return state


def test_the_mean_is_of_the_whole_unit(nvml, monkeypatch):
    monkeypatch.setattr(unit_actor, "device_for", lambda has_gpu: "cuda" if has_gpu else "cpu")
    worker = UnitActor()
    worker.load(Work(nvml), True)
    result, seconds, load = worker.run(1.0)
    assert (result, round(seconds)) == ("cuda", 2)
    assert load is not None
    assert 20 < load < 60
    worker.load(Work(nvml), False)
    assert worker.run(0)[2] is None


def test_what_is_short_has_a_number_too(nvml):
    nvml.busy = 50
    with GpuLoad() as load:
        pass
    assert load.mean == 50


@pytest.mark.parametrize(("visible", "asked"), [("3,5", 3), ("GPU-4a,GPU-5b", "GPU-4a"), ("", 0), (None, 0)])
def test_it_is_the_gpu_that_the_worker_holds(nvml, monkeypatch, visible, asked):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with GpuLoad():
        pass
    assert nvml.asked == [asked]


def test_without_a_driver_there_is_no_number(nvml, monkeypatch):
    def no_driver():
        raise RuntimeError("NVML Shared Library Not Found")

    monkeypatch.setattr(nvml, "nvmlInit", no_driver)
    with GpuLoad() as load:
        pass
    assert load.mean is None


def test_ray_brings_what_is_used():
    assert all(hasattr(importlib.import_module(_NVML), name) for name in USED)
