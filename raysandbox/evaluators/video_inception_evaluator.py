"""Inception metrics of generated videos and images: FVD, KVD, ISV, PRV, FID, KID, IS, PR."""

from __future__ import annotations

import logging
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from raysandbox.core.component import InputPath, OutputPath
from raysandbox.core.errors import JobFailed, MissingExtraError
from raysandbox.core.files import atomic_write
from raysandbox.core.keys import DigestMemo
from raysandbox.core.registry import register
from raysandbox.core.runner import WorkSession
from raysandbox.evaluators._inception.cache import ArrayCache
from raysandbox.evaluators._inception.features import FeatureWork, extract
from raysandbox.evaluators._inception.frames import Shape
from raysandbox.evaluators._inception.measure import MediaSet, reduced
from raysandbox.evaluators._inception.media import Source
from raysandbox.evaluators._inception.metrics import METRICS, MetricName
from raysandbox.evaluators._inception.results import Run, json_lines, over_runs
from raysandbox.evaluators._inception.survey import survey
from raysandbox.evaluators.base import DataEvaluator
from raysandbox.provision.weights import files_of, missing, missing_message

__all__ = ["VideoInceptionEvaluator"]

logger = logging.getLogger(__name__)

_NEEDED = (("torch", "torch", "models"), ("av", "av", "media"), ("PIL", "pillow", "media"))


