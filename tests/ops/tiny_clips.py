"""Small pictures and videos made on the spot."""

from pathlib import Path

import numpy as np


def picture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Colours that change smoothly, of shape (height, width, 3)."""
    chance = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(a * y + b * x + c) for a, b, c in chance.uniform(-9, 9, (3, 3))]
    return np.stack([127.5 + 127 * wave for wave in waves], axis=-1).astype(np.uint8)


def save_picture(path: Path, seed: int, **size: int) -> str:
    """Saves a picture without loss; returns the path."""
    from PIL import Image

    Image.fromarray(picture(seed, **size)).save(path)
    return str(path)


def save_clip(path: Path, seed: int, *, seconds: float = 2.0, fps: int = 8, step: int = 1, scenes: int = 1) -> str:
    """Saves a video of pictures that move `step` pixels per frame; each scene starts with a key frame."""
    import av

    frames = int(seconds * fps)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"g": str(-(-frames // scenes)), "sc_threshold": "0", "threads": "1"}
        for number in range(frames):
            shown = np.roll(picture(seed + 1000 * (number * scenes // frames)), number * step, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    return str(path)
