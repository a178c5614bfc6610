"""Units as a Ray Data pipeline: blocks of unit descriptors → one fused map → blocks of results.

Each block of the input describes one unit. The map reads the unit's rows, applies the whole segment
over Arrow blocks and turns the rows that are left into bytes of the output, all in one task, so that
no rows travel between stages. Results stream back through the object store in input order; Ray
Data bounds how many are under way. A unit's files travel as bytes: nodes need not share a folder.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from raysandbox.core.component import PathRole, path_refs
from raysandbox.ops.base import Operator
from raysandbox.ops.custom import custom_modules
from raysandbox.recipe.inputs import ReadTask
from raysandbox.recipe.isolated import WorkersDied, died, one_by_one
from raysandbox.recipe.parts import Unit, UnitReport, UnitWork
from raysandbox.recipe.shipping import RESULT, packed, run_packed, unpacked
from raysandbox.runtime.actors import with_tail
from raysandbox.runtime.task_output import TaskOutput, caught

if TYPE_CHECKING:
    from ray.data import Dataset

__all__ = ["RayDataEngine"]

logger = logging.getLogger(__name__)


_POLL_S = 0.5
_RESTARTS = 2  # of a worker; then what is left is done one by one
_FIRST_FILES = 4  # of the input, that nodes are asked for


class RayDataEngine:
    """Runs units on Ray Data: in tasks of one CPU, or in a pool of workers where operators have a model.

    Args:
        most: units at once; as many as the cluster holds by default.
    """

    name = "ray"

    def __init__(self, most: int | None = None) -> None:
        self._most = most

    def run(self, work: UnitWork, units: Sequence[Unit]) -> Iterator[UnitReport]:
        """Yields the reports in the order of the units; their files stand in `work.staging`.

        Raises:
            UserError: what a unit raised, as it raised it; or the cluster is too small for the operators.
        """
        if not units:
            return
        from raysandbox.runtime.session import ensure_ray

        ensure_ray()
        _require_seen(work, units)
        with TaskOutput() as output:
            yield from self._run(work, units, output)

    def _run(self, work: UnitWork, units: Sequence[Unit], output: TaskOutput) -> Iterator[UnitReport]:
        import ray
        import ray.cloudpickle as cloudpickle
        from ray.data import DataContext
        from ray.exceptions import RayError

        from raysandbox.runtime.session import cluster_summary

        for module in custom_modules():  # no worker can import it: its classes travel as they are
            cloudpickle.register_pickle_by_value(module)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        descriptors: list[Any] = [ray.put(packed(unit)) for unit in units]
        options: dict[str, Any] = {}  # of a task, which the pipeline's map fills
        given = _Given(work, output.token)
        done = 0
        try:
            pipeline = self._mapped(ray.data.from_arrow_refs(descriptors), given, len(units), options)
            for report in _reports(_blocks(pipeline, output), work):
                done += 1
                yield report
        except RayError as error:
            if not died(error):
                raise
            logger.warning("workers died again and again: the units that are left are done one by one, to find which")
        else:
            return
        at_once = self._most or max(1, int(cluster_summary().total("CPU")))
        try:
            shared = ray.put(given)  # once, not with every task
            left = one_by_one(units[done:], lambda unit: (_run_unit, packed(unit), shared), at_once, options)
            with closing(left) as blocks:
                yield from _reports(blocks, work)
        except WorkersDied as error:
            if output.log is None:
                raise
            raise WorkersDied(with_tail(str(error), output.last_words(), output.log)) from error

    def _mapped(self, units: Dataset, given: _Given, count: int, options: dict[str, Any]) -> Dataset:
        """The pipeline's one map: tasks of one CPU each, or a pool of workers that keep their models.

        `options` is filled with what a task needs that does the same.
        """
        from ray.data import ActorPoolStrategy, TaskPoolStrategy

        from raysandbox.runtime.placement import wait_for_room

        if not given.work.resources:
            function = cast(Any, partial(_run_unit, given=given))
            tasks = TaskPoolStrategy(self._most)
            wait_for_room("of a recipe", num_cpus=1)
            options["num_cpus"] = 1
            with _retries_are_ours():
                return units.map_batches(
                    function, batch_size=1, batch_format="pyarrow", compute=tasks, num_cpus=1, max_retries=_RESTARTS
                )
        from raysandbox.recipe.actor_pool import pool_for
        from raysandbox.runtime.claims import groups, held_amount
        from raysandbox.runtime.draining import staying
        from raysandbox.runtime.session import cluster_summary

        cluster = staying(cluster_summary())
        pool = pool_for(given.work.resources, cluster, min(count, self._most or count), held_amount(groups(), "CPU"))
        if pool.note:
            logger.warning("%s", pool.note)
        wait_for_room("of a recipe", num_cpus=pool.num_cpus, num_gpus=pool.num_gpus)
        options |= {"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus, "memory": pool.memory}
        with _retries_are_ours():
            return units.map_batches(
                cast(Any, _UnitWorker),
                fn_constructor_args=(given,),
                batch_size=1,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=pool.size),
                max_restarts=_RESTARTS,
                max_task_retries=_RESTARTS,
                **options,
            )


@contextmanager
def _retries_are_ours() -> Iterator[None]:
    """Lets Ray Data take numbers of retries: its own are without end, and it warns of the only way to say so."""
    from ray.util.annotations import RayDeprecationWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        yield


def _require_seen(work: UnitWork, units: Sequence[Unit]) -> None:
    """Refuses to begin where a node does not see the first files, or files of the operators."""
    from raysandbox.runtime.visibility import require_seen

    tasks = (unit.source for unit in units if isinstance(unit.source, ReadTask))
    files = islice(dict.fromkeys(span.file.path for task in tasks for span in task.spans), _FIRST_FILES)
    operators: Sequence[Operator] = getattr(getattr(work, "fused", None), "operators", ())
    refs = [ref for op in operators for ref in path_refs(type(op), op.model_dump(by_alias=True))]
    require_seen("recipe", [*files, *(ref.path for ref in refs if ref.role is not PathRole.OUTPUT)])


def _reports(blocks: Iterable[pa.Table], work: UnitWork) -> Iterator[UnitReport]:
    """The reports of units in the blocks that `_run_unit` returned."""
    for block in blocks:
        for row in block.to_pylist():
            yield unpacked(row, work.staging)


def _blocks(pipeline: Dataset, output: TaskOutput) -> Iterator[pa.Table]:
    """A pipeline's blocks as they come, and meanwhile what its tasks print.

    Unlike `iter_batches`, whose queue is waited for inside of a lock, this polls and can be interrupted in any thread.
    """
    import ray

    for bundle in pipeline.iter_internal_ref_bundles():
        output.pull()
        for reference in bundle.block_refs:
            # waits: the block is made, and on its way or lost, which raises below
            while not ray.wait([reference], timeout=_POLL_S)[0]:
                pass
            yield ray.get(cast(Any, reference))  # waits: no more, ray.wait has it here


@dataclass(frozen=True)
class _Given:
    """What every task gets.

    Attributes:
        work: what it does.
        token: where its output goes (`task_output.caught`).
    """

    work: UnitWork
    token: str


class _UnitWorker:
    """A process that does units one after the other and keeps what their operators loaded."""

    def __init__(self, given: _Given) -> None:
        self._given = given

    def __call__(self, descriptor: pa.Table) -> pa.Table:
        """Does the unit of a block."""
        return _run_unit(descriptor, self._given)


def _run_unit(descriptor: pa.Table, given: _Given) -> pa.Table:
    """Does the units of a block, normally one."""
    with caught(given.token):
        done = [run_packed(descriptor.slice(row, 1), given.work) for row in range(descriptor.num_rows)]
    return pa.concat_tables([RESULT.empty_table(), *done])
