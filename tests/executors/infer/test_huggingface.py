"""Generation by transformers: the same for every layout of workers, in order, resumable."""

import json
import pickle
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError

import pytest
from pydantic import ValidationError

from raysandbox.core.errors import BadRowsError, JobFailed, UserError
from raysandbox.core.keys import digest
from raysandbox.core.progress import Progress
from raysandbox.executors.base import INFERENCES
from raysandbox.executors.infer import _generation, huggingface
from raysandbox.executors.infer._generation import Generation
from raysandbox.executors.infer._prompts import Prompt
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.unit_workers import JobWorkers
from tests.executors.conftest import WORDS
from tests.executors.infer.chat_server import lines
from tests.executors.tiny_language_models import llama

# Without start, end and unknown words at the beginning, so that no answer is empty.
SHORT = {"max_new_tokens": 6, "min_new_tokens": 1, "suppress_tokens": [0, 1]}
HuggingFaceInference = INFERENCES.get("huggingface")
QUESTIONS = [" ".join(WORDS[(row * 7 + place) % len(WORDS)] for place in range(1 + row % 6)) for row in range(22)]


@dataclass
class InProcess:
    """Does units in this process, the last first; notes which."""

    done: list = field(default_factory=list)
    after: int = 10**9

    def map(self, work, units, *, description="", python=None, num_workers=None):
        state = pickle.loads(pickle.dumps(work)).load("cpu")
        for index in reversed(range(len(units))):
            if len(self.done) >= self.after:
                raise JobFailed("the machine died")
            self.done.append(len(units[index]))
            yield index, work.run(units[index], state)


@dataclass(frozen=True)
class Job:
    resources: Resources = field(default_factory=Resources)
    runtime_env: dict = field(default_factory=dict)
    id: str = "anonymous.infer#0"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("models") / "llama", [" ".join(WORDS)])


@pytest.fixture
def infer(session, tmp_path, model):
    session.workers = InProcess()

    def run(dataset_path, name="out", **more):
        config = {"model": model, "sampling_params": SHORT, "batch_size": 4, **more}
        config.setdefault("export_path", str(tmp_path / name))
        (found,) = HuggingFaceInference(dataset_path=dataset_path, **config).infer(session)
        return [row["response"] for row in lines(found)]

    return run


