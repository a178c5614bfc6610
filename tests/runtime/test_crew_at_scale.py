"""Thousands of workers: what the crew's parts ask of Ray does not grow with the square of their number."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from raysandbox.runtime import places as places_module
from raysandbox.runtime.claims import Owner
from raysandbox.runtime.pace import Pace
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.places import ElasticPlaces


class Group:
    """A placement group whose bundle is held at once."""

    def __init__(self, number: int) -> None:
        self.id = SimpleNamespace(hex=lambda: f"{number:x}")

    def ready(self) -> Any:
        return object()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of Ray, by name."""
    import ray.util

    found: list[str] = []
    numbers = iter(range(10_000))

    def listed() -> list[dict[str, Any]]:
        found.append("list")
        return [{"placement_group_id": f"{n:x}", "state": "CREATED"} for n in range(100)]

    def one(group: Group) -> dict[str, Any]:
        found.append("one")
        return {"state": "PENDING"}

    monkeypatch.setattr(places_module, "ask_for", lambda *_: Group(next(numbers)))
    monkeypatch.setattr(places_module, "groups", listed)
    monkeypatch.setattr(ray.util, "placement_group_table", one)
    monkeypatch.setattr(ray.util, "remove_placement_group", lambda group: found.append("removed"))
    return found


def test_numbers_of_workers_are_the_lowest_free_ones(asked: list[str]) -> None:
    places = ElasticPlaces(Resources(), None, Owner.new("job", elastic=True))
    taken = [places.take() for _ in range(5)]
    for number in (3, 1):
        places.give_back(taken[number])
    assert [places.take().number for _ in range(3)] == [1, 3, 5]
    places.close()
    assert asked == ["removed"] * 8


def test_places_are_looked_up_together(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One list for all that stand; what is not in it is asked for by itself, since it may be newer."""
    monkeypatch.setattr(places_module, "_LIST_S", 600.0)
    places = ElasticPlaces(Resources(), None, Owner.new("job", elastic=True))
    places._listed = -600.0 + time.monotonic() - 1
    taken = [places.take() for _ in range(101)]
    assert [places.stands(place) for place in taken] == [True] * 100 + [False]
    assert asked == ["list", "one"]


def test_the_usual_time_is_found_once_between_two_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    import statistics

    pace, medians = Pace(), []
    median = statistics.median
    monkeypatch.setattr(statistics, "median", lambda took: medians.append(1) or median(took))
    for seconds in (6.0, 8.0, 10.0):
        pace.ended("unit", seconds)
    assert [pace.slow("unit", 100.0) for _ in range(1000)] == ["has taken 100 s so far, others took 8 s"] * 1000
    assert len(medians) == 1
    pace.ended("unit", 30.0)
    assert pace.slow("unit", 100.0) == "has taken 100 s so far, others took 9 s"
    assert pace.slow("unit", 59.0) == ""
