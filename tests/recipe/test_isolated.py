"""Which errors of Ray say that a worker is gone."""

from __future__ import annotations

import pytest
from ray import exceptions as ray_errors

from raysandbox.recipe.isolated import died


@pytest.mark.parametrize(
    "error",
    [
        ray_errors.WorkerCrashedError(),
        ray_errors.ActorDiedError(),
        ray_errors.ActorUnavailableError("its node is gone", b"\0" * 16),
        ray_errors.ObjectLostError("00", b"", "f"),
        ray_errors.NodeDiedError("its machine"),
    ],
)
def test_a_worker_that_is_gone_is_no_error_of_the_unit(error: ray_errors.RayError) -> None:
    assert died(error)


def test_what_a_unit_raises_is_its_own() -> None:
    assert not died(ray_errors.RayTaskError("f", "trace", ValueError("bad row")))
