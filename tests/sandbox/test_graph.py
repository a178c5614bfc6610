"""Which jobs wait for which: each kind of edge, and what is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raysandbox.config.schema import SandboxConfig
from raysandbox.sandbox.graph import Footprint, footprint, job_graph
from raysandbox.sandbox.plan import make_plan

Make = Callable[[str], SandboxConfig]


def made(*parts: object, reads: tuple[str, ...] = (), writes: tuple[str, ...] = (), **more: object) -> Footprint:
    return footprint(parts, reads, writes, **more)  # type: ignore[arg-type]


def after(*jobs: Footprint) -> tuple[tuple[int, ...], ...]:
    return job_graph(jobs, [()] * len(jobs)).after


A = made({"export_path": "out/a.jsonl"}, writes=("out/a.jsonl",))
FOLDER = made({"work_dir": "out/model"}, writes=("out/model",))


@pytest.mark.parametrize(
    ("first", "second", "edge"),
    [
        (A, made(reads=("out/a.jsonl",)), True),
        (A, made(reads=("./out//a.jsonl",)), True),
        (A, made(reads=("out",)), True),  # a folder in which it is
        (A, made(reads=("out/*.jsonl",)), True),
        (A, made(reads=("out/b.jsonl",)), False),
        (FOLDER, made(reads=("out/model/checkpoint-3",)), True),
        (FOLDER, made(reads=("out/model_2",)), False),
        (FOLDER, made({"args": {"options": ["--weights=out/model/last.bin"]}}), True),
        (FOLDER, made({"command": "run.sh --in=/mnt/other/out/model --x"}), True),  # wherever that folder is
        (FOLDER, made({"script": "cd x\npython t.py out/model"}), True),
        (FOLDER, made({"command": "run.sh out/model10"}), False),
        (FOLDER, made({"a": "model", "b": "full of model"}), False),
        (A, made({"mix": "0.3 out/a.jsonl 0.7 b.jsonl"}), True),
        (A, made({"key": "."}), False),
        (A, made(reads=(".",)), True),
        (A, A, True),  # both write it
        (FOLDER, made(writes=("out/model/more",)), True),
        (made(writes=("out/model/more",)), FOLDER, True),
        (made(reads=("out/a.jsonl",)), A, True),  # what one reads, a later one writes
        (made({"x": "--in out/model/y"}), FOLDER, True),
        (made({"x": "--in /elsewhere/out/model/y"}), FOLDER, True),
        (made(reads=("in.jsonl",)), made(reads=("in.jsonl",)), False),
        (made(writes=("my data/a.txt",)), made({"x": "--in my data/a.txt"}), True),
        (made({"x": "--in my data/a.txt"}), made(writes=("my data/a.txt",)), True),
        (made(makes=["probe p"]), made(uses=["probe p"]), True),
        (made(makes=["probe p"]), made(uses=["probe q"]), False),
        (made(uses=["probe p"]), made(makes=["probe p"]), True),  # it would get the later one's
        (made(is_open=True), made(), True),
        (made(), made(is_open=True), True),
        (made(), made(), False),
    ],
)
def test_edges(first: Footprint, second: Footprint, edge: bool) -> None:
    assert after(first, second) == ((), (0,) if edge else ())


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("link/out.jsonl", "real/out.jsonl"),
        ("real/out.jsonl", "link/out.jsonl"),
        ("link/model", "{}/real/model/last.bin"),
        ("{}/again/real/out.jsonl", "real/out.jsonl"),  # the current directory has another name, too
        ("{}/again/real/out.jsonl", "link/*.jsonl"),
        ("real/out.jsonl", "latest"),
    ],
)
def test_links_lead_to_what_another_job_writes(workspace: Path, written: str, read: str) -> None:
    (workspace / "real").mkdir()
    (workspace / "link").symlink_to("real")
    (workspace / "again").symlink_to(".")
    (workspace / "latest").symlink_to("link/out.jsonl")
    written, read = written.format(workspace), read.format(workspace)
    writer, reader = made(writes=(written,)), made(reads=(read,))
    assert after(writer, reader) == after(reader, writer) == ((), (0,))
    if "*" not in read:
        assert after(writer, made({"command": f"--in={read}"})) == ((), (0,))
    assert after(writer, made(reads=("real/other",))) == ((), ())


def test_edges_that_follow_from_others_are_left_out() -> None:
    free = made()
    assert job_graph([free] * 4, [(), (0,), (0, 1), (2, 0)]).after == ((), (0,), (1,), (2,))
    assert after(free, made(is_open=True), free, made(is_open=True)) == ((), (0,), (1,), (2,))


def test_a_chain() -> None:
    free = made()
    assert job_graph([free] * 3, [(), (0,), (1,)]).is_chain
    assert job_graph([free] * 3, [(), (0,), (0, 1)]).is_chain
    assert not job_graph([free] * 3, [(), (0,), (0,)]).is_chain
    assert job_graph([free], [()]).is_chain


def test_a_thousand_jobs(workspace: Path) -> None:
    jobs = []
    for number in range(1000):
        data, model = f"work/pool_{number}.jsonl", f"work/model_{number}"
        jobs.append(made({"export_path": data, "dataset_path": "in.jsonl"}, reads=("in.jsonl",), writes=(data,)))
        jobs.append(made({"train": data, "work_dir": model}, reads=(data,), writes=(model,)))
    began = time.process_time()
    graph = job_graph(jobs, [()] * len(jobs))
    assert time.process_time() - began < 10
    assert graph.after == tuple((number - 1,) if number % 2 else () for number in range(2000))


def test_edges_of_a_configuration(make_config: Make, workspace: Path) -> None:
    (workspace / "in.txt").write_text("x")
    plan = make_plan(
        make_config("""
work_dir: work
probe_job_configs:
  - {hook: WriteHook, meta_name: first, output: [path], extra_configs: {path: work/a.txt, reads: in.txt}}
  - {hook: WriteHook, meta_name: beside, output: [other, value], extra_configs: {path: work/b.txt, reads: in.txt}}
execution_job_configs:
  - {hook: WriteHook, meta_name: last, input: {extra_configs.value: -1.value}}
  - {hook: WriteHook, meta_name: named, extra_configs: {value: ["x work/a.txt"]}}
  - {hook: WriteHook, meta_name: each, foreach: anonymous.first.path, input: {extra_configs.text: item}}
  - {hook: WriteHook, meta_name: free}
""")
    )
    assert plan.graph().after == ((), (), (1,), (0,), (0,), ())
    last = plan.jobs[2].entry
    assert plan.graph({last: {"extra_configs.value": 3}}).after == plan.graph().after
    # A text may be a path that it writes then.
    assert plan.graph({last: {"extra_configs.value": "work/x"}}).after == ((), (), (0, 1), (2,), (2,), (2,))
