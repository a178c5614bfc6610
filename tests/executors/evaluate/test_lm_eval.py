"""lm-evaluation-harness on a local task, offline, in a worker of the job."""

import json
import math
import random
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from raysandbox.core.errors import MissingExtraError, MissingMetricError, UserError
from raysandbox.core.progress import Progress
from raysandbox.executors.base import MODEL_EVALUATORS
from raysandbox.executors.evaluate.lm_eval import LmEval, _scores
from raysandbox.hooks.evaluate_model import EvaluateModelHook
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


CODED = "def compute(*args, **kwargs): ...\nraise SystemExit('it ran')\n"


def test_metrics_and_generation_from_foreign_code_are_refused(cluster, evaluate, model, task, tmp_path):
    pytest.importorskip("lm_eval")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "odd.py").write_text(CODED)
    coded = task.with_name("coded.yaml")
    coded.write_text(task.read_text().replace("metric: acc", f"metric: {tmp_path / 'odd'}"))
    with pytest.raises(UserError, match=r"the metric '.*odd' is none of lm_eval's own.*--allow-user-code"):
        evaluate(model=model, tasks=str(coded))
    (tmp_path / "odd" / "custom_generate").mkdir()
    (tmp_path / "odd" / "custom_generate" / "generate.py").write_text(CODED)
    (tmp_path / "odd" / "config.json").write_text("{}")
    generating = task.read_text().replace("multiple_choice", "generate_until").replace("metric: acc", "metric: bleu")
    coded.write_text(
        generating + f"generation_kwargs: {{until: [x], max_gen_toks: 2, custom_generate: {tmp_path / 'odd'}}}\n"
    )
    with pytest.raises(UserError, match=r"generate\.py would run as custom_generate: .*--allow-user-code"):
        evaluate(model=model, tasks=str(coded), limit=1)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_args": {"trust_remote_code": True}}, "'trust_remote_code': set the key `trust_remote_code`"),
        ({"model_args": {"more": [{"trust_remote_code": True}]}}, "'trust_remote_code': set the key"),
        ({"gen_kwargs": {"trust_remote_code": True}}, "'trust_remote_code': set the key"),
        ({"model_args": {"pretrained": "other"}}, "must not hold 'pretrained': set the key `model`"),
        ({"model_args": {"max_length": 9}}, "must not hold 'max_length': set the key `max_length`"),
        ({"model_args": {"device": "cuda:1"}}, "must not hold 'device': the job's `resources` give it"),
        ({"model_args": {"token": "hf_123456789"}}, r"the secret 'token': set it in the environment \(HF_TOKEN\)"),
        ({"model_args": {"more": {"api_key": "123456789"}}}, "the secret 'api_key'"),
        ({"gen_kwargs": {"token": "hf_123456789"}}, "the secret 'token'"),
    ],
)
def test_more_arguments_bring_no_code_no_secret_and_no_key_of_their_own(config, said):
    with pytest.raises(ValidationError, match=said):
        LmEval(model="m", tasks="x", **config)


def test_more_arguments_about_tokens_of_text_are_taken():
    arguments = {"prefix_token_id": 3, "think_end_token": "</think>", "add_bos_token": True}
    assert LmEval(model="m", tasks="x", model_args=arguments).model_args == arguments


def test_no_secret_reaches_the_results(evaluate, task, model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_environment")
    found = {
        "results": {"next_word": {"token_f1,none": 0.5}},
        "config": {"model_args": {"token": "abc", "peft": "https://hf_of_the_environment@hub"}},
        "configs": {"next_word": {"dataset_kwargs": {"api_key": "abc"}}},
    }
    evaluate(Answers(found), model=model, tasks=str(task))
    assert json.loads((tmp_path / "results.json").read_text()) == {
        "results": {"next_word": {"token_f1,none": 0.5}},
        "config": {"model_args": {"token": "***", "peft": "https://***@hub"}},
        "configs": {"next_word": {"dataset_kwargs": {"api_key": "***"}}},
    }


def test_what_tasks_are_made_of_is_an_input(task, tmp_path):
    def reads(**extra):
        return EvaluateModelHook.paths(None, {"type": "lm_eval", "model": "m", **extra}).reads

    data = str(tmp_path / "questions.jsonl")
    assert reads(tasks=str(task)) == (str(task), data)
    assert reads(tasks=["arc_easy", "absent.yaml"]) == ("absent.yaml",)
    coded = task.with_name("coded.yaml")
    coded.write_text(
        "include: base.yaml\ntask: coded\nprocess_docs: !function helper.docs\n"
        "dataset_kwargs: {data_files: {test: [shots/*.jsonl, 'https://host/x.jsonl', shots/one.jsonl]}}\n"
    )
    base = str(task.with_name("base.yaml"))
    assert reads(tasks=str(coded)) == (str(coded), "shots/one.jsonl", base)
    folder = str(task.parent)
    assert reads(tasks=folder)[0] == folder
    assert set(reads(tasks=folder)[1:]) == {data, "shots/one.jsonl", base}
    coded.write_text("task: [")
    assert reads(tasks=str(coded)) == (str(coded),)
    arguments = {"peft": "./adapter", "tokenizer": "org/name"}
    assert reads(tasks="arc_easy", model_args=arguments) == ("./adapter",)
    assert reads() == reads(tasks=3, model_args=4) == ()


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
