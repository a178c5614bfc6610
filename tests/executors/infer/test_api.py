"""The client of chat servers: every row answered once or quarantined, whatever the server does."""

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from raysandbox.config.validation import model_problems
from raysandbox.core import redact
from raysandbox.core.errors import BadRowsError, JobFailed, Problem, UserError
from raysandbox.executors.base import INFERENCES
from raysandbox.executors.infer import _client
from tests.executors.infer.chat_server import body, lines

ApiInference = INFERENCES.get("api")
CANARY = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(_client, "_FIRST_WAIT_S", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def ask(server, session, tmp_path):
    def run(dataset_path, **more):
        config = {"model": "m", "api_endpoint": server.url, "export_path": str(tmp_path / "out"), **more}
        return ApiInference(dataset_path=dataset_path, **config).infer(session)

    return run


def reply(text):
    return 200, {}, json.dumps(body(text)).encode()


def test_every_row_in_order_with_all_its_keys(ask, server, session, questions, tmp_path):
    texts = [f"question {n}" for n in range(40)]
    server.behave = lambda question, times: time.sleep(0.1 + 0.05 * (len(question) % 2))  # out of order
    first, second = questions(texts, system="be brief", tag=[1, {"a": None}]), questions(["später"], "b.jsonl")
    found = ask([first, second], concurrency=16, sampling_params={"temperature": 0.5})
    assert found == [str(tmp_path / "out" / name) for name in ("questions_inference.jsonl", "b_inference.jsonl")]
    assert lines(found[0]) == [{**row, "response": f"echo: {row['query']}"} for row in lines(first)]
    assert lines(found[1]) == [{"id": 0, "query": "später", "response": "echo: später"}]
    assert set(server.asked.values()) == {1}
    assert 8 <= server.busiest <= 16
    sent = next(sent for sent in server.bodies if sent["messages"][-1]["content"] == "question 7")
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "question 7"}]
    assert sent == {"temperature": 0.5, "model": "m", "messages": chat}
    told = {"rows": 41, "bad_rows": 0, "reused": 0, "cut": 0, "prompt_tokens": 123, "completion_tokens": 82}
    assert {name: session.metrics[name] for name in told} == told
    assert session.metrics["requests"] == 41
    assert session.metrics["retries"] == 0
    assert session.metrics["requests_per_s"] > 0
    assert not session.quarantine.exists()


def test_what_may_pass_is_tried_again(ask, server, session, questions):
    bad = {
        "a": (500, {}, b"oops"),
        "b": (429, {}, b""),
        "c": (200, {}, b"<html>"),
        "d": (200, {}, json.dumps({"error": "x"}).encode()),
        "e": reply(""),
        "f": reply(None),
        "g": (503, {"Retry-After": "soon"}, b""),
        "h": (200, {"Content-Length": "1000", "Connection": "close"}, b"{}"),
    }
    server.behave = lambda question, times: bad[question] if times <= 2 else None
    (path,) = ask(questions(list(bad)))
    assert [row["response"] for row in lines(path)] == [f"echo: {question}" for question in bad]
    assert server.asked == dict.fromkeys(bad, 3)
    assert session.metrics["requests"] == 24
    assert session.metrics["retries"] == 16


def test_a_share_of_rows_may_be_without_an_answer(ask, server, questions):
    server.behave = lambda question, times: (400, {}, b"no") if question == "bad" else None
    path = questions(["good", "bad", "also"])
    (found,) = ask(path, max_bad_rows=0.34)
    assert len(lines(found)) == 2
    with pytest.raises(BadRowsError, match=r"max_bad_rows allows 0\.33"):
        ask(path, max_bad_rows=0.33)
    with pytest.raises(ValueError, match="must be a number of rows, or a share below 1"):
        ask(path, max_bad_rows=1.5)


