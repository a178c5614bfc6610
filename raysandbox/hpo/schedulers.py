"""Which trials are ended early: Ray Tune's schedulers, from a sweep's `early_terminate` or our `scheduler`."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from raysandbox.hpo.axes import varies

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from raysandbox.hpo.schema import Search
    from raysandbox.hpo.space import Parameter

__all__ = ["METRIC", "TIME", "hyperband_rungs", "make_scheduler", "mode_of"]

METRIC = "objective"
TIME = "training_iteration"
_DEFAULT_ETA = 3
_NO_END = 1e9  # more values than any trial reports
_CLASSES = {
    "asha": "AsyncHyperBandScheduler",
    "hyperband": "HyperBandScheduler",
    "hb_bohb": "HyperBandForBOHB",
    "median_stopping": "MedianStoppingRule",
    "pbt": "PopulationBasedTraining",
}


def mode_of(search: Search) -> str:
    """Tune's word for the metric's goal."""
    return "max" if search.metric.goal == "maximize" else "min"


def hyperband_rungs(early_terminate: Mapping[str, Any]) -> tuple[float, float | None, float]:
    """A sweep's hyperband as lowest rung, highest rung (None: no end) and factor between rungs.

    With `max_iter`, `s` and `eta` the rungs are max_iter/eta^s … max_iter/eta, without those below 1; with
    `min_iter` and `eta` they are min_iter, min_iter·eta, … without an end. A trial is at a rung with its first
    value from there on, at 4 for a rung of 3.7, which is the value that wandb looks at too.

    Raises:
        ValueError: no rung is left.
    """
    eta = float(early_terminate.get("eta", _DEFAULT_ETA))
    if "s" not in early_terminate:
        return float(early_terminate["min_iter"]), None, eta
    longest = float(early_terminate["max_iter"])
    rungs = [rung for k in range(1, int(early_terminate["s"]) + 1) if (rung := longest / eta**k) >= 1]
    if not rungs:
        raise ValueError(f"max_iter {longest:g} divided by eta {eta:g} is below 1")
    return rungs[-1], rungs[0], eta


def make_scheduler(search: Search) -> TrialScheduler:
    """The scheduler of a search: `scheduler`, else `early_terminate`, else first in, first out.

    Each trial's time is the number of metric values that it reported.

    A sweep's hyperband becomes asynchronous successive halving: a trial is judged once per rung, by its value
    there, and goes on when that is among the best 1/eta of those that came there before.
    """
    from ray.tune import schedulers

    common = {"time_attr": TIME, "metric": METRIC, "mode": mode_of(search)}
    if search.scheduler is not None:
        return _named(search, common)
    if search.early_terminate is None:
        return schedulers.FIFOScheduler()
    lowest, highest, eta = hyperband_rungs(search.early_terminate)
    # Tune would put a rung at max_t itself too: half a step above the highest one there is room for no other
    longest = _NO_END if highest is None else highest * math.sqrt(eta)
    return schedulers.AsyncHyperBandScheduler(
        **common,
        max_t=longest,  # pyright: ignore[reportArgumentType]  # Tune only divides by it
        grace_period=lowest,  # pyright: ignore[reportArgumentType]
        reduction_factor=eta,
        brackets=1,
        stop_last_trials=False,
    )


def _named(search: Search, common: Mapping[str, str]) -> TrialScheduler:
    """The scheduler that `scheduler` names."""
    from ray.tune import schedulers

    options = dict(search.scheduler or {})
    kind = str(options.pop("type"))
    if kind == "fifo":
        return schedulers.FIFOScheduler()
    if kind == "pbt":
        mutations = {p.name: _mutation(p) for p in search.space.parameters if varies(p)}
        return _beside_a_searcher(schedulers.PopulationBasedTraining)(
            **common,
            **options,
            hyperparam_mutations={"params": mutations},
            custom_explore_fn=lambda config: {**config, "params": _within(search, config["params"])},
        )
    if kind == "pb2":
        from ray.tune.schedulers.pb2 import PB2

        bounds = {
            p.name: [p.at(0.0), p.at(1.0)]
            for p in search.space.parameters
            if varies(p) and p.bounded and p.kind != "categorical"
        }
        return _beside_a_searcher(PB2)(
            **common,
            **options,
            hyperparam_bounds={"params": bounds},
            custom_explore_fn=lambda config: {**config, "params": _within(search, config["params"])},
        )
    return getattr(schedulers, _CLASSES[kind])(**common, **options)


def _beside_a_searcher(scheduler: Any) -> Any:
    """Population based training that takes its first points from our searcher.

    Tune refuses it beside any searcher, since one that learns would be told of values that other parameters
    brought about. Ours is told of ends by who knows the parameters.
    """

    class BesideASearcher(scheduler):
        """Sees a controller without a searcher when it is asked whether it fits."""

        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            """Takes a trial in."""
            super().on_trial_add(SimpleNamespace(search_alg=None), trial)

        def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:
            """Values near those of a better trial; who the trial is stays."""
            config, operations = super()._get_new_config(trial, trial_to_clone)
            own = {name: trial.config[name] for name in ("number", "point", "seed") if name in trial.config}
            return {**config, **own}, operations

    return BesideASearcher


def _mutation(parameter: Parameter) -> list[Any] | Callable[[], Any]:
    """What a parameter may become: a neighbour in a list of values, or a new draw."""
    if parameter.kind == "categorical":
        return list(parameter.values)
    return lambda: parameter.at(random.random())


def _within(search: Search, params: Mapping[str, Any]) -> dict[str, Any]:
    """Values that were scaled, put back into their parameters' ranges and onto their steps."""
    varying = {p.name: p for p in search.space.parameters if p.kind not in ("constant", "categorical")}
    return {
        name: varying[name].at(varying[name].quantile(value)) if name in varying else value
        for name, value in params.items()
    }
