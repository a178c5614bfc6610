"""What operators see of files: one decode for all, bad files by row, a decoder that can be killed."""

import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest

from raysandbox.ops.batch import Batch, FrameRequest, RowFaults
from raysandbox.ops.media import audio_infos, file_lists, image_infos, images, map_videos, video_frames, video_infos
from raysandbox.ops.media.decoder import Decoder, Fault, Job
from tests.ops import tiny_clips

UNIFORM = FrameRequest("uniform", count=3)
KEYS = FrameRequest("all_keyframes")
STEPS = FrameRequest("fps", fps=4, gray=True, size=(24,))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [tiny_clips.save_clip(folder / f"{number}.mp4", number, seconds=1, scenes=number + 1) for number in range(3)]


@pytest.fixture
def asked(monkeypatch):
    """The jobs that the decoder was given."""
    jobs = []
    answers = Decoder.answers

    def spy(self, todo, timeout_s):
        jobs.extend(todo)
        return answers(self, todo, timeout_s)

    monkeypatch.setattr(Decoder, "answers", spy)
    return jobs


def batch_of(rows, kind="videos", **keys):
    return Batch(pa.table({kind: pa.array(rows, pa.list_(pa.string()))}), **keys)


def test_rows_without_files():
    assert file_lists(Batch(pa.table({"text": ["a", "b"]})), "video") == [[], []]
    assert file_lists(batch_of([None, [], ["x"]]), "video") == [[], [], ["x"]]
    assert video_frames(batch_of([[], None]), UNIFORM) == [[], []]


def test_facts_of_a_video(clips):
    ((info,), (again, other)) = video_infos(batch_of([clips[:1], clips[:2]]))
    assert (info.width, info.height, info.fps, info.frames, info.duration) == (64, 48, 8.0, 8, 1.0)
    assert info == again
    assert other.frames == 8


def test_a_file_may_be_a_picture_and_a_video(tmp_path):
    from PIL import Image

    path = str(tmp_path / "moves.gif")
    pictures = [Image.new("RGB", (32, 16), colour) for colour in ("red", "blue")]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    batch = Batch(pa.table({"images": [[path]], "videos": [[path]], "audios": [[path]]}))
    with pytest.raises(RowFaults, match="it has no sound"):
        audio_infos(batch)
    assert type(image_infos(batch)[0][0]).__name__ == "ImageInfo"
    assert type(video_infos(batch)[0][0]).__name__ == "VideoInfo"


def test_each_video_is_decoded_once_for_every_operator(clips, asked):
    batch = batch_of([clips[:2], clips[1:]], requests=frozenset({UNIFORM, KEYS, STEPS}))
    assert [[frames.shape for frames in row] for row in video_frames(batch, UNIFORM)] == [[(3, 48, 64, 3)] * 2] * 2
    later = batch.select(np.array([False, True])).with_stats({})
    assert [frames.shape for frames in video_frames(later, KEYS)[0]] == [(2, 48, 64, 3), (3, 48, 64, 3)]
    assert [frames.shape for frames in video_frames(later, STEPS)[0]] == [(5, 32, 24)] * 2
    assert [job.path for job in asked] == clips


def test_frames_of_a_mapped_video_are_not_kept_and_its_value_is(clips, asked):
    batch = batch_of([clips[:1]], requests=frozenset({KEYS, STEPS}))
    for _ in range(2):
        assert map_videos(batch, STEPS, "sum", lambda path, frames: (path, frames.shape)) == [[(clips[0], (5, 32, 24))]]
    assert video_frames(batch, KEYS)[0][0].shape == (1, 48, 64, 3)
    assert len(asked) == 1


def test_all_bad_rows_are_named_at_once_and_never_looked_at_again(tmp_path, clips, asked):
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    names = ["gone.mp4", "noise.mp4", "empty.mp4", "pipe.mp4", "folder.mp4"]
    rows = [clips[:1], *([clips[0], str(tmp_path / name)] for name in names), [clips[1]]]
    batch = batch_of(rows)
    for _ in range(2):
        with pytest.raises(RowFaults) as error:
            video_frames(batch, UNIFORM)
        assert error.value.faults == {
            1: "gone.mp4: no such file",
            2: "noise.mp4: cannot be decoded: Invalid data found when processing input",
            3: "empty.mp4: is empty",
            4: "pipe.mp4: is not a regular file",
            5: "folder.mp4: is a folder",
        }
    good = batch.select(np.array([True, *[False] * 5, True]))
    assert len(video_frames(good, UNIFORM)) == 2
    assert sorted(os.path.basename(job.path) for job in asked) == ["0.mp4", "1.mp4", "noise.mp4"]


