"""Training of a LoRA for a text-to-video model of diffusers: EasyAnimate 5.1, CogVideoX, Wan, LTX and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from raysandbox.core.component import InputPath, ModelPath, OutputPath
from raysandbox.core.errors import UserError
from raysandbox.core.keys import DigestMemo, code_version, digest
from raysandbox.core.registry import register
from raysandbox.core.runner import TrainSession, WorkSession
from raysandbox.executors._video.models.families import Family, check_request, family_of
from raysandbox.executors._video.models.layout import (
    PipelineSource,
    fetch,
    local_folder,
    missing_weights_of,
    model_digest,
    read_layout,
)
from raysandbox.executors._video.training.batches import Example, Examples
from raysandbox.executors._video.training.dataset import BadClip, Clip, clip_stamps, read_clips, spend_budget
from raysandbox.executors._video.training.denoising import Denoising, check_trainable
from raysandbox.executors._video.training.latents import ClipFormat, clip_encoding, encode, text_encoding
from raysandbox.executors._video.training.loop import Prepared, train_lora
from raysandbox.executors._video.training.optimizing import Optimizing
from raysandbox.executors._video.training.options import TrainingOptions
from raysandbox.executors.base import ModelTrainer

__all__ = ["DiffusersTrainer"]

# What leaves the weights as they are; clips count by their content.
_NEUTRAL = {"model", "transformer_path", "dataset", "dataset_root", "validation_dataset", "output_dir"}
_NEUTRAL |= {"max_bad_rows", "keep_last", "checkpoint_every", "checkpoint_each_epoch", "gradient_checkpointing"}
_NEUTRAL |= {"validation_timesteps", "sample_prompts", "sample_options"}


@register("diffusers")
class DiffusersTrainer(TrainingOptions, ModelTrainer):
    """Trains a LoRA of a text-to-video model's transformer, on one worker or several.

    Clips and captions are encoded once, by a pass over the cluster; an interrupted training goes on from its
    last checkpoint. Families: EasyAnimate 5.1, CogVideoX, Wan, SkyReels V2, LTX,
    HunyuanVideo, Mochi.
    """

    extras: ClassVar[tuple[str, ...]] = ("video",)
    distributed: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "model": "alibaba-pai/EasyAnimateV5.1-12b-zh-diffusers",
        "dataset": "./outputs/demo/clips_ea_fmt.json",
        "output_dir": "./outputs/demo/lora",
        "height": 256,
        "width": 256,
        "num_frames": 49,
        "stride": 3,
        "rank": 128,
        "alpha": 64,
        "learning_rate": 1e-4,
        "batch_size": 1,
        "epochs": 1,
        "checkpoint_every": 500,
    }

    model: ModelPath = Field(description="folder of the model in diffusers' layout, or its id on the Hugging Face hub")
    transformer_path: InputPath | None = Field(
        None, description="other weights for the transformer: a folder in diffusers' layout, or a .safetensors file"
    )
    dataset: InputPath = Field(
        description="JSON list of {file_path, text, type: video}, or rows of Data-Juicer with videos and text"
    )
    dataset_root: str | None = Field(None, description="where its relative paths start; the data set's folder if null")
    validation_dataset: InputPath | None = Field(
        None, description="held-out clips: their denoising loss is reported at the start and at checkpoints"
    )
    max_bad_rows: int | float = Field(
        0,
        ge=0,
        description="clips of a data set that may be missing, damaged or too short, or, below 1, which share of "
        "them; they go to quarantine",
    )
    output_dir: OutputPath = Field(description="where checkpoint-{step}.safetensors and training.json appear")

    @classmethod
    def missing_weights(cls, raw: Mapping[str, Any]) -> Mapping[str, str]:
        """The model, when it is not on this machine or lacks files."""
        missing = missing_weights_of(raw.get("model"))
        return {"model": missing} if missing else {}

    @classmethod
    def surroundings(cls, raw: Mapping[str, Any]) -> Any:
        """The clips that the data sets name, by path, size and time of change."""
        sets = [raw.get("dataset"), raw.get("validation_dataset")]
        root = raw.get("dataset_root")
        return [clip_stamps(each, root) if isinstance(each, str) else None for each in sets]

    @field_validator("max_bad_rows")
    @classmethod
    def _number_or_share(cls, value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError("must be a number of clips, or a share below 1")
        return value

    @model_validator(mode="after")
    def _fits_the_family(self) -> DiffusersTrainer:
        """What can be known of the request without loading the model."""
        try:
            folder = local_folder(self.model)
            if folder is not None:
                check_trainable(read_layout(folder))
                self._check_sizes(family_of(self.model))
        except UserError as error:
            raise ValueError(str(error)) from error
        return self

    def prepare(self, session: WorkSession) -> Prepared:
        """Reads the data sets and has their clips and captions encoded, as far as the cache lacks them.

        Raises:
            UserError: the model is missing, or cannot be trained.
            BadRowsError: more clips are missing or damaged than `max_bad_rows` allows.
        """
        source = self._source()
        check_trainable(read_layout(fetch(source, weights=True)))
        family = family_of(source.model)
        self._check_sizes(family)
        memo = DigestMemo(session.cache_dir / "digests")
        clips, held_out, without, samples = self._encoded(session, source, family, memo)
        settings = self.model_dump(mode="json", exclude=_NEUTRAL)
        code = code_version(type(self), Denoising, Examples, Optimizing, Prepared)
        files = [[each.latents.name, each.text.name] for each in clips]
        held = [[each.latents.name, each.text.name] for each in held_out]
        key = digest([code, settings, model_digest(source, memo), files, held, without.name])
        output = Path(self.output_dir).expanduser().absolute()
        execution = None if session.use_cache else session.execution
        return Prepared(key, source, output, clips, held_out, without, samples, execution)

    def train(self, session: TrainSession) -> str:
        """Trains and returns `output_dir`.

        Reports `loss`, `lr`, `grad_norm`, `epoch`, `step_seconds`, `samples_per_second` and on a GPU
        `peak_memory_gb` of every step (from 1), and `validation_loss` at step 0 and at checkpoints.

        Raises:
            JobFailed: a loss is not finite.
            UserError: the model cannot be trained here.
        """
        train_lora(self, session.prepared, session)
        return self.output_dir

    def _encoded(
        self, session: WorkSession, source: PipelineSource, family: Family, memo: DigestMemo
    ) -> tuple[tuple[Example, ...], tuple[Example, ...], Path, tuple[tuple[str, Path], ...]]:
        """The clips to train on, those held out, the empty caption and sample prompts: encoded by one pass."""
        sets = [self._read(session, "dataset", self.dataset)]
        if self.validation_dataset is not None:
            sets.append(self._read(session, "validation_dataset", self.validation_dataset))
        self.check_warmup(sets[0].total, workers=1)  # more workers take fewer steps, which is said when they start
        form = ClipFormat(self.height, self.width, self.num_frames, self.stride, self.seed)
        clips, plain = [clip for each in sets for clip in each.clips], self.generation
        latents = clip_encoding(session, source, family, clips, form, plain, memo)
        captions = text_encoding(session, source, family, ["", *(clip.text for clip in clips)], plain, memo)
        prompts = text_encoding(session, source, family, self.sample_prompts, self.samples, memo)
        errors = encode(session, [latents, captions, prompts])
        without, *texts = captions.targets
        pairs = map(Example, latents.targets, texts)
        found = [self._usable(session, each, list(islice(pairs, len(each.clips))), errors) for each in sets]
        samples = tuple(zip(self.sample_prompts, prompts.targets, strict=True))
        return found[0], found[1] if len(found) > 1 else (), without, samples

    def _read(self, session: WorkSession, key: str, dataset: str) -> _Set:
        """The clips of a data set; too many that are missing are refused before anything is computed."""
        found = _Set(key, *read_clips(dataset, self.dataset_root, key))
        spend_budget(found.bad, found.total, self.max_bad_rows, session.quarantine / f"{key}.quarantine", key)
        return found

    def _usable(
        self, session: WorkSession, given: _Set, examples: Sequence[Example], errors: Mapping[Path, str]
    ) -> tuple[Example, ...]:
        """The clips that could be encoded; the others are counted, named and left out."""
        pairs = list(zip(given.clips, examples, strict=True))
        damaged = [
            BadClip(clip.place, clip.path, errors[example.latents])
            for clip, example in pairs
            if example.latents in errors
        ]
        bad, key = [*given.bad, *damaged], given.key
        if damaged:
            spend_budget(bad, given.total, self.max_bad_rows, session.quarantine / f"{key}.quarantine", key)
        session.report({f"{key}_clips": float(given.total - len(bad)), f"{key}_bad_clips": float(len(bad))})
        return tuple(example for example in examples if example.latents not in errors)

    def _check_sizes(self, family: Family) -> None:
        check_request(family, self.generation)
        if self.sample_prompts:
            check_request(family, self.samples)

    def _source(self) -> PipelineSource:
        return PipelineSource.located(self.model, self.transformer_path)


@dataclass(frozen=True)
class _Set:
    """What a data set holds.

    Attributes:
        key: of the configuration.
        clips: that can be tried.
        bad: entries that are none.
    """

    key: str
    clips: Sequence[Clip]
    bad: Sequence[BadClip]

    @property
    def total(self) -> int:
        """Number of its entries."""
        return len(self.clips) + len(self.bad)
