from __future__ import annotations

import math
from typing import Any

import pytest
import yaml

from raysandbox.config.documents import Document
from raysandbox.config.load import parse_config
from raysandbox.core.errors import MissingMetricError, UserError
from raysandbox.hpo.objective import Objective, find_objective
from raysandbox.sandbox.plan import ExperimentPlan, make_plan

JOBS = """
execution_job_configs:
  - hook: TrainModelHook
    meta_name: train
    extra_configs: {type: fake, train_dataset: data.jsonl, work_dir: model}
    output: [model_path]
evaluation_job_configs:
  - hook: EvaluateDataHook
    meta_name: eval
    extra_configs: {type: accuracy, predicted: a, label: b, dataset_path: data.jsonl}
    output: [score]
"""
TWO = f"""
pipelines:
  first: {JOBS.replace(chr(10), chr(10) + "    ")}
  second: {JOBS.replace(chr(10), chr(10) + "    ")}
"""


def plan_of(text: str) -> ExperimentPlan:
    config, _ = parse_config(Document(yaml.safe_load(text), "test.yaml"))
    assert config is not None
    return make_plan(config)


def infos(*values: Any, pipeline: str = "anonymous", meta_name: str = "eval") -> list[dict[str, Any]]:
    """Context infos of as many iterations as there are values of `score`."""
    return [
        {
            "iter": number,
            "pipeline_infos": [
                {"pipeline_name": "other", "job_infos": [{"meta_name": meta_name, "score": -1.0}]},
                {
                    "pipeline_name": pipeline,
                    "job_infos": [{"meta_name": "train", "model_path": "m"}, {"meta_name": meta_name, "score": value}],
                },
            ],
        }
        for number, value in enumerate(values, start=1)
    ]


@pytest.mark.parametrize(
    ("name", "keys", "watched"),
    [
        ("anonymous.eval.score", (), "eval.score"),
        ("eval.score", (), "eval.score"),
        ("score", (), "eval.score"),
        ("-1.score", (), "eval.score"),
        ("anonymous.eval.score.best.0", ("best", "0"), "eval.score.best.0"),
        ("score.best", ("best",), "eval.score.best"),
    ],
)
def test_an_output_has_three_names(name: str, keys: tuple[str, ...], watched: str) -> None:
    objective = find_objective(name, plan_of(JOBS))
    assert objective.reference is not None
    assert (objective.reference.entry.config.meta_name, objective.reference.output) == ("eval", "score")
    assert objective.reference.keys == keys
    assert objective.watched == watched
    assert objective.known_at_end_only


def test_an_output_of_several_iterations_is_known_on_the_way() -> None:
    assert not find_objective("score", plan_of("max_iter_num: 3\n" + JOBS)).known_at_end_only


def test_a_metric_that_a_component_reports() -> None:
    objective = find_objective("train.loss", plan_of(JOBS))
    assert objective == Objective("train.loss", None, "train.loss", known_at_end_only=False)
    assert objective.value([], {"train.loss": 3, "eval.score": 1.0}) == 3.0


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (JOBS, "scor", "did you mean 'score'?"),
        (JOBS, "anonymous.eval.scor", "did you mean 'anonymous.eval.score'?"),
        (JOBS, "nothing_like_it", "outputs: anonymous.eval.score, score; or <meta_name>.<key>"),
        (JOBS, "model_path", "is no number: TrainModelHook returns checkpoint or model directory; name what"),
        (JOBS, "anonymous.train.model_path", "is no number"),
        (JOBS, "anonymous.train.loss", "is written <meta_name>.<key>"),
        (TWO, "score", "ambiguous: first.eval.score, second.eval.score; write one of these"),
        (TWO, "eval.score", "ambiguous: first.eval.score, second.eval.score; write one of these"),
        (TWO, "train.loss", "ambiguous: jobs first.train#0, second.train#0 report under this name"),
    ],
)
def test_names_that_mean_nothing_or_too_much(text: str, name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        find_objective(name, plan_of(text))
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_the_value_is_that_of_the_last_iteration_and_the_right_pipeline() -> None:
    objective = find_objective("score", plan_of(JOBS))
    assert objective.value(infos(1, 0.5), {}) == 0.5
    assert find_objective("second.eval.score", plan_of(TWO)).value(infos(7, pipeline="second"), {}) == 7.0
    assert find_objective("score.best", plan_of(JOBS)).value(infos({"best": 2}), {}) == 2.0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "is None"),
        (math.nan, "is NaN"),
        (math.inf, "is infinite"),
        (-math.inf, "is infinite"),
        ("0.5", "is not a number but '0.5'"),
        (True, "is not a number but True"),
        ({"a": 1}, "is not a number but {'a': 1}"),
    ],
)
def test_values_that_are_none_have_words_of_their_own(value: Any, words: str) -> None:
    for name, given, last in [("score", infos(value), {}), ("train.loss", [], {"train.loss": value})]:
        with pytest.raises(MissingMetricError, match=f"metric '{name}' {words}"):
            find_objective(name, plan_of(JOBS)).value(given, last)


def test_a_metric_that_is_missing() -> None:
    cases = [("score", []), ("score", infos(1, meta_name="another")), ("score.b", infos({"a": 1}))]
    for name, given in cases:
        with pytest.raises(MissingMetricError, match=f"made no '{name}'"):
            find_objective(name, plan_of(JOBS)).value(given, {})
    with pytest.raises(MissingMetricError, match="nothing of this name was reported"):
        find_objective("train.loss", plan_of(JOBS)).value([], {"train.lr": 1.0})
