"""Every rule of the doctor, with facts that are made up."""

from dataclasses import replace

import pytest

from raysandbox.report.doctor.clusters import cluster_lines, storage_lines
from raysandbox.report.doctor.installation import wandb_line
from raysandbox.report.doctor.lines import Line, as_json, overview, status_of, together
from raysandbox.report.doctor.machines import machine_lines
from raysandbox.report.doctor.ports import auth_line, port_lines
from raysandbox.report.doctor.versions import difference_lines, version_lines
from raysandbox.runtime.checkup import ClusterReport, Link, NodeReport
from raysandbox.runtime.gpus import Gpu, GpuProcess, Gpus
from raysandbox.runtime.listening import Listener, role_of_process
from raysandbox.runtime.machine import Folder, Machine, Memory, Token
from raysandbox.runtime.shared_storage import Probe, Seen

GIB = 1 << 30
H100 = Gpu(0, "NVIDIA H100", 80 * GIB)
GOOD = Machine(
    host="a",
    python="3.11.7",
    versions={"ray": "2.60.0", "pyarrow": "26.0.1", "numpy": "2.4.6", "pydantic": "2.14", "torch": "2.13.0+cu128"},
    package="0123456789abcdef",
    torch_cuda="12.8",
    cpus=8,
    memory=Memory(64 * GIB, 50 * GIB),
    shared=32 * GIB,
    folders=(Folder("work_dir", "/w", "/w", 100 * GIB, 200 * GIB),),
    gpus=Gpus((H100,), "580.1", "13.0"),
)


def state(lines, what):
    return [line.state for line in lines if line.what == what]


def test_a_good_machine_is_green():
    assert {line.state for line in machine_lines(GOOD)} == {"green"}


