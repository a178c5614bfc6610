"""Runs that need the same statistics at the same time: one computes them, the others wait and take them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from raysandbox.core.keys import digest
from raysandbox.core.locks import KeyLocks
from raysandbox.core.progress import Progress
from raysandbox.recipe.parts import Unit
from raysandbox.recipe.units import Work

__all__ = ["settled"]

logger = logging.getLogger(__name__)


@contextmanager
def settled(work: Work, units: Sequence[Unit], shared: Path, progress: Progress) -> Iterator[Work]:
    """The work with what the store knows of its units; while the block runs, nobody else computes the rest.

    Another run over the same units waits for what it needs of that, and begins with what was found
    meanwhile. Nothing is locked where all is known, or where nothing is kept.

    Args:
        work: one that recalls.
        units: of its input.
        shared: the cache that runs share.
        progress: is told what is waited for.
    """
    work = work.with_known(units)
    if not work.missing:
        yield work
        return
    locks = KeyLocks(shared / "locks")
    whole = digest([unit.digest for unit in units])
    names = {key: f"statistics {key} {whole}" for key in work.missing}
    operators = len({*work.recall.operators} & work.missing) if work.recall else 0
    label = f"statistics of {operators} operators over {len(units)} pieces of input"

    def tell(holder: str) -> None:
        logger.info("%s", holder)
        progress.begin(holder, unit="")

    with locks.lease(names.values(), tell, label) as lease:
        if lease.waited:
            progress.end()
            work = work.with_known(units)
            lease.give_back(name for key, name in names.items() if key not in work.missing)
        yield work
    locks.sweep()
