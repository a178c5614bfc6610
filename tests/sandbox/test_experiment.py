from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from raysandbox.api import run
from raysandbox.config.schema import SandboxConfig
from raysandbox.core.errors import ConfigError, JobFailed, JobTimeout, MissingMetricError, WorkDirBusyError, WriteFailed
from raysandbox.core.events import read_events
from raysandbox.sandbox.experiment import run_experiment
from raysandbox.sandbox.state import RunFolder

Make = Callable[[str], SandboxConfig]

CHAIN = """
work_dir: work
probe_job_configs:
  - {hook: WriteHook, meta_name: first, output: [path, value], extra_configs: {path: work/a.txt, text: A, value: 0}}
execution_job_configs:
  - {hook: WriteHook, meta_name: second, input: {extra_configs.reads: -1.path}, output: [path],
     extra_configs: {path: work/b.txt, text: B}}
  - {hook: WriteHook, meta_name: third, extra_configs: {reads: work/b.txt, path: work/c.txt, text: C}}
evaluation_job_configs:
  - {hook: WriteHook, meta_name: apart, extra_configs: {text: D}}
"""


def events(work_dir: Path, name: str) -> list[str]:
    return [event["job"] for event in read_events(work_dir / "journal.jsonl") if event["event"] == name]


def test_a_chain_of_jobs_and_what_it_leaves(make_config: Make, workspace: Path, runs: Counter[str]) -> None:
    result = run_experiment(make_config(CHAIN))
    assert (workspace / "work/c.txt").read_text() == "ABC"
    assert result.context_infos == [
        {
            "iter": 1,
            "pipeline_infos": [
                {
                    "pipeline_name": "anonymous",
                    "job_infos": [
                        {"meta_name": "first", "path": "work/a.txt", "value": 0},
                        {"meta_name": "second", "path": "work/b.txt"},
                        {"meta_name": "third"},
                        {"meta_name": "apart"},
                    ],
                }
            ],
        }
    ]
    work = workspace / "work"
    assert json.loads((work / "context_infos.json").read_text()) == result.context_infos
    status = json.loads((work / "status.json").read_text())
    assert (status["state"], status["exit"], set(status["jobs"].values())) == ("done", 0, {"done"})
    assert next(iter(status["jobs"])) == "anonymous.first#0"
    for name in ("config.yaml", "journal.jsonl", "metrics.jsonl", "logs", "artifacts", "quarantine"):
        assert (work / name).exists(), name
    metrics = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    assert {"first.length", "first.value", "third.length"} <= {metric["name"] for metric in metrics}


def test_resume_repeats_nothing(make_config: Make, workspace: Path, runs: Counter[str]) -> None:
    first = run_experiment(make_config(CHAIN))
    second = run_experiment(make_config(CHAIN), resume=True)
    assert second.context_infos == first.context_infos
    assert set(runs.values()) == {1}
    assert len(events(workspace / "work", "job_cached")) == 4


def test_a_changed_parameter_reruns_the_job_and_what_depends_on_it(
    make_config: Make, workspace: Path, runs: Counter[str]
) -> None:
    run_experiment(make_config(CHAIN))
    run_experiment(make_config(CHAIN.replace("text: B", "text: X")), resume=True)
    assert runs == {"first": 1, "second": 2, "third": 2, "apart": 1}
    assert (workspace / "work/c.txt").read_text() == "AXC"


@pytest.mark.parametrize("damage", ["delete", "truncate", "marker"])
def test_a_damaged_artefact_or_marker_runs_again(
    make_config: Make, workspace: Path, runs: Counter[str], damage: str
) -> None:
    run_experiment(make_config(CHAIN))
    target = workspace / "work/a.txt"
    if damage == "delete":
        target.unlink()
    elif damage == "truncate":
        target.write_text("")
    else:
        for marker in (workspace / "work/artifacts/markers").iterdir():
            marker.write_text("")
    run_experiment(make_config(CHAIN), resume=True)
    assert runs["first"] == 2
    assert (workspace / "work/c.txt").read_text() == "ABC"


def test_a_path_that_a_later_job_writes_is_no_input(make_config: Make, runs: Counter[str]) -> None:
    text = """
work_dir: work
probe_job_configs:
  - {hook: WriteHook, meta_name: names, extra_configs: {text: work/later.txt}}
execution_job_configs:
  - {hook: WriteHook, meta_name: writes, extra_configs: {path: work/later.txt}}
"""
    run_experiment(make_config(text))
    run_experiment(make_config(text), resume=True)
    assert runs == {"names": 1, "writes": 1}


