"""Which errors of Ray say that a worker is gone."""

from __future__ import annotations

from typing import Any

import pytest

from raysandbox.recipe.isolated import died, one_by_one

_ARGUMENTS = {
    "WorkerCrashedError": (),
    "ActorDiedError": (),
    "ActorUnavailableError": ("its node is gone", b"\0" * 16),
    "ObjectLostError": ("00", b"", "f"),
    "NodeDiedError": ("its machine",),
}


@pytest.mark.parametrize("name", _ARGUMENTS)
def test_a_worker_that_is_gone_is_no_error_of_the_unit(name: str) -> None:
    from ray import exceptions

    assert died(getattr(exceptions, name)(*_ARGUMENTS[name]))


def test_what_a_unit_raises_is_its_own() -> None:
    from ray.exceptions import RayTaskError

    assert not died(RayTaskError("f", "trace", ValueError("bad row")))


@pytest.mark.parametrize("how", ["closed", "failed", "interrupted"])
def test_what_is_going_on_is_ended_with_the_rest(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    class Task:
        def options(self, **_: Any) -> Task:
            return self

        def remote(self, unit: int) -> str:
            return f"call {unit}"

    def get(call: str) -> str:
        if call == "call 1" and how != "closed":
            raise ValueError("own") if how == "failed" else KeyboardInterrupt
        return f"block of {call}"

    cancelled: list[tuple[str, bool]] = []
    monkeypatch.setattr(ray, "remote", lambda function: Task())
    monkeypatch.setattr(ray, "wait", lambda calls, timeout: (calls, []))
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "cancel", lambda call, force: cancelled.append((call, force)))
    units: Any = range(6)
    blocks = one_by_one(units, lambda unit: (print, unit), 3, {})
    assert next(blocks) == "block of call 0"
    if how == "closed":
        blocks.close()
        assert cancelled == [("call 1", True), ("call 2", True)]
    else:
        with pytest.raises(ValueError if how == "failed" else KeyboardInterrupt):
            next(blocks)
        assert cancelled == [(f"call {number}", True) for number in (1, 2, 3)]
