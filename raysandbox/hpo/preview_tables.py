"""A search's preview as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raysandbox.hpo.bundles import Share
from raysandbox.hpo.schedulers import hyperband_rungs
from raysandbox.hpo.schema import Search
from raysandbox.report.search_data import short_name
from raysandbox.report.summary import Table

__all__ = ["JobForecast", "SearchPreview"]

_MOST_RUNGS = 6


@dataclass(frozen=True)
class JobForecast:
    """How often a job runs in a search.

    Attributes:
        job: its id.
        hook: its hook.
        parameters: what its result depends on.
        trials: in how many trials it is.
        distinct: how many different runs these are at most.
        statistics: how many times the statistics of its recipe are computed, where only thresholds differ
            between other runs; None where no threshold reaches it.
        stored: how many of the distinct runs are there already; None when that shows only once jobs before it
            have run.
        looked_up: how many of them were looked up.
        seconds: how long one takes; None when no earlier run tells.
        notes: what else is known.
    """

    job: str
    hook: str
    parameters: tuple[str, ...]
    trials: int
    distinct: int
    statistics: int | None
    stored: int | None
    looked_up: int
    seconds: float | None
    notes: tuple[str, ...] = ()

    @property
    def left(self) -> int:
        """How many runs remain at most."""
        return self.distinct - (self.stored or 0)

    def shared(self) -> str:
        """What its trials have in common, and what is known of it; a line each."""
        parts = [] if self.parameters else ["the same in all trials"]
        if self.statistics is not None:
            times = "once" if self.statistics == 1 else f"{self.statistics} times"
            parts.append(f"statistics {times}, {self.distinct} decisions")
        return "\n".join([*parts, *self.notes])


@dataclass(frozen=True)
class SearchPreview:
    """What a search would do.

    Attributes:
        search: the search.
        trials: how many are left.
        points: how their points are known.
        jobs: the jobs of a trial.
        share: what each trial holds, and how many run at once.
        iterations: how often a trial repeats its pipelines at most.
    """

    search: Search
    trials: int
    points: str
    jobs: tuple[JobForecast, ...]
    share: Share
    iterations: int = 1

    @property
    def seconds(self) -> float | None:
        """What the remaining runs of all jobs cost at most; None when a job that would run is not known."""
        return _total(
            [None if job.seconds is None and job.left else (job.seconds or 0.0) * job.left for job in self.jobs]
        )

    @property
    def seconds_apart(self) -> float | None:
        """What as many runs that share nothing would cost."""
        return _total([None if job.seconds is None else job.seconds * job.trials for job in self.jobs])

    def tables(self) -> list[Table]:
        """The search in words, and its jobs with their cost."""
        return [Table(f"Search {self.search.name}", ("what", "how"), tuple(self._facts()), texts=2), self._costs()]

    def _costs(self) -> Table:
        names = list(dict.fromkeys(name for job in self.jobs for name in job.parameters))
        rows = [
            (
                f"{job.job}\n{job.hook}",
                "\n".join(short_name(name, names) for name in job.parameters),
                job.shared(),
                str(job.trials),
                str(job.distinct),
                _stored(job),
                str(job.left),
                _time(job.seconds),
                _time(None if job.seconds is None else job.seconds * job.left) if job.left else "0 s",
            )
            for job in self.jobs
        ]
        trials, distinct, left = (
            str(sum(getattr(job, name) for job in self.jobs)) for name in ("trials", "distinct", "left")
        )
        rows.append(("in all", "", "", trials, distinct, "", left, "", _time(self.seconds)))
        columns = ("job", "depends on", "shared", "in trials", "distinct", "stored", "to run", "each", "cost")
        return Table(f"Jobs of {_trials(self.trials)}, {self.points}; at most", columns, tuple(rows), texts=3)

    def _facts(self) -> Iterator[tuple[str, str]]:
        search = self.search
        target = f", until {search.metric.target:g}" if search.metric.target is not None else ""
        yield "objective", f"{search.metric.goal} {search.metric.name}{target}"
        yield "when it is known", _when_known(search)
        yield "points", _points(search, self.trials)
        yield "algorithm", _algorithm(search)
        yield "scheduler", _scheduler(search)
        yield "at the same time", _trials(self.share.concurrent)
        yield "a trial holds", _bundles(self.share)
        if said := self.share.problem or self.share.note:
            yield "note", said
        if self.iterations > 1:
            yield "iterations", f"at most {self.iterations} in each trial; what they change is not in the table"
        for name, seconds in (("time budget", search.time_budget_s), ("timeout of a trial", search.trial_timeout_s)):
            if seconds is not None:
                yield name, _time(seconds)
        yield "cost", self._cost()

    def _cost(self) -> str:
        apart = self.seconds_apart
        if self.seconds is None:
            unknown = [job.job for job in self.jobs if job.seconds is None and job.left]
            return f"not known before {', '.join(unknown)} ran once"
        wall = self.seconds / max(min(self.share.concurrent, self.trials), 1)
        text = f"at most {_time(self.seconds)} of jobs, about {_time(wall)} by the clock"
        return text if apart is None else f"{text}; {self.trials} runs that share nothing: {_time(apart)}"


def _trials(number: int) -> str:
    return "1 trial" if number == 1 else f"{number:,} trials"


def _total(costs: list[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def _stored(job: JobForecast) -> str:
    if job.stored is None:
        return "?"
    return str(job.stored) if job.looked_up == job.distinct else f"{job.stored} of the first {job.looked_up}"


def _when_known(search: Search) -> str:
    if search.objective.known_at_end_only:
        return "at the end of a trial: no scheduler can stop one before"
    return f"whenever {search.objective.watched or search.objective.name} is reported"


def _points(search: Search, trials: int) -> str:
    count = "as many as fit" if search.num_points is None else str(search.num_points)
    given = f", {len(search.points_to_evaluate)} of them given" if search.points_to_evaluate else ""
    repeats = f", each with seeds {', '.join(map(str, search.seeds))}" if search.seeds else ""
    left = f"; {_trials(trials)} left" if search.num_trials is not None and trials < search.num_trials else ""
    return count + given + repeats + left


def _algorithm(search: Search) -> str:
    if search.method != "bayes":
        return search.method if search.method == "grid" else f"random, seed {search.seed}"
    return _named(search.search_alg or {"type": "optuna"})


def _scheduler(search: Search) -> str:
    if search.early_terminate is not None:
        lowest, highest, eta = hyperband_rungs(search.early_terminate)
        return f"hyperband: the best 1/{eta:g} goes on at {_rungs(lowest, highest, eta)} values of the metric"
    if search.scheduler is None:
        return "none: every trial runs to its end"
    options = search.scheduler
    text = _named(options)
    if options["type"] == "asha":
        factor = float(options.get("reduction_factor", 4))
        rungs = _rungs(float(options.get("grace_period", 1)), float(options.get("max_t", 100)), factor)
        text += f": the best 1/{factor:g} goes on at {rungs} values of the metric"
    return text


def _rungs(lowest: float, highest: float | None, factor: float) -> str:
    """`3, 9, 27`, or with `…` where there are more."""
    rungs = [lowest]
    while len(rungs) < _MOST_RUNGS and (highest is None or rungs[-1] * factor <= highest * (1 + 1e-9)):
        rungs.append(rungs[-1] * factor)
    more = ", …" if highest is None or rungs[-1] * factor <= highest * (1 + 1e-9) else ""
    return ", ".join(f"{rung:g}" for rung in rungs) + more


def _named(options: Mapping[str, Any]) -> str:
    """`optuna (sampler tpe)`."""
    rest = ", ".join(f"{key} {value}" for key, value in options.items() if key != "type")
    return f"{options['type']} ({rest})" if rest else str(options["type"])


def _bundles(share: Share) -> str:
    if not share.bundles:
        return "nothing of its own; its jobs ask for their workers"
    texts = [" + ".join(f"{amount:g} {name}" for name, amount in bundle.items()) for bundle in share.bundles]
    counted = [f"{texts.count(text)} × {text}" if texts.count(text) > 1 else text for text in dict.fromkeys(texts)]
    return f"{', '.join(counted)} ({share.strategy})"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"
