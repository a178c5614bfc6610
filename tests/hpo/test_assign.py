from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysandbox.config.documents import Document, load_document
from raysandbox.config.load import parse_config
from raysandbox.config.schema import SandboxConfig
from raysandbox.core.errors import ConfigError, UserError
from raysandbox.hpo.assign import Addresses, with_values
from raysandbox.hpo.schema import read_search
from raysandbox.sandbox.drafts import put_together
from raysandbox.sandbox.paths import PathMap
from raysandbox.sandbox.plan import make_plan

CONFIG = """\
hpo_config:
  method: random
  run_cap: 3
  metric: {name: score}
  parameters:
    text_length_filter.min_len: {values: [5]}
    anonymous.train.extra_configs.steps: {min: 1, max: 9}
probe_job_configs:
  - hook: ProbeViaAnalyzerHook
    meta_name: probe
    dj_configs: recipe.yaml
refine_recipe_job_configs:
  - hook: RefineRecipeViaKSigmaHook
    meta_name: probe
    dj_configs: recipe.yaml
    extra_configs: {path_k_sigma_recipe: outputs/run0/refined.yaml}
execution_job_configs:
  - hook: ProcessDataHook
    meta_name: process
    dj_configs: outputs/run0/refined.yaml
    output: [path]
  - hook: ProcessDataHook
    meta_name: inline
    dj_configs:
      dataset_path: data.jsonl
      export_path: outputs/run0/inline.jsonl
      process:
        - text_length_filter
        - words_num_filter: {min_num: 1}
        - words_num_filter: {max_num: 90}
    local: {dj_configs.process.text_length_filter.max_len: 99}
    output: [path]
  - hook: TrainModelHook
    meta_name: train
    input: {extra_configs.train_dataset: -1.path}
    local: {extra_configs.floor: 0.5}
    extra_configs: {type: fake, work_dir: outputs/run0/model, steps: 3, floor: 0.25}
    output: [model]
evaluation_job_configs:
  - hook: EvaluateDataHook
    meta_name: eval
    extra_configs: side.json
    input: {extra_configs.predicted_dataset_path: anonymous.process.path}
    output: [score]
"""


@pytest.fixture
def config(workspace: Path) -> SandboxConfig:
    Path("data.jsonl").write_text('{"text": "a"}\n')
    steps = [{"text_length_filter": None}, "fix_unicode_mapper"]
    Path("recipe.yaml").write_text(yaml.safe_dump({"dataset_path": "data.jsonl", "process": steps}))
    Path("side.json").write_text(
        json.dumps({"type": "accuracy", "predicted_label_key": "a", "ground_truth_label_key": "b"})
    )
    Path("cfg.yaml").write_text(CONFIG)
    return loaded(load_document("cfg.yaml"))


def loaded(document: Document) -> SandboxConfig:
    config, problems = parse_config(document)
    assert config is not None
    assert not problems, problems
    return config


def addresses(config: SandboxConfig) -> Addresses:
    return Addresses(config, make_plan(with_values(config, [])), PathMap(config.settings.work_path))


def extra(config: SandboxConfig, meta_name: str) -> dict[str, Any]:
    """What the extra_configs of a job come to."""
    return parts(config, meta_name)["extra_configs"]


def parts(config: SandboxConfig, meta_name: str) -> dict[str, Any]:
    entry = next(e for e in config.jobs() if e.config.meta_name == meta_name)
    drafts = put_together(entry, config.document, lambda text: "received")
    assert not drafts.problems, drafts.problems
    return {part: draft.data if draft else None for part, draft in drafts.parts.items()}


