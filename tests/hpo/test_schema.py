from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysandbox.config.load import read_config
from raysandbox.core.errors import Problem
from raysandbox.hpo import algorithms
from raysandbox.hpo.assign import with_values
from raysandbox.hpo.schema import Metric, Search, read_search
from raysandbox.sandbox.paths import PathMap
from raysandbox.sandbox.plan import make_plan

JOBS = """\
experiment_name: planted
execution_job_configs:
  - hook: ProcessDataHook
    meta_name: process
    dj_configs: {dataset_path: data.jsonl, export_path: outputs/planted/out.jsonl, process: [text_length_filter]}
    output: [path]
  - hook: TrainModelHook
    meta_name: train
    input: {extra_configs.train_dataset: -1.path}
    extra_configs: {type: fake, work_dir: outputs/planted/model, steps: 3}
    output: [model]
evaluation_job_configs:
  - hook: EvaluateDataHook
    meta_name: eval
    input: {extra_configs.predicted_dataset_path: anonymous.process.path}
    extra_configs: {type: accuracy, predicted_label_key: a, ground_truth_label_key: b}
    output: [score]
"""
SWEEP: dict[str, Any] = {
    "method": "random",
    "run_cap": 5,
    "metric": {"name": "train.loss"},
    "parameters": {"text_length_filter.min_len": {"min": 1, "max": 50}},
}


@pytest.fixture(autouse=True)
def _files(workspace: Path) -> None:
    Path("data.jsonl").write_text('{"text": "a"}\n')
    Path("cfg.yaml").write_text("hpo_config: sweep.yaml\n" + JOBS)


def read(sweep: Any, *overrides: str) -> tuple[Search | None, list[Problem]]:
    """Reads `sweep.yaml` of this content, which must have no problem beside those of the search."""
    Path("sweep.yaml").write_text(sweep if isinstance(sweep, str) else yaml.safe_dump(sweep, sort_keys=False))
    config, problems = read_config("cfg.yaml", overrides)
    assert config is not None
    assert not problems, problems
    plan = make_plan(with_values(config, []))
    assert not plan.problems
    return read_search(config, plan)


def search(sweep: Any, *overrides: str) -> Search:
    found, problems = read(sweep, *overrides)
    assert found is not None, problems
    return found


def test_a_sweep_of_wandb_is_read_as_it_is() -> None:
    found, problems = read(
        """\
program: train.py
project: elsewhere
entity: somebody
command: [python, "${args}"]
controller: {type: local}
description: a sweep
name: of wandb
sweep_name: of the sandbox
sweep_max_count: 20
run_cap: 30
method: bayes
metric: {name: train.loss, goal: minimize, target: 0.1, impute: worst}
early_terminate: {type: hyperband, max_iter: 27, s: 2, eta: 3, strict: false}
parameters:
  text_length_filter.min_len: {distribution: q_log_uniform_values, min: 1, max: 50}
  anonymous:
    parameters:
      train:
        parameters:
          extra_configs.steps: {values: [1, 2, 3]}
"""
    )
    assert found is not None, problems
    assert found.name == "of the sandbox"
    assert found.metric == Metric("train.loss", "minimize", 0.1)
    assert found.num_points == found.num_trials == 20
    assert found.early_terminate == {"type": "hyperband", "max_iter": 27, "s": 2, "eta": 3.0, "strict": False}
    assert found.search_alg == {"type": "optuna", "sampler": "tpe"}
    assert found.addresses == {
        "text_length_filter.min_len": ("execution_job_configs.0.dj_configs.process.text_length_filter.min_len",),
        "anonymous.train.extra_configs.steps": ("execution_job_configs.1.extra_configs.steps",),
    }
    assert found.raw["project"] == "elsewhere"
    assert [(p.severity, p.file, p.line, p.message.split("'")[1]) for p in problems if "no effect" in p.message] == [
        ("warning", "sweep.yaml", 1, "program"),
        ("warning", "sweep.yaml", 4, "command"),
        ("warning", "sweep.yaml", 3, "entity"),
        ("warning", "sweep.yaml", 2, "project"),
        ("warning", "sweep.yaml", 5, "controller"),
        ("warning", "sweep.yaml", 12, "impute"),
        ("warning", "sweep.yaml", 13, "strict: false"),
    ]
    rest = [problem for problem in problems if "no effect" not in problem.message]
    assert len(rest) == 1
    assert "Optuna's tree-structured Parzen estimator here; wandb's is a Gaussian process" in str(rest[0])


