"""Reading images with Pillow, in this process."""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from raysandbox.core.errors import MissingExtraError
from raysandbox.ops.batch import FrameRequest
from raysandbox.ops.media.decoder import Fault
from raysandbox.ops.media.resizing import luminance
from raysandbox.ops.media.types import ImageInfo

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["grey", "info", "load"]

T = TypeVar("T")
_POSTSCRIPT = "EPS"  # Pillow gives it to Ghostscript, whatever the file is called
_TURNED = (5, 6, 7, 8)  # EXIF orientations with width and height exchanged


def load(path: str) -> Image | Fault:
    """The image in RGB, turned as its EXIF orientation says."""
    from PIL import ImageOps

    def read(image: Image) -> Image:
        image.load()
        return (ImageOps.exif_transpose(image) or image).convert("RGB")

    return _read(path, read)


def info(path: str) -> ImageInfo | Fault:
    """The size of an image that is readable to its end."""

    def read(image: Image) -> ImageInfo:
        from PIL.ExifTags import Base

        turned = image.getexif().get(Base.Orientation) in _TURNED
        width, height = reversed(image.size) if turned else image.size
        image.draft(None, (1, 1))  # a JPEG is unpacked at an eighth of its size: enough to find damage
        image.load()
        return ImageInfo(width, height)

    return _read(path, read)


def grey(frame: str | bytes, request: FrameRequest) -> np.ndarray:
    """A stored frame, a path or bytes, in grey: uint8 (H, W).

    Raises:
        ValueError: it is not an image.
    """
    import cv2

    data = np.fromfile(frame, np.uint8) if isinstance(frame, str) else np.frombuffer(frame, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise ValueError(f"{os.path.basename(frame) if isinstance(frame, str) else 'a frame'} is not an image")
    return luminance(image, request)


def _read(path: str, read: Callable[[Image], T]) -> T | Fault:
    if find_spec("PIL") is None:
        raise MissingExtraError("pillow", "media", "reading images")
    from PIL import Image, ImageFile

    warnings.filterwarnings("ignore", module=r"PIL\.")  # of damage: what cannot be read is said of its row
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # importing Data-Juicer sets it: the rest of a picture would be grey
    if not stat.S_ISREG(os.stat(path).st_mode):
        return Fault("is not a regular file")
    try:
        with Image.open(path) as image:
            if image.format == _POSTSCRIPT:
                return Fault("is PostScript: a program would run it, so it is not read")
            return read(image)
    except Image.DecompressionBombError:
        return Fault(f"has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels")
    except Image.UnidentifiedImageError:
        return Fault("is not an image")
    # What Pillow's readers raise on damaged files.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error) as error:
        return Fault(f"cannot be decoded: {error}")
    except MemoryError:
        return Fault("needs more memory than there is")
