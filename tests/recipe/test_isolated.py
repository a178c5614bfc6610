"""Which errors of Ray say that a worker is gone."""

from __future__ import annotations

import pytest

from raysandbox.recipe.isolated import died

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
