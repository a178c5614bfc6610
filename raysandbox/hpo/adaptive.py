"""Points by an adaptive algorithm: Ray Tune's searchers, asked and told by our numbers."""

from __future__ import annotations

import importlib
import logging
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raysandbox.core.errors import UserError
from raysandbox.core.keys import canonical_json
from raysandbox.hpo.algorithms import SEARCH_ALGORITHMS, missing_packages
from raysandbox.hpo.axes import Axis, axis_of, varies
from raysandbox.hpo.points import Event, KnownPoint, Proposal, given_points
from raysandbox.hpo.schedulers import METRIC, mode_of

if TYPE_CHECKING:
    from ray.tune.search import Searcher

    from raysandbox.hpo.schema import Search

__all__ = ["AdaptivePoints"]

_TRIES = 6  # proposals for one point before one that was there already is taken
_ALL = frozenset({"uniform", "log_uniform_values", "int_uniform", "categorical"})
_RANGES = {  # kinds of parameters that Tune's searchers know as they are
    "optuna": _ALL,
    "hyperopt": _ALL,
    "bohb": _ALL,
    "hebo": _ALL,
    "nevergrad": _ALL,
    "ax": _ALL,
    "zoopt": frozenset({"uniform", "int_uniform", "categorical"}),
    "bayesopt": frozenset({"uniform"}),
}
_SEEDS = {
    "hyperopt": "random_state_seed",
    "bayesopt": "random_state",
    "bohb": "seed",
    "hebo": "random_state_seed",
    "ax": "random_seed",
}
_SAMPLERS = {
    "tpe": "TPESampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "qmc": "QMCSampler",
    "random": "RandomSampler",
}
_LEARNS_ON_THE_WAY = "bohb"
_ZOOPT_BUDGET = 100  # with less it ends the process
_LOG = logging.getLogger(__name__)


class AdaptivePoints:
    """Points that an algorithm chooses by the values of earlier ones.

    The algorithm is begun anew from what is known, with a seed of its own each time, so that a resumed search
    does not repeat its first proposals.

    Args:
        search: what to search.
        known: points that were suggested already.
        name: of the algorithm.
        options: of the algorithm, `search_alg` without its type.

    Raises:
        UserError: its package is not installed, or does not work.
    """

    size = None

    def __init__(self, search: Search, known: Sequence[KnownPoint], name: str, options: Mapping[str, Any]) -> None:
        if missing := missing_packages(SEARCH_ALGORITHMS[name], options):
            raise UserError(f"search_alg {name} needs packages that are not installed: pip install {' '.join(missing)}")
        self._search, self._name, self._options = search, name, options
        self._fixed = {p.name: p.at(0.5) for p in search.space.parameters if not varies(p)}
        self._axes = [axis_of(p, _RANGES[name]) for p in search.space.parameters if varies(p)]
        self._given = given_points(search)
        self._points = {point.point: point for point in known}
        self._tried = {canonical_json(point.proposal.params) for point in known}
        self._algorithm = self._begin([point for _, point in sorted(self._points.items())])

    def _begin(self, known: Sequence[KnownPoint]) -> _Algorithm:
        waiting = [Proposal(params) for number, params in enumerate(self._given) if number not in self._points]
        left = None if self._search.num_points is None else self._search.num_points - len(self._points)
        return _Algorithm(
            self._name,
            self._options,
            self._axes,
            mode_of(self._search),
            random.Random(f"{self._search.seed}/{len(self._points)}").getrandbits(31),
            known,
            waiting,
            left,
        )

    def propose(self, point: int, alone: bool) -> Proposal | None:
        """A given point, one by the algorithm or, where that has none though nothing runs, one by chance.

        An algorithm that was there already is asked a few times before a point is taken that was there before.
        """
        proposal = self._given_point(point) or self._proposed(point)
        if proposal is None and alone:  # e.g. one that counts values, some of which failed
            good = [known for _, known in sorted(self._points.items()) if known.value is not None]
            self._algorithm = self._begin(good)
            proposal = self._proposed(point)
        if proposal is None and alone:
            proposal = Proposal(self._search.space.random_point(self._search.seed, point))
        if proposal is not None:
            self._points[point] = KnownPoint(point, proposal, ended=False, value=None)
            self._tried.add(canonical_json(proposal.params))
        return proposal

    def _given_point(self, point: int) -> Proposal | None:
        if point >= len(self._given):
            return None
        self._algorithm.ask(point)  # the algorithm has it in its queue
        return Proposal(self._given[point])

    def _proposed(self, point: int) -> Proposal | None:
        for attempt in range(_TRIES):
            seen = self._algorithm.ask(point)
            if seen is None:
                return None
            values = {axis.parameter.name: axis.value(seen[axis.parameter.name]) for axis in self._axes}
            params = {p.name: self._fixed.get(p.name, values.get(p.name)) for p in self._search.space.parameters}
            if canonical_json(params) not in self._tried or attempt == _TRIES - 1:
                sampled = {a.parameter.name: float(seen[a.parameter.name]) for a in self._axes if a.coordinate}
                return Proposal(params, sampled or None)
            self._algorithm.tell(point, None)
        return None

    def told(self, point: int, value: float | None) -> None:
        """A point's value goes to the algorithm."""
        self._points[point] = KnownPoint(point, self._points[point].proposal, ended=True, value=value)
        self._algorithm.tell(point, value)

    def heard(self, point: int, event: Event, result: Mapping[str, Any] | None = None) -> None:
        """For an algorithm that learns from trials on their way."""
        if self._name == _LEARNS_ON_THE_WAY:
            self._algorithm.heard(point, event, result)