@pytest.mark.parametrize(
    ("name", "meta_name", "part", "where"),
    [
        ("anonymous.train.extra_configs.steps", "train", "extra_configs", ("steps",)),
        ("anonymous.train.extra_configs.floor", "train", "extra_configs", ("floor",)),
        ("execution_job_configs.train.extra_configs.steps", "train", "extra_configs", ("steps",)),
        ("execution_job_configs.2.extra_configs.floor", "train", "extra_configs", ("floor",)),
        ("execution_job_configs.2.local.extra_configs.seed", "train", "extra_configs", ("seed",)),
        ("anonymous.eval.extra_configs.predicted_label_key", "eval", "extra_configs", ("predicted_label_key",)),
        (
            "evaluation_job_configs.eval.extra_configs.predicted_label_key",
            "eval",
            "extra_configs",
            ("predicted_label_key",),
        ),
        ("text_length_filter.min_len", "inline", "dj_configs", ("process", 0, "text_length_filter", "min_len")),
        ("text_length_filter.max_len", "inline", "dj_configs", ("process", 0, "text_length_filter", "max_len")),
        (
            "fix_unicode_mapper.normalization",
            "probe",
            "dj_configs",
            ("process", 1, "fix_unicode_mapper", "normalization"),
        ),
        (
            "anonymous.inline.dj_configs.process.1.words_num_filter.min_num",
            "inline",
            "dj_configs",
            ("process", 1, "words_num_filter", "min_num"),
        ),
    ],
)
def test_a_value_arrives_where_its_name_says(
    config: SandboxConfig, name: str, meta_name: str, part: str, where: tuple[str | int, ...]
) -> None:
    before = copy.deepcopy(config.document.data)
    paths = addresses(config).find(name)
    found: Any = parts(with_values(config, [(path, 7) for path in paths]), meta_name)[part]
    for key in where:
        found = found[key]
    assert found == 7
    assert config.document.data == before


def test_an_operator_is_set_in_every_recipe_that_no_job_writes(config: SandboxConfig) -> None:
    assert addresses(config).find("text_length_filter.min_len") == (
        "probe_job_configs.0.dj_configs.process.text_length_filter.min_len",
        "refine_recipe_job_configs.0.dj_configs.process.text_length_filter.min_len",
        "execution_job_configs.1.local.dj_configs.process.text_length_filter.min_len",
    )


def test_of_jobs_of_one_name_the_one_that_has_the_key_is_meant(config: SandboxConfig) -> None:
    """A refinement has the meta_name of its probe."""
    assert addresses(config).find("anonymous.probe.extra_configs.k") == ("refine_recipe_job_configs.0.extra_configs.k",)


def test_what_local_says_already_is_overruled(config: SandboxConfig) -> None:
    """A job's own `local` comes after its extra_configs, so the value must go there."""
    found = addresses(config).find("anonymous.train.extra_configs.floor")
    assert found == ("execution_job_configs.2.local.extra_configs.floor",)
    assert extra(with_values(config, [(found[0], 0.125)]), "train")["floor"] == 0.125
    plain = addresses(config).find("anonymous.eval.extra_configs.ground_truth_label_key")
    assert plain == ("evaluation_job_configs.0.extra_configs.ground_truth_label_key",)


def test_pipelines_have_addresses(workspace: Path) -> None:
    job = {"hook": "EvaluateDataHook", "meta_name": "eval", "extra_configs": {"type": "accuracy"}, "output": ["score"]}
    for pipelines in (
        [{"one": {"evaluation_job_configs": [job]}}, {"two": {"evaluation_job_configs": [job]}}],
        {"one": {"evaluation_job_configs": [job]}, "two": {"evaluation_job_configs": [job]}},
    ):
        config = loaded(Document(copy.deepcopy({"pipelines": pipelines}), "cfg.yaml"))
        paths = addresses(config).find("two.eval.extra_configs.predicted_label_key")
        trial = with_values(config, [(path, "x") for path in paths])
        set_in = [entry.config.extra_configs.get("predicted_label_key") for entry in trial.jobs()]  # type: ignore[union-attr]
        assert set_in == [None, "x"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text_length_filter.min_le", None),  # found by planning, not by the address
        ("text_length_filte.min_len", "did you mean 'text_length_filter.min_len'?"),
        ("character_repetition_filter.rep_len", "no recipe of the configuration holds character_repetition_filter"),
        ("words_num_filter.min_num", "is ambiguous: the recipe of anonymous.inline#3 holds words_num_filter 2 times"),
        ("anonymous.trane.extra_configs.steps", "did you mean 'anonymous.train.extra_configs.steps'?"),
        ("train.extra_configs.steps", "did you mean 'anonymous.train.extra_configs.steps'?"),
        ("execution_job_configs.trane.extra_configs.steps", "it leads nowhere at 'trane'; did you mean 'train'?"),
        ("max_iter_nun", "matches nothing in the configuration; did you mean 'max_iter_num'?"),
        ("anonymous.train.extra_configs.train_dataset", "comes from '-1.path' by `input`"),
        ("execution_job_configs.train.input.extra_configs.train_dataset", "input names outputs of earlier jobs"),
        ("work_dir", "belongs to the whole search"),
        ("hpo_config.seed", "belongs to the whole search"),
        ("anonymous.probe.dj_configs.process", "is ambiguous: jobs anonymous.probe#0, anonymous.probe#1 share"),
    ],
)
def test_addresses_that_match_nothing_or_too_much(config: SandboxConfig, name: str, message: str | None) -> None:
    if message is None:
        assert addresses(config).find(name)
        return
    with pytest.raises(UserError) as caught:
        addresses(config).find(name)
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_the_ambiguous_name_is_answered_with_one_that_works(config: SandboxConfig) -> None:
    with pytest.raises(UserError) as caught:
        addresses(config).find("words_num_filter.min_num")
    offered = str(caught.value).rsplit(" ", 1)[1]
    trial = with_values(config, [(path, 7) for path in addresses(config).find(offered)])
    assert parts(trial, "inline")["dj_configs"]["process"][1] == {"words_num_filter": {"min_num": 7}}