def one_by_one(folder, texts, **options):
    """What `generate` itself makes of each text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    found = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        with torch.inference_mode():
            ids = model.generate(**inputs, do_sample=False, **SHORT, **options)[0]
        found.append(tokenizer.decode(ids[inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    return found


def test_answers_are_those_of_generate(infer, questions, session, model, caplog):
    found = infer(questions(QUESTIONS))
    assert found == one_by_one(model, QUESTIONS)
    assert len(set(found)) > 5
    assert session.workers.done == [2, 4, 4, 4, 4, 4]
    told = {"rows": 22, "bad_rows": 0, "reused": 0}
    assert {name: session.metrics[name] for name in told} == told
    assert session.metrics["prompt_tokens"] == sum(1 + len(text.split()) for text in QUESTIONS)
    assert 22 <= session.metrics["completion_tokens"] <= 22 * 6
    assert "answers end where sampling_params allow no more tokens" in caplog.text
    assert 0 < session.metrics["cut"] <= 22


@pytest.mark.usefixtures("cluster")
def test_two_workers_are_one(infer, session, questions, tmp_path):
    data = questions(QUESTIONS, system="the data")
    params = {**SHORT, "temperature": 0.9, "top_p": 0.95}
    alone = infer(data, sampling_params=params)
    session.use_cache = False
    session.workers = JobWorkers(Job(Resources(num_workers=2)), tmp_path / "job.log", Progress())
    assert infer(data, "two", sampling_params=params) == alone
    assert [row["id"] for row in lines(tmp_path / "two" / "questions_inference.jsonl")] == list(range(22))


def test_draws_depend_on_seed_and_row_only(infer, session, questions):
    session.use_cache = False
    params = {**SHORT, "temperature": 1.5}
    found = infer(questions(QUESTIONS), sampling_params=params)
    other = infer(questions(QUESTIONS), sampling_params=params, seed=1)
    assert sum(a != b for a, b in zip(found, other, strict=True)) > 15
    # Beside other rows the same, since the last bits of the logits do not matter here; 18 questions differ.
    backwards = infer(questions(QUESTIONS[17::-1], "b.jsonl"), sampling_params=params, batch_size=5)
    assert backwards[::-1] == found[:18]
    twice = infer(questions(["the data"] * 8, "c.jsonl"), sampling_params=params)
    assert len(set(twice)) > 1  # a repeated row is another draw


def test_draws_follow_the_distribution(model):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    with torch.inference_mode():
        logits = network(**tokenizer("the data", return_tensors="pt", return_token_type_ids=False)).logits[0, -1]
    expected = (logits / 3).softmax(-1)
    work = Generation(model, {}, {"max_new_tokens": 1, "temperature": 3.0}, 0, False)
    state = work.load("cpu")
    prompts = [Prompt([{"content": "the data"}], str(number)) for number in range(4000)]
    answers = [answer.text for answer in work.run(prompts, state)]
    counts = Counter(answers)
    for text, count in counts.most_common(3):
        share = expected[tokenizer.convert_tokens_to_ids(text) if text else torch.tensor([1, 2, 0])].sum().item()
        assert count / 4000 == pytest.approx(share, abs=0.04)
    work = Generation(model, {}, {"max_new_tokens": 1, "temperature": 3.0, "top_k": 1, "min_p": 0.1}, 0, False)
    assert {answer.text for answer in work.run(prompts[:50], work.load("cpu"))} == {
        tokenizer.decode(expected.argmax(), skip_special_tokens=True)
    }


@pytest.mark.parametrize("params", [{"do_sample": False, "temperature": 2.0}, {"temperature": 0}])
def test_no_draws_where_none_are_asked_for(infer, questions, params):
    assert infer(questions(QUESTIONS), sampling_params={**SHORT, **params}) == infer(questions(QUESTIONS))


def test_the_models_own_settings_do_not_draw(infer, questions, tmp_path, model, session):
    import shutil

    own = shutil.copytree(model, tmp_path / "own")
    settings = json.loads((own / "generation_config.json").read_text())
    (own / "generation_config.json").write_text(json.dumps({**settings, "do_sample": True, "temperature": 9.0}))
    assert infer(questions(QUESTIONS), model=str(own)) == infer(questions(QUESTIONS))


def test_a_killed_run_goes_on(infer, session, questions):
    data = questions(QUESTIONS)
    session.workers = InProcess(after=4)
    with pytest.raises(JobFailed, match="the machine died"):
        infer(data)
    session.workers = InProcess()
    resumed = infer(data)
    assert session.workers.done == [4, 4]
    assert session.metrics["reused"] == 14
    session.workers = InProcess()
    assert infer(data) == resumed
    assert session.workers.done == []
    session.use_cache = False
    assert infer(data) == resumed


def test_other_weights_at_the_same_place_answer_anew(infer, session, questions, tmp_path):
    folder = tmp_path / "changing"
    llama(folder, [" ".join(WORDS)], seed=1)
    before = infer(questions(QUESTIONS), model=str(folder))
    llama(folder, [" ".join(WORDS)], seed=2)
    assert infer(questions(QUESTIONS), model=str(folder)) != before
    assert session.metrics["reused"] == 0


def test_what_computes_the_answers_names_them(session, model, monkeypatch):
    def identity(**more):
        return digest(
            HuggingFaceInference(**{**HuggingFaceInference.example, "model": model, **more})._identity(session)
        )

    before = identity()
    assert identity() == before != identity(trust_remote_code=True)
    known = {name: huggingface.version(name) for name in ("torch", "transformers")}
    for package in known:
        monkeypatch.setattr(huggingface, "version", {**known, package: "99"}.get)
        assert identity() != before

    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(huggingface, "version", absent)
    assert identity() != before


def test_another_snapshot_of_the_hub_answers_anew(session, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    made = HuggingFaceInference(**{**HuggingFaceInference.example, "model": "some/model"})
    folder = tmp_path / "hub" / "models--some--model"
    found = [digest(made._identity(session))]
    for commit in ("a" * 40, "b" * 40):
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
        found.append(digest(made._identity(session)))
    assert len(set(found)) == 3
    assert digest(made._identity(session)) == found[-1]


def test_a_model_that_is_fetched_in_the_first_run_is_not_asked_again(infer, questions, session, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "models--some--model"

    class Fetching(InProcess):
        def map(self, work, units, **more):
            if not folder.exists():
                llama(folder / "snapshots" / ("a" * 40), [" ".join(WORDS)])
                (folder / "refs").mkdir()
                (folder / "refs" / "main").write_text("a" * 40)
            return super().map(work, units, **more)

    session.workers = Fetching(after=4)
    data = questions(QUESTIONS)
    with pytest.raises(JobFailed, match="the machine died"):
        infer(data, model="some/model")
    session.workers = Fetching()
    assert infer(data, model="some/model") == infer(data)
    assert session.workers.done[:2] == [4, 4]


def test_chat_templates(infer, questions, model, session, tmp_path):
    from transformers import AutoTokenizer

    folder = tmp_path / "chat"
    llama(folder, [" ".join(WORDS)])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %} of {{ m.content }} into{% endfor %}{% if add_generation_prompt %} model{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    found = infer(questions(QUESTIONS), model=str(folder))
    assert found == one_by_one(model, [f"of {text} into model" for text in QUESTIONS])
    assert session.metrics["prompt_tokens"] == sum(4 + len(text.split()) for text in QUESTIONS)
    with pytest.raises(BadRowsError, match="chat template refuses the messages: no system"):
        infer(questions(QUESTIONS, system="the data"), model=str(folder))


def test_prompts_that_do_not_fit(infer, session, questions):
    texts = [*QUESTIONS[:3], " ".join(["data"] * 40), *QUESTIONS[3:6]]
    with pytest.raises(BadRowsError, match="41 tokens and 6 new ones are more than the 32 that the model sees"):
        infer(questions(texts))
    found = infer(questions(texts), max_bad_rows=1)
    assert found == infer(questions(QUESTIONS[:6], "b.jsonl"))
    session.workers = InProcess()
    assert infer(questions(texts), max_bad_rows=1) == found
    assert session.workers.done == []  # the log knows the reason too


def test_answers_end_at_words(infer, questions, session, tmp_path):
    # transformers finds out how tokens are joined by the word abcdef.
    folder = llama(tmp_path / "words", [" ".join(WORDS), "abcdef"])
    data = questions(QUESTIONS[5:6])
    words = infer(data, model=folder)[0].split()
    found = infer(data, model=folder, sampling_params={**SHORT, "stop_strings": words[2:3]})
    assert found[0].split() == words[: words.index(words[2]) + 1]
    assert session.metrics["cut"] == 0


def test_rows_that_end_at_words_beside_longer_ones(infer, questions, session, tmp_path):
    folder = llama(tmp_path / "words", [" ".join(WORDS), "abcdef"])
    params = {**SHORT, "suppress_tokens": [0, 1, 2]}  # nothing but words
    data = questions(QUESTIONS[:4])
    whole = [text.split() for text in infer(data, model=folder, sampling_params=params)]
    assert [len(words) for words in whole] == [6] * 4
    assert session.metrics["cut"] == 4
    stop = whole[0][1]
    lengths = [words.index(stop) + 1 if stop in words else 6 for words in whole]
    assert len(set(lengths)) > 1  # some rows are padded
    found = infer(data, model=folder, sampling_params={**params, "stop_strings": stop})
    assert [len(text.split()) for text in found] == lengths
    assert session.metrics["completion_tokens"] == sum(lengths)
    assert session.metrics["cut"] == sum(stop not in words for words in whole)
    stop = whole[0][5]  # at the limit, and yet not cut by it
    infer(data, model=folder, sampling_params={**params, "stop_strings": [stop]})
    assert session.metrics["cut"] == sum(stop not in words for words in whole)


def test_null_in_sampling_params_says_nothing(infer, questions):
    nulls = dict.fromkeys(["temperature", "num_beams", "do_sample", "stop_strings", "repetition_penalty", "max_length"])
    assert infer(questions(QUESTIONS), sampling_params={**SHORT, **nulls}) == infer(questions(QUESTIONS))
    assert HuggingFaceInference(**{**HuggingFaceInference.example, "sampling_params": nulls}).sampling_params == {}


def test_beams_and_types(infer, questions, model):
    found = infer(questions(QUESTIONS), sampling_params={**SHORT, "num_beams": 3})
    assert found == one_by_one(model, QUESTIONS, num_beams=3)
    assert len(infer(questions(QUESTIONS), model_params={"dtype": "bfloat16"})) == 22


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sampling_params": {"max_new_token": 3}}, "has no 'max_new_token'; did you mean 'max_new_tokens'"),
        ({"sampling_params": {"num_beams": 2, "top_p": 0.5}}, "draws .* and beams .* do not go together"),
        ({"model": "./absent"}, "there is no folder ./absent"),
        ({"trust_remote_code": True}, "allow it with --allow-user-code"),
    ],
)
def test_jobs_that_are_refused(infer, questions, changed, message):
    with pytest.raises(UserError, match=message):
        infer(questions(["the"]), **changed)


def test_a_full_gpu_names_the_key(infer, questions, monkeypatch):
    import torch

    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(_generation.Generator, "_generated", full)
    with pytest.raises(JobFailed, match=r"not hold the model and one row of \d tokens .* set a smaller max_new_tokens"):
        infer(questions(QUESTIONS))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sampling_params", {"max_tokens": 3}, "called max_new_tokens"),
        ("sampling_params", {"max_length": 30}, "set max_new_tokens"),
        ("sampling_params", {"return_dict_in_generate": True}, "remove it"),
        ("sampling_params", {"typical_p": 0.5}, "drawn by temperature, top_k"),
        ("model_params", {"trust_remote_code": True}, "a key of its own"),
        ("model_params", {"revision": "main"}, "hf download"),
        ("batch_size", 0, "greater than or equal to 1"),
    ],
)
def test_configurations_that_are_refused(key, value, message):
    with pytest.raises(ValidationError, match=message):
        HuggingFaceInference(**{**HuggingFaceInference.example, key: value})


def test_check_names_a_model_that_is_not_here():
    assert "not on this machine" in HuggingFaceInference.missing_weights({"model": "nobody/nothing"})["model"]
    assert not HuggingFaceInference.missing_weights({"model": "./somewhere"})