def test_rows_without_an_answer_are_quarantined(ask, server, session, questions, tmp_path):
    answers = {
        "garbage": (200, {}, b"not json"),
        "empty": reply("  \n"),
        "list": reply(["x"]),
        "thinking": reply("<think>hmm"),
        "broken": (500, {}, b"down"),
        "too long": (400, {}, b'{"error": "context length"}'),
    }
    server.behave = lambda question, times: answers.get(question)
    path = Path(questions([*answers, "slow", "good"]))
    path.write_bytes(path.read_bytes() + b'[1]\n\n{"id"\n\xff{}\n{"id": 9}\n{"query": 3}\n{"query": "\\ud800"}\n')
    (found,) = ask(str(path), max_retry_num=1, max_bad_rows=20)
    assert [row["query"] for row in lines(found)] == ["slow", "good"]
    bad = lines(session.quarantine / "inference.jsonl.quarantine")
    assert {record["line"] for record in bad} == {*range(1, 7), 9, 11, 12, 13, 14, 15}
    assert len(bad) == 12
    reasons = {record["line"]: record["reason"] for record in bad}
    expected = {
        1: "the answer is not JSON: not json (2 tries)",
        2: "choices.0.message.content of the answer is empty",
        3: "choices.0.message.content of the answer is no text",
        4: "the answer ends inside its <think> block",
        5: "the server answers 500: down (2 tries)",
        6: 'the server answers 400: {"error": "context length"}',
        9: "not a JSON object",
        11: "not JSON",
        12: "not JSON",
        13: "no 'query'",
        14: "'query' is of type int, not text",
        15: "half of a surrogate pair",
    }
    assert all(text in reasons[line] for line, text in expected.items())
    assert {record["file"] for record in bad} == {str(path)}
    assert bad[0]["raw"] == path.read_text(errors="replace").splitlines()[0] + "\n"
    assert server.asked == {"garbage": 2, "empty": 2, "list": 2, "thinking": 1, "broken": 2, "too long": 1,
                            "slow": 1, "good": 1}  # fmt: skip
    assert session.metrics["bad_rows"] == 12


def test_more_bad_rows_than_allowed_fail_and_write_nothing(ask, server, session, questions, tmp_path):
    server.behave = lambda question, times: (400, {}, b"no") if question == "bad" else None
    path = questions(["good", "bad", "good", "bad"])
    with pytest.raises(
        BadRowsError, match=r"2 rows without.*allows 1:\n  .*questions.jsonl:[24]: the server answers 400"
    ):
        ask(path, max_bad_rows=1, concurrency=1)
    assert not (tmp_path / "out").exists()
    assert len(lines(session.quarantine / "inference.jsonl.quarantine")) == 2
    with pytest.raises(JobFailed, match="none of 1 rows has an answer"):
        ask(questions(["bad"], "c.jsonl"), max_bad_rows=1)


def test_a_job_that_fails_asks_no_more(ask, server, questions):
    server.delay = 0.02
    server.behave = lambda question, times: (400, {}, b"no")
    with pytest.raises(BadRowsError) as caught:
        ask(questions([str(n) for n in range(200)]), concurrency=2)
    asked = len(server.bodies)
    assert asked <= 6
    time.sleep(0.2)
    assert len(server.bodies) == asked
    assert caught.value  # held until here, as whoever reports it does


def test_answers_that_are_cut_are_counted(ask, server, session, questions, caplog):
    cut = {"choices": [{"message": {"content": "because"}, "finish_reason": "length"}]}
    server.behave = lambda question, times: (200, {}, json.dumps(cut).encode()) if question == "a" else None
    for _ in range(2):  # from the server and from the log
        ask(questions(["a", "b"]))
        assert session.metrics["cut"] == 1
    assert "1 of 2 answers end where sampling_params allow no more tokens" in caplog.text


def test_rows_that_cannot_be_asked_fail_before_anything_is_sent(ask, server, questions):
    with pytest.raises(BadRowsError, match="no 'prompt'"):
        ask(questions(["a", "b"]), func_kwargs={"query_key": "prompt"})
    assert not server.bodies


@pytest.mark.parametrize("status", [401, 404, 307])
def test_what_is_wrong_for_all_rows_ends_the_job(ask, server, questions, status):
    server.behave = lambda question, times: (status, {"Location": server.url}, b"refused")
    with pytest.raises(JobFailed, match=f"chat/completions: the server answers {status}: refused"):
        ask(questions(["a"] * 50), concurrency=2, max_bad_rows=50)
    assert len(server.bodies) <= 4