def test_a_file_that_hangs_is_given_up_after_its_time(tmp_path, clips, monkeypatch):
    os.mkfifo(tmp_path / "hangs.mp4")
    monkeypatch.setattr("raysandbox.ops.media.views._unusable", lambda path: None)  # pipes are refused otherwise
    batch = batch_of([[str(tmp_path / "hangs.mp4")], clips[:1]], row_timeout_s=2.0)
    with pytest.raises(RowFaults) as error:
        video_frames(batch, UNIFORM)
    assert error.value.faults == {0: "hangs.mp4: decoding took longer than 2 s"}


def test_sounds(tmp_path, clips):
    import wave

    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(4 * 6000))
    ((info,),) = audio_infos(batch_of([[str(tmp_path / "a.wav")]], "audios"))
    assert (info.samples, info.sample_rate, info.duration) == (6000, 8000, 0.75)
    with pytest.raises(RowFaults, match="it has no sound"):
        audio_infos(batch_of([clips[:1]], "audios"))


def test_images(tmp_path, monkeypatch):
    from PIL import Image

    path = tiny_clips.save_picture(tmp_path / "a.png", 1)
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(tiny_clips.picture(2)).save(turned, exif=exif)
    batch = batch_of([[path], [str(turned)]], "images")
    assert [(image.width, image.height) for (image,) in image_infos(batch)] == [(64, 48), (48, 64)]
    assert [image.size for (image,) in images(batch)] == [(64, 48), (48, 64)]
    assert np.array_equal(np.asarray(images(batch)[0][0]), tiny_clips.picture(1))
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(turned.read_bytes()[:-400])
    os.mkfifo(tmp_path / "fifo.png")
    bad = batch_of([[str(cut)], [str(tmp_path / "fifo.png")], [str(path)]], "images")
    for look in (image_infos, images):
        with pytest.raises(RowFaults) as error:
            look(bad)
        assert error.value.faults.keys() == {0, 1}
        assert error.value.faults[0].startswith("cut.jpg: cannot be decoded: ")
        assert error.value.faults[1] == "fifo.png: is not a regular file"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(RowFaults, match=r"a\.png: has more than 200 pixels"):
        image_infos(batch_of([[path]], "images"))


def test_a_decoder_that_dies_is_replaced(clips):
    decoder = Decoder()
    jobs = [Job("video_info", clips[0]), Job("no_such_job", clips[0]), Job("video_info", clips[1])]
    first, crashed, second = decoder.answers(jobs, 20)
    assert (first.frames, second.frames) == (8, 8)
    assert crashed == Fault("ends the decoder: status 1")


def test_answers_that_nobody_waited_for_do_not_count_for_others(clips):
    decoder = Decoder()
    answers = decoder.answers([Job("video_info", clips[0])] * 3, 20)
    next(answers)
    answers.close()
    assert list(decoder.answers([Job("audio_info", clips[0])], 20)) == [Fault("cannot be decoded: it has no sound")]


def test_the_decoder_ends_with_its_process_even_if_a_file_hangs(tmp_path):
    os.mkfifo(tmp_path / "hangs.mp4")
    script = """
import sys, threading, time
from raysandbox.ops.media.decoder import Decoder, Job
decoder = Decoder()
hang = lambda: list(decoder.answers([Job("video_info", sys.argv[1])], 60))
threading.Thread(target=hang, daemon=True).start()
while decoder._process is None:
    time.sleep(0.05)
time.sleep(0.5)
print(decoder._process._process.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "hangs.mp4")], stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    assert _runs(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_file_that_takes_more_memory_than_the_decoder_may_hold_is_refused(tmp_path, clips):
    large, size, frames = tmp_path / "large.y4m", 4000, 30
    with large.open("wb") as file:
        file.write(b"YUV4MPEG2 W%d H%d F25:1 Ip A0:0 C420\n" % (size, size))
        for _ in range(frames):
            file.write(b"FRAME\n")
            file.truncate(file.seek(size * size * 3 // 2, os.SEEK_CUR))  # a hole: black or so
    requests = [FrameRequest("all_frames")]
    decoder = Decoder()
    (first,) = decoder.answers([Job("video_frames", clips[0], (requests,))], 60.0)
    pid = decoder._process._process.pid
    usual, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
    assert 0 < usual <= 8 * 2**30
    resource.prlimit(pid, resource.RLIMIT_DATA, (2**30, hard))
    jobs = [Job("video_frames", path, (requests,)) for path in (str(large), clips[1])]
    fault, last = decoder.answers(jobs, 60.0)
    assert isinstance(fault, Fault)
    assert "memory" in fault.reason
    assert len(first[requests[0]]) == len(last[requests[0]]) == 8
    assert decoder._process._process.pid == pid
