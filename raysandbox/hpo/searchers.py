"""Which trial comes next: points of a grid, of chance or of an adaptive algorithm, each exactly once."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raysandbox.hpo.adaptive import AdaptivePoints
from raysandbox.hpo.axes import varies
from raysandbox.hpo.points import FixedPoints, KnownPoint, PointSource, Proposal

if TYPE_CHECKING:
    from ray.tune.search import Searcher

    from raysandbox.hpo.schema import Search
    from raysandbox.sandbox.trials import TrialRecord

__all__ = ["Suggestion", "TrialSearcher", "make_searcher", "tune_searcher"]


@dataclass(frozen=True)
class Suggestion:
    """A trial that is to be run.

    Attributes:
        number: of the trial, from 0.
        point: of its point in the search space, from 0; the repeats of a point share it.
        seed: of this repeat; None where a point is run once as it is.
        params: parameter → value.
        sampled: parameter → coordinate in (0, 1), for those that the algorithm knows by coordinates only.
    """

    number: int
    point: int
    seed: int | None
    params: Mapping[str, Any]
    sampled: Mapping[str, Any] | None


@dataclass
class _Point:
    """What a searcher knows of one point."""

    proposal: Proposal
    values: dict[int, float | None] = field(default_factory=lambda: {})  # trial → value, for trials that ended
    time: int = 1


class TrialSearcher:
    """Suggests each trial of a search once.

    The trials of point p are the numbers p·r … p·r+r-1, r repeats each, one per seed. What has been suggested
    is given by `known`; a number that is missing there is suggested as a new one. Once a trial reached
    `metric.target` there are no new ones.

    Used from one thread; deterministic given the order of calls, and for grid and random whatever their order.

    Args:
        search: what to search.
        known: trials of the journal.
        make_source: makes the source of points, from those that are known already.
    """

    def __init__(
        self,
        search: Search,
        known: Sequence[TrialRecord],
        make_source: Callable[[list[KnownPoint]], PointSource],
    ) -> None:
        self._seeds: tuple[int | None, ...] = search.seeds or (None,)
        self._points: dict[int, _Point] = {}
        self._again: list[Suggestion] = []
        self._open: set[int] = set()
        self._seen: set[int] = set()
        for record in sorted(known, key=lambda record: record.number):
            self._remember(record, search.rerun_failed)
        self._source = make_source(self._known_points())
        self._number = 0  # none below it is new
        self._reached = any(
            record.value is not None and record.state != "failed" and search.metric.reached(record.value)
            for record in known
        )
        self._metric = search.metric
        self._limit = _trial_limit(search.num_points, self._source.size, len(self._seeds))

    def _remember(self, record: TrialRecord, rerun_failed: bool) -> None:
        point = self._points.setdefault(record.point, _Point(Proposal(record.params, record.sampled)))
        point.time = max(point.time, len(record.history))
        self._seen.add(record.number)
        if record.state == "running" or (record.state == "failed" and rerun_failed):
            self._again.append(Suggestion(record.number, record.point, record.seed, record.params, record.sampled))
        else:
            point.values[record.number] = None if record.state == "failed" else record.value

    def _known_points(self) -> list[KnownPoint]:
        repeats = len(self._seeds)
        return [
            KnownPoint(number, point.proposal, len(point.values) == repeats, _mean(point.values.values()), point.time)
            for number, point in sorted(self._points.items())
        ]

    @property
    def source(self) -> PointSource:
        """Where the points come from."""
        return self._source

    @property
    def finished(self) -> bool:
        """Nothing will ever be suggested any more."""
        return not self._again and self._new_number() is None

    def suggest(self) -> Suggestion | None:
        """The next trial: known ones that have to be run again first, under their own number, then new ones.

        Returns:
            None, when nothing can be suggested before a running trial ends, or at all (`finished`).
        """
        if self._again:
            suggestion = self._again.pop(0)
            self._open.add(suggestion.number)
            return suggestion
        number = self._new_number()
        if number is None:
            return None
        index, repeat = divmod(number, len(self._seeds))
        if index not in self._points:
            proposal = self._source.propose(index, alone=not self._open)
            if proposal is None:
                return None
            self._points[index] = _Point(proposal)
        self._seen.add(number)
        self._open.add(number)
        proposal = self._points[index].proposal
        return Suggestion(number, index, self._seeds[repeat], proposal.params, proposal.sampled)

    def _new_number(self) -> int | None:
        while self._number in self._seen:
            self._number += 1
        if self._reached or (self._limit is not None and self._number >= self._limit):
            return None
        return self._number

    def ended(self, number: int, value: float | None) -> None:
        """A suggested trial ended.

        Args:
            number: of the trial.
            value: of the metric, finite; None when it failed or has none.
        """
        self._open.remove(number)
        self._reached = self._reached or (value is not None and self._metric.reached(value))
        index = number // len(self._seeds)
        point = self._points[index]
        point.values[number] = value
        if len(point.values) == len(self._seeds):
            self._source.told(index, _mean(point.values.values()))


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return statistics.fmean(numbers) if numbers else None


def _trial_limit(num_points: int | None, size: int | None, repeats: int) -> int | None:
    limits = [limit for limit in (num_points, size) if limit is not None]
    return min(limits) * repeats if limits else None


def make_searcher(search: Search, known: Sequence[TrialRecord]) -> TrialSearcher:
    """The searcher of a search that may have begun already.

    Args:
        search: what to search; `search_alg`, where given, takes the place of the method's own algorithm:
            TPE of Optuna for bayes, none for grid and random.
        known: trials of the journal.

    Raises:
        UserError: the algorithm's package is not installed.
    """
    algorithm = str(search.search_alg["type"]) if search.search_alg else None
    if algorithm is None and search.method == "bayes":
        algorithm = "optuna"
    if algorithm in (None, "grid", "random") or not any(map(varies, search.space.parameters)):
        grid = algorithm == "grid" or (algorithm is None and search.method == "grid")
        return TrialSearcher(search, known, lambda points: FixedPoints(search, grid))
    name = str(algorithm)
    options = {key: value for key, value in (search.search_alg or {}).items() if key != "type"}
    return TrialSearcher(search, known, lambda points: AdaptivePoints(search, points, name, options))


class _TuneSide:
    """What Tune asks of a searcher, without Tune.

    Nothing of it is worth saving, since the journal has it: a pickled copy is an empty searcher.
    """

    def __init__(self, searcher: TrialSearcher, on_suggest: Callable[[Suggestion], None]) -> None:
        super().__init__()
        self._searcher = searcher
        self._on_suggest = on_suggest
        self._points: dict[str, int] = {}  # Tune's name of a trial → point

    def suggest(self, trial_id: str) -> Any:
        """A trial as Tune's config: `number`, `point`, `seed` and `params`."""
        suggestion = self._searcher.suggest()
        if suggestion is None:
            return "FINISHED" if self._searcher.finished else None
        self._on_suggest(suggestion)
        self._points[trial_id] = suggestion.point
        return {
            "number": suggestion.number,
            "point": suggestion.point,
            "seed": suggestion.seed,
            "params": dict(suggestion.params),
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: see `TrialSearcher.ended`."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A value on the way, which few algorithms want."""
        self._searcher.source.heard(self._points[trial_id], "on_trial_result", result)

    def on_pause(self, trial_id: str) -> None:
        """What the scheduler of BOHB says."""
        self._searcher.source.heard(self._points[trial_id], "on_pause")

    def on_unpause(self, trial_id: str) -> None:
        """What the scheduler of BOHB says."""
        self._searcher.source.heard(self._points[trial_id], "on_unpause")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the journal has it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

    def __reduce__(self) -> Any:
        from ray.tune.search import Searcher

        return Searcher, ()


def tune_searcher(searcher: TrialSearcher, on_suggest: Callable[[Suggestion], None]) -> Searcher:
    """A searcher for Ray Tune around ours.

    Tune learns of trials from it; ends are told to `searcher.ended` by who knows the trials' outcome, not by
    Tune.

    Args:
        searcher: says what comes next.
        on_suggest: called with each trial before Tune learns of it, to note it down.
    """
    from ray.tune.search import Searcher

    return type("TuneSearcher", (_TuneSide, Searcher), {})(searcher, on_suggest)