def test_our_own_keys() -> None:
    found, problems = read(
        SWEEP
        | {
            "search_alg": {"type": "optuna", "sampler": "tpe", "multivariate": True},
            "method": "bayes",
            "scheduler": {"type": "asha", "max_t": 9},
            "max_concurrent": 2,
            "resources_per_trial": [{"num_cpus": 1}, {"CPU": 1, "num_gpus": 0.5, "my_card": 1}],
            "time_budget": "1h30m",
            "trial_timeout": 90,
            "seeds": 3,
            "points_to_evaluate": [{"text_length_filter.min_len": 7}],
            "seed": 1,
            "rerun_failed": True,
        }
    )
    assert found is not None, problems
    assert not problems
    assert found.search_alg == {"type": "optuna", "sampler": "tpe", "multivariate": True}
    wanted = {"max_t": 9, "grace_period": 1, "reduction_factor": 4, "brackets": 1, "stop_last_trials": True}
    assert found.scheduler == {"type": "asha", **wanted}
    assert found.resources_per_trial == ({"CPU": 1}, {"CPU": 1, "GPU": 0.5, "my_card": 1})
    assert (found.time_budget_s, found.trial_timeout_s) == (5400, 90)
    assert (found.seeds, found.seed_addresses) == ((0, 1, 2), ("execution_job_configs.1.extra_configs.seed",))
    assert (found.num_points, found.num_trials) == (5, 15)
    assert found.points_to_evaluate == ({"text_length_filter.min_len": 7},)
    assert (found.max_concurrent, found.seed, found.rerun_failed) == (2, 1, True)


def test_what_is_left_out() -> None:
    found, problems = read(SWEEP)
    assert found is not None
    assert not problems
    assert found.name == "planted"
    assert found.metric.goal == "minimize"
    assert (found.seed, found.seeds, found.rerun_failed) == (42, (), False)
    assert found.search_alg is found.scheduler is found.early_terminate is found.resources_per_trial is None


def without(*keys: str, **more: Any) -> dict[str, Any]:
    return {key: value for key, value in (SWEEP | more).items() if key not in keys}


def with_parameter(**forms: Any) -> dict[str, Any]:
    return SWEEP | {"parameters": SWEEP["parameters"] | {key.replace("__", "."): f for key, f in forms.items()}}


