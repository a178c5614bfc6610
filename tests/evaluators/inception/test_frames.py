"""Windows hold the frames that they name, whatever the video's coding; damaged files are named."""

import time
from pathlib import Path

import numpy as np
import pytest

from raysandbox.evaluators._inception import frames as module
from raysandbox.evaluators._inception.frames import Shape, UnreadableFileError, Window, ahead, clips, frame_count
from tests.ops.tiny_clips import save_picture


def save_greys(path: Path, count: int) -> str:
    """A video whose frame n has the grey level 5 n, with a key frame every 12 and B-frames between."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"g": "12", "bf": "2", "crf": "1", "threads": "1"}
        for number in range(count):
            shown = np.full((48, 64, 3), 5 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


@pytest.fixture(scope="module")
def greys(tmp_path_factory):
    return save_greys(tmp_path_factory.mktemp("greys") / "greys.mp4", 50)


def levels(found):
    return [np.round(clip.mean(axis=(1, 2, 3)) / 5).astype(int).tolist() for clip in found]


def test_frames_are_counted(greys):
    assert frame_count(greys) == 50


@pytest.mark.parametrize(("frames", "stride"), [(4, 1), (4, 3), (1, 1)])
def test_windows_hold_the_frames_that_they_name(greys, frames, stride):
    starts = [0, 3, 3, 14, 40]
    found = list(clips([Window(greys, start) for start in starts], Shape(frames, stride, 48, 64)))
    assert levels(found) == [list(range(start, start + frames * stride, stride)) for start in starts]
    assert all(clip.dtype == np.uint8 and clip.shape == (frames, 48, 64, 3) for clip in found)


def test_a_video_may_be_named_again(greys):
    starts = [0, 9, 30, 0, 2, 40, 39]
    found = list(clips([Window(greys, start) for start in starts], Shape(4, 1, 48, 64)))
    assert levels(found) == [list(range(start, start + 4)) for start in starts]


def test_files_follow_each_other(greys, tmp_path):
    picture = save_picture(tmp_path / "p.png", 1, height=48, width=64)
    windows = [Window(greys, 7), Window(picture, None), Window(picture, None), Window(greys, 2)]
    found = list(clips(windows, Shape(1, 1, 24, 32)))
    assert [clip.shape for clip in found] == [(1, 24, 32, 3)] * 4
    assert levels([found[0], found[3]]) == [[7], [2]]
    assert np.array_equal(found[1], found[2])


def test_fine_detail_does_not_alias(tmp_path):
    from PIL import Image

    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.png")
    (clip,) = clips([Window(str(tmp_path / "board.png"), None)], Shape(1, 1, 20, 20))
    assert np.abs(clip[:, 2:-2, 2:-2].astype(int) - 127).max() < 12


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 100)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableFileError, match=r"^cannot be decoded"):
        frame_count(str(tmp_path / "bad.mp4"))
    for window in (Window(str(tmp_path / "bad.mp4"), 0), Window(str(tmp_path / "bad.png"), None)):
        with pytest.raises(UnreadableFileError, match=r"bad\.(mp4|png) cannot be decoded"):
            list(clips([window], Shape(1, 1, 8, 8)))


def test_a_video_that_ends_early_is_named(greys):
    with pytest.raises(UnreadableFileError, match=r"greys\.mp4 cannot be decoded"):
        list(clips([Window(greys, 48)], Shape(4, 1, 8, 8)))


def test_items_are_made_ahead():
    def slow():
        for number in range(3):
            time.sleep(0.1)
            yield number

    started = time.monotonic()
    seen = []
    for item in ahead(slow()):
        time.sleep(0.1)
        seen.append(item)
    assert seen == [0, 1, 2]
    assert time.monotonic() - started < 0.58


def test_what_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "_STALL_S", 0.05)

    def hanging():
        yield 1
        time.sleep(0.3)
        yield 2

    with pytest.raises(UnreadableFileError, match="stood still"):
        list(ahead(hanging()))


def test_errors_reach_the_reader():
    def failing():
        yield 1
        raise UnreadableFileError("x.mp4 cannot be decoded")

    with pytest.raises(UnreadableFileError, match=r"x\.mp4"):
        list(ahead(failing()))