def test_no_server_and_a_slow_one(ask, server, questions, tmp_path):
    server.delay = 0.4
    with pytest.raises(BadRowsError, match=r"no answer within 0.1 s \(2 tries\)"):
        ask(questions(["a"]), timeout_s=0.1, max_retry_num=1)
    with pytest.raises(BadRowsError, match="ClientConnectorError"):
        ask(questions(["a"]), api_endpoint="http://127.0.0.1:9/v1/chat/completions", max_retry_num=1)


def test_retry_after_holds_everybody_back(ask, server, questions, caplog):
    server.behave = lambda question, times: (429, {"Retry-After": "1"}, b"") if len(server.bodies) == 1 else None
    with caplog.at_level(logging.WARNING):
        ask(questions([str(n) for n in range(6)]), concurrency=1)
    assert server.times[1] - server.times[0] >= 1.0
    assert caplog.text.count("asks for a pause of 1 s") == 1
    assert _client._retry_after("3") == 3
    assert _client._retry_after("100000") == 600
    assert _client._retry_after("") == _client._retry_after("-4") == _client._retry_after("nan") == 0
    assert _client._retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert _client._retry_after("Wed, 21 Oct 2099 07:28:00 GMT") == 600


def test_requests_per_minute(ask, server, questions):
    ask(questions([str(n) for n in range(6)]), requests_per_minute=1200, concurrency=6)  # one in 50 ms
    gaps = [later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)]
    assert sum(gaps) >= 0.24


def test_the_second_run_asks_nothing_and_needs_no_key(ask, server, session, questions, monkeypatch):
    monkeypatch.setenv("MY_KEY_1", CANARY)
    path = questions(["a", "b", "a"])
    (found,) = ask(path, api_key_env="MY_KEY_1")
    assert server.asked == {"a": 2, "b": 1}  # rows that ask the same are asked apart
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {CANARY}"}
    monkeypatch.delenv("MY_KEY_1")
    before = lines(found)
    (found,) = ask(path, api_key_env="MY_KEY_1")
    assert lines(found) == before
    assert session.metrics["reused"] == 3
    ask(questions(["b", "c"]))  # another data set: only what is new
    assert server.asked == {"a": 2, "b": 1, "c": 1}
    ask(questions(["b"]), sampling_params={"seed": 1})  # another request
    session.use_cache = False
    ask(questions(["b"]))
    assert server.asked["b"] == 3


def test_torn_lines_of_the_log_are_asked_again(ask, server, session, questions):
    path = questions(["a", "b", "c"])
    ask(path, concurrency=1)
    (log,) = session.cache_dir.rglob("*.jsonl")
    log.write_bytes(log.read_bytes()[:-10])
    with (log.parent / "0.jsonl").open("wb") as other:
        other.write(b"\x00\x00\n[1]\n{}\n")
    (found,) = ask(path)
    assert [row["response"] for row in lines(found)] == ["echo: a", "echo: b", "echo: c"]
    assert server.asked == {"a": 1, "b": 1, "c": 2}