ERRORS: list[tuple[Any, int | None, str]] = [
    ([1], 1, "is not a mapping (start with method, metric and parameters)"),
    (without("method"), 1, "method: is required (add method: grid, random or bayes)"),
    (SWEEP | {"method": "baies"}, 1, "method: should be 'grid', 'random' or 'bayes', not 'baies'"),
    (SWEEP | {"method": "custom"}, 1, "custom is for wandb's own scheduler jobs (write search_alg: optuna or ax"),
    (SWEEP | {"scheduler": {"engine": "optuna"}}, 10, "is for wandb's own scheduler jobs"),
    (SWEEP | {"metrics": [{"name": "a"}]}, 9, "several metrics at once are not in this version (write one `metric`)"),
    (without("metric"), 1, "metric: is required"),
    (SWEEP | {"metric": {"name": "train.loss", "goal": "max"}}, 5, "should be 'minimize' or 'maximize', not 'max'"),
    (SWEEP | {"metric": {"name": "scor"}}, 4, "did you mean 'score'?"),
    (SWEEP | {"metric": "a.b"}, 3, "metric: should be a mapping such as {name: a.b, goal: minimize}, not 'a.b'"),
    (SWEEP | {"metric": {"name": "path"}}, 4, "metric 'path' is no number: ProcessDataHook returns export_path"),
    (with_parameter(text_length_filter__max_len=[5, 6]), 9, "(write text_length_filter.max_len: {values: [5, 6]})"),
    (
        with_parameter(
            anonymous__process__dj_configs__export_path={"values": ["outputs/planted/a.jsonl", "else/b.jsonl"]}
        ),
        9,
        "'else/b.jsonl' does not fit: job anonymous.process#0: every trial of the search would write 'else/b.jsonl'",
    ),
    (SWEEP | {"early_terminate": "hyperband"}, 9, "early_terminate: should be a mapping, not 'hyperband'"),
    (SWEEP | {"metric": {"nam": "score"}}, 4, "unknown key 'nam' (did you mean 'name'?)"),
    (without("parameters"), 1, "names no parameters"),
    (without("run_cap"), 1, "method random would never end (add run_cap: 20, or time_budget: 2h, or metric.target)"),
    (SWEEP | {"run_cap": 0}, 2, "run_cap: should be greater than or equal to 1"),
    (SWEEP | {"runcap": 3}, 9, "unknown key 'runcap' (did you mean 'run_cap'?)"),
    (SWEEP | {"method": "grid", "parameters": {"text_length_filter.min_len": {"distribution": "normal"}}}, 6, "grid"),
    (with_parameter(text_length_filter__max_len={"mim": 1}), 10, "unknown key 'mim' (did you mean 'min'?)"),
    (with_parameter(text_length_filte__max_len={"value": 1}), 9, "did you mean 'text_length_filter.max_len'?"),
    (with_parameter(text_length_filter__max_le={"value": 9}), 9, "unknown parameter 'max_le' of text_length_filter"),
    (with_parameter(anonymous__train__extra_configs__setps={"value": 9}), 9, "did you mean 'steps'?"),
    (with_parameter(anonymous__train__extra_configs__steps={"min": 0, "max": 9}), 9, "0 does not fit"),
    (with_parameter(anonymous__train__extra_configs__steps={"values": [1, "x", 2]}), 9, "'x' does not fit"),
    (with_parameter(max_iter_num={"min": 0.5, "max": 2.5}), 9, "does not fit"),
    (SWEEP | {"early_terminate": {"type": "envelope"}}, 10, "early_terminate.type: should be 'hyperband'"),
    (SWEEP | {"early_terminate": {"type": "hyperband", "max_iter": 9}}, 9, "needs min_iter, or max_iter together"),
    (SWEEP | {"early_terminate": {"type": "hyperband", "min_iter": 2, "s": 1}}, 9, "or max_iter together with s"),
    (SWEEP | {"early_terminate": {"type": "hyperband", "max_iter": 2, "s": 1}}, 9, "below 1: there is no rung"),
    (SWEEP | {"early_terminate": {"type": "hyperband", "min_iter": 1, "maxiter": 1}}, 12, "did you mean 'max_iter'?"),
    (SWEEP | {"early_terminate": {"type": "hyperband", "min_iter": 1}, "scheduler": "asha"}, 12, "keep one"),
    (SWEEP | {"scheduler": "ashaa"}, 9, "unknown scheduler 'ashaa' (did you mean 'asha'?)"),
    (SWEEP | {"scheduler": "resource_changing"}, 9, "here a trial keeps its resources_per_trial"),
    (SWEEP | {"scheduler": "pbt_replay"}, 9, "replays the file of one earlier run"),
    (SWEEP | {"scheduler": 3}, 9, "should be a name, or {type: name, parameter: value}"),
    (SWEEP | {"scheduler": {"type": "asha", "max_t": 2, "grace_period": 3}}, 9, "max_t 2 is less than grace_period 3"),
    (SWEEP | {"scheduler": {"type": "asha", "time_attr": "time_total_s"}}, 11, "unknown key 'time_attr'"),
    (SWEEP | {"scheduler": {"type": "pbt", "perturbation_factors": [1.2, 0]}}, 11, "should be greater than 0"),
    (SWEEP | {"search_alg": "optuna"}, 9, "'optuna' does not go with method: random (write method: bayes"),
    (without("method", search_alg={"type": "optuna", "sampler": "tpe", "sigma0": 1}), 8, "sampler tpe has no sigma0"),
    (without("method", search_alg={"type": "optuna", "sampler": "tpee"}), 10, "should be 'tpe'"),
    (without("method", search_alg="optunna"), 8, "unknown search_alg 'optunna' (did you mean 'optuna'?)"),
    (without("method", search_alg="zoopt"), 8, "zoopt needs a package that is not installed (pip install 'zoopt')"),
    (without("method", "run_cap", search_alg="zoopt", time_budget="2h"), 7, "zoopt must know the number of points"),
    (SWEEP | {"time_budget": "soon"}, 9, "should be seconds, or a number with s, m, h or d such as 30m, not 'soon'"),
    (SWEEP | {"time_budget": -3}, 9, "time_budget: should be greater than 0"),
    (SWEEP | {"seeds": 0}, 9, "should be a number of repeats from 1 on, or a list of different seeds"),
    (SWEEP | {"seeds": [1, 1]}, 9, "a list of different seeds"),
    (SWEEP | {"seeds": 2, "seed_parameter": "anonymous.train.extra_configs.sed"}, 9, "did you mean 'seed'?"),
    (SWEEP | {"seeds": 2, "seed_parameter": "train.seed"}, 10, "matches nothing in the configuration"),
    (SWEEP | {"resources_per_trial": {"CPU": -1}}, 9, "amounts should be at least 0"),
    (SWEEP | {"points_to_evaluate": [{"text_length_filter.min_len": 51}]}, 10, "51 lies outside of the search space"),
    (SWEEP | {"points_to_evaluate": [{"text_length_filter.minlen": 5}]}, 10, "names no parameter"),
    (SWEEP | {"points_to_evaluate": [{}]}, 10, "gives no values"),
]


