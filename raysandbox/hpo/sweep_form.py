"""The form of a sweep file: wandb's keys and ours, typed; `parameters` and algorithms are read on their own."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["NO_MEANING", "SweepForm"]

NO_MEANING = {
    "program": "a trial runs the pipelines of the configuration",
    "command": "a trial runs the pipelines of the configuration",
    "entity": "wandb's own settings decide",
    "project": "project_name of the configuration decides",
    "controller": "Ray Tune drives the search",
    "imports": "a trial runs the pipelines of the configuration",
    "job": "a trial runs the pipelines of the configuration",
    "image_uri": "trials run on the Ray cluster",
    "apiVersion": "",
    "kind": "",
    "launch": "trials run on the Ray cluster",
    "settings": "",
}
_TIME = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _MetricForm(_Model):
    name: str
    goal: Literal["minimize", "maximize"] = "minimize"
    target: float | None = Field(None, allow_inf_nan=False)
    impute: Any = None
    impute_while_running: Any = None


class _Hyperband(_Model):
    type: Literal["hyperband"]
    max_iter: int | None = Field(None, ge=1)
    min_iter: int | None = Field(None, ge=1)
    s: int | None = Field(None, ge=1)
    eta: float = Field(3, gt=1)
    strict: bool | None = None

    @model_validator(mode="after")
    def _one_form(self) -> _Hyperband:
        if (self.max_iter is None) != (self.s is None) or (self.min_iter is None and self.s is None):
            raise ValueError("needs min_iter, or max_iter together with s")
        if self.max_iter is not None and self.s is not None and self.max_iter < self.eta:
            raise ValueError(f"max_iter {self.max_iter} / eta {self.eta:g} is below 1: there is no rung")
        return self


class SweepForm(_Model):
    """The keys of the file; `parameters`, `search_alg` and `scheduler` are read on their own."""

    method: Literal["grid", "random", "bayes"] | None = None
    metric: _MetricForm
    early_terminate: _Hyperband | None = None
    run_cap: int | None = Field(None, ge=1)
    sweep_max_count: int | None = Field(None, ge=1)
    name: str | None = None
    sweep_name: str | None = None
    description: str | None = None
    max_concurrent: int | None = Field(None, ge=1)
    resources_per_trial: dict[str, float] | list[dict[str, float]] | None = None
    time_budget: float | None = Field(None, gt=0, allow_inf_nan=False)
    trial_timeout: float | None = Field(None, gt=0, allow_inf_nan=False)
    seeds: int | list[int] | None = None
    seed_parameter: str | list[str] | None = None
    points_to_evaluate: list[dict[str, Any]] = []
    seed: int = Field(42, ge=0)
    rerun_failed: bool = False
    parameters: Any = None
    search_alg: Any = None
    scheduler: Any = None

    @field_validator("metric", mode="before")
    @classmethod
    def _not_a_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"should be a mapping such as {{name: {value}, goal: minimize}}")
        return value

    @field_validator("time_budget", "trial_timeout", mode="before")
    @classmethod
    def _with_unit(cls, value: Any) -> Any:
        if not isinstance(value, str) or not _TIME.fullmatch(text := value.replace(" ", "").lower()):
            if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
                raise ValueError("should be seconds, or a number with s, m, h or d such as 30m")
            return value
        return sum(float(part[:-1]) * _SECONDS[part[-1]] for part in re.findall(r"[\d.]+[smhd]", text))

    @field_validator("seeds")
    @classmethod
    def _some_seeds(cls, value: int | list[int] | None) -> int | list[int] | None:
        given = list(range(value)) if isinstance(value, int) else value
        if given is not None and (not given or min(given) < 0 or len(set(given)) < len(given)):
            raise ValueError("should be a number of repeats from 1 on, or a list of different seeds from 0 on")
        return value

    @field_validator("resources_per_trial")
    @classmethod
    def _not_negative(cls, value: Any) -> Any:
        for bundle in value if isinstance(value, list) else [value or {}]:
            if any(not math.isfinite(amount) or amount < 0 for amount in bundle.values()):
                raise ValueError("amounts should be at least 0")
        return value
