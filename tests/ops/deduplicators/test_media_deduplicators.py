import numpy as np
import pyarrow as pa
import pytest

from raysandbox.ops.base import OPERATORS
from raysandbox.ops.batch import Batch, RowFaults
from raysandbox.ops.image_hash import image_hash
from tests.ops import tiny_clips

Image = pytest.importorskip("PIL.Image")
PATHS = pa.list_(pa.string())


def kept(name, column, files, texts=None, **parameters):
    table = pa.table({column: pa.array(files, PATHS)})
    if texts is not None:
        table = table.append_column("text", pa.array(texts))
    operator = OPERATORS.get(name)(**parameters)
    features = pa.table(operator.features(Batch(table), None))
    return np.flatnonzero(operator.decide(features, len(files), 0)).tolist()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two different pictures, and the first one in another format."""
    folder = tmp_path_factory.mktemp("pictures")
    one, other = (tiny_clips.save_picture(folder / f"{seed}.png", seed, height=96, width=128) for seed in (1, 2))
    with Image.open(one) as image:
        image.save(folder / "same.bmp")
    return one, other, str(folder / "same.bmp")


@pytest.mark.parametrize("method", ["phash", "dhash", "whash", "ahash"])
def test_images(method, pictures):
    one, other, same = pictures
    rows = [[one], [other], [], [same], [one, other], [one, one], [], [same, other]]
    assert kept("image_deduplicator", "images", rows, method=method) == [0, 1, 2, 4, 6]


def test_images_and_texts(pictures):
    one, _, same = pictures
    rows, texts = [[one], [same], [same], [], []], ["a", "A", "b", "c", "c "]
    assert kept("image_deduplicator", "images", rows, texts, consider_text=True) == [0, 1, 2, 3]
    assert kept("image_deduplicator", "images", rows, texts, consider_text=True, lowercase=True) == [0, 2, 3]


def test_a_bad_image_is_named(pictures, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(RowFaults) as raised:
        kept("image_deduplicator", "images", [[pictures[0]], [str(tmp_path / "bad.png")]])
    assert list(raised.value.faults) == [1]


# Left half black, right half white: bits can be told by eye.
HALVES = Image.fromarray(
    np.repeat(np.repeat([[[0], [255]]], 128, axis=1), 256, axis=0).repeat(3, axis=2).astype("uint8")
)


def test_bits_of_a_hash():
    assert image_hash(HALVES, "ahash") == image_hash(HALVES, "whash") == "0f" * 8
    ramp = Image.fromarray(np.tile(np.arange(0, 252, 4, dtype=np.uint8)[None, :, None], (40, 1, 3)))
    assert image_hash(ramp, "dhash") == "ff" * 8
    assert image_hash(ramp.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "dhash") == "00" * 8


@pytest.mark.parametrize("seed", range(5))
def test_cosine_hash_is_that_of_imagehash(seed):
    """The two differ in the order of resizing and turning gray, which a gray image does not show."""
    imagehash = pytest.importorskip("imagehash")
    gray = Image.fromarray(tiny_clips.picture(seed, 70, 90)).convert("L")
    ours = int(image_hash(gray.convert("RGB"), "phash"), 16)
    theirs = int(str(imagehash.phash(gray)), 16)
    assert (ours ^ theirs).bit_count() <= 2  # theirs leaves out values equal to a median of all 64


def test_videos(tmp_path):
    av = pytest.importorskip("av")
    one, other = (tiny_clips.save_clip(tmp_path / f"{seed}.mp4", seed, seconds=0.5) for seed in (1, 2))
    with av.open(one) as source, av.open(str(tmp_path / "same.mkv"), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    same = str(tmp_path / "same.mkv")
    assert kept("video_deduplicator", "videos", [[one], [other], [], [same], [one, other], [], [one, one]]) == [
        0,
        1,
        2,
        4,
        5,
    ]
