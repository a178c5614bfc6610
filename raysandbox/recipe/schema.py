"""What a data recipe may hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from raysandbox.core.component import OutputPath
from raysandbox.core.errors import ConfigError, Problem, did_you_mean
from raysandbox.core.names import nameable
from raysandbox.ops.base import OPERATORS, Operator
from raysandbox.ops.batch import FieldKeys
from raysandbox.ops.special_tokens import SpecialTokens
from raysandbox.recipe.mixture import parse_dataset_path, parse_split
from raysandbox.recipe.trace import TraceSpec
from raysandbox.recipe.validators import Validator, validator_of

__all__ = ["EXPORT_FORMATS", "DatasetPart", "DatasetSpec", "Recipe", "export_format", "step_of"]

EXPORT_FORMATS = ("jsonl", "json", "parquet", "csv", "tsv")
_TOKENS = SpecialTokens()
_COMPRESSED = ("jsonl.gz", "jsonl.zst")

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT])(?:i?B)?", re.IGNORECASE)
_SOURCES = ("huggingface", "modelscope", "s3", "hdfs")
_NOT_YET = ("arxiv", "wiki", "commoncrawl")
_STORE_OPTIONS = ("endpoint_url", "anon", "hdfs_host", "hdfs_port", "hdfs_user", "hdfs_kerb_ticket", "hdfs_extra_conf")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class DatasetPart(_Model):
    """One element of `dataset.configs`."""

    type: Literal["local", "remote"] = Field("local", description="where it is; a path with a protocol may be either")
    source: str | None = Field(
        None,
        description="of a remote part: huggingface, modelscope, s3 or hdfs; the format of a local one is its suffix",
    )
    path: Annotated[str, AfterValidator(nameable)] = Field(
        description="file, folder, glob, URL, or the id of a data set on its hub"
    )
    weight: float = Field(1.0, ge=0, allow_inf_nan=False, description="relative share of `max_sample_num`")
    name: str | None = Field(None, description="hub: which configuration (subset) of the data set")
    split: str | None = Field(None, description="hub or saved data set: train, train+test, train[:10%]")
    limit: int | None = Field(None, ge=0, description="the most rows to take, from the first on")
    revision: str | None = Field(None, description="hub: branch, tag or commit")
    data_dir: str | None = Field(None, description="hub: folder in the data set")
    data_files: str | list[str] | dict[str, str | list[str]] | None = Field(
        None, description="hub: which of its files, also by split"
    )
    format: str | None = Field(None, description="Data-Juicer's hint; the suffix decides here")
    trust_remote_code: Literal[False] = Field(False, description="code of a data set is not run")

    @model_validator(mode="before")
    @classmethod
    def _readable_source(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        secrets = [key for key in raw if str(key).startswith("aws_") or key in _STORE_OPTIONS]
        if secrets:
            raise ValueError(f"{', '.join(secrets)}: options of a store come from the environment (docs/datasets.md)")
        source = raw.get("source")
        if raw.get("type") == "remote" and source not in _SOURCES:
            if source in _NOT_YET:
                raise ValueError(f"source '{source}' is not in this version; known: {', '.join(_SOURCES)}")
            hint = did_you_mean(str(source), _SOURCES) or f"known: {', '.join(_SOURCES)}"
            raise ValueError(f"a remote part needs a source, not {source!r}; {hint}")
        return raw

    @field_validator("split")
    @classmethod
    def _splits(cls, value: str | None) -> str | None:
        if value is not None:
            parse_split(value)
        return value

    @model_validator(mode="after")
    def _meant_for_hubs(self) -> DatasetPart:
        given = [key for key in ("name", "revision", "data_dir", "data_files") if getattr(self, key) is not None]
        if given and not self.on_hub:
            raise ValueError(f"{', '.join(given)}: only a data set of huggingface or modelscope has that")
        return self

    @property
    def on_hub(self) -> bool:
        """Whether the path is the id of a hub, or a folder in a hub's layout."""
        return self.type == "remote" and self.source in ("huggingface", "modelscope")


class DatasetSpec(_Model):
    """`dataset`: the longer form of `dataset_path`."""

    configs: list[DatasetPart] = Field(min_length=1, description="the parts of the data set, in order")
    max_sample_num: int | None = Field(None, gt=0, description="rows to draw from all parts together")

    @field_validator("configs")
    @classmethod
    def _some_weight(cls, configs: list[DatasetPart]) -> list[DatasetPart]:
        if not any(part.weight for part in configs):
            raise ValueError("every weight is 0")
        return configs


