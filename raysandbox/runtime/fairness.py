"""How many workers an experiment may have while several share a cluster.

Shares are max-min fair, first between experiments, then between the jobs of one: whoever wants less
than its share leaves the rest to others. What does not come and go, trainings, trials and the work of
others, keeps what it holds, and what is left is shared; a training that waits wants its whole size,
and is left out while that is more than its share, since it could not use what is freed for it.

Each experiment computes its own share from the same list of placement groups (`claims.py`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysandbox.runtime.claims import Claim, Group, Owner, claims, nodes_of, own_experiment
from raysandbox.runtime.draining import node_id_of, staying
from raysandbox.runtime.placement import Resources, bundle, labels_fit
from raysandbox.runtime.session import Cluster

__all__ = ["Claimant", "divided", "fair_share"]

_EPSILON = 1e-6


@dataclass(frozen=True)
class Claimant:
    """What somebody wants of what is shared.

    Attributes:
        wants: all that it wants, infinite for whoever takes what there is.
        holds: what it holds now; of what does not divide, those get most that hold most.
        one: the size of a worker.
    """

    wants: float
    holds: float = 0.0
    one: float = 1.0

    @classmethod
    def together(cls, claimants: Iterable[Claimant]) -> Claimant:
        """Several as one."""
        found = list(claimants)
        return cls(sum(c.wants for c in found), sum(c.holds for c in found), max(c.one for c in found))


def fair_share(owner: Owner, resources: Resources, cluster: Cluster, table: Sequence[Group]) -> int | None:
    """How many elastic workers an owner may have now.

    Args:
        owner: who asks; it counts as wanting all that it can have.
        resources: of one of its workers; the GPU counts where it needs one, else the CPU.
        cluster: what there is.
        table: the placement groups, see `claims.groups`.

    Returns:
        None where nobody else wants or holds what can be shared.
    """
    ours = claims(table)
    if all(claim.owner.crew == owner.crew for claim in ours):
        return None
    one = bundle(resources)
    scarce = "GPU" if "GPU" in one else "CPU"
    nodes = staying(cluster)
    reach = _Reach(nodes)
    within = reach.of(resources.label_selector, one)
    total = sum(node.resources.get(scarce, 0.0) for node in nodes.nodes if node_id_of(node) in within)
    total -= sum(_held(group, scarce, within) for group in table if not _comes_and_goes(group))
    own = Claim(own_experiment(), owner, resources.label_selector, (one,), frozenset())
    rivals = [
        claim
        for claim in ours
        if claim.owner.crew != owner.crew
        and claim.amount(scarce)
        and not within.isdisjoint(claim.nodes or reach.of(claim.labels, claim.bundles[0]))
        and (claim.owner.elastic or not claim.nodes)
    ]
    if not rivals:
        return None
    held = [claim for claim in ours if claim.owner.crew == owner.crew and claim.nodes]
    return int(_share(owner.crew, total, [own, *held, *rivals], scarce) / one[scarce] + _EPSILON)


def divided(total: float, claimants: Mapping[str, Claimant]) -> dict[str, float]:
    """Max-min fair shares: nobody gets more than it wants, and what does not divide goes by whole workers."""
    left = total
    greedy = dict(sorted(claimants.items(), key=lambda item: (-item[1].holds, item[0])))
    shares: dict[str, float] = {}
    while modest := [name for name, one in greedy.items() if one.wants <= left / len(greedy) + _EPSILON]:
        for name in modest:
            shares[name] = greedy.pop(name).wants
            left -= shares[name]
    for name, one in greedy.items():
        shares[name] = math.floor(left / len(greedy) / one.one + _EPSILON) * one.one
    rest = left - sum(shares[name] for name in greedy)
    for name, one in greedy.items():
        if rest >= one.one - _EPSILON:
            shares[name] += one.one
            rest -= one.one
    return shares


def _share(crew: str, total: float, found: Sequence[Claim], scarce: str) -> float:
    """The share of a crew among all."""
    while True:
        by_crew: defaultdict[tuple[str, str], list[Claim]] = defaultdict(list)
        for claim in found:
            by_crew[claim.experiment, claim.owner.crew].append(claim)
        inside: defaultdict[str, dict[str, Claimant]] = defaultdict(dict)
        for (experiment, name), own in by_crew.items():
            inside[experiment][name] = _claimant(own, scarce)
        shares: dict[str, float] = {}
        outside = {experiment: Claimant.together(crews.values()) for experiment, crews in inside.items()}
        for experiment, share in divided(total, outside).items():
            shares |= divided(share, inside[experiment])
        useless = {
            claim.owner.crew
            for claim in found
            if not claim.owner.elastic and claim.amount(scarce) > shares[claim.owner.crew] + _EPSILON
        }
        if not useless:
            return shares[crew]
        found = [claim for claim in found if claim.owner.crew not in useless]


def _claimant(own: Sequence[Claim], scarce: str) -> Claimant:
    """What the groups of one crew say: it wants more as long as one of them waits."""
    held = sum(claim.amount(scarce) for claim in own if claim.nodes)
    waiting = [claim for claim in own if not claim.nodes]
    wants = held
    if waiting:
        wants = math.inf if waiting[0].owner.elastic else sum(claim.amount(scarce) for claim in waiting)
    return Claimant(wants, held, max(each.get(scarce, 0.0) for claim in own for each in claim.bundles))


class _Reach:
    """The nodes of a cluster on which workers may be placed; all of a job ask for the same, and have one answer."""

    def __init__(self, cluster: Cluster) -> None:
        self._nodes = cluster.nodes
        self._found: dict[tuple[frozenset[tuple[str, Any]], ...], frozenset[str]] = {}

    def of(self, labels: Mapping[str, str], one: Mapping[str, float]) -> frozenset[str]:
        """Ids of the nodes that have the labels, and the size for a worker."""
        asked = (frozenset(labels.items()), frozenset(one.items()))
        if asked not in self._found:
            self._found[asked] = frozenset(
                node_id_of(node)
                for node in self._nodes
                if labels_fit(node, labels)
                and all(node.resources.get(name, 0.0) >= amount for name, amount in one.items())
            )
        return self._found[asked]


def _comes_and_goes(group: Group) -> bool:
    return any(claim.owner.elastic for claim in claims([group]))


def _held(group: Group, resource: str, within: frozenset[str]) -> float:
    if not nodes_of(group):
        return 0.0
    where = group["bundles_to_node_id"]
    return sum(each.get(resource, 0.0) for number, each in group["bundles"].items() if where.get(number) in within)
