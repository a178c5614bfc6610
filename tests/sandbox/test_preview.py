from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from raysandbox.config.schema import SandboxConfig
from raysandbox.sandbox.experiment import run_experiment
from raysandbox.sandbox.plan import make_plan
from raysandbox.sandbox.preview import preview, resource_problems

TEXT = """
work_dir: work
probe_job_configs:
  - {hook: WriteHook, meta_name: list, output: [path, value], extra_configs: {value: [x, y], text: A}}
execution_job_configs:
  - {hook: WriteHook, meta_name: each, foreach: anonymous.list.value, input: {extra_configs.text: item},
     output: [path], extra_configs: {path: work/each.txt}}
  - {hook: WriteHook, meta_name: apart, extra_configs: {text: B}}
"""


def states(config: SandboxConfig) -> list[str]:
    return [found.state for found in preview(make_plan(config), Path("work"), None)]


def test_what_resume_would_do(make_config: Callable[[str], SandboxConfig], workspace: Path) -> None:
    assert states(make_config(TEXT)) == ["run", "depends", "run"]
    assert not Path("work").exists()
    run_experiment(make_config(TEXT))
    assert states(make_config(TEXT)) == ["cached", "cached", "cached"]
    assert states(make_config(TEXT.replace("text: B", "text: C"))) == ["cached", "cached", "run"]
    assert states(make_config(TEXT.replace("text: A", "text: C"))) == ["run", "depends", "cached"]
    next(Path("work").glob("**/each.txt")).write_text("damaged")
    assert states(make_config(TEXT)) == ["cached", "run", "cached"]


def test_resources_are_compared_with_this_machine(make_config: Callable[[str], SandboxConfig]) -> None:
    job = "{hook: TrainModelHook, meta_name: %s, resources: {num_cpus: %s}, extra_configs: {type: fake, work_dir: %s}}"
    text = f"execution_job_configs: [{job % ('small', 0.1, 'a')}, {job % ('huge', 100_000, 'b')}]"
    machine, lacking = resource_problems(make_plan(make_config(text)))
    assert machine.startswith("this machine: ")
    assert [entry.config.meta_name for entry in lacking] == ["huge"]


def test_statistics_that_the_store_holds(make_config: Callable[[str], SandboxConfig], workspace: Path) -> None:
    Path("in.jsonl").write_text('{"text": "a few words"}\n')
    recipe = "{dataset_path: in.jsonl, export_path: work/o.jsonl, process: [{text_length_filter: {min_len: %d}}]}"
    job = "{hook: ProcessDataHook, meta_name: data, output: [path], dj_configs: %s}"

    def config(threshold: int) -> SandboxConfig:
        return make_config(f"work_dir: work\nexecution_job_configs: [{job % (recipe % threshold)}]")

    def seen(threshold: int) -> list[tuple[str, str]]:
        return [(p.state, p.note) for p in preview(make_plan(config(threshold)), Path("work"), None)]

    assert seen(1) == [("run", "statistics: 0 of 1 stored")]
    run_experiment(config(1))
    assert seen(1) == [("cached", "")]
    assert seen(2) == [("run", "statistics: 1 of 1 stored")]
