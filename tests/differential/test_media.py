"""Compares operators of images, videos and sounds with those of the installed Data-Juicer."""

import importlib
import io
import warnings

import numpy as np
import pyarrow as pa
import pytest

from raysandbox.ops.base import OPERATORS
from raysandbox.ops.batch import Batch, FrameRequest
from raysandbox.ops.media import video_frames
from tests.ops import tiny_clips

pytest.importorskip("data_juicer", reason="py-data-juicer is not installed: pip install 'raysandbox[datajuicer]'")

STATS = "__dj__stats__"
FILTERS = [
    ("image", "image_aspect_ratio_filter", {"min_ratio": 0.8, "max_ratio": 1.4}),
    ("image", "image_shape_filter", {"min_width": 50, "max_height": 60}),
    ("image", "image_size_filter", {"max_size": "4KB"}),
    ("video", "video_duration_filter", {"min_duration": 1, "max_duration": 2}),
    ("video", "video_resolution_filter", {"min_width": 60, "max_height": 40}),
    ("video", "video_aspect_ratio_filter", {"min_ratio": "5/4", "max_ratio": "3:1"}),
    ("video", "video_motion_score_filter", {"min_score": 1.0}),
    ("video", "video_motion_score_filter", {"sampling_fps": 30, "size": 24, "max_size": 30, "divisible": 2}),
    ("video", "video_motion_score_filter", {"size": [20, 40], "relative": True, "levels": 2, "max_score": 0.02}),
    ("audio", "audio_size_filter", {"min_size": "1KB"}),
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows with none to three files of each kind."""
    folder = tmp_path_factory.mktemp("media")
    clips = [
        tiny_clips.save_clip(folder / f"{number}.mp4", number, seconds=seconds, fps=fps, step=step, scenes=scenes)
        for number, (seconds, fps, step, scenes) in enumerate(
            [(1.0, 8, 1, 1), (2.0, 12, 3, 4), (0.25, 4, 2, 1), (3.0, 5, 5, 2), (1.5, 24, 0, 3), (0.5, 4, 7, 1)]
        )
    ]
    sizes = [(48, 64), (64, 48), (100, 30), (60, 60), (20, 80), (33, 51)]
    pictures = [
        tiny_clips.save_picture(folder / f"{number}.png", number, height=height, width=width)
        for number, (height, width) in enumerate(sizes)
    ]
    sounds = [str(folder / f"{number}.wav") for number in range(6)]
    for number, path in enumerate(sounds):
        with open(path, "wb") as file:
            file.write(bytes(400 * number))
    picks = [[], [0], [1, 2], [3, 4, 5], [5, 0], [2], [4, 4]]
    files = {"image": pictures, "video": clips, "audio": sounds[1:] + sounds[1:2]}
    return {kind: [[paths[index] for index in pick] for pick in picks] for kind, paths in files.items()}


@pytest.fixture(autouse=True)
def _closing(monkeypatch):
    """Data-Juicer closes streams, which PyAV no longer lets it."""
    modules = ["utils.mm_utils", "ops.filter.video_resolution_filter", "ops.filter.video_aspect_ratio_filter"]
    for name in modules:
        module = importlib.import_module(f"data_juicer.{name}")
        monkeypatch.setattr(module, "close_video", lambda container: container.close())


def theirs(name, parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from data_juicer.ops import load_ops

        (operator,) = load_ops([{name: dict(parameters)}])
    return operator


@pytest.mark.parametrize("any_or_all", ["any", "all"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("kind", "name", "parameters"), FILTERS)
def test_same_statistics_and_verdicts(rows, kind, name, parameters, any_or_all, reverse):
    parameters = {**parameters, "any_or_all": any_or_all, "reversed_range": reverse}
    ours = OPERATORS.get(name)(**parameters)
    batch = Batch(pa.table({f"{kind}s": pa.array(rows[kind], pa.list_(pa.string()))}))
    stats = ours.compute(batch, ours.load())
    backend = {"video_backend": "av"} if name == "video_duration_filter" else {}
    peer = theirs(name, {**parameters, **backend})
    samples = {f"{kind}s": rows[kind], "text": [""] * len(rows[kind]), STATS: [{} for _ in rows[kind]]}
    samples = peer.compute_stats_batched(samples)
    for key, values in stats.items():
        for mine, other in zip(values.to_pylist(), samples[STATS], strict=True):
            np.testing.assert_allclose(mine, list(other[key]), atol=1e-6)
    assert ours.keep(stats).tolist() == [bool(kept) for kept in peer.process_batched(samples)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_same_uniform_frames(rows, count):
    from data_juicer.utils.mm_utils import extract_video_frames_uniformly

    (frames,) = video_frames(batch_of(rows["video"][3]), FrameRequest("uniform", count=count))
    for path, mine in zip(rows["video"][3], frames, strict=True):
        other = [frame.to_ndarray(format="rgb24") for frame in extract_video_frames_uniformly(path, count)]
        assert np.array_equal(mine, other)


def test_same_key_frames(rows):
    from data_juicer.utils.mm_utils import extract_key_frames

    (frames,) = video_frames(batch_of(rows["video"][3]), FrameRequest("all_keyframes"))
    for path, mine in zip(rows["video"][3], frames, strict=True):
        other = [frame.to_ndarray(format="rgb24") for frame in extract_key_frames(path)]
        assert np.array_equal(mine, other)


def batch_of(paths):
    return Batch(pa.table({"text": ["<__dj__video>" * len(paths)], "videos": [list(paths)]}))


@pytest.mark.parametrize("method", ["all_keyframes", "all_frames", "uniform"])
def test_same_extracted_frames(rows, method):
    name, parameters = "video_extract_frames_mapper", {"frame_sampling_method": method, "output_format": "bytes"}
    paths = rows["video"][3]
    mine = OPERATORS.get(name)(**parameters).process(batch_of(paths), None).table.to_pylist()[0]["video_frames"]
    sample = {"text": "<__dj__video>" * len(paths), "videos": list(paths)}
    other = theirs(name, parameters).process_single(sample)["video_frames"]
    assert [[pixels(frame).shape for frame in video] for video in mine] == [
        [pixels(frame).shape for frame in video] for video in other
    ]
    for video, peer_video in zip(mine, other, strict=True):
        assert all(np.array_equal(pixels(one), pixels(two)) for one, two in zip(video, peer_video, strict=True))


def pixels(data):
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("keep", [True, False])
def test_same_pieces(rows, tmp_path, keep, legacy):
    import av

    name = "video_split_by_duration_mapper"
    parameters = {
        "split_duration": 0.75,
        "overlap_duration": 0.25,
        "min_last_split_duration": 0.3,
        "keep_original_sample": keep,
        "legacy_split_by_text_token": legacy,
        "save_dir": str(tmp_path),
    }
    paths = rows["video"][3]
    text = "<__dj__video> one <|__dj__eoc|> <__dj__video><__dj__video> two<|__dj__eoc|>"
    batch = Batch(pa.table({"text": [text, "none"], "videos": pa.array([paths, []], pa.list_(pa.string()))}))
    mine = OPERATORS.get(name)(**parameters).process(batch, None).table.to_pylist()
    samples = {"text": [text, "none"], "videos": [list(paths), []], "__dj__source_file__": [[], []]}
    other = theirs(name, {**parameters, "video_backend": "av"}).process_batched(samples)
    assert [row["text"] for row in mine] == other["text"]
    assert [row["__dj__source_file__"] for row in mine] == [list(sources) for sources in other["__dj__source_file__"]]
    for row, videos in zip(mine, other["videos"], strict=True):
        for one, two in zip(row["videos"], videos, strict=True):
            with av.open(one) as piece, av.open(two) as peer_piece:
                assert len([*piece.decode(video=0)]) == len([*peer_piece.decode(video=0)])


def test_same_sizes_of_resized_videos(rows, monkeypatch):
    name = "video_resize_resolution_mapper"
    cases = [
        {"min_width": 100},
        {"max_width": 33, "force_original_aspect_ratio": "decrease"},
        {"min_height": 101, "max_height": 131, "force_original_aspect_ratio": "increase", "force_divisible_by": 4},
        {"max_width": 50, "max_height": 30},
    ]
    module = importlib.import_module(f"data_juicer.ops.mapper.{name}")
    asked = []

    class Recorder:
        """Stands for ffmpeg-python, which needs a program of that name."""

        def filter(self, *args, width, height):
            asked.append((width, height))
            return self

        def output(self, *args):
            return self

        global_args = input = output

        def run(self):
            return None

    monkeypatch.setattr(module, "ffmpeg", Recorder())
    monkeypatch.setattr(module, "close_video", lambda container: container.close())
    for case in cases:
        asked.clear()
        theirs(name, case).process_single({"videos": rows["video"][1][:], "text": ""})
        assert asked == [OPERATORS.get(name)(**case).target_size(64, 48)]
