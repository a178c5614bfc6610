"""Trials that wait for room on the cluster: who holds it is said, and the wait ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from raysandbox.core.errors import JobFailed
from raysandbox.hpo.bundles import Share, shown
from raysandbox.runtime.claims import groups, held_text
from raysandbox.runtime.polling import Patience
from raysandbox.runtime.session import cluster_summary

__all__ = ["Room"]


class Room:
    """Looks whether trials run or wait: Tune waits for the bundles of a trial in silence and without end.

    Args:
        share: what each trial holds.
        timeout_s: how long no trial may run while some wait.
        note: takes what is said meanwhile.
    """

    def __init__(self, share: Share, timeout_s: float, note: Callable[[str], object]) -> None:
        self._share, self._note, self._patience = share, note, Patience(timeout_s)

    def look(self, states: Iterable[str]) -> None:
        """Called every now and then.

        Args:
            states: of all trials, by Tune's names.

        Raises:
            JobFailed: trials wait, and none has run for too long.
        """
        found = set(states)
        if "RUNNING" in found or "PENDING" not in found or not self._waits():
            self._patience.begin()
        elif self._patience.over:
            raise JobFailed(self._refusal())
        elif self._patience.tells():
            waited = f"trials have waited {self._patience.waited:.0f} s for {self._asked()}"
            self._note(f"{waited}, held now: {held_text(groups())}")

    def _waits(self) -> bool:
        """Whether the bundles of a trial are waited for; else its process is starting, which may take long."""
        wanted = [dict(each) for each in self._share.bundles]
        return any(group["state"] == "PENDING" and [*group["bundles"].values()] == wanted for group in groups())

    def _refusal(self) -> str:
        cluster = cluster_summary()
        free = shown([{name: cluster.free.get(name, 0.0) for name in ("CPU", "GPU")}])
        return (
            f"no trial found room within {self._patience.timeout_s:g} s: each holds {self._asked()}, free now: {free}; "
            f"others hold: {held_text(groups())} (ask for less in `resources` or `resources_per_trial`, wait until "
            f"others end, or raise `resources.timeout_s`; --resume goes on with the search)"
        )

    def _asked(self) -> str:
        return f"{shown(self._share.bundles)}, {self._share.strategy}"
