"""Scoring the rows of units: those whose scores are kept from before are looked up, the others computed."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from raysandbox.core.keys import DigestMemo
from raysandbox.core.locks import KeyLocks
from raysandbox.core.progress import Progress
from raysandbox.core.runner import CachedScorer, RowScorer
from raysandbox.core.scope import kept
from raysandbox.ops.base import OpResources
from raysandbox.recipe.blocks import Block, Needs
from raysandbox.recipe.parts import PartWriter, Sink, Unit, UnitReport
from raysandbox.recipe.row_digests import text_digests
from raysandbox.recipe.score_store import KnownScores, ScoreIndex, index_of, merged_scores
from raysandbox.recipe.units import blocks_of

__all__ = ["ScoreMemory", "ScoreWork", "memory_of"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoreMemory:
    """Where the scores of a scorer are kept.

    Attributes:
        columns: the columns of text that they depend on.
        by_text: scores by the digest of what these columns hold.
        by_line: scores by the digest of the row's line.
        locks: held while rows are scored, so that two processes do not score the same ones.
    """

    columns: tuple[str, ...]
    by_text: ScoreIndex
    by_line: ScoreIndex
    locks: KeyLocks

    @contextmanager
    def held(self, progress: Progress) -> Iterator[None]:
        """While the block runs, nobody else scores rows with the same scorer.

        Args:
            progress: is told what is waited for.
        """

        def tell(holder: str) -> None:
            logger.info("%s", holder)
            progress.begin(holder, unit="")

        with self.locks.hold([f"scores {self.by_text.name}"], tell, "scores of rows") as waited:
            if waited:
                progress.end()
            yield
        self.locks.sweep()


def memory_of(scorer: RowScorer, shared: Path | None) -> ScoreMemory | None:
    """Where the scores of a scorer are kept; None for one whose scores are not."""
    if shared is None or not isinstance(scorer, CachedScorer):
        return None
    identity = scorer.cache_identity(DigestMemo(shared / "digests"))
    if identity is None:
        return None
    columns, folder = scorer.cache_columns(), shared / "scores"
    by_line = index_of(folder, identity, "lines", columns)
    return ScoreMemory(columns, index_of(folder, identity), by_line, KeyLocks(shared / "locks"))


@dataclass(frozen=True)
class ScoreWork:
    """Scores the rows of units.

    Attributes:
        token: names this scorer's state in a worker.
        resources: what the scorer's workers hold; empty when any worker will do.
        hide_gpus: whether its workers must not see the machine's GPUs: Ray shows them to all.
        needs: what the scorer needs of every row.
        memory: where scores are kept, None where they are not.
        pass_token: names the pass; what is known is read once for each.
        look_up_only: whether a unit ends at the first row whose score is not known.
    """

    scorer: RowScorer
    staging: Path
    sink: Sink
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    resources: tuple[OpResources, ...] = ()
    hide_gpus: bool = False
    needs: Needs = field(default_factory=Needs)
    memory: ScoreMemory | None = None
    pass_token: str = ""
    look_up_only: bool = False

    def run(self, unit: Unit) -> UnitReport:
        """Does one unit."""
        report = UnitReport(unit.index, [], [])
        with PartWriter(self.staging, self.sink, report) as writer:
            for block in blocks_of(unit.source, self.needs):
                report.rows_in += len(block.places) + len(block.bad)
                writer.quarantine(block.bad)
                if not block.places:
                    continue
                scores = self._scores(block, report)
                if scores is None:
                    report.unknown = True
                    break
                report.rows_out += len(block.places)
                report.columns.append(scores)
                table = block.table
                for name, values in zip(scores.column_names, scores.columns, strict=True):
                    table = table.drop_columns([name]) if name in table.column_names else table
                    table = table.append_column(name, values)
                writer.write(block, table)
        return report

    def looking_up(self) -> ScoreWork:
        """The pass in which a unit ends at the first row whose score is not known."""
        return replace(self, pass_token=uuid.uuid4().hex, look_up_only=True)

    def scoring(self) -> ScoreWork:
        """The pass in which scores that are not known are computed."""
        return replace(self, pass_token=uuid.uuid4().hex)

    def knows_first(self, units: Sequence[Unit]) -> bool:
        """Whether all scores of the first block are known."""
        if self.memory is None or not len(self._known(self.memory.by_text).digests):
            return False
        first = next((block for unit in units[:1] for block in blocks_of(unit.source, self.needs)), None)
        return first is None or not first.places or self._scores(first, UnitReport(0, [], [])) is not None

    def forget(self) -> None:
        """Gives the memory back that holds what was known."""
        kept("known scores").pop(self.pass_token, None)

    def _scores(self, block: Block, report: UnitReport) -> pa.Table | None:
        """The scores of a block's rows: those that are known are taken; None if one is not and may not be made."""
        named = None if self.memory is None else text_digests(block.table, self.memory.columns)
        if self.memory is None or named is None:
            report.unnamed += block.table.num_rows
            return None if self.look_up_only else self._computed(block.table)
        digests, present = named
        report.unnamed += int((~present).sum())
        known = self._known(self.memory.by_text)
        positions = np.where(present, known.find(digests), -1)
        missing = positions < 0
        if not missing.any():
            return known.take(positions)
        if self.look_up_only:
            return None
        every = bool(missing.all())
        made = self._computed(block.table if every else block.table.filter(pa.array(missing)))
        kept = present[missing]
        report.scored.append((digests[missing][kept], made.filter(pa.array(kept))))
        return made if every else merged_scores(known.take(positions[~missing]), made, missing)

    def _computed(self, table: pa.Table) -> pa.Table:
        """What the scorer makes of rows; it is loaded when it is first needed."""
        states = kept("states of scorers")
        if self.token not in states:
            states.clear()
            if self.hide_gpus:
                os.environ["CUDA_VISIBLE_DEVICES"] = ""
            states[self.token] = self.scorer.load()
        return pa.table(dict(self.scorer.score(table, states[self.token])))

    def _known(self, index: ScoreIndex) -> KnownScores:
        """What was known before this pass, read once per process."""
        known: dict[str, KnownScores] = kept("known scores")
        if self.pass_token not in known:
            known.clear()
            known[self.pass_token] = index.read()
        return known[self.pass_token]
