"""The sandbox configuration, typed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from raysandbox.config.documents import Document, KeyPath
from raysandbox.core.names import nameable, safe_stem

__all__ = ["JobConfig", "JobEntry", "Pipeline", "SandboxConfig", "Settings", "WatcherSettings"]


_Path = Annotated[str, AfterValidator(nameable)]


class _Model(BaseModel):
    # A name may be written as a number: `experiment_name: 2024`.
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)


class WatcherSettings(_Model):
    """Where metrics go besides `metrics.jsonl`."""

    wandb: Literal["auto", "online", "offline", "disabled"] = Field(
        "auto", description="auto: WANDB_MODE if set, online with an API key, otherwise disabled"
    )


class Settings(_Model):
    """The keys of a configuration besides its job lists."""

    project_name: str = Field("sandbox", description="wandb project")
    experiment_name: _Path = Field("run0", description="name of the run")
    work_dir: _Path | None = Field(
        None, description="folder of the run, or URL (s3://…); ./outputs/<experiment_name> by default"
    )
    hpo_config: _Path | dict[str, Any] | None = Field(None, description="search space: a path or a mapping")
    resume: bool = Field(False, description="go on with the run that stands in work_dir")
    max_iter_num: int = Field(1, ge=1, description="iterations of all pipelines")
    iter_targets: list[str] = Field(
        [], description="conditions that end the iterations: <pipeline>.<meta_name>.<output> >= 0.8"
    )
    iter_targets_mode: Literal["all", "any"] = Field("all", description="how many targets must be met")
    iter_updater: dict[str, str | list[str]] = Field(
        {}, description="outputs that become configuration values of the next iteration"
    )
    stages: list[str] | None = Field(None, min_length=1, description="names of the job lists, in order")
    max_parallel_jobs: int | None = Field(
        None, ge=1, description="most jobs and `foreach` elements at the same time; 1: one after the other"
    )
    cache_dir: _Path | None = Field(None, description="what runs share; ~/.cache/raysandbox by default")
    watcher: WatcherSettings = Field(default_factory=lambda: WatcherSettings.model_validate({}))

    @field_validator("hpo_config", mode="before")
    @classmethod
    def _path_or_mapping(cls, value: Any) -> Any:
        if value == "" or not (value is None or isinstance(value, str | dict)):
            raise ValueError("should be the path of a sweep file, or a mapping with method, metric and parameters")
        return value

    @field_validator("stages")
    @classmethod
    def _distinct_stages(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and len(set(value)) != len(value):
            raise ValueError("names a stage twice")
        return value

    @property
    def work_path(self) -> Path:
        """The run's folder as configured or by default."""
        return Path((self.work_dir or f"./outputs/{self.experiment_name}").removeprefix("file://"))


class JobConfig(_Model):
    """One job of a stage."""

    hook: str = Field(description="what runs")
    meta_name: str | None = Field(None, description="tag of its result")
    input: dict[str, str] = Field({}, description="configuration keys filled from outputs of earlier jobs")
    output: list[str] = Field([], description="names of what the hook returns")
    local: dict[str, Any] = Field({}, description="overrides for this job")
    dj_configs: _Path | dict[str, Any] | None = Field(None, description="a data recipe: path or mapping")
    extra_configs: _Path | dict[str, Any] | None = Field(None, description="anything else: path or mapping")
    resources: dict[str, Any] = Field({}, description="what the job's workers need")
    runtime_env: dict[str, Any] = Field({}, description="Ray runtime environment of the job's workers")
    retries: int = Field(0, ge=0, description="how often a failed job is tried again")
    timeout_s: float | None = Field(None, gt=0, description="seconds after which the job fails")
    foreach: str | None = Field(None, description="reference to a list: one run of the job per element")

    @field_validator("output", mode="before")
    @classmethod
    def _one_output(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("output")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value) or "meta_name" in value:
            raise ValueError("output names must be distinct and not 'meta_name'")
        return value


@dataclass(frozen=True, eq=False)
class JobEntry:
    """A job and where it stands; each is itself only, however equal its configuration.

    Attributes:
        pipeline: name of its pipeline.
        stage: name of its stage.
        index: position among the jobs of its pipeline, from 0.
        config: the job.
        path: key path of the job in the configuration's document.
    """

    pipeline: str
    stage: str
    index: int
    config: JobConfig
    path: KeyPath

    @property
    def id(self) -> str:
        """`pipeline.meta_name#index`; the hook's name stands in for a missing meta_name."""
        return f"{self.pipeline}.{self.config.meta_name or self.config.hook}#{self.index}"

    @property
    def slug(self) -> str:
        """The id as a file name."""
        name = f"{self.index:02d}-{self.config.meta_name or self.config.hook}"
        prefix = "" if self.pipeline == "anonymous" else f"{self.pipeline}-"
        return safe_stem("".join(c if c.isalnum() or c in "-_." else "_" for c in prefix + name))


@dataclass(frozen=True)
class Pipeline:
    """A named pipeline: its jobs in the order they run."""

    name: str
    jobs: tuple[JobEntry, ...]


@dataclass(frozen=True)
class SandboxConfig:
    """A whole configuration and the document it was read from.

    Attributes:
        settings: the keys besides the job lists.
        pipelines: the jobs.
        document: the file.
        allow_user_code: whether code that its recipes name may run: said by who starts it, not in the file.
    """

    settings: Settings
    pipelines: tuple[Pipeline, ...]
    document: Document
    allow_user_code: bool = False

    def jobs(self) -> Iterator[JobEntry]:
        """All jobs in the order they run."""
        for pipeline in self.pipelines:
            yield from pipeline.jobs