def test_seeds_go_to_what_draws(config: SandboxConfig) -> None:
    assert addresses(config).seeds() == ("execution_job_configs.2.local.extra_configs.seed",)
    Path("recipe.yaml").write_text(yaml.safe_dump({"dataset_path": "0.5 data.jsonl 0.5 b.jsonl", "process": []}))
    assert "probe_job_configs.0.dj_configs.seed" in addresses(config).seeds()
    Path("recipe.yaml").write_text(yaml.safe_dump({"dataset_path": "data.jsonl", "process": ["random_selector"]}))
    assert "refine_recipe_job_configs.0.dj_configs.seed" in addresses(config).seeds()
    Path("recipe.yaml").write_text(yaml.safe_dump({"dataset_path": "data.jsonl", "seed": 1}))
    assert "probe_job_configs.0.dj_configs.seed" in addresses(config).seeds()


def test_the_configuration_of_a_trial(config: SandboxConfig) -> None:
    document = config.document
    document.data["hpo_config"]["seeds"] = [4]
    plan = make_plan(with_values(config, []))
    search, problems = read_search(loaded(document), plan)
    assert search is not None, problems
    before = copy.deepcopy(document.data)
    params = {"text_length_filter.min_len": 5, "anonymous.train.extra_configs.steps": 8}
    trial = search.trial_config(config, params, seed=4)
    assert trial.settings.hpo_config is None
    assert trial.document.data["hpo_config"] is None
    assert document.data == before
    assert extra(trial, "train") == {"type": "fake", "work_dir": "outputs/run0/model", "steps": 8, "floor": 0.5} | {
        "seed": 4,
        "train_dataset": "received",
    }
    assert parts(trial, "probe")["dj_configs"]["process"][0] == {"text_length_filter": {"min_len": 5}}
    assert trial.document.line(("execution_job_configs", 2, "extra_configs", "steps")) == 37
    assert not trial.allow_user_code
    Path("best.yaml").write_text(yaml.safe_dump(trial.document.data))
    assert make_plan(loaded(load_document("best.yaml"))).problems == make_plan(trial).problems == ()


def test_values_do_not_share_memory_between_trials(config: SandboxConfig) -> None:
    value = {"a": [1]}
    trial = with_values(config, [("execution_job_configs.2.local.extra_configs.steps", value)])
    value["a"].append(2)
    local = trial.document.data["execution_job_configs"][2]["local"]
    assert local["extra_configs.steps"] == {"a": [1]}


def test_a_value_that_has_no_place_is_a_configuration_error(config: SandboxConfig) -> None:
    with pytest.raises(ConfigError, match=r"a value for project_name\.x leads nowhere at 'x'"):
        with_values(
            loaded(Document({**config.document.data, "project_name": "p"}, "cfg.yaml")), [("project_name.x", 1)]
        )
    with pytest.raises(ConfigError, match=r"max_iter_num: should be a valid integer.*'many'"):
        with_values(config, [("max_iter_num", "many")])