@pytest.mark.parametrize(("sweep", "line", "message"), ERRORS, ids=[message[:50] for *_, message in ERRORS])
def test_every_error_has_its_line_and_words(sweep: Any, line: int | None, message: str) -> None:
    found, problems = read(sweep)
    assert found is None
    wanted = [p for p in problems if message in str(p)]
    assert wanted, [str(problem) for problem in problems]
    assert wanted[0].severity == "error"
    assert (wanted[0].file, wanted[0].line) == ("sweep.yaml", line)


def test_all_errors_come_at_once() -> None:
    wrong = SWEEP | {"runcap": 1, "seeds": 0, "scheduler": "x", "metric": {"name": "nothing"}, "parameters": {"a": 1}}
    _, problems = read(wrong)
    assert sum(problem.severity == "error" for problem in problems) == 5


def test_a_method_that_is_misspelt_is_one_mistake() -> None:
    _, problems = read({"methd": "random", **{key: SWEEP[key] for key in ("metric", "parameters")}})
    assert [problem.message for problem in problems] == ["unknown key 'methd'", "is required"]


@pytest.mark.parametrize("wrong", ["[1, 2]", "''", "true"])
def test_a_search_is_a_path_or_a_mapping(wrong: str) -> None:
    Path("cfg.yaml").write_text(f"hpo_config: {wrong}\n" + JOBS)
    _, (problem,) = read_config("cfg.yaml")
    assert str(problem).startswith("cfg.yaml:1: hpo_config: should be the path of a sweep file, or a mapping with")


