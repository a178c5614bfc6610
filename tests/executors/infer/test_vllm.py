"""vLLM up to the engine's boundary: a stub stands for the package, which needs a GPU and a torch of its own."""

import json
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from pydantic import ValidationError

from raysandbox.core.errors import BadRowsError, JobFailed, UserError
from raysandbox.core.keys import digest
from raysandbox.executors.base import INFERENCES
from raysandbox.executors.infer._vllm_chat import VllmChat
from raysandbox.provision.environments import MANIFEST
from tests.executors.infer.chat_server import lines

VllmInference = INFERENCES.get("vllm")


class Engine:
    """What `vllm.LLM` is asked, and answers that echo it."""

    template = "a template"
    made: list["Engine"]

    def __init__(self, **params):
        self.params, self.calls = params, []
        type(self).made.append(self)

    def get_tokenizer(self):
        return SimpleNamespace(chat_template=self.template)

    def chat(self, chats, sampling, use_tqdm):
        return self._answers([chat[-1]["content"] for chat in chats], sampling)

    def generate(self, texts, sampling, use_tqdm):
        return self._answers([f"plain {text}" for text in texts], sampling)

    def _answers(self, texts, sampling):
        self.calls.append((texts, sampling))
        if any(len(text) > 30 for text in texts):
            raise ValueError("longer than the maximum model length")
        return [
            SimpleNamespace(
                prompt_token_ids=[1] * 5,
                outputs=[SimpleNamespace(text=f"echo: {text}", token_ids=[1] * 3, finish_reason="stop")],
            )
            for text in texts
        ]


@dataclass
class Workers:
    """Does units in this process as if on a GPU; notes the interpreter."""

    device: str = "cuda"
    pythons: list = field(default_factory=list)

    def map(self, work, units, *, description="", python=None, num_workers=None):
        self.pythons.append(python)
        work = pickle.loads(pickle.dumps(work))
        state = work.load(self.device)
        for index in reversed(range(len(units))):
            yield index, work.run(pickle.loads(pickle.dumps(units[index])), state)


@pytest.fixture
def engine(monkeypatch):
    made = type("Made", (Engine,), {"made": []})
    stub = ModuleType("vllm")
    stub.LLM, stub.SamplingParams = made, dict
    monkeypatch.setitem(sys.modules, "vllm", stub)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("VLLM_WORKER_MULTIPROCESSING_METHOD", "fork")
    return made


@pytest.fixture
def infer(session, tmp_path, engine):
    session.workers = Workers()

    def run(dataset_path, **more):
        config = {"model": "m", "export_path": str(tmp_path / "out"), "env": sys.executable, "batch_size": 4, **more}
        (found,) = VllmInference(dataset_path=dataset_path, **config).infer(session)
        return [row["response"] for row in lines(found)]

    return run


def test_chats_in_chunks_with_a_seed_for_each_row(infer, session, questions, engine):
    texts = [f"question {number}" for number in range(10)]
    found = infer(questions(texts), sampling_params={"top_p": 0.5}, model_params={"max_model_len": 64})
    assert found == [f"echo: {text}" for text in texts]
    (made,) = engine.made
    assert made.params == {"model": "m", "trust_remote_code": False, "seed": 42, "max_model_len": 64}
    assert [len(asked) for asked, _ in made.calls] == [2, 4, 4]
    sampling = [one for _, each in made.calls for one in each]
    assert all(
        {**one, "seed": 0} == {"temperature": 0.0, "max_tokens": 512, "top_p": 0.5, "seed": 0} for one in sampling
    )
    assert len({one["seed"] for one in sampling}) == 10
    assert session.workers.pythons == [sys.executable]
    assert (session.metrics["prompt_tokens"], session.metrics["completion_tokens"]) == (50, 30)
    assert infer(questions(texts), sampling_params={"top_p": 0.5}, model_params={"max_model_len": 64}) == found
    assert len(engine.made) == 1  # all from the log


def test_models_without_a_chat_template(infer, questions, engine):
    engine.template = None
    assert infer(questions(["a"], system="s")) == ["echo: plain s\n\na"]


def test_a_prompt_that_is_refused_spoils_no_other(infer, session, questions, engine):
    texts = ["a", "b" * 40, "c", "d", "e"]
    assert infer(questions(texts), max_bad_rows=1) == ["echo: a", "echo: c", "echo: d", "echo: e"]
    (bad,) = lines(session.quarantine / "inference.jsonl.quarantine")
    assert bad["line"] == 2
    assert bad["reason"] == "vllm refuses the prompt: longer than the maximum model length"
    with pytest.raises(BadRowsError):
        infer(questions(texts))


def test_several_gpus_in_a_worker_work_together(infer, questions, engine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    infer(questions(["a"]))
    infer(questions(["b"]), model_params={"tensor_parallel_size": 1})
    first, second = (made.params for made in engine.made)
    assert (first["tensor_parallel_size"], first["distributed_executor_backend"]) == (2, "mp")
    assert second["tensor_parallel_size"] == 1


def test_what_is_missing_is_named(infer, session, questions):
    session.workers.device = "cpu"
    with pytest.raises(JobFailed, match=r"set resources\.num_gpus"):
        infer(questions(["a"]))
    with pytest.raises(UserError, match="raysandbox env create vllm"):
        infer(questions(["a"]), env="vllm")
    missing = VllmInference.missing_weights({"model": "nobody/nothing"})
    assert set(missing) == {"model", "env"}
    assert not VllmInference.missing_weights({"model": "./m", "env": sys.executable})


def test_the_packages_of_the_environment_name_the_answers(session, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSANDBOX_ENVIRONMENTS", str(tmp_path))
    (tmp_path / "vllm").mkdir()
    made, found = VllmInference(**VllmInference.example), []
    for packages in ({"vllm": "1", "torch": "2"}, {"vllm": "2", "torch": "2"}, {"vllm": "2", "torch": "3"}):
        (tmp_path / "vllm" / MANIFEST).write_text(json.dumps({"packages": packages}))
        found.append(digest(made._identity(session)))
    (tmp_path / "vllm" / MANIFEST).write_text(json.dumps({"packages": {**packages, "pip": "9"}}))
    assert digest(made._identity(session)) == found[-1]
    found += [digest(VllmInference(**VllmInference.example, env=env)._identity(session)) for env in ("/a/b", "/a/c")]
    assert len(set(found)) == 5


@pytest.mark.parametrize("params", [{"max_new_tokens": 3}, {"n": 2}, {"seed": 1}])
def test_sampling_params_that_are_refused(params):
    with pytest.raises(ValidationError, match=next(iter(params))):
        VllmInference(**{**VllmInference.example, "sampling_params": params})


def test_the_work_needs_only_the_standard_library(tmp_path):
    """The environment of vLLM holds neither pydantic of ours nor pyarrow for sure."""
    work = tmp_path / "work.pickle"
    work.write_bytes(pickle.dumps(VllmChat("m", {}, {}, 0, False)))
    script = (
        "import json, pickle, sys; before = set(sys.modules); "
        f"work = pickle.load(open({str(work)!r}, 'rb')); "
        "print(json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - before})))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) <= {"raysandbox", *sys.stdlib_module_names}
