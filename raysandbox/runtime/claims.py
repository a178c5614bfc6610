"""What experiments hold and wait for on a cluster, as its placement groups tell.

Every placement group of ours has a name that says whose it is. So the list of placement groups, which
Ray's head keeps, tells each experiment about the others: there is nothing to register or to renew, and
what a killed driver held and wanted is gone as soon as Ray has removed its groups.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from raysandbox.core.scope import current_scope, kept

__all__ = [
    "CREWS",
    "Claim",
    "Owner",
    "claims",
    "group_name",
    "groups",
    "held_amount",
    "held_text",
    "others_of_run_hold",
]

CREWS = "crews"  # what this thread's job keeps by `core.scope.kept`: the crews that it asked for
_PREFIX = "raysandbox:"
_SHOWN = 5

Group = Mapping[str, Any]  # as Ray's table describes it


@dataclass(frozen=True)
class Owner:
    """Whose a placement group is.

    Attributes:
        job: `pipeline.meta_name#index`, for messages; "" where nobody says.
        elastic: whether its workers come and go one by one.
        crew: names the workers of one job together, unlike all others; earlier ones come first.
    """

    job: str = ""
    elastic: bool = False
    crew: str = ""

    @classmethod
    def new(cls, job: str = "", *, elastic: bool = False) -> Owner:
        """An owner unlike all others."""
        return cls(job, elastic, f"{time.time_ns():x}-{uuid.uuid4().hex[:8]}")


@dataclass(frozen=True)
class Claim:
    """A placement group of ours, held or waited for.

    Attributes:
        experiment: the Ray job of its driver.
        owner: whose it is.
        labels: that its nodes must have.
        bundles: what each of its workers holds or wants, by Ray's resource names.
        nodes: where the bundles are; empty while it waits.
    """

    experiment: str
    owner: Owner
    labels: Mapping[str, str]
    bundles: Sequence[Mapping[str, float]]
    nodes: frozenset[str]

    def amount(self, resource: str) -> float:
        """How much of a resource it holds or wants."""
        return sum(bundle.get(resource, 0.0) for bundle in self.bundles)


def group_name(owner: Owner, labels: Mapping[str, str]) -> str:
    """A name for a placement group of this experiment; Ray wants no two alike."""
    said = {"run": own_experiment(), "job": owner.job, "elastic": owner.elastic, "crew": owner.crew}
    return _PREFIX + json.dumps({**said, "labels": dict(labels), "id": uuid.uuid4().hex}, separators=(",", ":"))


def own_experiment() -> str:
    """What tells this experiment from others on the cluster: trials of a search are one."""
    import ray

    return ray.get_runtime_context().get_job_id()


def groups() -> list[Group]:
    """All placement groups of the cluster that hold something or wait for it."""
    import ray.util

    table: Mapping[str, Group] = ray.util.placement_group_table()
    return [group for group in table.values() if group["state"] != "REMOVED"]


def claims(table: Iterable[Group]) -> list[Claim]:
    """The placement groups of ours among those of a cluster."""
    return [claim for claim in map(_claim, table) if claim is not None]


def _claim(group: Group) -> Claim | None:
    if not group["name"].startswith(_PREFIX):
        return None
    try:
        run, owner, labels = _said(group["name"])
    except (ValueError, KeyError, TypeError, AttributeError):  # of another version, or somebody's own name
        return None
    return Claim(run, owner, labels, tuple(group["bundles"].values()), nodes_of(group))


@lru_cache(maxsize=1 << 16)
def _said(name: str) -> tuple[str, Owner, Mapping[str, str]]:
    """What the name of a group says: experiment, owner, labels; each is asked for again every two seconds."""
    said = json.loads(name.removeprefix(_PREFIX))
    return said["run"], Owner(said["job"], said["elastic"], said["crew"]), MappingProxyType(said["labels"])


def nodes_of(group: Group) -> frozenset[str]:
    """The nodes on which a placement group holds its bundles."""
    return frozenset(group["bundles_to_node_id"].values()) - {""} if group["state"] == "CREATED" else frozenset()


def others_of_run_hold(owner: Owner) -> bool:
    """Whether jobs that run beside this thread's hold something: what they hold is theirs for as long as they work.

    False where jobs run one after the other, and for what this thread's own job holds.
    """
    if current_scope() is None:
        return False
    own, mine = own_experiment(), {owner.crew, *kept(CREWS)}
    return any(claim.experiment == own and claim.nodes and claim.owner.crew not in mine for claim in claims(groups()))


def held_amount(table: Iterable[Group], resource: str) -> float:
    """How much of a resource all placement groups hold together."""
    return sum(each.get(resource, 0.0) for group in table if nodes_of(group) for each in group["bundles"].values())


def held_text(table: Iterable[Group], resources: Sequence[str] = ("GPU", "CPU")) -> str:
    """Who holds what, the greatest holders first, for a person who waits."""
    import ray

    own, holders = own_experiment() if ray.is_initialized() else "", []
    for group in table:
        if group["state"] != "CREATED":
            continue
        amounts = {name: sum(each.get(name, 0.0) for each in group["bundles"].values()) for name in resources}
        claim = _claim(group)
        who = group["name"] or "others"
        if claim:
            who = claim.owner.job or "a job"
            who += "" if claim.experiment == own else f" of another run (Ray job {claim.experiment})"
        holders.append((who, amounts))
    summed: dict[str, dict[str, float]] = {}
    for who, amounts in holders:
        before = summed.setdefault(who, dict.fromkeys(resources, 0.0))
        summed[who] = {name: before[name] + amount for name, amount in amounts.items()}
    ranked = sorted(summed.items(), key=lambda item: [-item[1][name] for name in resources])
    texts = [
        f"{who}: " + ", ".join(f"{amount:g} {name}" for name, amount in amounts.items() if amount)
        for who, amounts in ranked[:_SHOWN]
    ]
    if len(ranked) > _SHOWN:
        texts.append(f"and {len(ranked) - _SHOWN} more")
    return "; ".join(texts) or "no placement group holds anything"
