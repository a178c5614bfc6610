from __future__ import annotations

import pytest

from raysandbox.config.schema import JobConfig, JobEntry
from raysandbox.core.errors import MissingMetricError, UserError
from raysandbox.sandbox.references import Target, resolve_reference


def entry(pipeline: str, meta_name: str | None, index: int, *output: str) -> JobEntry:
    config = JobConfig(hook="H", meta_name=meta_name, output=list(output))
    return JobEntry(pipeline, "probe", index, config, ("probe_job_configs", index))


JOBS = [
    entry("first", "a", 0, "path"),
    entry("first", None, 1),
    entry("second", "a.b", 0, "score", "other"),
    entry("second", "twice", 1, "x"),
    entry("second", "twice", 2, "x"),
    entry("second", "twice", 3, "y"),
    entry("second", "last", 4, "z"),
]


def test_by_name_and_last_across_pipelines() -> None:
    assert resolve_reference("first.a.path", JOBS, JOBS[2]).entry is JOBS[0]
    assert resolve_reference("-1.path", JOBS, JOBS[2]).entry is JOBS[0]
    assert resolve_reference("-1.z", JOBS).entry is JOBS[6]
    deep = resolve_reference("second.a.b.score.mean.0", JOBS)
    assert (deep.entry, deep.output, deep.keys) == (JOBS[2], "score", ("mean", "0"))
    assert resolve_reference("second.twice.y", JOBS).entry is JOBS[5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("first.a.paht", "did you mean 'first.a.path'"),
        ("second.last.z", "runs later"),
        ("-1.nothing", "the last job with outputs, first.a#0, has path"),
        ("nonsense", "names no output"),
    ],
)
def test_what_cannot_be_referred_to(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_reference(text, JOBS, JOBS[2])


def test_ambiguous_and_none_before() -> None:
    with pytest.raises(UserError, match="ambiguous"):
        resolve_reference("second.twice.x", JOBS)
    with pytest.raises(UserError, match="no earlier job has outputs"):
        resolve_reference("-1.path", JOBS, JOBS[0])


@pytest.mark.parametrize(
    ("condition", "value", "met"),
    [
        (">= 0.8", 0.8, True),
        (">0.8", 0.8, False),
        ("<= 1e-3", 0.001, True),
        ("< 5", 4, True),
        ("== 0", 0, True),
        ("== yes", True, True),
        ("== text", "text", True),
    ],
)
def test_targets(condition: str, value: object, met: bool) -> None:
    assert Target.parse(f"second.a.b.score {condition}", JOBS).met({"score": value}) is met


@pytest.mark.parametrize(
    "text", ["second.a.b.score", "second.a.b.score >= x", "second.a.b.score >= [1]", ">= 3", "x.y.z > 1"]
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(UserError):
        Target.parse(text, JOBS)


def test_targets_are_never_code() -> None:
    with pytest.raises(UserError):
        Target.parse("__import__('os').system('true') == 0", JOBS)


@pytest.mark.parametrize(
    "outputs", [{}, {"score": None}, {"score": float("nan")}, {"score": "high"}, {"score": {"mean": 1}}]
)
def test_a_missing_metric_is_an_error(outputs: dict) -> None:
    with pytest.raises(MissingMetricError):
        Target.parse("second.a.b.score >= 0.8", JOBS).met(outputs)