class Recipe(_Model):
    """A data recipe: where rows come from, what happens to them, where they go."""

    project_name: str = Field("hello_world", description="name of the project")
    dataset_path: str = Field("", description="file, folder, glob or weighted mix `0.3 a.jsonl 0.7 b.parquet`")
    dataset: DatasetSpec | None = Field(None, description="the longer form of dataset_path")
    validators: list[dict[str, Any]] = Field(
        default_factory=list, description="what every row must hold: [{type: name, parameter: value}, …]"
    )
    export_path: OutputPath = Field(
        "", description="output file or URL: .jsonl (also .gz, .zst), .json, .parquet, .csv or .tsv"
    )
    export_type: Literal["jsonl", "json", "parquet", "csv", "tsv"] | None = Field(
        None, description="format of the output where the suffix does not say it"
    )
    export_shard_size: int = Field(
        0, ge=0, description="bytes of content per output file, also as 256M or 1G; 0 writes one file"
    )
    np: int | None = Field(None, ge=1, description="most blocks worked on at once on Ray; by default as many as fit")
    text_keys: str | Annotated[list[str], Field(min_length=1)] = Field(
        "text", description="column of the text; of a list the first"
    )
    image_key: str = Field("images", description="column of the lists of image paths")
    video_key: str = Field("videos", description="column of the lists of video paths")
    audio_key: str = Field("audios", description="column of the lists of audio paths")
    image_special_token: str = Field(_TOKENS.image, min_length=1, description="mark of an image in a text")
    audio_special_token: str = Field(_TOKENS.audio, min_length=1, description="mark of a sound in a text")
    video_special_token: str = Field(_TOKENS.video, min_length=1, description="mark of a video in a text")
    eoc_special_token: str = Field(_TOKENS.eoc, min_length=1, description="mark of the end of a chunk of text")
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
        60.0,
        gt=0,
        allow_inf_nan=False,
        description="seconds that decoding one media file may take before its row counts as bad",
    )
    custom_operator_paths: list[str] = Field(
        default_factory=list, description="Python files with operators of yours; needs --allow-user-code"
    )
    op_fusion: bool = Field(
        False, description="let filters that follow one another change places, so that cheap ones come first"
    )
    fusion_strategy: Literal["probe", "greedy"] = Field(
        "probe", description="with op_fusion: measure the filters on the first rows, or go by their kinds"
    )
    open_tracer: bool = Field(
        False, description="write rows before and after each operator to the folder `trace` beside the output"
    )
    trace_num: int = Field(10, ge=0, description="tracer: rows per operator, the first in input order")
    op_list_to_trace: list[str] = Field(default_factory=list, description="tracer: operators to trace; all when empty")
    trace_keys: list[str] = Field(default_factory=list, description="tracer: more columns to show")
    seed: int = Field(42, description="seed of every random choice")

    @field_validator("process", mode="before")
    @classmethod
    def _named_steps(cls, value: Any) -> Any:
        if value is None:
            return []
        return [{step: None} if isinstance(step, str) else step for step in value] if isinstance(value, list) else value

    @field_validator("custom_operator_paths", mode="before")
    @classmethod
    def _one_path(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value or []

    @field_validator("export_shard_size", mode="before")
    @classmethod
    def _with_unit(cls, value: Any) -> Any:
        match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        return value if match is None else round(float(match[1]) * 1024 ** " KMGT".index(match[2].upper()))

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

    def parts(self) -> list[DatasetPart]:
        """The parts of the input, with their weights."""
        if self.dataset is not None:
            return self.dataset.configs
        parts = parse_dataset_path(self.dataset_path)
        return [DatasetPart.model_validate({"path": part.path, "weight": part.weight}) for part in parts]

    def trace_spec(self) -> TraceSpec | None:
        """What the tracer shows; None without it."""
        if not self.open_tracer or not self.trace_num:
            return None
        return TraceSpec(self.trace_num, frozenset(self.op_list_to_trace), tuple(self.trace_keys))

    def row_validators(self) -> tuple[Validator, ...]:
        """The validators, in order."""
        return tuple(validator_of(raw) for raw in self.validators)

    def field_keys(self) -> FieldKeys:
        """Names of the columns that operators read, and the marks in texts."""
        text = self.text_keys if isinstance(self.text_keys, str) else self.text_keys[0]
        tokens = SpecialTokens(
            self.image_special_token, self.audio_special_token, self.video_special_token, self.eoc_special_token
        )
        return FieldKeys(text, self.image_key, self.video_key, self.audio_key, tokens)

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
    if path.startswith(("http://", "https://")):
        fix = "write to a file or an object store"
        raise ConfigError([Problem(None, None, "export_path", f"a web server takes no files: '{path}'", fix)])
    for suffix in (*_COMPRESSED, *EXPORT_FORMATS):
        if name.endswith("." + suffix):
            return export_type or suffix.split(".")[0], suffix
    if export_type:
        return export_type, name.rpartition(".")[2] if "." in name else ""
    known = ", ".join(f".{suffix}" for suffix in (*EXPORT_FORMATS, *_COMPRESSED))
    raise ConfigError([Problem(None, None, "export_path", f"cannot write '{path}'", f"known suffixes: {known}")])
