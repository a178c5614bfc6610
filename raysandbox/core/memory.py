"""Batches that are too large for the memory: halved, until one item alone does not fit."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from raysandbox.core.errors import JobFailed

if TYPE_CHECKING:
    from raysandbox.core.component import Component

__all__ = ["batches_that_fit", "memory_failures", "out_of_memory", "that_fits"]

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

# What libraries say that raise no class of their own.
_TEXTS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory")
_KEYS = ("batch_size", "batch_size_per_gpu", "gradient_accumulation_steps", "max_length", "num_frames", "sample_size")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory: Python's, torch's on any device, or a library's by its text."""
    torch: Any = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


def batches_that_fit(
    items: Sequence[Item], size: int, do: Callable[[Sequence[Item]], Result], refusal: Callable[[Sequence[Item]], str]
) -> Iterator[tuple[Sequence[Item], Result]]:
    """Goes through items batch by batch; where the memory does not hold one, in batches of half the size from there on.

    Smaller batches may change the last bits of what a model computes, so it is said when it happens.

    Args:
        items: what to go through.
        size: items in a batch, at first.
        do: what to do with a batch; it may be called again with fewer items.
        refusal: what to tell the user of a batch of one item that does not fit.

    Yields:
        each batch, and what `do` returned.

    Raises:
        JobFailed: one item alone does not fit, also after what is held for reuse was given back.
    """
    start, tried_alone = 0, False
    while start < len(items):
        batch = items[start : start + size]
        try:
            result = do(batch)
        except Exception as error:
            if not out_of_memory(error):
                raise
            if tried_alone:
                raise JobFailed(f"{refusal(batch)} ({_first_line(error)})") from error
        else:
            yield batch, result
            start += len(batch)
            tried_alone = False
            continue
        _give_back()  # out of the handler: the error holds the frames, and with them what they allocated
        tried_alone = len(batch) == 1
        size = max(1, len(batch) // 2)
        if not tried_alone:
            logger.warning("the memory does not hold %d items at once: going on with %d", len(batch), size)


def that_fits(do: Callable[[], Result], refusal: str) -> Result:
    """What a function returns; where the memory is not enough, it is called once more with all that can be given back.

    Raises:
        JobFailed: it is not enough then either.
    """
    ((_, result),) = batches_that_fit((None,), 1, lambda _: do(), lambda _: refusal)
    return result


@contextlib.contextmanager
def memory_failures(component: Component) -> Iterator[None]:
    """Has a lack of memory name the keys of a component by which it needs less; for what must not do so by itself.

    Raises:
        JobFailed: the memory was not enough.
    """
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        fields: Mapping[str, Any] = type(component).model_fields
        keys = [key for key in _KEYS if key in fields]
        fix = "lower the batch size, as batch_size_per_gpu, or use a smaller model"
        if keys:
            fix = f"lower {' or '.join(key for key in keys if key != _KEYS[2])}"
        if _KEYS[2] in keys:
            fix += f", with a larger {_KEYS[2]} for the same number of examples per step"
        raise JobFailed(f"{component.type_name}: the memory is not enough: {_first_line(error)} ({fix})") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _give_back() -> None:
    """Gives back what torch and Python hold for reuse."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
