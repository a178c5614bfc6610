"""Media files that are damaged or strange, made on the spot; a number gives the same file every time."""

from __future__ import annotations

import os
import random
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.ops.tiny_clips import picture

# Suffix → codec, pixel format and whether there is sound.
CLIPS = {
    ".mp4": ("libx264", "yuv420p", "aac"),
    ".mov": ("mpeg4", "yuv420p", None),
    ".mkv": ("ffv1", "yuv420p", "pcm_s16le"),
    ".webm": ("libvpx-vp9", "yuv420p", None),
    ".avi": ("mjpeg", "yuvj420p", "pcm_s16le"),
    ".ts": ("libx264", "yuv420p", "aac"),
    ".flv": ("flv", "yuv420p", None),
    ".mpg": ("mpeg2video", "yuv420p", None),
    ".h264": ("libx264", "yuv420p", None),
    ".y4m": ("wrapped_avframe", "yuv420p", None),
}
_SHORT, _WHOLE = (0, 1, 0x7FFF, 0x8000, 0xFFFF), (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def clip(path: Path, *, seconds: float = 1.5, fps: int = 8) -> Path:
    """A small clip of the format that its suffix says."""
    import av

    codec, pixels, sound = CLIPS[path.suffix]
    with av.open(str(path), "w", format="yuv4mpegpipe" if path.suffix == ".y4m" else None) as container:
        video: Any = container.add_stream(codec, rate=25 if path.suffix == ".mpg" else fps)
        video.width, video.height, video.pix_fmt = 64, 48, pixels
        audio: Any = container.add_stream(sound, rate=44100) if sound else None
        for number in range(int(seconds * fps)):
            frame = av.VideoFrame.from_ndarray(np.roll(picture(7), number, axis=1), format="rgb24")
            container.mux(video.encode(frame.reformat(format=pixels)))
        container.mux(video.encode())
        if audio is not None:
            tone = np.sin(np.arange(22050) / 9).astype(np.float32) * 9000
            samples = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], format="s16", layout="mono")
            samples.sample_rate = 44100
            container.mux(audio.encode(samples))
            container.mux(audio.encode())
    return path


def pictures(folder: Path) -> list[Path]:
    """Images of many formats and colour models, also animated ones and some of several pages."""
    from PIL import Image

    colours = Image.fromarray(picture(3))
    deep = Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21)
    more = [Image.fromarray(picture(seed)) for seed in (4, 5)]
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    wanted: Sequence[tuple[str, Any, Mapping[str, Any]]] = (
        ("plain.jpg", colours, {"exif": exif}),
        ("progressive.jpg", colours, {"progressive": True}),
        ("print.jpg", colours.convert("CMYK"), {}),
        ("grey.jpg", colours.convert("L"), {}),
        ("plain.png", colours, {}),
        ("deep.png", deep, {}),
        ("palette.png", colours.convert("P"), {"transparency": 3}),
        ("moving.png", colours, {"save_all": True, "append_images": more}),
        ("moving.gif", colours, {"save_all": True, "append_images": more, "loop": 0}),
        ("moving.webp", colours, {"save_all": True, "append_images": more, "loop": 0}),
        ("plain.webp", colours, {}),
        ("pages.tiff", colours, {"save_all": True, "append_images": more, "compression": "tiff_lzw"}),
        ("deep.tiff", deep, {}),
        ("print.tiff", colours.convert("CMYK"), {"compression": "jpeg"}),
        ("floats.tiff", colours.convert("F"), {}),
        ("plain.bmp", colours, {}),
        ("plain.ico", colours, {}),
        ("plain.icns", colours.resize((64, 64)), {}),
        ("plain.jp2", colours, {}),
        ("plain.avif", colours, {}),
        ("plain.ppm", colours, {}),
        ("deep.pgm", deep, {}),
        ("plain.tga", colours, {"compression": "tga_rle"}),
        ("plain.pcx", colours, {}),
        ("plain.sgi", colours, {}),
        ("plain.dds", colours, {}),
        ("plain.qoi", colours, {}),
        ("plain.im", colours, {}),
        ("plain.eps", colours, {}),
        ("plain.pdf", colours, {}),
    )
    made = []
    for name, image, options in wanted:
        image.save(folder / name, **options)
        made.append(folder / name)
    return made


