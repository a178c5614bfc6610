"""References to outputs of jobs, and the targets written with them."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysandbox.config.documents import parse_value
from raysandbox.config.dotted import get_dotted
from raysandbox.config.schema import JobEntry
from raysandbox.core.errors import MissingMetricError, UserError, did_you_mean

__all__ = ["ITEM", "LAST", "Reference", "Target", "resolve_reference"]

LAST = "-1"
ITEM = "item"

_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_TARGET = re.compile(r"^\s*(?P<reference>.+?)\s*(?P<sign>==|>=|<=|>|<)\s*(?P<value>[^=<>\s].*?)\s*$")


@dataclass(frozen=True)
class Reference:
    """An output of a job: which job, which name, and keys inside its value.

    Attributes:
        entry: the job that makes it.
        output: its name among the job's outputs.
        keys: path inside the value, when it is a mapping or a list.
    """

    entry: JobEntry
    output: str
    keys: tuple[str, ...] = ()

    def value_in(self, outputs: Mapping[str, Any]) -> Any:
        """The referenced value among the job's outputs.

        Raises:
            MissingMetricError: the job made no such value.
        """
        try:
            return get_dotted(outputs, [self.output, *self.keys])
        except KeyError as error:
            name = ".".join([self.output, *self.keys])
            made = ", ".join(outputs) or "no outputs"
            raise MissingMetricError(f"job {self.entry.id} made no '{name}'; it made {made}") from error


def resolve_reference(text: str, jobs: Sequence[JobEntry], before: JobEntry | None = None) -> Reference:
    """Finds the job that a reference means.

    Args:
        text: `-1.<output>` or `<pipeline>.<meta_name>.<output>`, with further keys after it.
        jobs: all jobs, in the order they run.
        before: the job that holds the reference; only earlier ones count. None: all count.

    Raises:
        UserError: no such job or output, a later job, or several jobs of that name.
    """
    earlier = list(jobs) if before is None else list(jobs)[: list(jobs).index(before)]
    parts = text.split(".")
    if parts[0] == LAST:
        return _last(text, parts[1:], earlier)
    candidates = list(_matches(text, jobs))
    if not candidates:
        names = [f"{e.pipeline}.{e.config.meta_name}.{o}" for e in jobs if e.config.meta_name for o in e.config.output]
        hint = did_you_mean(text, names) or f"outputs that can be named: {', '.join(names) or 'none'}"
        raise UserError(f"'{text}' names no output of a job; {hint}")
    possible = [reference for reference in candidates if reference.entry in earlier]
    if not possible:
        raise UserError(f"'{text}' is made by job {candidates[0].entry.id}, which runs later")
    if len(possible) > 1:
        ids = ", ".join(reference.entry.id for reference in possible)
        raise UserError(f"'{text}' is ambiguous: jobs {ids} share the name; give them different meta_names")
    return possible[0]


def _last(text: str, rest: Sequence[str], earlier: Sequence[JobEntry]) -> Reference:
    entry = next((e for e in reversed(earlier) if e.config.output), None)
    if entry is None:
        raise UserError(f"'{text}': no earlier job has outputs")
    if not rest or rest[0] not in entry.config.output:
        known = ", ".join(entry.config.output)
        raise UserError(f"'{text}': the last job with outputs, {entry.id}, has {known}")
    return Reference(entry, rest[0], tuple(rest[1:]))


def _matches(text: str, jobs: Iterable[JobEntry]) -> Iterable[Reference]:
    for entry in jobs:
        prefix = f"{entry.pipeline}.{entry.config.meta_name}."
        output, *keys = text.removeprefix(prefix).split(".")
        if text.startswith(prefix) and output in entry.config.output:
            yield Reference(entry, output, tuple(keys))


@dataclass(frozen=True)
class Target:
    """A condition on an output, e.g. `anonymous.eval_data.score >= 0.8`."""

    text: str
    reference: Reference
    sign: str
    value: Any

    @classmethod
    def parse(cls, text: str, jobs: Sequence[JobEntry]) -> Target:
        """Parses a condition; nothing is ever evaluated as code.

        Raises:
            UserError: not a condition, or its reference means no job.
        """
        match = _TARGET.match(text)
        if match is None:
            raise UserError(f"'{text}' is not a condition of the form <pipeline>.<meta_name>.<output> >= number")
        value = parse_value(match["value"], f"target '{text}'")
        if isinstance(value, list | dict) or (not isinstance(value, int | float) and match["sign"] != "=="):
            raise UserError(f"'{text}': {match['value']!r} is not a number")
        return cls(text, resolve_reference(match["reference"], jobs), match["sign"], value)

    def met(self, outputs: Mapping[str, Any]) -> bool:
        """Whether the outputs of the referenced job fulfil the condition.

        Raises:
            MissingMetricError: the value is missing, None or not a number where one is needed.
        """
        found = self.reference.value_in(outputs)
        missing = found is None or (isinstance(found, float) and math.isnan(found))
        if missing or (self.sign != "==" and not isinstance(found, int | float)):
            raise MissingMetricError(f"target '{self.text}': its value is {found!r}, which cannot be compared")
        return _COMPARISONS[self.sign](found, self.value)
