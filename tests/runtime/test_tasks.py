import time

import pytest

from raysandbox.runtime.tasks import call_on, task


def where() -> str:
    import ray

    return ray.get_runtime_context().get_node_id()


@pytest.mark.usefixtures("cluster")
def test_calls_run_where_they_are_sent_and_leave_one_copy_of_the_function() -> None:
    import ray
    from ray.experimental.internal_kv import _internal_kv_list

    here = ray.get_runtime_context().get_node_id()
    assert ray.get(call_on(here, where), timeout=60) == here
    before = len(_internal_kv_list(b"RemoteFunction", namespace=b"fun"))
    ray.get([call_on(here, where) for _ in range(10)], timeout=60)
    assert len(_internal_kv_list(b"RemoteFunction", namespace=b"fun")) == before > 0


@pytest.mark.usefixtures("cluster")
def test_a_node_that_is_not_there_is_an_error() -> None:
    import ray
    from ray.exceptions import RayError

    call, end = call_on("0" * 56, where), time.monotonic() + 60
    with pytest.raises(RayError):
        ray.get(call, timeout=60)
    assert time.monotonic() < end


def test_a_task_is_made_once() -> None:
    assert task(where) is task(where)
