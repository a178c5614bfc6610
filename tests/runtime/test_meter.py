"""What workers do, added up over time."""

import pytest

from raysandbox.runtime import meter
from raysandbox.runtime.meter import Meter


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the meter sees; a list of one."""
    now = [100.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: now[0])
    return now


def test_shares_are_of_the_time_since_the_last_report(clock):
    seen = []
    counts = Meter(seen.append)
    counts.joined()
    clock[0] += 4
    counts.joined()
    counts.did(3.0, None)
    counts.tick([])  # too early
    clock[0] += 2
    counts.did(1.0, 40.0)
    counts.did(0.5, 60.0)
    counts.tick([104.5])  # a unit of 1.5 s so far
    assert seen == [{"workers": 2.0, "busy_share": pytest.approx((3 + 1.5 + 1.5) / 8), "gpu_utilization": 50.0}]
    clock[0] += 6
    counts.did(7.5, None)  # the unit that was being done
    counts.left()
    counts.tick([], last=True)
    assert seen[1:] == [{"workers": 1.0, "busy_share": pytest.approx(6 / 12)}]


def test_without_workers_there_is_no_share(clock):
    seen = []
    Meter(seen.append).tick([], last=True)
    Meter(None).tick([], last=True)
    assert seen == [{"workers": 0.0}]