def test_an_added_job_does_not_rerun_the_others(make_config: Make, runs: Counter[str]) -> None:
    run_experiment(make_config(CHAIN))
    added = CHAIN.replace("probe_job_configs:", "probe_job_configs:\n  - {hook: WriteHook, meta_name: zeroth}")
    run_experiment(make_config(added), resume=True)
    assert runs == {"first": 1, "second": 1, "third": 1, "apart": 1, "zeroth": 1}


def test_without_resume_the_earlier_state_moves_aside(make_config: Make, workspace: Path, runs: Counter[str]) -> None:
    run_experiment(make_config(CHAIN))
    (workspace / "work/users.txt").write_text("mine")
    run_experiment(make_config(CHAIN))
    run_experiment(make_config(CHAIN))
    assert set(runs.values()) == {3}
    assert sorted(path.name for path in (workspace / "work/previous").iterdir()) == ["1", "2"]
    assert (workspace / "work/previous/1/journal.jsonl").exists()
    assert (workspace / "work/users.txt").read_text() == "mine"


def test_four_falsy_outputs_stay_different(make_config: Make) -> None:
    jobs = "\n".join(
        f"  - {{hook: WriteHook, meta_name: m{n}, output: [path, value], extra_configs: {{value: {value}}}}}"
        for n, value in enumerate(["0", "0.0", "[]", "null"])
    )
    text = f"work_dir: work\nprobe_job_configs:\n{jobs}\n"
    infos = run_experiment(make_config(text)).context_infos[0]["pipeline_infos"][0]["job_infos"]
    assert [repr(info["value"]) for info in infos] == ["0", "0.0", "[]", "None"]
    again = run_experiment(make_config(text), resume=True).context_infos[0]["pipeline_infos"][0]["job_infos"]
    assert [repr(info["value"]) for info in again] == ["0", "0.0", "[]", "None"]


ITERATED = """
work_dir: work
max_iter_num: 4
iter_targets: ["anonymous.count.value >= 3", "anonymous.count.value <= 9"]
iter_updater: {anonymous.next.value: anonymous.count.extra_configs.value}
execution_job_configs:
  - {hook: WriteHook, meta_name: count, output: [path, value], extra_configs: {value: 1, path: work/count.txt}}
  - {hook: WriteHook, meta_name: same, output: [path], extra_configs: {text: same, path: work/same.txt}}
  - {hook: WriteHook, meta_name: reader, extra_configs: {reads: work/same.txt, path: work/read.txt}}
  - {hook: WriteHook, meta_name: next, output: [path, value], extra_configs: {value: 3}}
"""


def test_iterations_end_at_the_targets_and_share_equal_jobs(
    make_config: Make, workspace: Path, runs: Counter[str]
) -> None:
    result = run_experiment(make_config(ITERATED))
    assert result.iterations == 2
    assert result.unmet == ()
    assert runs == {"count": 2, "same": 1, "reader": 1, "next": 1}
    work = workspace / "work"
    assert (work / "iter_1/same.txt").read_text() == (work / "iter_2/same.txt").read_text() == "same"
    second = {info["meta_name"]: info for info in result.context_infos[1]["pipeline_infos"][0]["job_infos"]}
    assert second["count"]["value"] == 3
    assert second["same"]["path"] == str(work / "iter_2/same.txt")
    again = run_experiment(make_config(ITERATED), resume=True)
    assert again.context_infos == result.context_infos
    assert runs["count"] == 2


def test_unmet_targets_end_well_and_are_said(make_config: Make, workspace: Path) -> None:
    text = ITERATED.replace(">= 3", ">= 30")
    result = run_experiment(make_config(text))
    assert (result.iterations, result.unmet) == (4, ("anonymous.count.value >= 30",))
    status = json.loads((workspace / "work/status.json").read_text())
    assert status["exit"] == 0
    assert "not met" in status["notes"][0]
    anyone = run_experiment(make_config(text.replace("max_iter_num: 4", "max_iter_num: 4\niter_targets_mode: any")))
    assert (anyone.iterations, anyone.unmet) == (1, ())


def test_a_target_without_a_value_fails_the_run(make_config: Make) -> None:
    with pytest.raises(MissingMetricError):
        run_experiment(make_config(ITERATED.replace("{value: 1, path", "{path")))


