"""Each trial of a search is suggested once, whatever happens in between."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysandbox.core.errors import UserError
from raysandbox.hpo import adaptive
from raysandbox.hpo.schema import Search
from raysandbox.hpo.searchers import Suggestion, make_searcher, tune_searcher
from raysandbox.hpo.space import Parameter
from raysandbox.sandbox.trials import TrialRecord
from tests.hpo.searches import EVERY_KIND, Driver, points, search_over

X = Parameter("op.x", "uniform", low=0.0, high=1.0)
Y = Parameter("op.y", "normal")
GRID = (Parameter("op.a", "int_uniform", low=1, high=3), Parameter("op.b", "categorical", values=("u", None, [1])))


def bowl(suggestion: Suggestion) -> float:
    """A planted objective: 0 at x 0.3, y 0.5."""
    return (suggestion.params["op.x"] - 0.3) ** 2 + (suggestion.params["op.y"] - 0.5) ** 2


def some_fail(suggestion: Suggestion) -> float | None:
    """The bowl, but every fifth trial has no value."""
    return None if suggestion.number % 5 == 3 else bowl(suggestion)


def undisturbed(search: Search) -> list[tuple[Any, ...]]:
    return points(Driver(search, lambda _: 1.0, at_once=1).run())


SEEDED = [
    search_over(*GRID, method="grid", num_points=9),
    search_over(*GRID, method="grid", num_points=9, seeds=(1, 2)),
    search_over(X, Y, method="random", num_points=9, seeds=(7, 8, 9)),
    search_over(*EVERY_KIND, method="random", search_alg={"type": "random"}),
    search_over(X, Y, method="random", points_to_evaluate=({"op.x": 0.5, "op.y": 0.5},)),
]


@pytest.mark.parametrize("search", SEEDED)
@given(seed=st.integers(0, 10_000), at_once=st.integers(1, 5), kill=st.sampled_from([0.0, 0.1, 0.5]))
@settings(max_examples=20)
def test_seeded_points_are_the_same_under_any_order_and_any_kills(
    search: Search, seed: int, at_once: int, kill: float
) -> None:
    driver = Driver(search, lambda _: 1.0, seed=seed, at_once=at_once, kill=kill)
    assert points(driver.run()) == undisturbed(search)


def test_the_grid_is_complete_and_given_points_are_not_repeated() -> None:
    search = search_over(*GRID, method="grid", num_points=9, points_to_evaluate=({"op.a": 2, "op.b": [1]},))
    records = Driver(search, lambda _: 1.0).run()
    tried = [(r["params"]["op.a"], json.dumps(r["params"]["op.b"])) for _, r in sorted(records.items())]
    assert tried[0] == (2, "[1]")
    assert sorted(tried) == sorted(itertools.product((1, 2, 3), ('"u"', "null", "[1]")))


def test_a_grid_of_any_number_of_points_ends() -> None:
    assert len(Driver(search_over(*GRID, method="grid", num_points=None), lambda _: 1.0).run()) == 9


@pytest.mark.parametrize("seeds", [(), (1, 2)])
@given(seed=st.integers(0, 10_000), at_once=st.integers(1, 4))
@settings(max_examples=10)
def test_an_adaptive_search_runs_each_trial_once_under_kills(seeds: tuple[int, ...], seed: int, at_once: int) -> None:
    search = search_over(X, Y, seeds=seeds, num_points=14)
    driver = Driver(search, some_fail, seed=seed, at_once=at_once, kill=0.15)
    records = driver.run()
    repeats = max(1, len(seeds))
    assert sorted(records) == list(range(14 * repeats))
    assert len(driver.starts) <= len(records) + driver.kills * at_once
    by_point: dict[int, list[dict[str, Any]]] = {}
    for record in records.values():
        by_point.setdefault(record["point"], []).append(dict(record))
    assert len({json.dumps(same[0]["params"]) for same in by_point.values()}) == 14
    for same in by_point.values():
        assert sorted(r["seed"] for r in same) == list(seeds) if seeds else [r["seed"] for r in same] == [None]
        assert len({json.dumps(r["params"]) for r in same}) == 1


def test_what_was_begun_goes_on_first_under_its_own_number() -> None:
    search = search_over(X, Y)
    first = make_searcher(search, [])
    begun = [first.suggest() for _ in range(3)]
    known = [
        TrialRecord(
            s.number, s.point, s.params, s.seed, s.sampled, state="done" if s.number == 1 else "running", value=1
        )
        for s in begun
        if s
    ]
    searcher = make_searcher(search, known)
    assert [searcher.suggest() for _ in range(2)] == [begun[0], begun[2]]
    fresh = searcher.suggest()
    assert fresh is not None
    assert fresh.number == 3
    assert fresh.params not in [s.params for s in begun if s]


def test_failed_trials_are_run_again_only_when_asked() -> None:
    failed = Driver(search_over(X, Y), some_fail)
    failed.run()
    assert make_searcher(search_over(X, Y), failed.known()).finished
    again = make_searcher(search_over(X, Y, rerun_failed=True), failed.known())
    numbers = [suggestion.number for suggestion in suggestions(again)]
    assert numbers == [number for number in range(12) if number % 5 == 3]
    assert again.finished


def suggestions(searcher: Any) -> Iterator[Suggestion]:
    while (suggestion := searcher.suggest()) is not None:
        yield suggestion


def test_the_target_ends_the_search_but_not_what_runs() -> None:
    search = search_over(X, Y, num_points=None, target=0.5)
    searcher = make_searcher(search, [])
    first, second = searcher.suggest(), searcher.suggest()
    assert first is not None
    assert second is not None
    searcher.ended(first.number, 0.4)
    assert searcher.finished
    searcher.ended(second.number, 3.0)
    record = TrialRecord(0, 0, first.params, sampled=first.sampled, state="done", value=0.4)
    assert make_searcher(search, [record]).finished


def test_an_algorithm_beats_chance_on_a_planted_objective() -> None:
    def mean_of_last(**fields: Any) -> float:
        ends: list[float] = []
        for seed in range(5):
            records = Driver(search_over(X, Y, num_points=50, seed=seed, **fields), bowl).run()
            ends += [records[number]["value"] for number in range(30, 50)]
        return statistics.median(ends)

    assert mean_of_last() < mean_of_last(method="random") / 5


def test_what_was_told_survives_a_kill() -> None:
    """After a kill the algorithm still knows where the minimum is, and what runs."""
    search = search_over(X, Y, num_points=60)
    driver = Driver(search, some_fail, seed=1)
    driver.run()
    known = [record for record in driver.known() if record.number < 40]
    more = make_searcher(search, known)
    near = [bowl(suggestion) for suggestion in itertools.islice(suggestions(more), 10)]
    blank = make_searcher(search, [])
    far = [bowl(suggestion) for suggestion in itertools.islice(suggestions(blank), 10)]
    assert statistics.median(near) < statistics.median(far) / 5


@pytest.fixture
def studies(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Optuna's studies, in the order in which they are made."""
    import optuna

    made: list[Any] = []
    make = optuna.study.create_study

    def create(**options: Any) -> Any:
        made.append(make(**options))
        return made[-1]

    monkeypatch.setattr(optuna.study, "create_study", create)
    return made


