"""What a search optimises: an output of a job, or a metric that a component reports."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysandbox.config.schema import JobEntry
from raysandbox.core.errors import MissingMetricError, UserError, did_you_mean
from raysandbox.sandbox.plan import ExperimentPlan
from raysandbox.sandbox.references import LAST, Reference, resolve_reference

__all__ = ["Objective", "find_objective"]


@dataclass(frozen=True)
class Objective:
    """The metric of a search.

    Attributes:
        name: as in the sweep file.
        reference: the output of a job that it is; None when only a component reports it.
        watched: its name among the reported metrics, `<meta_name>.<key>`.
        known_at_end_only: whether it has one value per trial, so that no scheduler can go by it.
    """

    name: str
    reference: Reference | None
    watched: str | None
    known_at_end_only: bool = False

    def value(self, context_infos: Sequence[Mapping[str, Any]], last: Mapping[str, Any]) -> float:
        """The metric of a trial that has run.

        Args:
            context_infos: what its jobs returned, in the format of `context_infos.json`; the last iteration counts.
            last: last value of every metric that was reported, by name.

        Raises:
            MissingMetricError: missing, None, NaN, infinite or no number; the message says which.
        """
        if self.reference is not None:
            found = self.reference.value_in(_outputs(context_infos, self.reference))
        elif self.watched is not None and self.watched in last:
            found = last[self.watched]
        else:
            raise MissingMetricError(f"metric '{self.name}': nothing of this name was reported")
        return self.number(found)

    def number(self, found: Any) -> float:
        """A value of the metric as a number.

        Raises:
            MissingMetricError: None, NaN, infinite or no number; the message says which.
        """
        if found is None:
            raise MissingMetricError(f"metric '{self.name}' is None")
        if isinstance(found, bool) or not isinstance(found, int | float):
            shown = repr(found)
            raise MissingMetricError(f"metric '{self.name}' is not a number but {shown[:80]}")
        if math.isnan(found):
            raise MissingMetricError(f"metric '{self.name}' is NaN (not a number)")
        if math.isinf(found):
            raise MissingMetricError(f"metric '{self.name}' is infinite ({found})")
        return float(found)


def _outputs(context_infos: Sequence[Mapping[str, Any]], reference: Reference) -> Mapping[str, Any]:
    """Outputs of the referenced job in the last iteration; {} when it has not run."""
    pipelines = context_infos[-1]["pipeline_infos"] if context_infos else []
    for pipeline in pipelines:
        if pipeline["pipeline_name"] != reference.entry.pipeline:
            continue
        for info in pipeline["job_infos"]:
            if info.get("meta_name") == reference.entry.config.meta_name and reference.output in info:
                return info
    return {}


def find_objective(name: str, plan: ExperimentPlan) -> Objective:
    """The metric that a name means.

    Args:
        name: `<pipeline>.<meta_name>.<output>[.key…]`, the name of an output that one job has, or
            `<meta_name>.<key>` as components report it.
        plan: of the configuration that the search varies.

    Raises:
        UserError: it means nothing, or several things.
    """
    entries = [job.entry for job in plan.jobs]
    reference = _reference(name, entries)
    if reference is not None:
        hook = next(job.hook for job in plan.jobs if job.entry is reference.entry)
        if hook.returns_paths:
            raise UserError(
                f"metric '{name}' is no number: {reference.entry.config.hook} returns {hook.returns[0]}; name what an "
                "evaluation returns, or <meta_name>.<key> as a component reports it"
            )
        shown = ".".join([_shown(reference.entry), reference.output, *reference.keys])
        return Objective(name, reference, shown, plan.config.settings.max_iter_num == 1)
    reporters = [entry for entry in entries if name.startswith(f"{_shown(entry)}.")]
    if len(reporters) > 1:
        ids = ", ".join(entry.id for entry in reporters)
        raise UserError(f"metric '{name}' is ambiguous: jobs {ids} report under this name; give them own meta_names")
    if not reporters:
        known = list(_names([job.entry for job in plan.jobs if not job.hook.returns_paths]))
        fix = did_you_mean(name, known) or (
            f"outputs: {', '.join(known) or 'none'}; or <meta_name>.<key> as a component reports it"
        )
        raise UserError(f"metric '{name}' is neither an output of a job nor a metric of one; {fix}")
    return Objective(name, None, name)


def _reference(name: str, entries: Sequence[JobEntry]) -> Reference | None:
    """The output that a name means: with pipeline and meta_name, with meta_name only, or bare."""
    named = [e for e in entries if e.config.meta_name]
    if name.startswith(f"{LAST}.") or any(name.startswith(f"{e.pipeline}.{e.config.meta_name}.") for e in named):
        try:
            return resolve_reference(name, entries)
        except UserError as error:
            raise UserError(f"{error}; a metric that its component reports is written <meta_name>.<key>") from error
    parts = name.split(".")
    meta = [e for e in named if name.startswith(f"{e.config.meta_name}.")]
    candidates = [(e, name.removeprefix(f"{e.config.meta_name}.").split(".")) for e in meta]
    found = [Reference(e, keys[0], tuple(keys[1:])) for e, keys in candidates if keys[0] in e.config.output]
    if not found and not meta:
        found = [Reference(e, parts[0], tuple(parts[1:])) for e in entries if parts[0] in e.config.output]
    if len(found) > 1:
        names = ", ".join(f"{r.entry.pipeline}.{r.entry.config.meta_name}.{r.output}" for r in found)
        raise UserError(f"metric '{name}' is ambiguous: {names}; write one of these")
    return found[0] if found else None


def _names(entries: Sequence[JobEntry]) -> Iterator[str]:
    for entry in entries:
        for output in entry.config.output:
            yield f"{entry.pipeline}.{entry.config.meta_name}.{output}"
            yield output


def _shown(entry: JobEntry) -> str:
    """What a job's metrics are filed under."""
    return entry.config.meta_name or entry.config.hook