@pytest.mark.parametrize(
    ("changes", "what", "expected"),
    [
        ({"memory": Memory(64 * GIB, GIB)}, "memory", "yellow"),
        ({"memory": Memory(64 * GIB, GIB // 4)}, "memory", "red"),
        ({"memory": Memory(64 * GIB, 50 * GIB, 8 * GIB, 7 * GIB)}, "memory", "yellow"),
        ({"cpu_quota": 2.0}, "CPUs", "yellow"),
        ({"shared": GIB // 16}, "shared memory", "yellow"),
        ({"shared": None}, "shared memory", "yellow"),
        ({"open_files": 20_000}, "open files", "yellow"),
        ({"open_files": 1_024}, "open files", "red"),
        ({"processes": 1_000}, "processes", "yellow"),
        ({"processes": 100}, "processes", "red"),
        ({"folders": (Folder("x", "/w", "/w", 2 * GIB, 9 * GIB),)}, "disk: x", "yellow"),
        ({"folders": (Folder("x", "/w", "/w", GIB // 2, 9 * GIB),)}, "disk: x", "red"),
        ({"folders": (Folder("x", "/w", "/", 9 * GIB, 9 * GIB, False),)}, "disk: x", "red"),
        ({"folders": (Folder("x", "/w", error="no answer in 5 s"),)}, "disk: x", "red"),
        (
            {"folders": (Folder("Ray's session", "/t", "/t", 40 * GIB, 1000 * GIB),)},
            "disk: Ray's session",
            "yellow",
        ),
        ({"gpus": Gpus(error="Driver/library version mismatch")}, "driver", "red"),
        ({"gpus": Gpus()}, "GPUs", "note"),
        ({"torch_cuda": ""}, "torch", "yellow"),
        ({"torch_cuda": "13.1", "gpus": Gpus((H100,), "550", "12.4")}, "torch", "red"),
        ({"torch_cuda": "12.8", "gpus": Gpus((H100,), "550", "12.4")}, "torch", "green"),  # one major version
        ({"encoding": "ansi_x3.4-1968"}, "encoding", "yellow"),
        ({"encoding": "ascii", "file_names": "ascii"}, "encoding", "red"),
        ({"proxies": {"https_proxy": "p"}}, "proxies", "yellow"),
        ({"proxies": {"https_proxy": "p"}, "no_proxy": "localhost, 10.0.0.1"}, "proxies", "green"),
    ],
)
def test_what_is_wrong_with_a_machine(changes, what, expected):
    lines = list(machine_lines(replace(GOOD, **changes)))
    assert state(lines, what) == [expected]
    assert all(line.fix for line in lines if line.state in ("yellow", "red"))


def test_who_holds_a_gpu_is_named():
    gpu = replace(H100, used=40 * GIB, processes=(GpuProcess(77, "python", 40 * GIB),))
    (line,) = [one for one in machine_lines(replace(GOOD, gpus=Gpus((gpu,), "580"))) if one.what == "GPU 0"]
    assert line.state == "yellow"
    assert "python (77: 40 GiB)" in line.found


def test_the_object_store_of_a_node_counts():
    assert state(machine_lines(GOOD, "n", 40.0 * GIB), "shared memory") == ["yellow"]
    assert state(machine_lines(GOOD, "n", 10.0 * GIB), "shared memory") == ["green"]


@pytest.mark.parametrize(
    ("address", "auth", "expected"),
    [
        ("127.0.0.1", "none", "green"),
        ("127.0.0.2", "none", "green"),
        ("::1", "none", "green"),
        ("::ffff:127.0.0.1", "none", "green"),
        ("0.0.0.0", "none", "red"),
        ("::", "none", "red"),
        ("10.1.2.3", "none", "red"),
        ("10.1.2.3", "unknown", "red"),
        ("10.1.2.3", "token", "yellow"),
        ("fe80::1%eth0", "token", "yellow"),
    ],
)
def test_open_ports(address, auth, expected):
    (line,) = port_lines(replace(GOOD, listeners=(Listener("GCS", address, 6379, 1, auth),)))
    assert line.state == expected


def test_ports_of_the_same_kind_are_one_line():
    listeners = tuple(Listener("worker", "0.0.0.0", 10_000 + number, number, "none") for number in range(50))
    (line,) = port_lines(replace(GOOD, listeners=listeners))
    assert "and 47 more" in line.found


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("/v/ray/core/src/ray/gcs/gcs_server --log_dir=/tmp", "GCS"),
        ("python -u /v/ray/dashboard/dashboard.py --host=127.0.0.1", "dashboard and job server"),
        ("ray::ServeReplica", "worker"),
        ("python -m ray.util.client.server", "Ray client server"),
        ("vim notes-on-ray.txt", None),
    ],
)
def test_processes_are_known_by_their_command(command, role):
    assert role_of_process(command) == role


@pytest.mark.parametrize(
    ("mode", "token", "expected"),
    [
        ("token", Token("/h/.ray/auth_token"), "green"),
        ("token", Token(), "red"),
        ("token", Token("/h/.ray/auth_token", "everybody"), "yellow"),
        ("disabled", Token(), "yellow"),
        ("", Token(), "note"),
    ],
)
def test_the_token(mode, token, expected):
    assert auth_line(replace(GOOD, auth_mode=mode, token=token)).state == expected


@pytest.mark.parametrize(
    ("changes", "what", "expected"),
    [
        ({}, "on the nodes", "green"),
        ({"python": "3.11.9"}, "python", "yellow"),
        ({"python": "3.12.1"}, "python", "red"),
        ({"package": "ffff"}, "raysandbox", "red"),
        ({"versions": GOOD.versions | {"ray": "2.59.0"}}, "ray", "red"),
        ({"versions": GOOD.versions | {"numpy": "2.0.0"}}, "numpy", "yellow"),
        ({"versions": GOOD.versions | {"numpy": ""}}, "numpy", "red"),
        ({"versions": GOOD.versions | {"torch": ""}}, "torch", "yellow"),
    ],
)
def test_differences_of_versions(changes, what, expected):
    lines = list(difference_lines(GOOD, replace(GOOD, **changes), "node"))
    assert [(line.what, line.state, line.node) for line in lines] == [(what, expected, "node")]


def test_what_a_configuration_needs_is_red_where_a_node_lacks_it():
    node = replace(GOOD, versions=GOOD.versions | {"torch": ""})
    assert state(difference_lines(GOOD, node, "node", ["torch"]), "torch") == ["red"]


def test_a_core_package_that_is_not_here_is_red():
    lines = list(version_lines(replace(GOOD, versions={"ray": "2.60.0", "numpy": "", "torch": ""}), "0.1.0"))
    assert (state(lines, "numpy"), state(lines, "torch"), state(lines, "ray")) == (["red"], ["note"], ["green"])


NODE = NodeReport(
    "aaaaaaaa", "10.0.0.2", resources={"CPU": 8.0, "GPU": 1.0}, machine=GOOD, link=Link(0.002, 0.0, 500e6)
)


def lines_of(*nodes, probes=()):
    return list(cluster_lines(ClusterReport(nodes, probes), GOOD))


def test_a_good_cluster_is_green():
    assert {line.state for line in lines_of(NODE)} == {"green"}


@pytest.mark.parametrize(
    ("changes", "what", "expected"),
    [
        ({"machine": None, "error": "no answer in 30 s", "link": None}, "node 10.0.0.2", "red"),
        ({"machine": None, "state": "dead", "reason": "health check failed"}, "node 10.0.0.2", "yellow"),
        ({"machine": None, "state": "draining", "reason": "ends in 30 s"}, "node 10.0.0.2", "yellow"),
        ({"resources": {"CPU": 8.0, "GPU": 4.0}}, "Ray's GPUs", "yellow"),
        ({"resources": {"CPU": 8.0}}, "Ray's GPUs", "yellow"),
        ({"link": None}, "calls", "yellow"),
        ({"link": Link(0.5, 0.0)}, "calls", "yellow"),
        ({"link": Link(0.002, 5.0)}, "clock", "yellow"),
        ({"link": Link(0.002, -500.0)}, "clock", "red"),
        ({"link": Link(4.0, 1.9)}, "clock", "green"),  # a slow call says nothing of the clock
        ({"link": Link(0.002, 0.0, 1e6)}, "bandwidth", "yellow"),
    ],
)
def test_what_is_wrong_with_a_node(changes, what, expected):
    assert state(lines_of(replace(NODE, **changes)), what) == [expected]


def test_a_cluster_without_a_node_is_red():
    assert state(lines_of(replace(NODE, state="dead", machine=None)), "cluster") == ["red"]


@pytest.mark.parametrize(
    ("seen", "expected", "text"),
    [
        (Seen("work_dir"), "green", "read what the others write"),
        (Seen("work_dir", read="the file is not there"), "red", "does not see what this machine wrote"),
        (Seen("work_dir", wrote="Read-only file system"), "red", "cannot write (Read-only"),
        (Seen("work_dir", returned="the file is not there"), "red", "is not seen here"),
    ],
)
def test_storage(seen, expected, text):
    report = ClusterReport((replace(NODE, seen=(seen,)),), (Probe("work_dir", "/shared/run", "/shared"),))
    (line,) = storage_lines(report)
    assert (line.state, text in line.found) == (expected, True)


def test_storage_that_this_machine_cannot_write():
    (line,) = storage_lines(ClusterReport((NODE,), (Probe("work_dir", "s3://b/x", error="Forbidden"),)))
    assert (line.state, "Forbidden" in line.found) == ("red", True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("online", "0.31", True), "green"),
        (("online", "0.31", False), "yellow"),
        (("offline", "0.31", False), "green"),
        (("disabled", "0.31", False), "note"),
        (("online", "", True), "note"),
    ],
)
def test_wandb(arguments, expected):
    assert wandb_line(*arguments).state == expected


def test_wandb_that_is_asked_for_and_absent_is_yellow():
    assert wandb_line("online", "", True, asked=True).state == "yellow"


def test_lines_of_many_nodes_are_one():
    lines = [Line("disks", "disk: x", "green", f"{number} GiB", node=f"n{number}") for number in range(100)]
    lines += [Line("disks", "disk: x", "red", "full", "make space", node=f"m{number}") for number in range(2)]
    green, red = together(lines)
    assert green.node == "100 nodes: n0, n1, n2, n3 and 96 more"
    assert (red.node, red.found) == ("2 nodes: m0, m1", "full")


def test_what_lines_add_up_to():
    lines = [Line("a", "b", "green", ""), Line("a", "c", "yellow", ""), Line("a", "d", "note", "")]
    assert (status_of(lines), status_of(lines, strict=True)) == (0, 1)
    assert status_of([*lines, Line("a", "e", "red", "")]) == 1
    assert overview([*lines, Line("a", "e", "red", "")]) == "1 green, 1 yellow, 1 red (e)"
    assert as_json(lines)["state"] == "yellow"