def test_a_killed_run_asks_only_for_what_is_missing(server, questions, session, tmp_path):
    path = questions([f"q{n}" for n in range(120)])
    server.delay = 0.02
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, "")
        from pathlib import Path
        from types import SimpleNamespace
        from raysandbox.core.progress import Progress
        from raysandbox.executors.infer.api import ApiInference
        folder = Path({str(tmp_path)!r})
        session = SimpleNamespace(report=lambda metrics, step=None: None, progress=Progress(), use_cache=True,
                                  quarantine=folder / "quarantine", cache_dir=folder / "cache")
        ApiInference(model="m", api_endpoint={server.url!r}, dataset_path={path!r}, concurrency=4,
                     export_path=str(folder / "out")).infer(session)
    """)
    for wanted in (30, 70):  # two kills
        process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[3])
        while len(server.bodies) < wanted:
            assert process.poll() is None
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(2 * server.delay)
        logged = Counter(record["key"] for log in session.cache_dir.rglob("*.jsonl") for record in lines(log))
        assert set(logged.values()) == {1}
        assert len(logged) >= len(server.bodies) - 8  # all but the four that were on their way, in each run
        assert not list((tmp_path / "out").glob("*.jsonl"))
    known = len(logged)
    server.bodies.clear()
    config = {"model": "m", "api_endpoint": server.url, "export_path": str(tmp_path / "out")}
    (found,) = ApiInference(dataset_path=path, **config).infer(session)
    assert [row["response"] for row in lines(found)] == [f"echo: q{n}" for n in range(120)]
    assert len(server.bodies) == 120 - known
    assert session.metrics["reused"] == known
    assert max(server.asked.values()) <= 2
    assert sum(times - 1 for times in server.asked.values()) <= 8


@pytest.mark.parametrize("status", [200, 401, 400])
def test_the_key_is_nowhere(ask, server, session, questions, tmp_path, monkeypatch, caplog, status):
    monkeypatch.setattr(redact, "_known", set())
    monkeypatch.setenv("MY_SETTING", CANARY)
    quoted = {"choices": [{"message": {"content": f"your key is {CANARY}"}}], "error": f"bad key {CANARY}"}
    server.behave = lambda question, times: (status, {}, json.dumps(quoted).encode())
    seen = ""
    try:
        ask(questions(["a", "b"]), api_key_env="MY_SETTING")
    except JobFailed as error:
        seen = repr(error) + repr(error.__context__)
    assert (status != 200) == bool(seen)
    assert server.headers[0]["Authorization"] == f"Bearer {CANARY}"
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert CANARY not in seen + caplog.text + str(session.metrics)
    assert CANARY.encode() not in written
    assert (b"your key is ***" if status == 200 else b"***") in written + seen.encode()


def test_keys_that_cannot_be_used(ask, server, questions, monkeypatch, caplog):
    with pytest.raises(UserError, match="environment variable NO_SUCH_KEY is not set"):
        ask(questions(["a"]), api_key_env="NO_SUCH_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-broken\nkey")
    with pytest.raises(UserError, match="OPENAI_API_KEY holds characters"):
        ask(questions(["a"]))
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with pytest.raises(BadRowsError):
        ask(questions(["a"]), api_endpoint="http://nowhere.invalid/v1/chat/completions", max_retry_num=0)
    assert "goes to nowhere.invalid unencrypted" in caplog.text


def test_base_urls(ask, server, questions, monkeypatch, tmp_path):
    base = server.url.removesuffix("/chat/completions")
    ask(questions(["a"]), api_endpoint="/chat/completions", model_params={"base_url": base})
    monkeypatch.setenv("OPENAI_BASE_URL", base + "/")
    config = {"model": "m", "export_path": str(tmp_path / "out"), "dataset_path": questions(["b"])}
    assert ApiInference(**config)._url() == server.url
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(UserError, match=r"set model_params\.base_url or the environment variable OPENAI_BASE_URL"):
        ApiInference(**config)._url()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("api_endpoint", "ftp://host/v1", "must begin with http"),
        ("api_endpoint", "http:///v1", "must begin with http"),
        ("api_endpoint", "https://host:port/v1", "is no address"),
        ("api_endpoint", f"https://me:{CANARY}@host/v1", "must hold no user, password or key"),
        ("api_endpoint", f"https://host/v1?api_key={CANARY}", "must hold no user, password or key"),
        ("model_params", {"api_key": CANARY}, "set api_key_env"),
        ("model_params", {"timeout": 3}, "knows base_url only, not 'timeout'"),
        ("sampling_params", {"stream": True}, "'stream' is not for the user to send"),
        ("build_messages_func", "build_message", "did you mean 'build_messages'"),
        ("parse_output_func", "parse", "unknown output parser 'parse'"),
        ("func_kwargs", {"querykey": "q"}, "has a parameter 'querykey'; did you mean 'query_key'"),
        ("func_kwargs", {"query_key": 3}, "query_key"),
        ("api_key_env", "my-key", "the name of an environment variable"),
        ("concurrency", 0, "greater than or equal to 1"),
        ("concurency", 1, "Extra inputs"),
    ],
)
def test_configurations_that_are_refused(key, value, message):
    with pytest.raises(ValidationError, match=message):
        ApiInference(**{**ApiInference.example, key: value})


@pytest.mark.parametrize(
    "key",
    [CANARY, "hf_" + "aBc1" * 8, "gsk_" + "a1B2" * 13, "0123456789abcdef", "a_b" * 22, "AIzaSy" + "xY_9" + "0aB" * 9],
)
def test_a_key_in_place_of_its_variable_is_not_quoted(key, monkeypatch):
    monkeypatch.setattr(redact, "_known", set())
    with pytest.raises(ValidationError) as caught:
        ApiInference(**{**ApiInference.example, "api_key_env": key})
    raw = {**ApiInference.example, "api_key_env": key}
    problems = model_problems(
        ApiInference, raw, lambda path, message, fix: Problem(None, None, str(path), message, fix)
    )
    assert [problem.path for problem in problems] == ["('api_key_env',)"]
    assert key not in str(caught.value) + repr(caught.value) + str(problems)
    assert redact.redact_text(f"key {key}") == "key ***"


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "_k2", "MY_OWN_COMPANYS_KEY_OF_MODELS_IN_REGION_3", None])
def test_names_of_variables(name):
    assert ApiInference(**{**ApiInference.example, "api_key_env": name}).api_key_env == name


def test_the_address_of_the_environment_is_part_of_the_job(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://one/v1")
    relative: list[dict] = [{}, {"api_endpoint": "/chat/completions"}, {"api_endpoint": None, "model_params": None}]
    assert [ApiInference.surroundings(raw) for raw in relative] == ["http://one/v1"] * 3
    told = [{"api_endpoint": "http://two/v1/chat/completions"}, {"model_params": {"base_url": "http://two/v1"}}]
    assert [ApiInference.surroundings(raw) for raw in told] == [None, None]
    assert ApiInference.surroundings({"api_endpoint": 3, "model_params": [1]}) == "http://one/v1"
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert ApiInference.surroundings({}) is None


@pytest.mark.parametrize("count", [-1, 2**53, 10**400, True, 1.5, float("nan"), "3"])
def test_numbers_of_tokens_that_are_none(ask, server, session, questions, count):
    usage = {"prompt_tokens": count, "completion_tokens": 4}
    server.behave = lambda question, times: (200, {}, json.dumps(body("yes", usage=usage)).encode())
    for _ in range(2):  # from the server and from the log
        ask(questions(["a"]))
        assert "prompt_tokens" not in session.metrics
        assert session.metrics["completion_tokens"] == 4
    (log,) = session.cache_dir.rglob("*.jsonl")
    log.write_text(json.dumps({**lines(log)[0], "prompt_tokens": count}) + "\n")  # of an earlier version
    (path,) = ask(questions(["a"]))
    assert lines(path)[0]["response"] == "yes"
    assert session.metrics["reused"] == 1
    assert "prompt_tokens" not in session.metrics


def test_data_that_is_refused(ask, questions, tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*absent.jsonl"):
        ask(str(tmp_path / "absent.jsonl"))
    (tmp_path / "sub").mkdir()
    with pytest.raises(UserError, match="two inputs would be written to"):
        ask([questions(["a"]), questions(["b"], "sub/questions.jsonl")])
    with pytest.raises(JobFailed, match="no rows in"):
        ask(questions([]))


def test_answers_that_replace_a_key_warn(ask, questions, caplog):
    (found,) = ask(questions(["a"], response="reference"))
    assert lines(found)[0]["response"] == "echo: a"
    assert "already hold 'response'" in caplog.text
    caplog.clear()
    (found,) = ask(questions(["a"], response="reference"), infer_res_key="answer")
    assert lines(found)[0] == {"id": 0, "query": "a", "response": "reference", "answer": "echo: a"}
    assert not caplog.records


def test_tokens_that_are_not_told_are_no_zero(ask, server, session, questions, caplog):
    server.behave = lambda question, times: reply("yes") if question == "a" else None
    ask(questions(["a", "b"]))
    assert "prompt_tokens" not in session.metrics
    assert "completion_tokens is not reported: 1 of 2 answers do not tell it" in caplog.text


def test_a_notebook_has_a_loop_of_its_own(ask, questions):
    import asyncio

    async def cell():
        return ask(questions(["a"]))

    (found,) = asyncio.run(cell())
    assert lines(found)[0]["response"] == "echo: a"


def test_an_interrupt_ends_at_once(ask, server, questions):
    server.delay = 5.0

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            ask(questions(["a"] * 9))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 3
    server.delay = 0.0
