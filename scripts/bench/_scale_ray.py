"""Of `scale`: what Ray takes for what the driver asks of it, on a local Ray whose GPUs exist in name only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from _scale_parts import Rows

from raysandbox.core.events import read_events
from raysandbox.runtime.claims import Owner, groups
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.places import ElasticPlaces
from raysandbox.runtime.session import ensure_ray, shutdown_ray
from raysandbox.runtime.watcher_actor import start_watcher
from raysandbox.watcher.config import WatchConfig

METRICS, FEW_METRICS = 100_000, 2_000
METRICS_PER_S = 10_000
PER_REPORT = 10
GROUPS, FEW_GROUPS = 1_000, 20
REFERENCES, FEW_REFERENCES = 8_000, 200
WAITS = 20


def measure_ray(folder: Path, rows: Rows) -> None:
    """Metrics through the watcher's actor, placement groups, waiting for many calls."""
    ensure_ray(num_cpus=4, num_gpus=GROUPS)
    try:
        _metrics(folder, rows)
        _placement(rows)
        _waiting(rows)
    finally:
        shutdown_ray()


def _metrics(folder: Path, rows: Rows) -> None:
    amount = FEW_METRICS if rows.small else METRICS
    config = WatchConfig(
        work_dir=folder / "watched", project="scale", experiment="scale", run_id="scale", wandb="disabled"
    )
    client = start_watcher(config, actor=True)
    client.report({"first": 1.0})
    client.flush()
    with rows.timed("metrics through the watcher's actor, synced", amount, "metrics", least_rate=METRICS_PER_S):
        for step in range(amount // PER_REPORT):
            client.report({f"train.metric_{n}": step * 0.5 for n in range(PER_REPORT)}, step, job="bench.train#0")
        assert client.flush(120.0)
    client.finish()
    assert sum(1 for _ in read_events(config.work_dir / "metrics.jsonl")) == amount + 1


def _placement(rows: Rows) -> None:
    import ray

    amount = FEW_GROUPS if rows.small else GROUPS
    places = ElasticPlaces(
        Resources.model_validate({"num_gpus": 1, "num_cpus": 0}), amount, Owner.new("bench", elastic=True)
    )
    with rows.timed("placement groups asked for", amount, "groups"):
        taken = [places.take() for _ in range(amount)]
    with rows.timed("until all of them are held", amount, "groups"):
        ray.wait([place.ready for place in taken], num_returns=amount, timeout=120)
    with rows.timed("the list of all of them", amount, "groups"):
        assert len(groups()) >= amount
    with rows.timed("given back", amount, "groups"):
        places.close()


def _waiting(rows: Rows) -> None:
    import ray

    amount = FEW_REFERENCES if rows.small else REFERENCES

    class Busy:
        def work(self, seconds: float) -> None:
            time.sleep(seconds)

    actor: Any = ray.remote(Busy).options(num_cpus=0).remote()
    calls = [actor.work.remote(120.0) for _ in range(amount)]
    with rows.timed("a look at that many calls, none of which has ended", amount * WAITS, "calls"):
        for _ in range(WAITS):
            ray.wait(calls, num_returns=amount, timeout=0)
    ray.kill(actor)
