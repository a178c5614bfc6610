"""What a search would do: how often each job runs, what of that is there already, and what it costs."""

from __future__ import annotations

import copy
import statistics as averages
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raysandbox.config.documents import KeyPath
from raysandbox.config.dotted import set_dotted
from raysandbox.config.schema import JobEntry, SandboxConfig
from raysandbox.core.errors import UserError
from raysandbox.core.events import read_events
from raysandbox.core.files import cache_dir
from raysandbox.core.keys import DigestMemo, canonical_json
from raysandbox.hpo.bundles import share_of
from raysandbox.hpo.points import FixedPoints
from raysandbox.hpo.preview_tables import JobForecast, SearchPreview
from raysandbox.hpo.schema import Search
from raysandbox.ops.base import OPERATORS, Filter
from raysandbox.runtime.session import Cluster, this_machine
from raysandbox.sandbox.context import ContextInfos
from raysandbox.sandbox.experiment import locate_run
from raysandbox.sandbox.paths import PathMap
from raysandbox.sandbox.plan import ExperimentPlan, PlannedJob, make_plan
from raysandbox.sandbox.resolve import ReadyJob, Resolver
from raysandbox.sandbox.trials import TRIALS_FOLDER, TrialRecord, trial_name

__all__ = ["preview_search"]

_AS_IF = 20  # trials that are shown of a search without a number of them
_MOST_POINTS = 5000  # counted; a grid may have millions
_MOST_LOOKUPS = 64  # per job; each resolves a whole configuration
_MOST_JOURNALS = 50
_SEED = "the repeat's seed"  # stands for a parameter; no parameter is called so
# Keys of the configuration that no job's result depends on.
_OF_THE_RUN = ("project_name", "experiment_name", "work_dir", "cache_dir", "watcher", "resume")


class Stored(Protocol):
    """What `sandbox.shared.SharedResults` knows."""

    def has(self, key: str) -> float | None:
        """Seconds that a job took whose result is there, None when it is not."""
        ...


@dataclass(frozen=True)
class _Trial:
    """A trial as far as it is known."""

    number: int
    params: Mapping[str, Any]
    seed: int | None


@dataclass(frozen=True)
class _Reach:
    """What a job's result depends on.

    Attributes:
        own: parameters that its own configuration holds.
        thresholds: those of them that only decide over a filter's statistics.
        all: its own and those of the jobs that it needs.
    """

    own: frozenset[str]
    thresholds: frozenset[str]
    all: frozenset[str]


def preview_search(
    search: Search,
    config: SandboxConfig,
    plan: ExperimentPlan,
    shared: Stored,
    statistics: Path | None = None,
    *,
    known: Sequence[TrialRecord] = (),
    cluster: Cluster | None = None,
) -> SearchPreview:
    """Counts what the trials of a search have in common, without running anything.

    A job depends on the parameters in its own configuration and on those of the jobs whose outputs it reads.
    That is what can be known before: jobs whose inputs come out equal in spite of other values are found only
    while the search runs, so counts are upper bounds.

    Args:
        search: the search.
        config: its configuration.
        plan: of one run.
        shared: results that trials share.
        statistics: what runs share (`cache_dir`), where statistics of operators are stored; None leaves them out.
        known: trials of a search that is to be resumed; those that ended are not counted.
        cluster: where it will run; this machine by default.
    """
    trials, chosen = _trials(search, known)
    reaches = _reaches(search, config, plan, trials)
    look = _Lookup(search, config, shared, statistics)
    seconds = _earlier_seconds(look.work_dir)
    jobs = [_forecast(planned, reaches[planned.entry], trials, look, seconds) for planned in plan.jobs]
    share = share_of(search, plan, cluster or this_machine())
    return SearchPreview(search, len(trials), chosen, tuple(jobs), share, config.settings.max_iter_num)


