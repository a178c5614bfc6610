"""When a call is said to take long."""

from raysandbox.runtime.pace import Pace


def test_what_is_slow_is_slow_beside_others():
    pace = Pace()
    assert pace.slow("load", 599) == ""
    assert pace.slow("load", 601) == "has taken 601 s so far, none has ended yet"
    for seconds in (20, 30, 500):
        pace.ended("unit", seconds)
    assert pace.slow("unit", 299) == ""
    assert pace.slow("unit", 301) == "has taken 301 s so far, others took 30 s"
    assert pace.slow("load", 301) == ""


def test_short_calls_may_take_a_minute():
    pace = Pace()
    pace.ended("unit", 0.1)
    assert pace.slow("unit", 59) == ""
    assert pace.slow("unit", 61) == "has taken 61 s so far, others took 0.1 s"
