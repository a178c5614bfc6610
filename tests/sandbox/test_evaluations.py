"""Whole experiments with models: probe, inference, evaluation; the second run finds everything done."""

import json
from pathlib import Path

import pytest
import yaml

from raysandbox.api import check, run
from tests.executors.conftest import texts, write_jsonl
from tests.executors.tiny_language_models import llama


def job(hook, name, output, **config):
    return {"hook": hook, "meta_name": name, "output": [output], **config}


@pytest.fixture
def experiment(cluster, workspace):
    rows = [{"text": text, "query": text, "answer": "yes"} for text in texts(20)]
    write_jsonl(workspace / "data.jsonl", rows)
    model = llama(workspace / "model", [row["text"] for row in rows])
    asked = {"type": "huggingface", "model": model, "dataset_path": "data.jsonl", "export_path": "answers"}
    config = {
        "project_name": "p",
        "experiment_name": "e",
        "work_dir": "out",
        "cache_dir": "cache",
        "probe_job_configs": [
            job(
                "ProbeViaModelInferHook",
                "probe",
                "scored",
                dj_configs={"dataset_path": "data.jsonl", "data_probe_ratio": 0.5, "process": []},
                extra_configs={"type": "huggingface", "model": model, "num_hardest": 3},
            )
        ],
        "execution_job_configs": [
            job(
                "InferModelHook",
                "infer",
                "answers",
                resources={"num_workers": 2, "num_gpus": 1},
                extra_configs={**asked, "sampling_params": {"max_new_tokens": 4}, "max_bad_rows": 10},
            )
        ],
        "evaluation_job_configs": [
            job(
                "EvaluateDataHook",
                "accuracy",
                "results",
                input={"extra_configs.predicted_dataset_path": "-1.answers"},
                extra_configs={
                    "type": "accuracy",
                    "predicted_label_key": "response",
                    "ground_truth_label_key": "answer",
                },
            )
            | {"output": ["results", "best"]},
            job(
                "EvaluateModelHook",
                "perplexity",
                "score",
                extra_configs={"type": "perplexity", "model": model, "dataset_path": "data.jsonl"},
            ),
        ],
    }
    Path("sandbox.yaml").write_text(yaml.safe_dump(config))
    return Path("sandbox.yaml")


def outputs():
    (iteration,) = json.loads(Path("out/context_infos.json").read_text())
    (pipeline,) = iteration["pipeline_infos"]
    return {each.pop("meta_name"): each for each in pipeline["job_infos"]}


def test_probe_infer_evaluate(experiment):
    assert check(experiment) == []
    run(experiment)
    found = outputs()
    assert len(Path(found["probe"]["scored"]).read_text().splitlines()) == 10
    assert len(list(Path("out/artifacts").rglob("hardest.jsonl"))) == 1
    answered = [json.loads(line) for line in Path(found["infer"]["answers"]).read_text().splitlines()]
    asked = texts(20)
    assert 10 <= len(answered) < 20  # the model has nothing to say to some, which are in quarantine
    assert [row["text"] for row in answered] == [text for text in asked if text in {row["text"] for row in answered}]
    (quarantine,) = Path("out/quarantine").rglob("*.quarantine")
    assert len(answered) + len(quarantine.read_text().splitlines()) == 20
    assert found["accuracy"]["best"] == 0.0
    assert found["perplexity"]["score"] > 1
    metrics = {json.loads(line)["name"] for line in Path("out/metrics.jsonl").read_text().splitlines()}
    assert {"probe.model_loss.mean", "infer.completion_tokens", "accuracy.best", "perplexity.perplexity"} <= metrics

    run(experiment, resume=True)
    assert set(json.loads(Path("out/status.json").read_text())["jobs"].values()) == {"cached"}
    assert outputs() == found
