"""What a data recipe may hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from raysandbox.core.component import OutputPath
from raysandbox.core.errors import ConfigError, Problem
from raysandbox.ops.base import OPERATORS, Operator
from raysandbox.ops.batch import FieldKeys
from raysandbox.recipe.mixture import Part, parse_dataset_path

__all__ = ["EXPORT_FORMATS", "DatasetSpec", "LocalDataset", "Recipe", "export_format", "step_of"]

EXPORT_FORMATS = ("jsonl", "json", "parquet")
_COMPRESSED = ("jsonl.gz", "jsonl.zst")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class LocalDataset(_Model):
    """One element of `dataset.configs`."""

    type: Literal["local"] = Field("local", description="only local files, folders and globs in this version")
    path: str = Field(description="file, folder or glob")
    weight: float = Field(1.0, ge=0, allow_inf_nan=False, description="relative share of `max_sample_num`")
    source: str | None = Field(None, description="Data-Juicer's format hint; the suffix decides here")


class DatasetSpec(_Model):
    """`dataset`: the longer form of `dataset_path`."""

    configs: list[LocalDataset] = Field(min_length=1, description="the parts of the data set, in order")
    max_sample_num: int | None = Field(None, gt=0, description="rows to draw from all parts together")


class Recipe(_Model):
    """A data recipe: where rows come from, what happens to them, where they go."""

    project_name: str = Field("hello_world", description="name of the project")
    dataset_path: str = Field("", description="file, folder, glob or weighted mix `0.3 a.jsonl 0.7 b.parquet`")
    dataset: DatasetSpec | None = Field(None, description="the longer form of dataset_path")
    export_path: OutputPath = Field("", description="output file: .jsonl (also .gz, .zst), .json or .parquet")
    export_type: Literal["jsonl", "json", "parquet"] | None = Field(
        None, description="format of the output where the suffix does not say it"
    )
    export_shard_size: int = Field(0, ge=0, description="bytes per output file; 0 writes one file")
    np: int | None = Field(None, ge=1, description="most blocks worked on at once on Ray; by default as many as fit")
    text_keys: str | Annotated[list[str], Field(min_length=1)] = Field(
        "text", description="column of the text; of a list the first"
    )
    image_key: str = Field("images", description="column of the lists of image paths")
    video_key: str = Field("videos", description="column of the lists of video paths")
    audio_key: str = Field("audios", description="column of the lists of audio paths")
    suffixes: str | list[str] = Field(default_factory=list, description="suffixes of the files to read in folders")
    process: list[dict[str, dict[str, Any] | None]] = Field(
        default_factory=list, description="the operators in order: [{name: {parameter: value}}, …]"
    )
    keep_stats_in_res_ds: bool = Field(False, description="keep the statistics as the column __dj__stats__")
    keep_hashes_in_res_ds: bool = Field(False, description="keep the columns that deduplicators compare")
    export_original_dataset: bool = Field(False, description="analysis: write the rows with their statistics")
    percentiles: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=lambda: [0.25, 0.5, 0.75], description="analysis: quantiles of each statistic"
    )
    data_probe_algo: Literal["uniform", "frequency_specified_field_selector", "topk_specified_field_selector"] = Field(
        "uniform", description="model probe: how rows are chosen"
    )
    data_probe_ratio: float = Field(1.0, gt=0, le=1, description="model probe: share of the rows")
    skip_op_error: bool | None = Field(None, description="true: no limit of bad rows; they still go to quarantine")
    engine: Literal["auto", "local", "ray"] = Field(
        "auto", description="auto works in process up to 64 MB of input and on Ray above"
    )
    max_bad_rows: int | float | None = Field(
        None, ge=0, description="bad rows to put up with: a number, or a fraction below 1; 0 by default"
    )
    row_timeout_s: float = Field(
        60.0, gt=0, description="seconds that decoding one media file may take before its row counts as bad"
    )
    custom_operator_paths: None = Field(None, description="not in this version")
    seed: int = Field(42, description="seed of every random choice")

    @field_validator("process", mode="before")
    @classmethod
    def _named_steps(cls, value: Any) -> Any:
        if value is None:
            return []
        return [{step: None} if isinstance(step, str) else step for step in value] if isinstance(value, list) else value

    @field_validator("max_bad_rows", mode="after")
    @classmethod
    def _number_or_fraction(cls, value: float | None) -> int | float | None:
        if isinstance(value, float) and value >= 1:
            if not value.is_integer():
                raise ValueError("should be a whole number, or a fraction below 1")
            return int(value)
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Recipe:
        if self.dataset_path and self.dataset is not None:
            raise ValueError("dataset_path and dataset both say where the rows come from: give one")
        return self

    def operators(self) -> list[Operator]:
        """The steps of `process` as operators.

        Raises:
            UnknownNameError: a name that no operator has.
            pydantic.ValidationError: parameters that do not fit; `recipe_problems` says it better.
        """
        keys = self.field_keys()
        return [self._operator(*step_of(step)).for_recipe(keys) for step in self.process]

    @staticmethod
    def _operator(name: str, params: Mapping[str, Any]) -> Operator:
        cls: type[Operator] = OPERATORS.get(name)
        return cls.model_validate({key: value for key, value in params.items() if key not in cls.no_meaning_here})

    def parts(self) -> list[Part]:
        """The parts of the input, with their weights."""
        if self.dataset is not None:
            return [Part(item.path, item.weight) for item in self.dataset.configs]
        return parse_dataset_path(self.dataset_path)

    def field_keys(self) -> FieldKeys:
        """Names of the columns that operators read."""
        text = self.text_keys if isinstance(self.text_keys, str) else self.text_keys[0]
        return FieldKeys(text=text, image=self.image_key, video=self.video_key, audio=self.audio_key)

    def bad_row_budget(self) -> int | float | None:
        """The most bad rows: a number, a fraction of the rows below 1, or None without a limit."""
        if self.max_bad_rows is None:
            return None if self.skip_op_error else 0
        return self.max_bad_rows

    def file_suffixes(self) -> frozenset[str]:
        """`suffixes` in lower case, each with its dot."""
        names: Iterable[str] = [self.suffixes] if isinstance(self.suffixes, str) else self.suffixes
        return frozenset("." + name.lower().lstrip(".") for name in names if name)


def step_of(step: Mapping[str, Mapping[str, Any] | None]) -> tuple[str, Mapping[str, Any]]:
    """Name and parameters of one step of `process`."""
    ((name, params),) = step.items()
    return name, params or {}


def export_format(path: str, export_type: str | None = None) -> tuple[str, str]:
    """Format and suffix of an output path: ("jsonl", "jsonl.zst").

    Raises:
        ConfigError: the suffix names no known format and `export_type` does not either.
    """
    name = path.rsplit("/", 1)[-1].lower()
    for suffix in (*_COMPRESSED, *EXPORT_FORMATS):
        if name.endswith("." + suffix):
            return export_type or suffix.split(".")[0], suffix
    if export_type:
        return export_type, name.rpartition(".")[2] if "." in name else ""
    known = ", ".join(f".{suffix}" for suffix in (*EXPORT_FORMATS, *_COMPRESSED))
    raise ConfigError([Problem(None, None, "export_path", f"cannot write '{path}'", f"known suffixes: {known}")])