def mutants(folder: Path, sources: Sequence[Path], numbers: Sequence[int]) -> list[Path]:
    """A file for each number: the first are strange, the others mutations; each has a suffix of the sources."""
    folder.mkdir()
    paths = []
    for index in numbers:
        chance = random.Random(index)
        source = sources[index % len(sources)]
        path = folder / f"{index:04}-{source.stem}{source.suffix}"
        if index < len(STRANGE):
            STRANGE[index](path)
        else:
            data = source.read_bytes()
            for _ in range(chance.choice((1, 1, 2))):
                data = chance.choice(MUTATIONS)(chance, data, sources)
            path.write_bytes(data)
        paths.append(path)
    return paths


def _flip(chance: random.Random, data: bytes, sources: Sequence[Path]) -> bytes:
    """Other bits, in the header or anywhere."""
    changed = bytearray(data)
    end = min(len(changed), chance.choice((64, 600, 10**9)))
    for _ in range(chance.choice((1, 5, 50, 500))):
        changed[chance.randrange(end)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(chance: random.Random, data: bytes, sources: Sequence[Path]) -> bytes:
    return data[: chance.choice((chance.randrange(len(data)), len(data) - 1, 16, len(data) // 2))]


def _hole(chance: random.Random, data: bytes, sources: Sequence[Path]) -> bytes:
    """A stretch of zeros, or one that is missing."""
    start = chance.randrange(len(data))
    length = chance.choice((8, 100, len(data)))
    return data[:start] + b"\0" * (length * chance.randrange(2)) + data[start + length :]


def _number(chance: random.Random, data: bytes, sources: Sequence[Path]) -> bytes:
    """A whole number of the header that is huge, zero or negative."""
    at = chance.randrange(max(1, min(len(data), 1000) - 4))
    order = chance.choice("<>")
    value = struct.pack(order + "I", chance.choice(_WHOLE)) if chance.random() < 0.6 else b""
    value = value or struct.pack(order + "H", chance.choice(_SHORT))
    return data[:at] + value + data[at + len(value) :]


def _known_number(chance: random.Random, data: bytes, sources: Sequence[Path]) -> bytes:
    """Width, height, duration, time scale or number of frames, where this format has it."""
    value = struct.pack(">I", chance.choice((*_WHOLE, 20_000, 300_000_000)))
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        at = chance.choice((16, 20))
        header = data[12:at] + value + data[at + 4 : 29]
        return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    if data[:6] in (b"GIF89a", b"GIF87a"):
        return data[:6] + b"\xff\xff\xff\xff" + data[10:]
    for mark, offsets in _FIELDS:
        places = [found.start() for found in re.finditer(re.escape(mark), data)]
        if places and chance.random() < 0.6:
            at = chance.choice(places) + chance.choice(offsets)
            return data[:at] + (value[:2] if mark[:1] == b"\xff" else value) + data[at + len(value[:2]) :]
    return _number(chance, data, sources)


_FIELDS = (  # names of boxes, and where after them whole numbers stand
    (b"mvhd", (16, 20)),
    (b"mdhd", (16, 20)),
    (b"tkhd", (24, 80, 84)),
    (b"avc1", (28, 30)),
    (b"stts", (8, 12, 16)),
    (b"ctts", (8, 12, 16)),
    (b"stsz", (8, 12, 16)),
    (b"stco", (8, 12)),
    (b"elst", (8, 12, 16, 20)),
    (b"ihdr", (4, 8)),
    (b"ispe", (8, 12)),
    (b"ANMF", (10, 13)),
    (b"avih", (4, 20, 36, 40)),
    (b"strh", (24, 28, 36)),
    (b"\x44\x89", (3,)),  # Matroska's duration, size of pixels and time scale
    (b"\x2a\xd7\xb1", (4,)),
    (b"\xff\xc0", (5, 7)),  # JPEG's height and width
    (b"\xff\xc2", (5, 7)),
    (b"\xff\xda", (2, 4)),
)


def _swap(chance: random.Random, data: bytes, sources: Sequence[Path]) -> bytes:
    """The beginning of one file and the rest of another, or all of another."""
    other = chance.choice(sources).read_bytes()
    return other if chance.random() < 0.5 else data[: len(data) // 2] + other[len(other) // 2 :]


def _again(chance: random.Random, data: bytes, sources: Sequence[Path]) -> bytes:
    """A piece many times over, or all of it twice."""
    at = chance.randrange(len(data))
    return data + data if chance.random() < 0.3 else data[:at] + data[at : at + 100] * 500 + data[at:]


def _noise(chance: random.Random, data: bytes, sources: Sequence[Path]) -> bytes:
    head = chance.choice((0, 16, 200))
    return data[:head] + chance.randbytes(5000)


MUTATIONS: tuple[Callable[[random.Random, bytes, Sequence[Path]], bytes], ...] = (
    _flip,
    _flip,
    _cut,
    _hole,
    _number,
    _known_number,
    _known_number,
    _swap,
    _again,
    _noise,
)


def _playlist(path: Path) -> None:
    """A playlist of itself."""
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{path.name}\n" * 3)


def _concatenation(path: Path) -> None:
    """A list of itself."""
    path.write_text("ffconcat version 1.0\n" + f"file '{path.name}'\n" * 3)


def _huge_png(path: Path) -> None:
    """Zeros that unpack to a gigabyte."""
    header = struct.pack(">IIBBBBB", 30_000, 11_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * (30_000 * 3 + 1) * 400)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def _large_png(path: Path) -> None:
    """As many pixels as Pillow warns of and still reads, none of which are there."""
    _huge_png(path)
    data = path.read_bytes()
    header = data[12:16] + struct.pack(">II", 12_000, 12_000) + data[24:29]
    path.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])


def _text_chunks(path: Path) -> None:
    """A picture whose comments unpack without bound."""
    chunk = b"zTXt" + b"k\0\0" + zlib.compress(b"x" * 200_000_000)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + b"\0\0\0\1\0\0\0\1\x08\2\0\0\0" + b"\x90wS\xde"
        + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )  # fmt: skip


STRANGE: tuple[Callable[[Path], Any], ...] = (
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"\0"),
    lambda path: path.write_bytes(b"\0" * 100_000),
    lambda path: path.write_bytes(b"\xff" * 100_000),
    lambda path: path.mkdir(),
    lambda path: path.symlink_to(path.name),
    lambda path: path.symlink_to("nothing"),
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to("/dev/full"),
    lambda path: os.mkfifo(path),
    _playlist,
    _concatenation,
    _huge_png,
    _large_png,
    _text_chunks,
    lambda path: path.write_text("<svg xmlns='http://www.w3.org/2000/svg' width='1e9' height='-1'/>"),
    lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch) system\n"),
    lambda path: path.write_text("P6\n1000000000 1000000000\n255\n"),
    lambda path: path.write_text("P7\nWIDTH 99999\nHEIGHT 99999\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n"),
    lambda path: path.write_text("YUV4MPEG2 W32000 H32000 F25:1 Ip A0:0 C420\n" + "FRAME\n" * 1000),
    lambda path: path.write_text("YUV4MPEG2 W64 H48 F0:0 Ip A0:0 C420\nFRAME\n" + "x" * 4608),
    lambda path: path.write_bytes(
        b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0data\0\0\0\0"
    ),
    lambda path: path.write_bytes(
        b"GIF89a\xff\xff\xff\xff\x80\0\0" + b"\0" * 6 + b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0" * 9
    ),
    lambda path: path.write_bytes(b"\0\0\0\x08ftyp" * 5000),
)