def test_foreach_runs_once_per_element(make_config: Make, workspace: Path, runs: Counter[str]) -> None:
    text = """
work_dir: work
probe_job_configs:
  - {hook: WriteHook, meta_name: list, output: [path, value], extra_configs: {value: [x, y, z]}}
execution_job_configs:
  - {hook: WriteHook, meta_name: each, foreach: anonymous.list.value, input: {extra_configs.text: item},
     output: [path, value], extra_configs: {path: work/each.txt, value: 0}}
"""
    infos = run_experiment(make_config(text)).context_infos[0]["pipeline_infos"][0]["job_infos"]
    assert [Path(path).read_text() for path in infos[1]["path"]] == ["x", "y", "z"]
    assert infos[1]["value"] == [0, 0, 0]
    run_experiment(make_config(text), resume=True)
    assert runs["each"] == 3


def test_failures_are_told_apart(make_config: Make, workspace: Path, runs: Counter[str]) -> None:
    failing = (
        "work_dir: work\nprobe_job_configs:\n  - {hook: WriteHook, meta_name: f, extra_configs: {fail_times: 2}%s}\n"
    )
    with pytest.raises(JobFailed, match=r"job anonymous.f#0 failed: asked to fail"):
        run_experiment(make_config(failing % ""))
    status = json.loads((workspace / "work/status.json").read_text())
    assert (status["state"], status["exit"], status["jobs"]) == ("failed", 1, {"anonymous.f#0": "failed"})
    runs.clear()
    run_experiment(make_config(failing % ", retries: 2"))
    assert runs["f"] == 3
    with pytest.raises(JobTimeout, match=r"timeout_s of 0\.2"):
        run_experiment(
            make_config(
                "work_dir: work\nprobe_job_configs: [{hook: WriteHook, timeout_s: 0.2, extra_configs: {sleep_s: 30}}]"
            )
        )
    with pytest.raises(JobFailed, match="ZeroDivisionError: a defect"):
        run_experiment(make_config("work_dir: work\nprobe_job_configs:\n  - {hook: BreakHook, meta_name: b}"))
    assert "Traceback" in next((workspace / "work/logs").glob("*b.log")).read_text()


def test_a_job_reads_by_a_link_what_an_earlier_one_has_just_written(make_config: Make, workspace: Path) -> None:
    (workspace / "scratch").mkdir()
    (workspace / "work").symlink_to("scratch")
    (workspace / "scratch/a.txt").write_text("old")
    text = """
work_dir: work
max_iter_num: 2
probe_job_configs:
  - {hook: WriteHook, meta_name: one, extra_configs: {path: work/a.txt, text: new}}
execution_job_configs:
  - {hook: WriteHook, meta_name: two, extra_configs: {reads: scratch/a.txt, path: scratch/b.txt, text: +}}
"""
    run_experiment(make_config(text))
    assert (workspace / "work/iter_2/b.txt").read_text() == "new+"
    assert sorted(path.name for path in workspace.rglob("[ab].txt")) == ["a.txt", "a.txt", "a.txt", "b.txt", "b.txt"]


def test_run_refuses_what_check_refuses_and_missing_paths(make_config: Make, workspace: Path) -> None:
    text = "work_dir: work\nprobe_job_configs:\n  - {hook: WriteHook, extra_configs: {reads: none.txt}}"
    with pytest.raises(ConfigError, match=r"'none.txt' does not exist"):
        run_experiment(make_config(text))
    status = json.loads((workspace / "work/status.json").read_text())
    assert (status["state"], status["exit"]) == ("config_error", 2)


def test_a_second_run_is_refused_with_the_pid_of_the_first(make_config: Make, workspace: Path) -> None:
    holder = "import sys, time; from pathlib import Path; from raysandbox.sandbox.state import RunFolder\n"
    holder += "with RunFolder(Path('work')): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(WorkDirBusyError, match=f"pid {process.pid}"):
            run_experiment(make_config(CHAIN))
    finally:
        process.kill()
        process.communicate()
    with RunFolder(workspace / "work"):
        assert int((workspace / "work/.lock").read_text()) == os.getpid()


