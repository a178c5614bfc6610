"""Perceptual hashes of images: 64 bits as 16 hexadecimal digits, equal to those of `imagededup`.

An image is made small first (Lanczos) and gray second; each bit then says whether a value is at
least, or more than, another. Definitions: N. Krawetz, "Looks Like It" and "Kind of Like That"
(average, cosine transform, gradient); D. Petrov, "Wavelet image hash in Python".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["image_hash"]


def image_hash(image: Image, method: str) -> str:
    """The hash of an image.

    Args:
        image: any size, in RGB.
        method: "ahash", "dhash", "phash" or "whash".
    """
    bits = {"ahash": _average, "dhash": _gradient, "phash": _cosine, "whash": _wavelet}[method](image)
    return np.packbits(bits).tobytes().hex()


def _gray(image: Image, width: int, height: int) -> np.ndarray:
    from PIL.Image import Resampling

    return np.asarray(image.resize((width, height), Resampling.LANCZOS).convert("L"))


def _average(image: Image) -> np.ndarray:
    """At least the mean."""
    values = _gray(image, 8, 8)
    return values >= values.mean()


def _gradient(image: Image) -> np.ndarray:
    """Brighter than the neighbour on the left."""
    values = _gray(image, 9, 8)
    return values[:, 1:] > values[:, :-1]


def _cosine(image: Image) -> np.ndarray:
    """Low frequencies that are at least their median, which leaves out the constant one."""
    from scipy.fft import dct

    values = np.asarray(dct(dct(_gray(image, 32, 32), axis=0), axis=1))[:8, :8]
    return values >= np.median(values.ravel()[1:])


def _wavelet(image: Image) -> np.ndarray:
    """Haar's approximation at level 5, where it is at least its median."""
    from pywt import wavedec2

    values = wavedec2(_gray(image, 256, 256) / 255, "haar", level=5)[0]
    return values >= np.median(values)
