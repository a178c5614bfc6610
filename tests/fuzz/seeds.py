"""Configurations that mutations begin with: `configs/`, some with rarer keys, and every component's example."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from raysandbox.config.documents import load_document
from raysandbox.core.registry import Registry

ROOT = Path(__file__).parents[2]
_OUR_OWN = """\
experiment_name: rare-keys
max_iter_num: 3
max_parallel_jobs: 2
stages: [probe, execution, evaluation]
iter_targets: ["first.score.score >= 0.8", "second.again.path == 3"]
iter_targets_mode: any
iter_updater: {first.score.score: first.process.dj_configs.process.text_length_filter.min_len}
watcher: {wandb: disabled}
pipelines:
  - first:
      probe_job_configs:
        - &probe
          hook: ProbeViaAnalyzerHook
          meta_name: look
          dj_configs:
            dataset_path: 0.3 a.jsonl 0.7 b.jsonl
            export_path: out/look.jsonl
            process: [text_length_filter]
      execution_job_configs:
        - hook: ProcessDataHook
          meta_name: process
          dj_configs: configs/demo/process.yaml
          local: {dj_configs.export_path: out/processed.jsonl, dj_configs.process.text_length_filter.min_len: 3}
          output: [processed_path]
          retries: 2
          timeout_s: 60.5
        - hook: TrainModelHook
          meta_name: train
          input: {extra_configs.train_dataset: -1.processed_path}
          extra_configs: {type: fake, work_dir: out/model, steps: 3}
          resources: {num_workers: 2, num_gpus: 1, num_cpus: 4, strategy: SPREAD, label_selector: {zone: a}}
          runtime_env: {env_vars: {A: "${env:HOME}", B: "${env:NOT_SET_ANYWHERE,b}"}}
          output: [model]
      evaluation_job_configs:
        - hook: EvaluateDataHook
          meta_name: score
          input: {extra_configs.predicted_dataset_path: first.process.processed_path}
          extra_configs: {type: accuracy, predicted_label_key: a, ground_truth_label_key: b}
          output: [score]
  - second:
      execution_job_configs:
        - hook: ProcessDataHook
          meta_name: again
          foreach: first.process.processed_path
          input: {dj_configs.dataset_path: item}
          dj_configs: {export_path: outputs/rare-keys/again.jsonl, process: [{words_num_filter: {min_num: 2}}]}
          output: [path]
"""
_RECIPE = """\
project_name: rare keys
dataset:
  max_sample_num: 100
  configs:
    - {type: local, path: a.jsonl, weight: 0.5, limit: 3}
    - {type: remote, source: huggingface, path: owner/set, split: "train[:10%]", revision: main}
export_path: out/rows.jsonl.gz
export_shard_size: 256M
np: 4
text_keys: [text, more]
suffixes: [.jsonl, .gz]
validators: [{type: required_fields, required_fields: [text]}, {type: swift_messages, min_turns: 1}]
percentiles: [0.1, 0.5]
max_bad_rows: 0.01
open_tracer: true
op_list_to_trace: [words_num_filter]
process:
  - language_id_score_filter: {lang: [en, zh], min_score: 0.5}
  - words_num_filter: {min_num: 2, max_num: 1000}
  - document_minhash_deduplicator: {jaccard_threshold: 0.7}
  - general_field_filter: {filter_condition: "10 < num <= 30 and text != 'nothing'"}
  - video_resolution_filter: {min_width: 640, any_or_all: any}
  - image_size_filter: {max_size: 10MB}
  - video_aspect_ratio_filter: {min_ratio: 9/21}
"""
_SEARCH = """\
method: random
run_cap: 5
metric: {name: train.loss, goal: minimize, target: 0.1}
seeds: [1, 2]
seed_parameter: train.extra_configs.seed
max_concurrent: 2
time_budget: 2h
resources_per_trial: [{CPU: 1}, {GPU: 0.5}]
points_to_evaluate: [{text_length_filter.min_len: 3}]
early_terminate: {type: hyperband, min_iter: 3, eta: 2}
parameters:
  text_length_filter.min_len: {min: 1, max: 50}
  a.extra_configs.b: {distribution: q_log_normal, mu: 1.5, sigma: 0.3, q: 2}
  train.extra_configs.steps: {values: [3, 5, 9], probabilities: [0.2, 0.3, 0.5]}
  train.extra_configs.rate: {distribution: beta, a: 2, b: 3}
  words: {distribution: inv_log_uniform_values, min: 1.0e-4, max: 0.1}
  grid: {distribution: q_uniform, min: 0, max: 1, q: 0.25}
"""
_ADAPTIVE = """\
search_alg: {type: optuna, sampler: tpe, seed: 3}
scheduler: {type: asha, max_t: 9, grace_period: 1}
run_cap: 4
metric: {name: score, goal: maximize}
parameters: {text_length_filter: {parameters: {min_len: {values: [1, 2]}}}}
"""
_JOBS = """\
experiment_name: searched
hpo_config: %s
execution_job_configs:
  - hook: ProcessDataHook
    meta_name: process
    dj_configs: {dataset_path: data.jsonl, export_path: outputs/searched/out.jsonl, process: [text_length_filter]}
    output: [path]
  - hook: TrainModelHook
    meta_name: train
    input: {extra_configs.train_dataset: -1.path}
    extra_configs: {type: fake, work_dir: outputs/searched/model, steps: 3}
    output: [score]
"""


@cache
def configurations() -> tuple[Any, ...]:
    """Sandbox configurations and recipes, as parsed."""
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    texts = [yaml.safe_load(text) for text in (_OUR_OWN, _RECIPE)]
    return (*(load_document(path).data for path in files), *texts * 3)


@cache
def sweeps() -> tuple[Any, ...]:
    """Sweep files, as parsed."""
    search = load_document(ROOT / "configs/hpo/quality_score.yaml").data["hpo_config"]
    return (yaml.safe_load(_SEARCH), yaml.safe_load(_ADAPTIVE), search)


def searched(sweep: Any) -> Any:
    """A configuration with a sweep: its path, or the mapping itself."""
    return {**yaml.safe_load(_JOBS % "null"), "hpo_config": sweep}


@cache
def _examples() -> tuple[list[tuple[str, Mapping[str, Any]]], list[dict[str, Any]]]:
    """The examples of operators, and of what hooks run as jobs."""
    from raysandbox.hooks.base import HOOKS
    from raysandbox.ops.base import OPERATORS

    operators = [(name, OPERATORS.get(name).example) for name in OPERATORS.names()]
    jobs: list[dict[str, Any]] = []
    for name in HOOKS.names():
        components: Registry | None = HOOKS.get(name).components
        if components is not None:
            kinds = [(kind, components.get(kind).example) for kind in components.names()]
            jobs += [{"hook": name, "extra_configs": {"type": kind, **example}} for kind, example in kinds]
    return operators, jobs


def of_components(chance: random.Random) -> Any:
    """A recipe of some operators, or a configuration of some jobs, with every component's example in turn."""
    operators, jobs = _examples()
    recipe = {
        "dataset_path": "data.jsonl",
        "export_path": "out/rows.parquet",
        "process": [{name: dict(example)} for name, example in chance.sample(operators, 4)],
    }
    if chance.random() < 0.5:
        return recipe
    chosen = [{**job, "meta_name": f"job{n}", "output": ["out"]} for n, job in enumerate(chance.sample(jobs, 3))]
    process = {"hook": "ProcessDataHook", "meta_name": "process", "dj_configs": recipe, "output": ["path"]}
    return {"execution_job_configs": [process, *chosen]}
