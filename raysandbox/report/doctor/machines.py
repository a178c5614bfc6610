"""Judges one machine: memory, disks, limits, GPUs, encoding, proxies."""

from __future__ import annotations

from collections.abc import Iterator

from raysandbox.report.doctor.lines import Line, State, gigabytes
from raysandbox.runtime.gpus import Gpu
from raysandbox.runtime.machine import UNLIMITED, Folder, Machine

__all__ = ["machine_lines"]

_GIB = 1 << 30
_MEMORY_LOW, _MEMORY_NONE = 2 * _GIB, _GIB // 2
_DISK_LOW, _DISK_NONE = 5 * _GIB, _GIB
_SESSION_FULL = 0.95  # Ray stops storing objects on a file system that is fuller
_FILES_LOW, _FILES_NONE = 65_536, 4_096  # Ray itself warns below 4,096
_PROCESSES_LOW, _PROCESSES_NONE = 2_000, 300
_OBJECTS_SHARE = 0.3  # of the memory, for Ray's object store, unless it is told another size
_HELD_BY_OTHERS = _GIB
_LOCAL = ("localhost", "127.0.0.1")


def machine_lines(machine: Machine, node: str = "", object_store: float | None = None) -> Iterator[Line]:
    """What is to be said of a machine.

    Args:
        machine: the facts.
        node: the node's name, "" for this machine.
        object_store: bytes of the node's object store, None where no Ray runs.
    """
    yield _processors(machine, node)
    yield _memory(machine, node)
    yield _shared_memory(machine, node, object_store)
    for folder in machine.folders:
        yield _disk(folder, node)
    yield from _limits(machine, node)
    yield from _gpus(machine, node)
    yield _encoding(machine, node)
    yield from _proxies(machine, node)


def _processors(machine: Machine, node: str) -> Line:
    found = f"{machine.cpus} CPUs, {machine.platform}"
    if machine.cpu_quota is not None and machine.cpu_quota < machine.cpus - 0.01:
        found += f"; its container may use {machine.cpu_quota:g}"
        fix = f"start Ray with --num-cpus={max(int(machine.cpu_quota), 1)}, or it plans with more than there are"
        return Line("machine", "CPUs", "yellow", found, fix, node)
    return Line("machine", "CPUs", "green", found, "", node)


def _memory(machine: Machine, node: str) -> Line:
    memory = machine.memory
    left, total, of = memory.available, memory.total, ""
    if memory.limit is not None:
        left, total = min(left, memory.limit - (memory.used or 0)), memory.limit
        of = f" (limit of its container; the machine has {gigabytes(memory.total)})"
    state: State = "red" if left < _MEMORY_NONE else "yellow" if left < _MEMORY_LOW else "green"
    fix = "" if state == "green" else "end other programs, or raise the container's limit"
    return Line("machine", "memory", state, f"{gigabytes(left)} of {gigabytes(total)} free{of}", fix, node)


def _shared_memory(machine: Machine, node: str, object_store: float | None) -> Line:
    wanted = _OBJECTS_SHARE * (machine.memory.limit or machine.memory.total) if object_store is None else object_store
    kind = "would take" if object_store is None else "takes"
    if machine.shared is None:
        found = "there is no /dev/shm: Ray's objects go to disk, which is slow"
        return Line("machine", "shared memory", "yellow", found, "mount a tmpfs at /dev/shm", node)
    found = f"/dev/shm has {gigabytes(machine.shared)}, Ray's object store {kind} {gigabytes(wanted)}"
    if machine.shared < wanted:
        fix = f"docker: --shm-size={wanted / _GIB:.0f}g; Kubernetes: an emptyDir with medium Memory at /dev/shm"
        return Line("machine", "shared memory", "yellow", f"{found}: the rest goes to disk", fix, node)
    return Line("machine", "shared memory", "green", found, "", node)


def _disk(folder: Folder, node: str) -> Line:
    what = f"disk: {folder.role}"
    if folder.error:
        return Line("disks", what, "red", f"{folder.path}: {folder.error}", "mount it again, or name another", node)
    where = folder.path if folder.standing == folder.path else f"{folder.path} (below {folder.standing})"
    found = f"{where}: {gigabytes(folder.free)} of {gigabytes(folder.total)} free"
    if not folder.writable:
        return Line("disks", what, "red", f"{where}: not writable", "change its owner or mode, or name another", node)
    if folder.free < _DISK_NONE:
        return Line("disks", what, "red", found, "make space, or name another folder", node)
    session = folder.role == "Ray's session"
    if session and folder.free < (1 - _SESSION_FULL) * folder.total:
        fix = "make space, or `ray start --temp-dir=FOLDER`: Ray stores no objects on a disk that is 95 % full"
        return Line("disks", what, "yellow", found, fix, node)
    state: State = "yellow" if folder.free < _DISK_LOW else "green"
    return Line("disks", what, state, found, "make space" if state == "yellow" else "", node)


