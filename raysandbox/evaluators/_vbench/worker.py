"""What runs in VBench's own environment: VBench's code, on some videos of one dimension at a time.

It imports the standard library, VBench and what VBench needs, nothing else.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from raysandbox.core.errors import UserError

__all__ = ["ShardWork"]

# The function that scores a list of videos is named like the dimension, except:
_FUNCTIONS = {"aesthetic_quality": "laion_aesthetic", "imaging_quality": "technical_quality"}
# Those load their model in that function, so that they are called once per shard and not once per video.
_LOAD_INSIDE = frozenset({"human_action"})
# Those leave a video out where it shows nothing to judge by; elsewhere a video without result is an error.
_LEAVES_OUT = frozenset({"color"})
# Those do not read other files than .mp4: they refuse them, or their decoder cannot count a GIF's frames.
_MP4_ONLY = frozenset({"dynamic_degree", "motion_smoothness", "temporal_style", "overall_consistency"})
_FETCHING = frozenset({"wget", "git", "unzip", "rm"})  # programs that VBench calls to bring model files

_DECLARED: list[Any] = []  # torch's libraries of operators; a declaration ends with its library

Score = Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]


@dataclass
class _Loaded:
    """What a worker holds: the device, and the model of the dimension that it worked on last."""

    device: Any
    dimension: str = ""
    score: Score | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ShardWork:
    """Units `{"dimension", "videos": [{"path", "prompt", "auxiliary"}, …]}` of work.

    A unit's result is a list of what VBench says about each video, in order: a mapping with
    `video_results` and more; `error` where it failed; `left_out` where it does not count.

    Attributes:
        weights: folder of the model files, VBench's `VBENCH_CACHE_DIR`.
        variables: environment variables that say where else model files are, `TORCH_HOME` …
    """

    weights: str
    variables: Mapping[str, str] = field(default_factory=dict)

    def load(self, device: str) -> _Loaded:
        """Prepares the process; models are loaded with the first unit of their dimension."""
        os.environ.update(self.variables)
        os.environ.update(VBENCH_CACHE_DIR=self.weights, HF_HUB_OFFLINE="1")  # model files are there, or it fails
        _mend_torchvision()
        import torch

        return _Loaded(torch.device(device))

    def run(self, unit: Mapping[str, Any], state: _Loaded) -> list[dict[str, Any]]:
        """Scores the videos of a unit.

        Raises:
            UserError: the dimension's model does not load.
        """
        dimension = unit["dimension"]
        if state.score is None or state.dimension != dimension:
            state.score = None  # frees the old model first
            state.dimension, state.score = dimension, _scorer(dimension, state.device, Path(self.weights))
        with _lower_suffixes(unit["videos"]) as videos:
            if dimension in _LOAD_INSIDE:
                results = _results(dimension, state.score, videos)
            else:
                results = [result for video in videos for result in _results(dimension, state.score, [video])]
        return [
            {**result, "video_path": video["path"], "device": state.device.type}
            for video, result in zip(unit["videos"], results, strict=True)
        ]


@contextlib.contextmanager
def _lower_suffixes(videos: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """The videos, those like `x.MP4` by links `x.mp4`: VBench compares the case of suffixes."""
    with tempfile.TemporaryDirectory() as folder:
        lowered = []
        for number, video in enumerate(videos):
            path = Path(video["path"])
            if path.suffix != path.suffix.lower():
                link = Path(folder) / str(number) / f"{path.stem}{path.suffix.lower()}"
                link.parent.mkdir()
                link.symlink_to(path.absolute())
                video = {**video, "path": str(link)}
            lowered.append(video)
        yield lowered


def _results(dimension: str, score: Score, videos: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What VBench says about each video; where it fails on several, the culprit is found one by one."""
    import numpy
    import torch

    try:
        with _calling(), numpy.errstate(invalid="raise"), torch.no_grad():
            # Whatever draws random numbers does so alike for each video, in every worker.
            random.seed(0)
            numpy.random.seed(0)
            torch.manual_seed(0)
            found = {result["video_path"]: result for result in score(videos)}
    except ZeroDivisionError:
        if dimension not in _LEAVES_OUT:
            return [_failure(video, "it has too few frames") for video in videos]
        found = {}
    except _CallFailed as error:
        if len(videos) == 1:
            return [_failure(videos[0], _reason(dimension, Path(videos[0]["path"]), error))]
        return [result for video in videos for result in _results(dimension, score, [video])]
    return [_result(dimension, video, found.get(video["path"])) for video in videos]


class _CallFailed(Exception):
    """VBench, or a decoder that it uses, failed on videos."""


@contextlib.contextmanager
def _calling() -> Iterator[None]:
    try:
        yield
    except (ZeroDivisionError, _CallFailed):
        raise
    except FloatingPointError as error:  # e.g. AMT below 128 pixels: it would go on with some number
        raise _CallFailed(f"{error}: it cannot be decoded, or has too few frames or pixels") from error
    except Exception as error:  # they have errors of every kind; the driver names all videos that fail
        raise _CallFailed(f"{type(error).__name__}: {error}") from error


def _reason(dimension: str, path: Path, error: _CallFailed) -> str:
    if dimension in _MP4_ONLY and path.suffix != ".mp4":
        return f"VBench does not read {path.suffix} in {dimension}: convert it to .mp4, or leave the dimension out"
    return str(error)


