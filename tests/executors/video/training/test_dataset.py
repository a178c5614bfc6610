import json

import numpy as np
import pytest

from raysandbox.core.errors import BadRowsError, JobFailed
from raysandbox.executors._video.training.dataset import BadClip, clip_stamps, read_clips, spend_budget
from raysandbox.ops.media.decoder import Fault, Job, decoder
from tests.ops.tiny_clips import picture, save_clip


@pytest.fixture
def written(tmp_path):
    """Writes rows as JSON, or as JSON lines."""

    def write(rows, name="set.json"):
        lines = "\n".join(json.dumps(row) for row in rows)
        (tmp_path / name).write_text(json.dumps(rows) if name.endswith(".json") else lines)
        return str(tmp_path / name)

    return write


def test_entries_of_a_trainers_json(written, tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4", "c.png"):
        (tmp_path / "videos" / name).touch()
    path = written(
        [
            {"file_path": "a.mp4", "text": "one", "type": "video"},
            {"file_path": str(tmp_path / "videos" / "b.mp4"), "text": None},  # no type
            {"file_path": "c.png", "text": "a picture", "type": "image"},
            {"file_path": "c.png", "text": "a picture"},
            {"file_path": "a.mp4", "text": "one", "type": "sound"},
            {"file_path": "d.mp4", "text": "gone", "type": "video"},
            {"file_path": None, "text": "nothing", "type": "video"},
        ]
    )
    clips, bad = read_clips(path, str(tmp_path / "videos"), "dataset")
    assert [(clip.path.rpartition("/")[2], clip.text) for clip in clips] == [("a.mp4", "one"), ("b.mp4", "")]
    assert [each.reason.split(str(tmp_path))[0].strip() for each in bad] == [
        "it is an image, and only videos are trained on",
        "it is an image, and only videos are trained on",
        "its type is 'sound' (video is trained on)",
        "there is no file",
        "it names no video",
    ]
    assert str(bad[0]).startswith(f"{path} row 3: c.png: it is an image")


def test_rows_of_data_juicer(written, tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.mp4").touch()
    text = "<__dj__video> first <|__dj__eoc|> <__dj__video> second"
    rows = [
        {"videos": ["a.mp4", "b.mp4"], "text": text},
        {"videos": ["c.mp4"], "text": "<__dj__video> one <|__dj__eoc|>"},
        {"videos": [], "text": "none"},
    ]
    clips, bad = read_clips(written(rows, "set.jsonl"), None, "dataset")
    assert [clip.text for clip in clips] == ["first", "second", "one"]
    assert [clip.path for clip in clips] == [str(tmp_path / f"{name}.mp4") for name in "abc"]
    assert [each.reason for each in bad] == ["it names no video"]


def test_one_video_needs_no_list(written, tmp_path):
    (tmp_path / "a.mp4").touch()
    clips, bad = read_clips(written([{"videos": "a.mp4", "text": "one"}], "set.jsonl"), None, "dataset")
    assert [(clip.path, clip.text) for clip in clips] == [(str(tmp_path / "a.mp4"), "one")]
    assert bad == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"path": "a.mp4"}], r"row 1 has neither 'file_path' nor 'videos'; its keys are path"),
        ([{"file_path": "a.mp4", "text": 5}], "row 1: 'text' and the paths of its files must be text"),
        ([{"videos": {"a": "a.mp4"}, "text": ""}], "row 1: 'text' and the paths of its files must be text"),
        ([{"videos": 5, "text": ""}], "row 1: 'text' and the paths of its files must be text"),
        ([], "holds no rows"),
    ],
)
def test_data_sets_that_are_none(written, rows, message):
    with pytest.raises(JobFailed, match=message):
        read_clips(written(rows), None, "dataset")


def test_a_budget_of_bad_clips(tmp_path, caplog):
    bad = [BadClip(f"set.json row {number}", f"{number}.mp4", "there is no file") for number in range(7)]
    quarantine = tmp_path / "dataset.quarantine"
    with pytest.raises(
        BadRowsError, match=r"7 of 9 clips cannot be trained on, max_bad_rows allows 6:\n  set.json row 0"
    ):
        spend_budget(bad, 9, 6, quarantine, "dataset")
    assert len(quarantine.read_text().splitlines()) == 7
    spend_budget(bad, 9, 7, quarantine, "dataset")
    spend_budget(bad, 25, 0.28, quarantine, "dataset")  # 0.28 · 25 is just above 7 in floating point, 0.29 · 100 below
    spend_budget(bad + bad + bad + bad + bad[:1], 100, 0.29, quarantine, "dataset")
    with pytest.raises(BadRowsError, match=r"allows 0\.2:"):
        spend_budget(bad, 25, 0.2, quarantine, "dataset")
    assert "7 of 9 clips are left out" in caplog.text
    with pytest.raises(JobFailed, match="no clip is left"):
        spend_budget(bad, 7, 7, quarantine, "dataset")
    spend_budget([], 9, 0, quarantine, "dataset")
    assert not quarantine.exists()


def test_stamps_change_with_the_clips(written, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"1")
    path = written([{"file_path": "a.mp4", "text": "", "type": "video"}])
    before = clip_stamps(path, None)
    assert before == clip_stamps(path, None)
    (tmp_path / "a.mp4").write_bytes(b"22")
    assert clip_stamps(path, None) != before
    assert clip_stamps(str(tmp_path / "later.json"), None) is None


def _sampled(path, count, stride, where=0.0, height=48, width=64):
    (answer,) = decoder().answers([Job("sampled_clip", str(path), (count, stride, where, height, width))], 60)
    return answer


def test_frames_are_taken_at_a_stride_and_fitted(tmp_path):
    clip = save_clip(tmp_path / "clip.mp4", 1)  # 16 frames, 64×48
    every = _sampled(clip, 16, 1)
    assert every.shape == (16, 48, 64, 3)
    assert (_sampled(clip, 4, 3) == every[:10:3]).all()
    assert (_sampled(clip, 4, 3, 0.99) == every[6::3]).all()  # the last first frame that is possible
    assert (_sampled(clip, 4, 9) == every[::5]).all()  # too short for a stride of 9
    assert (_sampled(clip, 1, 9, 0.5) == every[8:9]).all()
    assert _sampled(clip, 17, 1) == Fault("cannot be decoded: it has 16 frames, 17 are needed")
    cut = _sampled(clip, 1, 1, 0.0, 48, 32)
    assert (cut == every[:1, :, 16:48]).all()
    small = _sampled(clip, 1, 1, 0.0, 12, 16)[0].astype(float)
    mean = every[0].reshape(12, 4, 16, 4, 3).mean((1, 3))
    assert abs(small - mean).mean() < 1
    assert _sampled(clip, 1, 1, 0.0, 96, 96).shape == (1, 96, 96, 3)


def test_turned_videos_are_seen_upright():
    import av

    from raysandbox.ops.media.sampling import _fitted

    class Turned:
        """A frame that says that it is to be turned, which PyAV cannot write."""

        def __init__(self, rotation):
            self._frame = av.VideoFrame.from_ndarray(picture(1), format="rgb24")
            self.rotation, self.height, self.width = rotation, self._frame.height, self._frame.width

        def reformat(self, **options):
            return self._frame.reformat(**options)

    for turns in range(4):
        shape = (64, 48) if turns % 2 else (48, 64)
        assert (_fitted(Turned(90 * turns), *shape) == np.rot90(picture(1), turns)).all()
