"""lm-evaluation-harness on a local task, offline, in a worker of the job."""

import json
import math
import random
from types import SimpleNamespace

import pytest

from raysandbox.core.errors import MissingExtraError, MissingMetricError, UserError
from raysandbox.core.progress import Progress
from raysandbox.executors.base import MODEL_EVALUATORS
from raysandbox.executors.evaluate.lm_eval import LmEval, _scores
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.unit_workers import JobWorkers
from tests.executors.conftest import WORDS, write_jsonl
from tests.executors.tiny_language_models import llama

TASK = """
task: next_word
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{ question }}}}"
doc_to_target: "{{{{ answer }}}}"
doc_to_choice: "{{{{ choices }}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""


def questions():
    chance = random.Random(0)
    return [
        {"question": " ".join(chance.choices(WORDS, k=5)), "choices": chance.sample(WORDS[4:], 3), "answer": n % 3}
        for n in range(12)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("models") / "llama", WORDS)


@pytest.fixture
def task(tmp_path):
    data = write_jsonl(tmp_path / "questions.jsonl", questions())
    path = tmp_path / "tasks" / "next_word.yaml"
    path.parent.mkdir()
    path.write_text(TASK.format(data=data))
    return path


@pytest.fixture
def evaluate(tmp_path):
    def run(workers=None, allow_user_code=False, **config):
        job = SimpleNamespace(id="job", resources=Resources(), runtime_env={})
        reported = {}
        session = SimpleNamespace(
            workers=workers or JobWorkers(job, tmp_path / "job.log", Progress()),
            artifacts=tmp_path,
            allow_user_code=allow_user_code,
            report=lambda metrics, step=None: reported.update(metrics),
        )
        scores = LmEval.model_validate(config).evaluate(session)
        assert scores == reported
        return scores

    return run


def accuracy_by_transformers(folder):
    """Share of questions where the right word has the highest log-likelihood after question and blank."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    right = 0
    for row in questions():
        ids = tokenizer(row["question"], return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            logits = model(ids).logits[0, -1]
        tokens = [tokenizer.convert_tokens_to_ids(choice) for choice in row["choices"]]
        right += int(logits[tokens].argmax()) == row["answer"]
    return right / len(questions())


def test_it_is_registered_and_its_example_holds():
    assert MODEL_EVALUATORS.get("lm_eval") is LmEval
    LmEval.model_validate(LmEval.example)


def test_a_local_task_runs_offline(cluster, evaluate, model, task, tmp_path):
    pytest.importorskip("lm_eval")
    scores = evaluate(model=model, tasks=str(task), metrics=["next_word.acc"], dtype="float32")
    accuracy = accuracy_by_transformers(model)
    assert scores == {
        "next_word.acc": pytest.approx(accuracy),
        "next_word.acc_stderr": pytest.approx(math.sqrt(accuracy * (1 - accuracy) / 11)),
    }
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["n-samples"]["next_word"] == {"original": 12, "effective": 12}
    samples = [json.loads(line) for line in (tmp_path / "samples_next_word.jsonl").read_text().splitlines()]
    assert sorted(sample["doc_id"] for sample in samples) == list(range(12))


def test_code_in_task_files_is_refused(cluster, evaluate, model, task):
    pytest.importorskip("lm_eval")
    (task.parent / "coded.yaml").write_text(
        task.read_text().replace("next_word", "coded") + "process_docs: !function helper.docs\n"
    )
    (task.parent / "helper.py").write_text("raise SystemExit('it ran')\n")
    with pytest.raises(UserError, match=r"runs Python code \(helper\.docs\): allow it with --allow-user-code"):
        evaluate(model=model, tasks="coded", include_path=str(task.parent))


class Answers:
    """Workers that answer at once."""

    def __init__(self, found):
        self.found = found

    def map(self, work, units, *, description="", python=None):
        self.work, self.units = work, units
        return iter([(0, json.dumps(self.found))])


def test_metrics_are_named_by_task_and_filter(evaluate, task, model):
    found = {
        "results": {
            "next_word": {"alias": "next_word", "acc,none": 0.5, "acc_stderr,none": "N/A", "sample_len": 12},
            "sums": {"exact_match,strict": 1, "exact_match_stderr,strict": 0.1, "exact_match,flexible": 0.25},
        }
    }
    workers = Answers(found)
    scores = evaluate(workers, model=model, tasks=[str(task), "sums"], limit=3, seed=7)
    assert scores == {
        "next_word.acc": 0.5,
        "sums.exact_match.strict": 1.0,
        "sums.exact_match_stderr.strict": 0.1,
        "sums.exact_match.flexible": 0.25,
    }
    assert workers.units == [[str(task), "sums"]]
    assert workers.work.options["limit"] == 3
    assert workers.work.options["fewshot_random_seed"] == 7
    assert workers.work.offline


def test_a_missing_metric_is_an_error(evaluate, task, model):
    workers = Answers({"results": {"next_word": {"acc,none": 0.5}}})
    with pytest.raises(MissingMetricError, match=r"metrics: next_word\.f1 is not among the results: next_word\.acc"):
        evaluate(workers, model=model, tasks=str(task), metrics=["next_word.f1"])
    with pytest.raises(MissingMetricError, match=r"next_word\.acc is nan, not a number"):
        _scores({"results": {"next_word": {"acc,none": float("nan")}}})
    with pytest.raises(MissingMetricError, match="the task next_word gives no metric"):
        _scores({"results": {"next_word": {"alias": "next_word"}}})
    with pytest.raises(MissingMetricError, match="the task next_word has no question"):
        _scores({"results": {"next_word": {"acc,none": 0.0}}, "n-samples": {"next_word": {"effective": 0}}})


def test_what_is_wrong_is_named_before_a_worker_starts(evaluate, task, model):
    with pytest.raises(UserError, match=r"there is no file or folder absent\.yaml"):
        evaluate(model=model, tasks="absent.yaml")
    with pytest.raises(UserError, match="the list is empty"):
        evaluate(model=model, tasks=[])
    with pytest.raises(UserError, match="trust_remote_code runs code"):
        evaluate(model=model, tasks="x", trust_remote_code=True)


def test_without_the_harness_it_says_what_to_install(task, model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    work = LmEval(model=model, tasks=str(task))._harness([], False)
    with pytest.raises(MissingExtraError, match=r"raysandbox\[lm-eval\]"):
        work.run([str(task)], "cpu")
