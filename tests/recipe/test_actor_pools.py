"""Operators with a model on Ray: workers of their own, each with its GPU, and clusters that are too small."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from raysandbox.core.errors import UserError
from raysandbox.ops.base import OpResources
from raysandbox.recipe.actor_pool import Pool, pool_for
from raysandbox.recipe.api import process
from raysandbox.recipe.parts import InMemory, Unit, UnitReport
from raysandbox.recipe.ray_data import RayDataEngine
from raysandbox.runtime.session import Cluster, Node
from tests.ops import tiny_models

GB = 1 << 30


def cluster_of(*nodes):
    resources = [{"CPU": cpus, "GPU": gpus, "memory": gigabytes * GB} for cpus, gpus, gigabytes in nodes]
    return Cluster(tuple(Node(f"node {number}", each) for number, each in enumerate(resources)), {})


@pytest.mark.parametrize(
    ("asked", "nodes", "pool"),
    [
        ([OpResources(1, None, GB)], [(8, 0, 32)], Pool(7, 1, 0, GB)),
        ([OpResources(1, None, GB)], [(8, 2, 32)], Pool(2, 1, 1, GB)),
        ([OpResources(1, None, GB)], [(8, 2, 32), (8, 0, 32), (4, 1, 32)], Pool(3, 1, 1, GB)),
        ([OpResources(1, None, GB)] * 3, [(8, 0, 7)], Pool(2, 1, 0, 3 * GB)),
        ([OpResources(1, 0.25), OpResources(2, 0.25)], [(32, 1, 8)], Pool(2, 2, 0.5, 0)),
        ([OpResources(1, 1), OpResources(1, None)], [(32, 4, 8)], Pool(4, 1, 1, 0)),
        ([OpResources(1, 2), OpResources(1, 0.5)], [(32, 4, 8)], Pool(2, 1, 2, 0)),
        ([OpResources(1, 0, 0, 3), OpResources(1, 0, 0, 5)], [(32, 4, 8)], Pool(3, 1, 0, 0)),
        ([OpResources(1, 0)], [(1, 0, 8)], Pool(1, 0.5, 0, 0)),
        ([OpResources(1, 0, 0, 2)], [(2, 0, 8)], Pool(1, 1, 0, 0)),
        ([OpResources(2, 0)], [(2, 0, 8)], Pool(1, 1, 0, 0)),
        ([OpResources(0, 0.5)], [(1, 1, 8)], Pool(2, 0, 0.5, 0)),
        ([OpResources(1, 0)], [(200, 0, 8)], Pool(50, 1, 0, 0)),
    ],
)
def test_pool(asked, nodes, pool):
    assert pool_for(asked, cluster_of(*nodes), most=50) == pool


def test_a_pool_leaves_a_cpu_and_says_so():
    two = [OpResources(1, 0, 0, 2)]
    pool = pool_for(two, cluster_of((2, 0, 8)), most=50)
    assert pool.note == (
        "operators with a model get 1 worker of 1 CPU, not 2 of 1: "
        "of the cluster's 2 CPUs others hold 0, and one is left free"
    )
    assert not pool_for(two, cluster_of((3, 0, 8)), most=50).note
    assert pool_for(two, cluster_of((8, 0, 8)), most=50, held_cpus=6) == Pool(1, 1, 0, 0)
    assert pool_for([OpResources(1, 0)], cluster_of((8, 0, 8)), most=50, held_cpus=3) == Pool(4, 1, 0, 0)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (OpResources(1, 1), "1 worker with 1 CPU, 1 GPU and 0.0 GB of memory each, the cluster holds 0"),
        (OpResources(8, 0), "the cluster holds 0"),
        (OpResources(1, 0, 10 * GB), r"1 CPU, 0 GPU and 10.0 GB of memory each, the cluster holds 0 \(its nodes have"),
        (OpResources(1, 0, GB, 9), "9 workers with .* the cluster holds 6 .*lower the operators' num_proc"),
    ],
)
def test_too_small_a_cluster_is_refused(asked, message):
    with pytest.raises(UserError, match=message):
        pool_for([asked], cluster_of((4, 0, 8), (2, 0, 4)), most=50)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return tiny_models.image_classifier(tmp_path_factory.mktemp("model"))


@pytest.fixture
def source(tmp_path):
    from PIL import Image

    lines = []
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels // (1 + number % 5)).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"id": number, "text": "x", "images": [f"{number}.png"] * (number % 3)}))
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    return tmp_path / "in.jsonl"


def run(source, target, engine, step):
    recipe = {
        "dataset_path": str(source),
        "export_path": str(target),
        "keep_stats_in_res_ds": True,
        "process": [{"image_nsfw_filter": step}],
    }
    result = process(recipe, engine=engine, cache=False, block_bytes=300)
    return result, [json.loads(line) for line in target.read_text().splitlines()]


@pytest.mark.usefixtures("cluster")
def test_same_rows_as_in_process(tmp_path, source, classifier):
    step = {"hf_nsfw_model": classifier, "max_score": 0.8, "memory": "100MB", "num_gpus": 0.5}
    local, rows = run(source, tmp_path / "local.jsonl", "local", step)
    on_ray, ray_rows = run(source, tmp_path / "ray.jsonl", "ray", step)
    assert 0 < local.rows_out == on_ray.rows_out < local.rows_in == 24
    for row, ray_row in zip(rows, ray_rows, strict=True):
        stats = [each.pop("__dj__stats__")["image_nsfw_score"] for each in (row, ray_row)]
        np.testing.assert_allclose(*stats, atol=1e-5)
        assert row == ray_row


@dataclass(frozen=True)
class NoteDevice:
    """Stands in for a recipe with a model: each unit says where it ran."""

    staging: Path
    resources: tuple[OpResources, ...]

    def run(self, unit):
        time.sleep(0.3)  # long enough for both workers to get some
        part = self.staging / f"{unit.index}.part"
        part.write_text(f"{os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']}")
        return UnitReport(unit.index, [], [], parts=[part])


@pytest.mark.usefixtures("cluster")
def test_each_worker_has_a_gpu_of_its_own_and_stays(tmp_path):
    work = NoteDevice(tmp_path, (OpResources(1, None), OpResources(1, 0.5)))
    reports = list(RayDataEngine().run(work, [Unit(number, InMemory([])) for number in range(12)]))
    places = {report.parts[0].read_text() for report in reports}
    assert sorted(place.split()[1] for place in places) == ["0", "1"]
    assert len({place.split()[0] for place in places}) == 2


@pytest.mark.usefixtures("cluster")
def test_a_model_that_cannot_be_had_is_one_message(tmp_path, source):
    with pytest.raises(UserError, match=r"^image_nsfw_filter: hf_nsfw_model: there is no folder /no/model"):
        run(source, tmp_path / "out.jsonl", "ray", {"hf_nsfw_model": "/no/model", "memory": "100MB"})


@pytest.mark.usefixtures("cluster")
def test_a_cluster_that_is_too_small_is_said_before_any_work(tmp_path, source, classifier):
    with pytest.raises(UserError, match="the cluster holds 2"):
        run(source, tmp_path / "out.jsonl", "ray", {"hf_nsfw_model": classifier, "num_gpus": 1, "num_proc": 3})