def test_a_report_that_a_full_disk_refuses_fails_the_run(make_config: Make, workspace: Path) -> None:
    tries: list[int] = []

    def full(work_dir: Path) -> None:
        tries.append((work_dir / ".lock").stat().st_size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(work_dir / "report.md"))

    with pytest.raises(WriteFailed, match=r"report\.md: No space left on device"):
        run_experiment(make_config(CHAIN), at_end=full)
    status = json.loads((workspace / "work/status.json").read_text())
    assert (status["state"], status["exit"]) == ("failed", 1)
    assert "report.md: No space left on device" in status["error"]
    assert [size > 1000 for size in tries] == [True, True, False]  # the last one in the room that was kept
    assert run_experiment(make_config(CHAIN), resume=True).iterations == 1


def test_named_pipelines_share_the_last_output(make_config: Make, workspace: Path) -> None:
    text = """
work_dir: work
pipelines:
  - one: {probe_job_configs: [{hook: WriteHook, meta_name: m, output: [path], extra_configs: {path: a.txt, text: A}}]}
  - two: {probe_job_configs: [{hook: WriteHook, meta_name: m, input: {extra_configs.reads: -1.path},
          extra_configs: {path: b.txt, text: B}}]}
"""
    result = run_experiment(make_config(text))
    assert (workspace / "b.txt").read_text() == "AB"
    assert [info["pipeline_name"] for info in result.context_infos[0]["pipeline_infos"]] == ["one", "two"]


def test_own_stages_in_their_order(make_config: Make, workspace: Path) -> None:
    text = """
work_dir: work
stages: [second, first]
first_job_configs: [{hook: WriteHook, meta_name: reader, extra_configs: {reads: a.txt, path: b.txt}}]
second_job_configs: [{hook: WriteHook, meta_name: writer, extra_configs: {path: a.txt}}]
"""
    run_experiment(make_config(text))
    assert (workspace / "b.txt").read_text() == "xx"


def test_a_refused_configuration_does_not_displace_the_run(make_config: Make, workspace: Path) -> None:
    Path("good.yaml").write_text(CHAIN)
    run("good.yaml")
    for override in ("max_itr_num=2", "probe_job_configs.first.hook=WritHook"):
        with pytest.raises(ConfigError):
            run("good.yaml", [override])
        status = json.loads((workspace / "work/status.json").read_text())
        assert (status["state"], status["exit"]) == ("config_error", 2)
    assert not (workspace / "work/previous").exists()
    run("good.yaml", resume=True)
    assert len(events(workspace / "work", "job_cached")) == 4


def test_a_folder_that_cannot_be_made(make_config: Make, workspace: Path) -> None:
    (workspace / "file").write_text("")
    for work_dir in ("file", "file/below"):
        with pytest.raises(ConfigError, match="work_dir"):
            run_experiment(make_config(CHAIN.replace("work_dir: work", f"work_dir: {work_dir}")))


def test_literal_names_and_the_home_folder(make_config: Make, workspace: Path, runs: Counter[str]) -> None:
    text = "work_dir: work\nprobe_job_configs: [{hook: WriteHook, extra_configs: {reads: 'd[1].txt', path: ~/out.txt}}]"
    (workspace / "d[1].txt").write_text("one ")
    run_experiment(make_config(text))
    assert (Path.home() / "out.txt").read_text() == "one x"
    (workspace / "d[1].txt").write_text("two ")
    run_experiment(make_config(text), resume=True)
    assert (Path.home() / "out.txt").read_text() == "two x"


def test_foreach_over_an_unpacked_list_of_one(make_config: Make) -> None:
    text = """
work_dir: work
probe_job_configs:
  - {hook: WriteHook, meta_name: list, output: [path, value], extra_configs: {value: [only]}}
  - {hook: WriteHook, meta_name: each, foreach: anonymous.list.value, input: {extra_configs.value: item},
     output: [path, value]}
"""
    infos = run_experiment(make_config(text)).context_infos[0]["pipeline_infos"][0]["job_infos"]
    assert infos[1]["value"] == ["only"]


def test_the_iteration_is_no_part_of_a_key(make_config: Make, runs: Counter[str]) -> None:
    text = """
work_dir: work
max_iter_num: 4
iter_updater: {anonymous.m.path: anonymous.n.extra_configs.reads}
execution_job_configs:
  - {hook: WriteHook, meta_name: m, output: [path], extra_configs: {path: work/m.txt, text: same}}
  - {hook: WriteHook, meta_name: n, extra_configs: {path: work/n.txt}}
"""
    run_experiment(make_config(text))
    assert runs == {"m": 1, "n": 2}  # without and with what it reads
