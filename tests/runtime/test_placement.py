import time

import pytest
from pydantic import ValidationError

from raysandbox.core.errors import JobFailed
from raysandbox.runtime.placement import (
    Resources,
    bundle,
    gpus_in_reach,
    held_workers,
    holding,
    most_workers,
    placement_group_for,
    resources_problem,
)
from raysandbox.runtime.places import places_for
from raysandbox.runtime.session import Cluster, Node

TWO_NODES = Cluster(
    (
        Node("a", {"CPU": 8, "GPU": 1, "accelerator_type:A100": 1}, {"zone": "x"}),
        Node("b", {"CPU": 4, "GPU": 2}, {"zone": "y"}),
    ),
    {},
)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"num_cpus": 8}, None),
        ({"num_cpus": 9}, "a worker needs 9 CPU on one node, the largest node has 8"),
        ({"num_gpus": 2, "num_cpus": 8}, "no single node has all of 8 CPU, 2 GPU"),
        ({"num_gpus": 1, "num_workers": 3}, None),
        ({"num_gpus": 1, "num_workers": 4}, "4 workers are asked for, the cluster holds 3"),
        ({"num_gpus": 0.5, "num_workers": 6, "num_cpus": 0}, None),
        ({"num_gpus": 1, "num_workers": 3, "strategy": "STRICT_PACK"}, "the best node holds 2"),
        ({"num_gpus": 1, "num_workers": 3, "strategy": "STRICT_SPREAD"}, "there are 2"),
        ({"num_gpus": 1, "accelerator_type": "A100"}, None),
        ({"num_gpus": 1, "accelerator_type": "H100"}, "no node has a GPU of type H100"),
        ({"num_gpus": 2, "label_selector": {"zone": "x"}}, "the largest node has 1"),
        ({"label_selector": {"zone": "!in(x, y)"}}, "no node has the labels"),
        ({"label_selector": {"zone": "!x"}, "num_gpus": 2}, None),
    ],
)
def test_what_a_cluster_cannot_hold(asked, problem):
    found = resources_problem(Resources(**asked), TWO_NODES)
    assert found is None if problem is None else problem in found


@pytest.mark.parametrize(
    ("asked", "workers"),
    [
        ({"num_gpus": 1}, 3),
        ({"num_gpus": 0.5}, 6),
        ({"num_gpus": 1, "num_cpus": 3}, 2),
        ({"num_gpus": 1, "label_selector": {"zone": "y"}}, 2),
        ({"num_gpus": 3}, 0),
    ],
)
def test_how_many_workers_a_cluster_holds(asked, workers):
    assert most_workers(Resources(**asked), TWO_NODES) == workers


def test_bundle():
    assert bundle(Resources(num_gpus=0.5, accelerator_type="H100")) == {
        "CPU": 1,
        "GPU": 0.5,
        "accelerator_type:H100": 0.001,
    }


@pytest.mark.parametrize("wrong", [{"num_cpus": 0}, {"num_gpus": 1.5}, {"gpus": 1}, {"num_workers": 0}])
def test_wrong_resources(wrong):
    with pytest.raises(ValidationError):
        Resources(**wrong)


def test_what_a_local_ray_lacks_fails_at_once(cluster):
    start = time.monotonic()
    with pytest.raises(JobFailed) as caught, placement_group_for(Resources(num_gpus=4)):
        pass
    assert time.monotonic() - start < 1
    message = str(caught.value)
    for part in ("1 × (1 CPU, 4 GPU)", "largest node has 2", "has 3 CPU, 2 GPU on 1 node", "free now: 3 CPU, 2 GPU"):
        assert part in message


def test_what_others_hold_is_waited_for(cluster):
    busy = pytest.raises(JobFailed, match=r"other work holds.*free now: 2 CPU, 0 GPU")
    with placement_group_for(Resources(num_gpus=2)), busy, placement_group_for(Resources(num_gpus=1), timeout_s=1):
        pass
    with placement_group_for(Resources(num_gpus=2, label_selector={"ray.io/node-id": "!in(x)"}), timeout_s=20):
        pass


def test_jobs_work_in_the_bundles_that_their_trial_holds(cluster):
    import ray.util

    group = ray.util.placement_group([{"CPU": 1, "GPU": 1}, {"CPU": 0.5}])
    try:
        assert group.wait(30)
        with holding(group):
            assert gpus_in_reach() == 1
            assert held_workers(Resources(num_cpus=0.5)) == 2
            assert held_workers(Resources(num_gpus=1)) == 1
            assert held_workers(Resources(num_cpus=2)) == 0
            with placement_group_for(Resources(num_cpus=0.5, num_workers=2)) as held:
                assert held is group
            with (
                pytest.raises(
                    JobFailed, match=r"1 × \(2 CPU\) do not fit.*\(1 CPU, 1 GPU\), \(0.5 CPU\).*resources_per"
                ),
                placement_group_for(Resources(num_cpus=2)),
            ):
                pass
            with places_for(Resources(num_cpus=0.5), elastic=True, number=None) as places:
                assert not places.elastic
                assert places.wanted() == 2
        assert held_workers(Resources()) is None
        assert ray.util.placement_group_table(group)["state"] == "CREATED"  # the trial's, not the job's to remove
    finally:
        ray.util.remove_placement_group(group)