def test_the_algorithm_is_told_the_same_after_a_kill(studies: list[Any]) -> None:
    """Optuna has the same finished points, to the digit, whether it lived through them or was told of them."""
    search = search_over(*EVERY_KIND)
    driver = Driver(search, lambda s: s.params["op.uniform"], at_once=1)
    driver.run()
    make_searcher(search, driver.known())
    lived, told = ([(trial.params, trial.value) for trial in study.trials] for study in studies)
    assert len(told) == 12
    assert told == lived


def test_the_first_proposals_are_not_repeated_after_a_kill() -> None:
    search = search_over(X, Y)
    first = make_searcher(search, []).suggest()
    assert first is not None
    known = [TrialRecord(0, 0, first.params, sampled=first.sampled, state="failed")]
    second = make_searcher(search, known).suggest()
    assert second is not None
    assert second.params != first.params
    assert make_searcher(search, []).suggest() == first


def test_repeats_are_told_as_the_mean_of_those_with_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, float | None]] = []
    monkeypatch.setattr(adaptive.AdaptivePoints, "told", lambda self, point, value: told.append((point, value)))
    searcher = make_searcher(search_over(X, seeds=(1, 2, 3)), [])
    six = [suggestion.number for suggestion in itertools.islice(suggestions(searcher), 6)]
    for number, value in zip(six, (1.0, None, 4.0, None, None, None), strict=True):
        searcher.ended(number, value)
    assert told == [(0, 2.5), (1, None)]


