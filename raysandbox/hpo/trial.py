"""What Ray Tune runs for each trial: a thin process that starts the trial's runner and passes on its values.

The trial itself runs in another process (`runner.py`), since Tune's one is inside of the trial's
placement group, where Ray Data has no room, and cannot be interrupted while it works.
"""

from __future__ import annotations

import dataclasses
import math
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysandbox.config.schema import SandboxConfig
from raysandbox.core.errors import UserError
from raysandbox.core.redact import redact_text
from raysandbox.hpo.runner import Errand, Outcome, start_runner
from raysandbox.hpo.schema import Search
from raysandbox.runtime.actors import LOST_TRIES
from raysandbox.runtime.watcher_actor import call_actor
from raysandbox.runtime.watcher_hub import Watchers
from raysandbox.sandbox.trials import TRIALS_FOLDER, trial_name

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

__all__ = ["OBJECTIVE", "OUTCOME", "Drive", "Setting", "trainable"]

OBJECTIVE = "objective"  # the metric, in Tune's results
OUTCOME = "outcome"  # how the trial ended, in its last result
_POLL_S = 0.5  # how long a question for news may wait
_SOON_S = 0.02
_END_S = 10.0  # what an interrupted runner may take to end
_AGAIN_S = 1.0


@dataclass(frozen=True)
class Setting:
    """What all trials of a search have in common; picklable.

    Attributes:
        config: the experiment.
        search: the search.
        work_dir: its folder.
        root: where relative outputs start.
        cache_dir: what runs share.
        run_id: of the search; names the trials' runs.
        hub: the actor that watches them.
        watchers: opens watchers.
        node: id of the driver's node.
        folder: the driver's current directory.
        local: whether the driver has a Ray of its own.
        reserved: whether the trial's bundles are for its jobs' workers.
        use_cache: whether caches may be read.
        secrets: that the driver knows of.
    """

    config: SandboxConfig
    search: Search
    work_dir: Path
    root: Path | None
    cache_dir: Path
    run_id: str
    hub: Any
    watchers: Watchers
    node: str
    folder: Path
    local: bool
    reserved: bool
    use_cache: bool
    secrets: frozenset[str] = dataclasses.field(repr=False)

    def run_id_of(self, number: int) -> str:
        """Id of a trial's run for its watcher."""
        return f"{self.run_id}-{trial_name(number)}"

    def errand(self, number: int, params: Mapping[str, Any], seed: int | None, attempt: str) -> Errand:
        """What the runner needs to know of a trial.

        Raises:
            ConfigError: the values do not go together.
        """
        return Errand(
            config=self.search.trial_config(self.config, params, seed),
            work_dir=self.work_dir,
            root=self.root,
            cache_dir=self.cache_dir,
            folder=f"{TRIALS_FOLDER}/{trial_name(number)}",
            run_id=self.run_id_of(number),
            use_cache=self.use_cache,
            objective=self.search.objective,
            secrets=self.secrets,
            watchers=dataclasses.replace(
                self.watchers, params={**params, **({} if seed is None else {"seed": seed})}, attempt=attempt
            ),
        )