def _limits(machine: Machine, node: str) -> Iterator[Line]:
    limits = (
        ("open files", machine.open_files, _FILES_LOW, _FILES_NONE, "ulimit -Hn 65536, or LimitNOFILE of the service"),
        (
            "processes",
            machine.processes,
            _PROCESSES_LOW,
            _PROCESSES_NONE,
            "ulimit -u unlimited, or raise the container's --pids-limit",
        ),
    )
    for what, number, low, none, fix in limits:
        found = "no limit" if number == UNLIMITED else f"at most {number:,}{' more' if what == 'processes' else ''}"
        state: State = "green"
        if number != UNLIMITED:
            state = "red" if number < none else "yellow" if number < low else "green"
        yield Line("machine", what, state, found, "" if state == "green" else fix, node)


def _gpus(machine: Machine, node: str) -> Iterator[Line]:
    gpus = machine.gpus
    if gpus.error:
        fix = "nvidia-smi says more; in a container: --gpus all"
        yield Line("GPUs", "driver", "red", f"does not answer: {gpus.error}", fix, node)
        return
    if not gpus.devices:
        yield Line("GPUs", "GPUs", "note", "no NVIDIA GPU", "", node)
        return
    cuda = f", CUDA up to {gpus.cuda}" if gpus.cuda else ""
    names = ", ".join(dict.fromkeys(f"{gpu.name} ({gigabytes(gpu.memory)})" for gpu in gpus.devices))
    yield Line("GPUs", "GPUs", "green", f"{len(gpus.devices)}: {names}; driver {gpus.driver}{cuda}", "", node)
    yield from _torch(machine, node)
    for gpu in gpus.devices:
        if gpu.used >= _HELD_BY_OTHERS:
            yield Line("GPUs", f"GPU {gpu.index}", "yellow", _holders(gpu), "end what is not yours to keep", node)


def _torch(machine: Machine, node: str) -> Iterator[Line]:
    if not machine.versions.get("torch"):
        return
    built, driver = machine.torch_cuda, machine.gpus.cuda
    if not built:
        fix = "install torch from the index of your CUDA version (https://pytorch.org)"
        yield Line("GPUs", "torch", "yellow", "is built without CUDA: it cannot use the GPUs", fix, node)
    elif driver and _major(built) > _major(driver):
        fix = f"a newer driver, or torch for CUDA {driver}"
        yield Line("GPUs", "torch", "red", f"is built for CUDA {built}, the driver runs up to {driver}", fix, node)
    else:
        yield Line("GPUs", "torch", "green", f"is built for CUDA {built}", "", node)


def _holders(gpu: Gpu) -> str:
    held = ", ".join(f"{one.name} ({one.pid}: {gigabytes(one.memory)})" for one in gpu.processes[:4])
    by = f" by {held}" if held else ""
    return f"{gigabytes(gpu.used)} of {gigabytes(gpu.memory)} are held{by}"


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _encoding(machine: Machine, node: str) -> Line:
    names = {name.replace("-", "") for name in (machine.encoding, machine.file_names)}
    if names == {"utf8"}:
        return Line("machine", "encoding", "green", "UTF-8", "", node)
    found = f"text is {machine.encoding}, file names are {machine.file_names}"
    state: State = "yellow" if machine.file_names.replace("-", "") == "utf8" else "red"
    return Line("machine", "encoding", state, found, "export LC_ALL=C.UTF-8 PYTHONUTF8=1", node)


def _proxies(machine: Machine, node: str) -> Iterator[Line]:
    if not machine.proxies:
        return
    found = ", ".join(f"{name} → {host}" for name, host in machine.proxies.items())
    spared = [part.strip() for part in machine.no_proxy.split(",")]
    if "*" in spared or any(local in spared for local in _LOCAL):
        yield Line("network", "proxies", "green", f"{found}; not for {machine.no_proxy}", "", node)
    else:
        fix = "export no_proxy=localhost,127.0.0.1 and the nodes' addresses: gRPC and `ray job` heed proxies"
        yield Line("network", "proxies", "yellow", f"{found}; for this machine, too", fix, node)