def test_an_inline_search_is_located_in_the_main_document() -> None:
    Path("cfg.yaml").write_text("hpo_config:\n  method: random\n  run_cpa: 3\n  metric: {name: score}\n" + JOBS)
    config, _ = read_config("cfg.yaml")
    assert config is not None
    _, problems = read_search(config, make_plan(with_values(config, [])))
    found = [str(problem) for problem in problems]
    assert "cfg.yaml:3: hpo_config.run_cpa: unknown key 'run_cpa' (did you mean 'run_cap'?)" in found
    assert any(text.startswith("cfg.yaml:1: hpo_config.parameters: names no parameters") for text in found)


def test_a_sweep_file_that_is_not_there() -> None:
    config, _ = read_config("cfg.yaml", ["hpo_config=gone.yaml"])
    assert config is not None
    found, problems = read_search(config, make_plan(with_values(config, [])))
    assert found is None
    assert "gone.yaml" in str(problems[0])


def test_inputs_are_looked_up_where_the_run_does(tmp_path: Path) -> None:
    """Under `ray job submit` below the root of outputs; a value that names a file there is right."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "other.jsonl").write_text('{"text": "a"}\n')
    choice = with_parameter(anonymous__process__dj_configs__dataset_path={"values": ["data.jsonl", "other.jsonl"]})
    _, problems = read(choice)
    assert [(p.missing_path, p.line, p.severity) for p in problems] == [(True, 9, "warning")]
    config, _ = read_config("cfg.yaml")
    assert config is not None
    paths = PathMap(config.settings.work_path, root)
    found, problems = read_search(config, make_plan(with_values(config, []), paths), paths)
    assert found is not None
    assert not problems


def test_what_is_wrong_without_the_search_is_not_said_again() -> None:
    Path("cfg.yaml").write_text("hpo_config: sweep.yaml\n" + JOBS.replace("steps: 3", "steps: 0"))
    Path("sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    config, _ = read_config("cfg.yaml")
    assert config is not None
    plan = make_plan(with_values(config, []))
    assert len(plan.problems) == 1
    found, problems = read_search(config, plan)
    assert found is not None
    assert not problems


def test_no_search() -> None:
    config, _ = read_config("cfg.yaml", ["hpo_config=null"])
    assert config is not None
    assert read_search(config, make_plan(config)) == (None, [])


def test_overrides_reach_parameters_whose_names_hold_dots() -> None:
    name = "text_length_filter.min_len"
    found = search(SWEEP, f"hpo_config.parameters.{name}.max=60", f"hpo_config.parameters.{name}.min=2")
    assert SWEEP["parameters"][name]["max"] == 50
    assert found.raw["parameters"] == {name: {"min": 2, "max": 60}}
    assert search(SWEEP, f"hpo_config.parameters.{name}={{values: [7]}}").space.parameters[0].values == (7,)


def test_overrides_reach_into_the_sweep_file() -> None:
    assert search(SWEEP, "hpo_config.run_cap=2", "hpo_config.metric.goal=maximize").num_points == 2
    Path("other.yaml").write_text(yaml.safe_dump(SWEEP | {"run_cap": 4, "seed": 9}))
    found = search(SWEEP, "hpo_config=other.yaml", "hpo_config.run_cap=3")
    assert (found.num_points, found.seed) == (3, 9)
    assert yaml.safe_load(Path("sweep.yaml").read_text())["run_cap"] == 5


@pytest.mark.parametrize(
    ("more", "points"),
    [
        ({"method": "grid", "parameters": {"text_length_filter.min_len": {"values": [1, 2, 3]}}}, 3),
        ({"method": "grid"}, 5),
        ({"sweep_max_count": 3}, 3),
        ({"sweep_max_count": 30}, 5),
        ({"run_cap": None, "time_budget": "2d"}, None),
        ({"run_cap": None, "metric": {"name": "train.loss", "target": 0.5}}, None),
    ],
)
def test_the_number_of_points(more: dict[str, Any], points: int | None) -> None:
    assert search(SWEEP | more).num_points == points


def test_a_method_follows_from_the_algorithm() -> None:
    for name, method in [("grid", "grid"), ("random", "random"), ("optuna", "bayes")]:
        assert search(without("method", search_alg=name)).method == method


def test_schedulers_have_the_names_of_tune_too() -> None:
    assert search(SWEEP | {"scheduler": "async_hyperband"}).scheduler["type"] == "asha"  # type: ignore[index]
    assert search(SWEEP | {"scheduler": "Medianstopping"}).scheduler["type"] == "median_stopping"  # type: ignore[index]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (
            SWEEP | {"metric": {"name": "score"}, "scheduler": "asha"},
            "is known at the end of a trial only: nothing can be stopped early by it (name a metric that a job reports "
            "while it runs, such as train.loss)",
        ),
        (
            SWEEP | {"metric": {"name": "score"}, "early_terminate": {"type": "hyperband", "min_iter": 2}},
            "is known at the end of a trial only",
        ),
        (SWEEP | {"seed_parameter": "max_iter_num"}, "has no effect without seeds"),
        (
            with_parameter(text_length_filter__max_len={"min": 5, "max": 60}),
            "some values do not go together (text_length_filter.min_len=50, text_length_filter.max_len=5)",
        ),
        (
            with_parameter(anonymous__train__extra_configs__steps={"distribution": "q_normal", "mu": 9, "sigma": 4}),
            "does not fit: should be greater than or equal to 1",
        ),
    ],
)
def test_what_may_be_meant_is_a_warning(sweep: Any, message: str) -> None:
    found, problems = read(sweep)
    assert found is not None, problems
    assert [(problem.severity, message in str(problem)) for problem in problems] == [("warning", True)], problems


def test_a_first_in_first_out_scheduler_needs_no_values_on_the_way() -> None:
    assert read(SWEEP | {"metric": {"name": "score"}, "scheduler": "fifo"})[1] == []


def test_two_names_for_one_place() -> None:
    _, problems = read(
        with_parameter(anonymous__process__dj_configs__process__text_length_filter__min_len={"value": 3})
    )
    assert "are the same place (keep one)" in str(problems[0])


def test_seeds_without_anything_that_draws() -> None:
    Path("cfg.yaml").write_text("hpo_config: sweep.yaml\n" + JOBS.replace("TrainModelHook", "ProbeViaAnalyzerHook"))
    config, _ = read_config("cfg.yaml")
    assert config is not None
    Path("sweep.yaml").write_text(yaml.safe_dump(SWEEP | {"seeds": 2, "metric": {"name": "score"}}))
    _, problems = read_search(config, make_plan(with_values(config, [])))
    assert any("no job has a `seed`" in str(problem) for problem in problems)


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(algorithms.importlib.util, "find_spec", lambda name: None)
    for sweep, line in [(SWEEP | {"method": "bayes"}, 1), (without("method", search_alg="optuna"), 8)]:
        _, problems = read(sweep)
        found = [problem for problem in problems if problem.severity == "error"]
        assert [(str(p.line), "pip install 'raysandbox[hpo]'" in str(p)) for p in found] == [(str(line), True)]


def test_reading_is_quick_and_light() -> None:
    Path("sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    code = """
import sys, time
from raysandbox.config.load import load_config
from raysandbox.hpo.assign import with_values
from raysandbox.hpo.schema import read_search
from raysandbox.sandbox.plan import make_plan
config = load_config("cfg.yaml")
plan = make_plan(with_values(config, []))
search, problems = read_search(config, plan)
assert search is not None
search.space.random_point(1, 1)
heavy = {"ray", "torch", "scipy", "optuna", "wandb", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    config, _ = read_config("cfg.yaml")
    assert config is not None
    plan = make_plan(with_values(config, []))
    durations = []
    for _ in range(5):
        start = time.process_time()
        read_search(config, plan)
        durations.append(time.process_time() - start)
    assert min(durations) < 0.1