@pytest.mark.parametrize("search_alg", [None, {"type": "optuna", "sampler": "random"}])
def test_every_kind_of_parameter_goes_through_an_algorithm(search_alg: dict[str, Any] | None) -> None:
    search = search_over(*EVERY_KIND, search_alg=search_alg, num_points=25)
    records = Driver(search, lambda s: s.params["op.uniform"], kill=0.1).run()
    assert len(records) == 25
    for record in records.values():
        json.dumps(record)
        for parameter in EVERY_KIND:
            value = record["params"][parameter.name]
            assert parameter.contains(value), (parameter.name, value)
            sampled = (record["sampled"] or {}).get(parameter.name)
            assert sampled is None or parameter.at(sampled) == value
    assert [type(value) for value in records[0]["params"].values()].count(float) >= 8


def test_sampled_holds_what_the_values_cannot_tell() -> None:
    suggestion = make_searcher(search_over(X, Y, GRID[1]), []).suggest()
    assert suggestion is not None
    assert suggestion.sampled is not None
    assert set(suggestion.sampled) == {"op.y"}
    plain = make_searcher(search_over(X, GRID[1]), []).suggest()
    assert plain is not None
    assert plain.sampled is None


def test_given_points_come_first_and_are_told(studies: list[Any]) -> None:
    given_points = ({"op.x": 0.3, "op.y": 0.5}, {"op.x": 0.31, "op.y": 0.5})
    search = search_over(X, Y, points_to_evaluate=given_points)
    records = Driver(search, bowl, at_once=1).run()
    assert [records[number]["params"] for number in (0, 1)] == list(given_points)
    told = [(trial.params["p0"], trial.value) for trial in studies[0].trials]
    assert told[:2] == [(0.3, 0.0), (0.31, pytest.approx(0.0001))]
    assert len(told) == 12
    assert len(Driver(search, bowl, kill=0.3, seed=3).run()) == 12


def test_points_of_a_small_space_are_not_repeated_until_all_were_tried() -> None:
    records = Driver(search_over(*GRID, num_points=8), lambda s: float(s.params["op.a"]), at_once=1).run()
    assert len({json.dumps(record["params"]) for record in records.values()}) >= 7
    assert len(Driver(search_over(*GRID, num_points=20), lambda s: 1.0).run()) == 20


def test_nothing_to_choose_is_no_search_for_an_algorithm() -> None:
    records = Driver(search_over(Parameter("op.x", "constant", values=(3,)), num_points=2), lambda _: 1.0).run()
    assert [record["params"] for record in records.values()] == [{"op.x": 3}] * 2


class _Waits:
    """An algorithm that has nothing to propose, as one that counts values when some failed."""

    def set_search_properties(self, *_: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> None:
        return None

    def add_evaluated_point(self, *_: Any, **__: Any) -> None:
        pass

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        raise AssertionError("nothing was proposed")


def test_an_algorithm_that_waits_for_nothing_is_helped_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive, "_make", lambda *_: _Waits())
    searcher = make_searcher(search_over(X, Y), [])
    first = searcher.suggest()
    assert first is not None
    assert searcher.suggest() is None, "it may yet learn from the running one"
    assert not searcher.finished
    searcher.ended(first.number, 1.0)
    assert searcher.suggest() is not None


def test_a_missing_package_is_named() -> None:
    with pytest.raises(UserError, match=r"search_alg zoopt needs .*pip install zoopt"):
        make_searcher(search_over(X, search_alg={"type": "zoopt", "algo": "asracos"}), [])


def test_tune_gets_what_is_noted_before() -> None:
    import copy
    import pickle

    noted: list[Suggestion] = []
    inner = make_searcher(search_over(X, Y, num_points=2, seeds=(5,)), [])
    searcher = tune_searcher(inner, noted.append)
    config = searcher.suggest("a")
    assert config == {"number": 0, "point": 0, "seed": 5, "params": dict(noted[0].params)}
    assert copy.deepcopy(searcher) is searcher
    pickle.loads(pickle.dumps(searcher))
    searcher.on_trial_complete("a", {"objective": 1.0})
    assert searcher.suggest("b") != searcher.FINISHED
    assert searcher.suggest("c") == searcher.FINISHED
    assert [suggestion.number for suggestion in noted] == [0, 1]


def test_tune_waits_while_an_algorithm_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive, "_make", lambda *_: _Waits())
    searcher = tune_searcher(make_searcher(search_over(X), []), lambda _: None)
    assert isinstance(searcher.suggest("a"), dict)
    assert searcher.suggest("b") is None