class _Algorithm:
    """One of Tune's searchers under construction rules of ours: points by number, parameters by place.

    Args:
        name: of the algorithm.
        options: of its constructor.
        axes: of the parameters that vary.
        mode: "min" or "max".
        seed: of its random numbers.
        known: points to tell it of, in order.
        waiting: points that it will be asked for next, in order.
        left: how many points will be asked for; None: unknown.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        axes: Sequence[Axis],
        mode: str,
        seed: int,
        known: Sequence[KnownPoint],
        waiting: Sequence[Proposal],
        left: int | None,
    ) -> None:
        self._axes = axes
        self._ids: dict[int, str] = {}  # point → name under which it was asked for
        self._asked = 0
        adds = name == "optuna"  # it takes ended points without being asked for them, which is faster by far
        queued = [point for point in known if not (adds and point.ended)]
        queue = [self._seen(proposal) for proposal in [*(point.proposal for point in queued), *waiting]]
        if name == "zoopt":  # has no way to learn of points
            queued, queue = [], []
            if known:
                _LOG.warning("search_alg zoopt cannot learn what is known already; it begins anew")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the packages' own, of experimental parts
            self._searcher = _make(name, options, mode, seed, queue, left)
            self._searcher.set_search_properties(METRIC, mode, {f"p{i}": axis.domain() for i, axis in enumerate(axes)})
        for point in known:
            if adds and point.ended:
                self._searcher.add_evaluated_point(
                    self._seen(point.proposal),
                    point.value,  # pyright: ignore[reportArgumentType]  # None with error, as Optuna wants it
                    error=point.value is None,
                )
        for point in queued:
            if self.ask(point.point) is not None and point.ended:
                if name == _LEARNS_ON_THE_WAY and point.value is not None:
                    told = {METRIC: point.value, "hyperband_info": {"budget": point.time}}
                    self.heard(point.point, "on_trial_result", told)
                self.tell(point.point, point.value)

    def _seen(self, proposal: Proposal) -> dict[str, Any]:
        """A point as the algorithm sees it: coordinates as proposed, or else found from the values."""
        sampled = proposal.sampled or {}
        seen: dict[str, Any] = {}
        for place, axis in enumerate(self._axes):
            name = axis.parameter.name
            seen[f"p{place}"] = sampled[name] if name in sampled else axis.seen(proposal.params[name])
        return seen

    def ask(self, point: int) -> dict[str, Any] | None:
        """What it proposes for a point, by parameter; None when it has nothing (now)."""
        name = f"{point}-{self._asked}"
        self._asked += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self._searcher.suggest(name)
        if not isinstance(found, dict):
            return None
        self._ids[point] = name
        return {axis.parameter.name: found[f"p{place}"] for place, axis in enumerate(self._axes)}

    def tell(self, point: int, value: float | None) -> None:
        """What came out of a point; a point that it never proposed is no matter."""
        name = self._ids.pop(point, None)
        if name is None:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if value is None:
                self._searcher.on_trial_complete(name, error=True)
            else:
                self._searcher.on_trial_complete(name, {METRIC: value, "training_iteration": 1})

    def heard(self, point: int, event: Event, result: Mapping[str, Any] | None) -> None:
        """Passes on what Tune says of a point that it proposed."""
        if point in self._ids:
            arguments = (self._ids[point],) if result is None else (self._ids[point], result)
            getattr(self._searcher, event)(*arguments)


def _make(
    name: str, options: Mapping[str, Any], mode: str, seed: int, queue: list[dict[str, Any]], left: int | None
) -> Searcher:
    """Tune's searcher of a name, without its space."""
    import numpy
    from ray.tune.search import SEARCH_ALG_IMPORT

    make: Any = SEARCH_ALG_IMPORT[name]()
    if name == "optuna":
        return make(points_to_evaluate=queue or None, sampler=_optuna_sampler(dict(options), seed))
    more = dict(options)
    if name in _SEEDS:
        more[_SEEDS[name]] = seed
    else:  # these draw from the process's own random numbers
        random.seed(seed)
        numpy.random.seed(seed)
    if name == "nevergrad":
        optimizer = importlib.import_module("nevergrad").optimizers.registry[more.get("optimizer", "NGOpt")]
        more = {"optimizer": optimizer, "optimizer_kwargs": {"budget": left, **more.get("optimizer_kwargs", {})}}
    if name == "zoopt":
        more["budget"] = max(left or 0, _ZOOPT_BUDGET)
    try:
        return make(points_to_evaluate=queue or None, **more)
    except (AssertionError, ImportError) as error:  # Tune's word for a package that cannot be imported
        raise UserError(f"search_alg {name} cannot be used here: {' '.join(str(error).split())}") from error


def _optuna_sampler(options: dict[str, Any], seed: int) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return getattr(optuna.samplers, _SAMPLERS[options.pop("sampler", "tpe")])(seed=seed, **options)
