"""Searches without pipelines, and a driver of their trials that can be killed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

from raysandbox.hpo.objective import Objective
from raysandbox.hpo.schema import Metric, Search
from raysandbox.hpo.searchers import Suggestion, make_searcher
from raysandbox.hpo.space import Parameter, SearchSpace
from raysandbox.sandbox.trials import TrialRecord

Value = Callable[[Suggestion], float | None]

EVERY_KIND = (
    Parameter("op.constant", "constant", values=([1, 2],)),
    Parameter("op.categorical", "categorical", values=(None, "text", [1, 2], True, 1, {"a": 0.5})),
    Parameter("op.weighted", "categorical", values=("often", "seldom"), probabilities=(0.9, 0.1)),
    Parameter("op.int_uniform", "int_uniform", low=1, high=9),
    Parameter("op.uniform", "uniform", low=-1.0, high=1.0),
    Parameter("op.q_uniform", "q_uniform", low=0.0, high=1.0, q=0.25),
    Parameter("op.log_uniform", "log_uniform", low=-3.0, high=2.0),
    Parameter("op.q_log_uniform", "q_log_uniform", low=0.0, high=4.0, q=2),
    Parameter("op.log_uniform_values", "log_uniform_values", low=1e-4, high=1.0),
    Parameter("op.q_log_uniform_values", "q_log_uniform_values", low=1.0, high=1000.0, q=10),
    Parameter("op.inv_log_uniform", "inv_log_uniform", low=0.0, high=3.0),
    Parameter("op.inv_log_uniform_values", "inv_log_uniform_values", low=0.1, high=10.0),
    Parameter("op.normal", "normal", mu=3.0, sigma=2.0),
    Parameter("op.q_normal", "q_normal", mu=3.0, sigma=2.0, q=0.5),
    Parameter("op.log_normal", "log_normal", mu=0.0, sigma=1.0),
    Parameter("op.q_log_normal", "q_log_normal", mu=2.0, sigma=1.0, q=1),
    Parameter("op.beta", "beta", a=2.0, b=5.0),
    Parameter("op.q_beta", "q_beta", a=2.0, b=5.0, q=0.1),
)


def search_over(*parameters: Parameter, **fields: Any) -> Search:
    """A search of a metric `score`, by default 12 points by an adaptive algorithm, to the minimum."""
    metric = Metric("score", fields.pop("goal", "minimize"), fields.pop("target", None))
    return Search(
        **{
            "name": "planted",
            "method": "bayes",
            "metric": metric,
            "objective": Objective("score", None, "score"),
            "space": SearchSpace(parameters),
            "addresses": {},
            "num_points": 12,
            **fields,
        }
    )


class Driver:
    """Runs a search's trials as a journal sees them, some at once, and is killed now and then.

    Attributes:
        records: trial → its record, as JSON has it after a kill.
        starts: numbers in the order of their starts, again after a kill.
        kills: how often it was killed.
    """

    def __init__(self, search: Search, value: Value, *, seed: int = 0, at_once: int = 3, kill: float = 0.0) -> None:
        self._search, self._value, self._at_once, self._kill = search, value, at_once, kill
        self._random = random.Random(seed)
        self.records: dict[int, dict[str, Any]] = {}
        self.starts: list[int] = []
        self.kills = 0

    def known(self) -> list[TrialRecord]:
        """The journal's trials, through JSON."""
        return [TrialRecord(**record) for record in json.loads(json.dumps(list(self.records.values())))]

    def run(self) -> Mapping[int, Mapping[str, Any]]:
        """Runs all trials, through any number of kills."""
        while self._life():
            self.kills += 1
        return self.records

    def _life(self) -> bool:
        """One life of the driver; returns whether it was killed."""
        searcher = make_searcher(self._search, self.known())
        running: list[Suggestion] = []
        while running or not searcher.finished:
            suggestion = searcher.suggest() if len(running) < self._at_once else None
            if suggestion is not None:
                self._start(suggestion)
                running.append(suggestion)
                continue
            assert running, "nothing runs, and nothing is suggested"
            if self._random.random() < self._kill:
                return True
            ended = running.pop(self._random.randrange(len(running)))
            value = self._value(ended)
            self.records[ended.number] |= {"state": "failed" if value is None else "done", "value": value}
            searcher.ended(ended.number, value)
        return False

    def _start(self, suggestion: Suggestion) -> None:
        before = self.records.get(suggestion.number)
        again = before is None or before["state"] == "running" or self._search.rerun_failed
        assert again, f"trial {suggestion.number} is run twice"
        self.starts.append(suggestion.number)
        self.records[suggestion.number] = {
            "number": suggestion.number,
            "point": suggestion.point,
            "seed": suggestion.seed,
            "params": suggestion.params,
            "sampled": suggestion.sampled,
            "state": "running",
        }


def points(records: Mapping[int, Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Number, point, seed and values of all trials, by number."""
    found = json.loads(json.dumps(list(records.values())))
    return sorted((r["number"], r["point"], r["seed"], json.dumps(r["params"], sort_keys=True)) for r in found)
