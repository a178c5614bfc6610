import pytest

from raysandbox.runtime import polling
from raysandbox.runtime.polling import Patience


def test_a_wait_is_told_once_a_minute_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(polling.time, "monotonic", lambda: now)
    patience = Patience(150)
    told = []
    while not patience.over:
        now += 10
        if patience.tells():
            told.append(patience.waited)
    assert told == [60, 120]
    assert patience.waited == 160
    patience.begin()
    assert (patience.waited, patience.over, patience.tells()) == (0, False, False)