class Drive:
    """A trial on its way: asked for its next value again and again, until it tells how it ended.

    Args:
        setting: of the search.
        group: bundles for the workers of its jobs.

    Attributes:
        given: how many of the trial's readings Tune knows or shall not know.
        steps: the last step of each unit of work among them.
    """

    def __init__(self, setting: Setting, group: PlacementGroup | None) -> None:
        self._setting = setting
        self._group = group
        self._runner: Any = None
        self._call: Any = None
        self._suggestion: Mapping[str, Any] = {}
        self._attempt = ""
        self.given, self._unseen = 0, 0
        self.steps: dict[str, int] = {}

    def begin(self, suggestion: Mapping[str, Any]) -> None:
        """Turns to another trial, or to other values for the same one."""
        self.interrupt()
        self._suggestion = suggestion
        self._iteration, self._lost = 0, []
        self.given, self._unseen = 0, 0
        self.steps: dict[str, int] = {}
        self._began = time.monotonic()

    def state(self) -> dict[str, Any]:
        """What a later `Drive` needs to go on."""
        return {
            "number": self._suggestion["number"],
            "params": self._suggestion["params"],
            "given": self.given,
            "steps": self.steps,
            "iteration": self._iteration,
        }

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Passes over the values that Tune knows, from this trial or from one whose place it takes."""
        self._iteration = state["iteration"]
        if all(state[name] == self._suggestion[name] for name in ("number", "params")):
            self.given, self.steps = state["given"], dict(state["steps"])
        else:
            self._unseen = state["iteration"]

    def next(self) -> dict[str, Any]:
        """The next value of the metric, or, last, how the trial ended; waits for it."""
        if self._call is None:
            refusal = self._start()
            if refusal:
                return self._end(Outcome("failed", reason=refusal))
        while True:
            reading = self._reading(_POLL_S)
            if reading is None and (outcome := self._outcome()) is not None:
                reading = self._reading(0.0)  # told just before the end
                if reading is None:
                    return self._end(outcome)
            if reading is not None:
                self._iteration += 1
                return {OBJECTIVE: reading, "training_iteration": self._iteration}

    def interrupt(self) -> None:
        """Ends the trial, softly if that works."""
        import ray
        from ray.exceptions import RayError

        if self._call is None:
            return
        run = self._setting.run_id_of(self._suggestion["number"])
        end = time.monotonic() + _END_S
        while not (ended := ray.wait([self._call], timeout=0)[0]) and time.monotonic() < end:
            with suppress(OSError):
                call_actor(self._setting.hub, "interrupt", run, self._attempt)
            ray.wait([self._call], timeout=_AGAIN_S)  # one that has not opened its watcher yet is asked again
        try:
            if ended:
                ray.get(self._call, timeout=_END_S)
            else:
                self.close()
        except RayError:
            self._runner = None
        self._call = None

    def close(self) -> None:
        """Ends the trial's process."""
        import ray

        if self._runner is not None:
            ray.kill(self._runner)
        self._runner = self._call = None

    def _start(self) -> str:
        """Sends the trial to its runner; returns why that cannot be."""
        setting, suggestion = self._setting, self._suggestion
        number = suggestion["number"]
        try:
            self._attempt = uuid.uuid4().hex[:8]
            errand = setting.errand(number, suggestion["params"], suggestion["seed"], self._attempt)
        except UserError as error:
            return str(error)
        call_actor(setting.hub, "interrupt", setting.run_id_of(number))  # a process that Tune has given up
        if self._runner is None:
            self._runner = start_runner(setting.node, setting.folder, setting.local, self._group)
        self._call = self._runner.run.remote(errand)
        return ""

    def _reading(self, patience: float) -> float | None:
        """The next reported value, if there is one or comes soon."""
        if self._setting.search.objective.watched is None:
            return None
        run = self._setting.run_id_of(self._suggestion["number"])
        for reading in call_actor(self._setting.hub, "readings", run, self.given, patience, self._attempt):
            self.given += 1
            if reading.step is not None:
                if reading.step <= self.steps.get(reading.unit, -1):
                    continue  # said again by a job that began anew
                self.steps[reading.unit] = reading.step
            if self._unseen:
                self._unseen -= 1
            elif isinstance(reading.value, int | float) and not math.isnan(reading.value):
                return float(reading.value)
        return None

    def _outcome(self) -> Outcome | None:
        """How the trial ended, None while it runs."""
        import ray
        from ray.exceptions import RayError

        limit = self._setting.search.trial_timeout_s
        if limit is not None and time.monotonic() > self._began + limit:
            self.interrupt()
            return Outcome("failed", reason=f"ran past trial_timeout of {limit:g} s")
        patience = _SOON_S if self._setting.search.objective.watched else _POLL_S
        if not ray.wait([self._call], timeout=patience)[0]:
            return None
        try:
            return ray.get(self._call, timeout=_END_S)
        except RayError as error:
            reason = redact_text(str(error).strip().splitlines()[-1])
        self._lost.append(reason)
        self._runner = None
        if len(self._lost) > LOST_TRIES:
            return Outcome("failed", reason=f"its process died {len(self._lost)} times: {reason}")
        refusal = self._start()
        return Outcome("failed", reason=refusal) if refusal else None

    def _end(self, outcome: Outcome) -> dict[str, Any]:
        self._call = None
        told = dataclasses.asdict(outcome)
        if self._lost and outcome.state == "done":
            told["reason"] = f"its process died {len(self._lost)} times and was started again: {self._lost[-1]}"
        last = {} if outcome.value is None else {OBJECTIVE: outcome.value}
        return {**last, "training_iteration": max(self._iteration, 1), "done": True, OUTCOME: told}


def trainable() -> type:
    """The class that Tune runs; made when Tune is there."""
    import ray.util
    from ray import tune

    class SandboxTrial(tune.Trainable):
        """One trial after the other; see `Drive`."""

        def setup(self, config: dict[str, Any], setting: Setting) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            group = ray.util.get_current_placement_group() if setting.reserved else None
            self.drive = Drive(setting, group)
            self.drive.begin(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.drive.begin(new_config)
            return True

        def step(self) -> dict[str, Any]:
            return self.drive.next()

        def cleanup(self) -> None:
            self.drive.interrupt()
            self.drive.close()

        def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
            return self.drive.state()

        def load_checkpoint(self, checkpoint: Any) -> None:
            self.drive.go_on(checkpoint)

    return SandboxTrial