def _trials(search: Search, known: Sequence[TrialRecord]) -> tuple[list[_Trial], str]:
    """The trials that are left, and how their points are known."""
    adaptive = search.method == "bayes"
    points = FixedPoints(search, search.method == "grid")
    size = min((size for size in (search.num_points, points.size) if size is not None), default=None)
    shown = min(_AS_IF if size is None else size, _MOST_POINTS)
    seeds: Sequence[int | None] = search.seeds or (None,)
    records = {record.number: record for record in known}
    trials = []
    for number in range(shown * len(seeds)):
        record = records.get(number)
        if record is None:
            proposal = points.propose(number // len(seeds), alone=True)
            trials.append(_Trial(number, proposal.params, seeds[number % len(seeds)]))
        elif record.state == "running" or (record.state == "failed" and search.rerun_failed):
            trials.append(_Trial(number, record.params, record.seed))
    how = "as if its points were random" if adaptive else "whose points are known"
    if size != shown:
        how += f"; of {'any number of' if size is None else f'{size:,}'} points the first {shown:,} are shown"
    return trials, how


def _reaches(
    search: Search, config: SandboxConfig, plan: ExperimentPlan, trials: Sequence[_Trial]
) -> dict[JobEntry, _Reach]:
    """What each job depends on; a value outside of all jobs counts for each."""
    places = list(_places(search, config, trials[0])) if trials else []
    reaches: dict[JobEntry, _Reach] = {}
    for planned in plan.jobs:
        entry = planned.entry
        here = [(name, place[len(entry.path) :]) for name, place in places if place[: len(entry.path)] == entry.path]
        common = {
            name
            for name, place in places
            if place[0] not in _OF_THE_RUN and not any(place[: len(e.path)] == e.path for e in config.jobs())
        }
        own = frozenset(name for name, _ in here) | common
        deciding = {name for name, _ in here if all(_is_threshold(rest) for other, rest in here if other == name)}
        thresholds = frozenset(deciding - common) if planned.hook.takes_recipe else frozenset()
        needed = [reaches[need].all for need in planned.needs if need in reaches]
        reaches[entry] = _Reach(own, thresholds, own.union(*needed))
    return reaches


def _places(search: Search, config: SandboxConfig, trial: _Trial) -> Iterator[tuple[str, KeyPath]]:
    """Where in the configuration the value of each parameter goes."""
    data = copy.deepcopy(config.document.data)
    for name, addresses in search.addresses.items():
        for address in addresses:
            yield name, set_dotted(data, address, copy.deepcopy(trial.params.get(name)))
    for address in search.seed_addresses:
        yield _SEED, set_dotted(data, address, trial.seed)


def _is_threshold(place: KeyPath) -> bool:
    """Whether a place inside of a job is a filter's parameter that its statistics do not depend on."""
    parts = ".".join(map(str, place)).split(".")
    if len(parts) < 2 or "process" not in parts or "dj_configs" not in parts:
        return False
    operator, field = parts[-2:]
    try:
        found = OPERATORS.get(operator)
    except UserError:
        return False
    return issubclass(found, Filter) and field in found.thresholds()


def _forecast(
    planned: PlannedJob,
    reach: _Reach,
    trials: Sequence[_Trial],
    look: _Lookup,
    earlier: Mapping[str, float],
) -> JobForecast:
    entry = planned.entry
    groups = _groups(trials, reach.all)
    statistics = len(_groups(trials, reach.all - reach.thresholds)) if reach.thresholds else None
    hits: list[float] | None = None
    note = ""
    if not planned.needs:
        hits, note = look.up(entry, [group[0] for group in groups])
    known = averages.fmean(hits) if hits else earlier.get(entry.id)
    return JobForecast(
        job=entry.id,
        hook=entry.config.hook,
        parameters=tuple(sorted(reach.all)),
        trials=len(trials),
        distinct=len(groups),
        statistics=statistics,
        stored=None if hits is None else len(hits),
        looked_up=min(len(groups), _MOST_LOOKUPS),
        seconds=known,
        notes=tuple(text for text in (note, "each for every element" if entry.config.foreach else "") if text),
    )


def _groups(trials: Sequence[_Trial], names: frozenset[str]) -> list[list[_Trial]]:
    """Trials with the same values of some parameters."""
    groups: dict[str, list[_Trial]] = {}
    for trial in trials:
        values = [[name, trial.seed if name == _SEED else trial.params.get(name)] for name in sorted(names)]
        groups.setdefault(canonical_json(values), []).append(trial)
    return list(groups.values())


class _Lookup:
    """Finds the results of jobs that need no other job."""

    def __init__(self, search: Search, config: SandboxConfig, shared: Stored, statistics: Path | None) -> None:
        self.work_dir, self._root = locate_run(config)
        self._search = search
        self._config = config
        self._shared = shared
        self._statistics = statistics
        self._memo = DigestMemo(cache_dir(config.settings.cache_dir) / "digests")
        self._plans: dict[int, ExperimentPlan] = {}

    def up(self, entry: JobEntry, trials: Sequence[_Trial]) -> tuple[list[float], str]:
        """Seconds of the results that are there, of the first trials; what the hook says of the first that is not."""
        found: list[float] = []
        note = ""
        for trial in trials[:_MOST_LOOKUPS]:
            units = self._units(entry, trial)
            seconds = [self._shared.has(unit.key) if unit.reusable else None for unit in units]
            there = [each for each in seconds if each is not None]
            if units and len(there) == len(units):
                found.append(sum(there))
            elif units and not note and self._statistics is not None and entry.config.foreach is None:
                note = units[0].planned.hook.forecast(units[0].job, self._statistics, self._config.allow_user_code)
        return found, note

    def _units(self, entry: JobEntry, trial: _Trial) -> list[ReadyJob]:
        """The runs of the job in a trial; none where its configuration is wrong, which `check` explains."""
        try:
            plan = self._plan(trial)
            planned = next(job for job in plan.jobs if job.entry.path == entry.path)
            context = ContextInfos(None, tuple(pipeline.name for pipeline in plan.config.pipelines))
            context.begin_iteration()
            resolver = Resolver(plan, self.work_dir, self._root, context, self._memo)
            return resolver.units(planned, f"{TRIALS_FOLDER}/{trial_name(trial.number)}", {})
        except (UserError, StopIteration):
            return []

    def _plan(self, trial: _Trial) -> ExperimentPlan:
        if trial.number not in self._plans:
            config = self._search.trial_config(self._config, trial.params, trial.seed)
            self._plans[trial.number] = make_plan(config, PathMap(self.work_dir, self._root))
        return self._plans[trial.number]


def _earlier_seconds(work_dir: Path) -> dict[str, float]:
    """Job → median of the seconds that it took in earlier runs and trials in this folder."""
    journals = [work_dir / "journal.jsonl", *sorted(work_dir.glob("previous/*/journal.jsonl"))]
    for folder in (work_dir, *sorted(work_dir.glob("previous/*"))):
        journals += sorted(folder.glob(f"{TRIALS_FOLDER}/*/journal.jsonl"))[:_MOST_JOURNALS]
    found: dict[str, list[float]] = {}
    for journal in journals:
        for event in read_events(journal):
            if event["event"] == "job_done":
                found.setdefault(event["job"], []).append(float(event["seconds"]))
    return {job: averages.median(seconds) for job, seconds in found.items()}
