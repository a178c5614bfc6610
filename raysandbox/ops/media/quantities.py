"""How sizes and ratios are written in a recipe."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

__all__ = ["ByteSize", "MemorySize", "Ratio", "memory_bytes"]

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgtpezy])i?b)?\s*", re.IGNORECASE)
_POWERS = "kmgtpezy"


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError("should be a number of bytes, or of KB, MB, GB …: 10MB")
    number, unit = match.groups()
    power = _POWERS.index(unit.lower()) + 1 if unit else 0
    return int(Fraction(number) * 1024**power)


def _ratio(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return float(Fraction(value.replace(":", "/")))
    except (ValueError, ZeroDivisionError):
        raise ValueError("should be a ratio of width to height: 16/9, 16:9 or 1.78") from None


def memory_bytes(memory: float | str) -> int:
    """Bytes of "9GB" or "800MB", or of a number of gigabytes, as Data-Juicer writes the memory of operators."""
    return _bytes(memory) if isinstance(memory, str) else int(memory * 1024**3)


def _check_memory(memory: float | str | None) -> float | str | None:
    if memory is not None:
        memory_bytes(memory)
    return memory


ByteSize = Annotated[int | None, BeforeValidator(_bytes)]
MemorySize = Annotated[float | str | None, AfterValidator(_check_memory)]
Ratio = Annotated[float | None, BeforeValidator(_ratio)]
