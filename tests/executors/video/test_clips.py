"""Video files: equal frames are equal bytes, names are safe."""

import hashlib
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysandbox.core.names import LONGEST_NAME, safe_stem
from raysandbox.executors._video.clips import encode_mp4, file_name, read_frames, write_mp4


def gradient(frames=9, height=32, width=48):
    time, row, column = np.ogrid[:frames, :height, :width]
    channels = [5 * column + 0 * row + 0 * time, 6 * row + 0 * column + 0 * time, 20 * time + 0 * row + 0 * column]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def test_a_video_comes_back(tmp_path):
    write_mp4(tmp_path / "a.mp4", gradient(), 8)
    found = read_frames(tmp_path / "a.mp4")
    assert found.shape == (9, 32, 48, 3)
    assert np.abs(found.astype(int) - gradient()).mean() < 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4"]


def test_equal_frames_are_equal_bytes_without_times_and_versions(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        encode_mp4(tmp_path / name, gradient(), 8)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content == (tmp_path / "b.mp4").read_bytes()
    assert b"x264" not in content
    assert b"Lav" not in content
    encode_mp4(tmp_path / "c.mp4", gradient()[::-1].copy(), 8)
    assert content != (tmp_path / "c.mp4").read_bytes()


STRIPES = """
import hashlib, random, sys
from pathlib import Path
from raysandbox.executors._video.clips import encode_mp4
from raysandbox.executors.infer.fake import _stripes

for seed in range(20):
    path = Path(sys.argv[1])
    encode_mp4(path, _stripes(random.Random(seed), 9, 32, 32), 8)
    print(hashlib.sha256(path.read_bytes()).hexdigest())
"""


def test_bytes_do_not_depend_on_what_memory_held(tmp_path):
    """x264's default rate control reads memory that it has not written, which glibc fills with what it is told."""
    found = set()
    for number in ("0", "85", "170"):
        environment = {**os.environ, "MALLOC_PERTURB_": number}
        command = [sys.executable, "-c", STRIPES, str(tmp_path / "a.mp4")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        found.add(done.stdout)
    assert len(found) == 1
    assert len(set(found.pop().split())) == 20


def test_frame_rate_and_permissions(tmp_path):
    import av

    write_mp4(tmp_path / "a.mp4", gradient(), 12)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.frames, stream.codec_context.pix_fmt) == (12, 9, "yuv420p")
    assert stat.S_IMODE((tmp_path / "a.mp4").stat().st_mode) & 0o044 == 0o044


def test_odd_sizes_repeat_their_last_row_and_column(tmp_path):
    encode_mp4(tmp_path / "a.mp4", gradient(1, 31, 47), 8)
    assert read_frames(tmp_path / "a.mp4").shape == (1, 32, 48, 3)


def test_parts_of_a_video(tmp_path):
    encode_mp4(tmp_path / "a.mp4", gradient(), 8)
    whole = read_frames(tmp_path / "a.mp4")
    np.testing.assert_array_equal(read_frames(tmp_path / "a.mp4", first=1, count=3, stride=2), whole[1:6:2])
    assert len(read_frames(tmp_path / "a.mp4", first=7, count=5)) == 2


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4, 3)), np.zeros((0, 4, 4, 3), "u1")]
)
def test_other_arrays_are_refused(tmp_path, frames):
    with pytest.raises(ValueError, match="frames are uint8"):
        encode_mp4(tmp_path / "a.mp4", frames, 8)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_earlier_video(tmp_path):
    write_mp4(tmp_path / "a.mp4", gradient(), 8)
    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(ValueError, match="frames are uint8"):
        write_mp4(tmp_path / "a.mp4", gradient().astype(float), 8)
    assert (tmp_path / "a.mp4").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be decoded"):
        read_frames(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    "prompt", ["a cat", "it's a 'quoted' \"cat\"", "😀 smiles", "a, b. c!", "50% off? *yes*", "~", "кот", "a.b.c"]
)
def test_normal_prompts_are_names_as_they_are(prompt):
    assert file_name(prompt, 3) == f"{prompt}-3.mp4"


@pytest.mark.parametrize(
    ("prompt", "start"),
    [("a/b", "a_b~"), ("a\0b", "a_b~"), ("two\nlines", "two_lines~"), (".hidden", "_hidden~"), ("../up", "_._up~")],
)
def test_what_no_name_may_hold_is_replaced(prompt, start):
    digits = hashlib.sha256(prompt.encode()).hexdigest()[:8]
    assert file_name(prompt, 0) == f"{start}{digits}-0.mp4"


def test_long_prompts_are_cut_between_characters():
    name = file_name("ä😀" * 100, 999_999)
    assert LONGEST_NAME - 4 <= len(name.encode()) <= LONGEST_NAME
    assert name.startswith("ä😀ä😀")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1), st.integers(0, 999_999))
def test_names_are_always_safe(prompt, index):
    name = file_name(prompt, index)
    assert len(name.encode()) <= LONGEST_NAME
    assert not set(name) & {"/", "\0", "\n"}
    assert not name.startswith(".")
    assert name.endswith(f"-{index}.mp4")


@given(st.lists(st.text(alphabet="a/_~.\n", min_size=1, max_size=4), unique=True))
def test_different_prompts_have_different_names(prompts):
    assert len({safe_stem(prompt) for prompt in prompts}) == len(prompts)