@register("video_inception_evaluator")
class VideoInceptionEvaluator(DataEvaluator):
    """Compares generated with real videos in the features of a TorchScript detector; returns the scores by name.

    The detectors that the metrics are defined with are Inception-2015 (fid, kid, is), VGG16 (pr), I3D (fvd,
    kvd, prv) and C3D-UCF101 (isv); features are extracted by as many workers as `resources` asks for.
    """

    extras: ClassVar[tuple[str, ...]] = ("models",)
    example: ClassVar[Mapping[str, Any]] = {
        "metric": "fvd2048_16f",
        "fake_data_path": "./outputs/demo/generated.jsonl",
        "real_data_path": "./data/real.jsonl",
        "detector_path": "./models/i3d_torchscript.pt",
        "result_path": "./outputs/demo/fvd.jsonl",
    }

    # Rows name the videos, which a job's key does not see; the features are kept by their content.
    keeps_own_results: ClassVar[bool] = True

    metric: MetricName = Field(description="which metric; those on single frames (50k) also look at images")
    fake_data_path: InputPath = Field(description="rows that name the generated files: file, folder, glob or mix")
    real_data_path: InputPath | None = Field(
        None, description="rows that name real files; all metrics need them but isv2048_ucf and is50k"
    )
    fake_mm_dir: InputPath | None = Field(
        None, description="folder that the generated files' paths start from; by default that of the data"
    )
    real_mm_dir: InputPath | None = Field(
        None, description="folder that the real files' paths start from; by default that of the data"
    )
    video_key: str = Field("videos", description="column of videos: a list of paths, or one path")
    image_key: str = Field("images", description="column of images, for metrics on single frames")
    detector_path: InputPath | None = Field(
        None, description="TorchScript file of the detector; by default the published one (`raysandbox weights list`)"
    )
    result_path: OutputPath | None = Field(None, description="JSON lines to write, one for each run")
    num_runs: int = Field(1, ge=1, description="how many times to measure, with seeds that follow each other")
    height: int = Field(240, ge=1, description="pixels to which frames are resized")
    width: int = Field(320, ge=1, description="pixels to which frames are resized")
    replace_cache: bool = Field(False, description="compute features again that the cache holds")
    verbose: bool = Field(False, description="say in the job's log what was computed and measured")
    seed: int = Field(42, ge=0, lt=2**32, description="of the samples of the first run")

    @classmethod
    def missing_weights(cls, raw: Mapping[str, Any]) -> Mapping[str, str]:
        """The published detector, when none is named and it is not on this machine."""
        metric = raw.get("metric")
        if raw.get("detector_path") or not isinstance(metric, str) or metric not in METRICS:
            return {}
        message = missing_message(missing(cls.type_name, [METRICS[metric].weights]), [METRICS[metric].weights])
        return {"detector_path": message} if message else {}

    @model_validator(mode="after")
    def _has_real_data(self) -> VideoInceptionEvaluator:
        if METRICS[self.metric].needs_real and not self.real_data_path:
            raise ValueError(f"real_data_path is missing: {self.metric} compares with real data")
        return self

    def evaluate(self, session: WorkSession) -> dict[str, float]:
        """Returns the scores; of several runs their means, with the standard deviations as `NAME_runs_std`.

        Raises:
            JobFailed: files are missing or damaged, all videos are too short, or a score is not a number.
            MissingExtraError: torch, PyAV or Pillow is not installed.
        """
        started = time.monotonic()
        logger.setLevel(logging.INFO if self.verbose else logging.NOTSET)
        self.require()
        metric, cache = METRICS[self.metric], self._cache(session)
        sets = self._sets(session, cache)
        for each in sets:
            each.check(metric, self.metric)
        detector_digest = str(DigestMemo(session.cache_dir / "digests").of(self._detector))
        runs = self._planned(sets, detector_digest)
        units = [unit for run in runs for sampled in run.sampled for unit in sampled.units]
        computed = extract(self._work, units, session.workers, cache)
        logger.info("%s: %d of %d units of features were computed now", self.metric, computed, len(units))
        runs = [self._measured(run, session, cache, index) for index, run in enumerate(runs)]
        if self.result_path:
            about = {
                "height": self.height,
                "width": self.width,
                "detector_path": str(self._detector),
                "detector_sha256": detector_digest,
                "total_seconds": round(time.monotonic() - started, 3),
            }
            atomic_write(Path(self.result_path), json_lines(self.metric, metric, runs, about))
        scores = over_runs(runs)
        sizes = {f"{name}_{key}": float(n) for name, all_ in runs[0].sizes(metric).items() for key, n in all_.items()}
        session.report({**scores, **sizes})
        return scores

    def require(self) -> None:
        """Looks at what can be looked at before the work.

        Raises:
            MissingExtraError: a package is not installed.
            JobFailed: there is no detector, or it is none; the results have no place.
        """
        for module, package, extra in _NEEDED:
            if find_spec(module) is None:
                raise MissingExtraError(package, extra, "video_inception_evaluator")
        for message in self.missing_weights(self.model_dump()).values():
            raise JobFailed(f"detector_path is not set, and {message}")
        if not zipfile.is_zipfile(self._detector):
            raise JobFailed(f"detector_path: {self._detector} is not a TorchScript file (torch.jit.save makes one)")
        if self.result_path and Path(self.result_path).is_dir():
            raise JobFailed(f"result_path: {self.result_path} is a folder: name the file of the results")

    def require_real(self, session: WorkSession) -> None:
        """Looks at the real files, before work is put into the generated ones.

        Raises:
            JobFailed: files are missing or damaged, or all videos are too short.
        """
        if sources := self._real_sources():
            for each in self._surveyed(sources, session, self._cache(session)):
                each.check(METRICS[self.metric], self.metric)

    def _cache(self, session: WorkSession) -> ArrayCache:
        return ArrayCache(session.cache_dir / "inception", readable=session.use_cache and not self.replace_cache)

    @property
    def _detector(self) -> Path:
        """The file that is named, or else the published one."""
        if self.detector_path:
            return Path(self.detector_path).absolute()
        return files_of(self.type_name, [METRICS[self.metric].weights])[0].target()

    @property
    def _work(self) -> FeatureWork:
        metric = METRICS[self.metric]
        shape = Shape(metric.frames, metric.stride, self.height, self.width)
        return FeatureWork(str(self._detector), metric.arguments, shape)

    def _sets(self, session: WorkSession, cache: ArrayCache) -> list[MediaSet]:
        """The fake set and, where the metric needs it, the real one."""
        sources = [Source("fake", self.fake_data_path, self.fake_mm_dir or "", self.video_key, self._image_key)]
        return self._surveyed([*sources, *self._real_sources()], session, cache)

    def _real_sources(self) -> list[Source]:
        """The real set, where the metric needs it."""
        if not self.real_data_path or not METRICS[self.metric].needs_real:
            return []
        return [Source("real", self.real_data_path, self.real_mm_dir or "", self.video_key, self._image_key)]

    @property
    def _image_key(self) -> str | None:
        return self.image_key if METRICS[self.metric].of_frames else None

    def _surveyed(self, sources: Sequence[Source], session: WorkSession, cache: ArrayCache) -> list[MediaSet]:
        files = [source.files(session.scorers) for source in sources]
        known = survey([file for each in files for file in each], session.workers, cache)
        return [MediaSet(source.name, each, known) for source, each in zip(sources, files, strict=True)]

    def _planned(self, sets: Sequence[MediaSet], detector_digest: str) -> list[Run]:
        """The runs with their samples: with equal seeds, equal sets give equal samples."""
        metric, work = METRICS[self.metric], self._work
        seeds = [(self.seed + index) % 2**32 for index in range(self.num_runs)]
        return [
            Run(seed, sets, [each.sampled(metric, seed, work, detector_digest) for each in sets], {}) for seed in seeds
        ]

    def _measured(self, run: Run, session: WorkSession, cache: ArrayCache, index: int) -> Run:
        fake, *others = run.sampled
        real = others[0] if others else None
        scores = reduced(self.metric, METRICS[self.metric], fake, real, run.seed, cache)
        logger.info("%s: seed %d: %s", self.metric, run.seed, scores)
        if self.num_runs > 1:
            session.report({f"{name}_run": value for name, value in scores.items()}, index)
        return replace(run, scores=scores)