def _failure(video: Mapping[str, Any], reason: str) -> dict[str, Any]:
    return {"video_path": video["path"], "error": reason}


def _result(dimension: str, video: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any]:
    if found is None and dimension in _LEAVES_OUT:
        return {"video_path": video["path"], "left_out": True}
    if found is None:
        return _failure(video, "it cannot be decoded")
    result = {key: _plain(value) for key, value in found.items()}
    if dimension == "subject_consistency":  # a mean over the frames after the first, without their number
        count = _frames(video["path"]) - 1
        result |= {"video_sim": result["video_results"] * count, "cnt_per_video": count}
    return result


def _plain(value: Any) -> Any:
    """A value of NumPy or torch as Python's own, so that it can be read where they are not."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def _frames(path: str) -> int:
    """The number of frames that VBench's `load_video` reads."""
    if path.endswith(".gif"):
        from PIL import Image

        with Image.open(path) as image:
            return getattr(image, "n_frames", 1)
    from decord import VideoReader  # pyright: ignore[reportMissingImports]  # of its own environment

    return len(VideoReader(path, num_threads=1))


def _scorer(dimension: str, device: Any, weights: Path) -> Score:
    """Loads a dimension's model with VBench's own code; returns what scores videos with it.

    VBench's `compute_…` loads the model and hands it to a function that scores a list of videos. That
    function is held back once, with no videos, to keep the arguments that VBench would call it with.

    Raises:
        UserError: the model does not load.
    """
    try:
        with _without_downloads(weights):
            module = importlib.import_module(f"vbench.{dimension}")
            name = _FUNCTIONS.get(dimension, dimension)
            function = getattr(module, name)
            call = _held_back(module, name, dimension, device)
    except Exception as error:  # whatever torch, detectron2 … raise over a file
        raise UserError(
            f"{dimension}: its model does not load from {weights}: {type(error).__name__}: {error}\n"
            f"`raysandbox weights fetch vbench_video_evaluator --part {dimension}` gets its files, "
            f"`raysandbox weights verify` says whether they are whole"
        ) from error
    vars(module)["tqdm"] = lambda videos, **_: videos  # a bar per video would fill the log; the job shows one of all
    takes_prompts = "video_dict" in call.arguments

    def score(videos: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        if takes_prompts:
            call.arguments["video_dict"] = [
                {"prompt": video["prompt"], "video_list": [video["path"]], "auxiliary_info": video["auxiliary"]}
                for video in videos
            ]
        else:
            call.arguments["video_list"] = [video["path"] for video in videos]
        results = function(*call.args, **call.kwargs)[1]
        # How many frames must move for a video to count as moving: if none, nothing was looked at.
        if dimension == "dynamic_degree" and results and not call.arguments["dynamic"].params["count_num"]:
            raise _CallFailed("it has too few frames: VBench looks at eight per second, and needs three of them")
        return results

    return score


def _held_back(module: ModuleType, name: str, dimension: str, device: Any) -> inspect.BoundArguments:
    """The arguments with which a dimension's `compute_…` calls the function `name` of its module."""
    from vbench.utils import init_submodules  # pyright: ignore[reportMissingImports]  # of its own environment

    function = getattr(module, name)
    calls: list[inspect.BoundArguments] = []

    def note(*arguments: Any, **named: Any) -> tuple[float, list[Any]]:
        calls.append(inspect.signature(function).bind(*arguments, **named))
        return 0.0, []

    parts = init_submodules([dimension], local=True)[dimension]
    with tempfile.TemporaryDirectory() as folder:
        no_videos = Path(folder) / "info.json"
        no_videos.write_text("[]")
        setattr(module, name, note)
        try:
            getattr(module, f"compute_{dimension}")(str(no_videos), device, parts)
        finally:
            setattr(module, name, function)
    return calls[0]


@contextlib.contextmanager
def _without_downloads(weights: Path) -> Iterator[None]:
    """Keeps VBench from fetching model files, unchecked, with `wget` and `git`; they must be there."""
    import urllib.request
    from unittest import mock

    import torch

    def run(command: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(command, list) and command[0] in _FETCHING:
            return not_fetched(command)
        return real_run(command, *arguments, **named)

    def not_fetched(what: Any, *_: Any) -> None:
        print("not fetched:", what)  # noqa: T201  # into the job's log; what needs the file then fails

    real_run = subprocess.run
    with (
        mock.patch.object(subprocess, "run", run),
        mock.patch.object(urllib.request, "urlretrieve", not_fetched),
        mock.patch.object(torch.hub, "load_state_dict_from_url", lambda url, *_, **__: _state_dict(url, weights)),
    ):
        yield


def _state_dict(url: str, weights: Path) -> Any:
    """The weights that DINO's hub module asks for by address."""
    import torch

    name = url.rsplit("/", 1)[-1]
    places = [Path(torch.hub.get_dir()) / "checkpoints" / name, weights / "dino_model" / name]
    for place in places:
        if place.is_file():
            return torch.load(place, map_location="cpu", weights_only=True)
    raise FileNotFoundError(f"{name} is at neither of {', '.join(map(str, places))}")


def _mend_torchvision() -> None:
    """Lets torchvision be imported beside a CPU build of torch, which its extension does not fit.

    It only needs the two operators to be declared; those of the ten dimensions do not call them.
    """
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or _DECLARED:
        return
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    try:
        for extension in [path for folder in folders for path in folder.glob("_C*.so")]:
            torch.ops.load_library(str(extension))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)
