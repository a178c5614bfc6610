"""Numbers for Prometheus: what a scraper of a node finds, and what they cost."""

import json
import re
import time
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from raysandbox.core.progress import Progress
from raysandbox.runtime import telemetry
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.telemetry import METRICS, Level, count, exported_name, measured_as, observe
from raysandbox.runtime.unit_workers import JobWorkers

DASHBOARD = Path(__file__).parents[2] / "cluster" / "grafana" / "raysandbox.json"
SCRAPE_S = 90.0  # Ray hands its numbers on every 10 s


@dataclass(frozen=True)
class Job:
    resources: Resources
    runtime_env: dict
    id: str = "anonymous.square#0"


class Square:
    """Squares numbers, and takes a moment for each."""

    def load(self, device):
        pass

    def run(self, unit, state):
        time.sleep(0.05)
        return unit * unit


def scraped(run, until):
    """Samples of a run, {(name, labels in question): value}, once `until` of them holds."""
    import ray

    url = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    end = time.monotonic() + SCRAPE_S
    while True:
        with urllib.request.urlopen(url, timeout=30) as answer:
            lines = [line for line in answer.read().decode().splitlines() if f'run="{run}"' in line]
        found = {}
        for line in lines:
            name, labels, value = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line).groups()
            values = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            key = (name, *(values.get(label, "") for label in ("job", "hook", "operator", "state", "kind", "le")))
            found[key] = float(value)
        if until(found):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.5)


def test_what_a_scraper_finds(cluster, tmp_path):
    run = f"run-{uuid.uuid4().hex[:8]}"
    job = Job(Resources(num_workers=2, num_cpus=0.5, num_gpus=1), {})
    with measured_as(run, job.id, "EvaluateDataHook"):
        workers = JobWorkers(job, tmp_path / "job.log", Progress())
        assert len(list(workers.map(Square(), range(8)))) == 8
        count("rows", 1000)
        count("operator_rows", 900, "text_length_filter")
        count("jobs_ended", label="done")
        count("cache_hits", 3, "statistic")
        Level("queue_length").set(5)
    series = (job.id, "EvaluateDataHook")
    last = (exported_name("cache_hits"), *series, "", "", "statistic", "")
    found = scraped(run, lambda found: last in found)
    assert found[last] == 3
    assert found[exported_name("units_done"), *series, "", "", "", ""] == 8
    assert found[exported_name("unit_seconds") + "_count", *series, "", "", "", ""] == 8
    assert found[exported_name("rows"), *series, "", "", "", ""] == 1000
    assert found[exported_name("operator_rows"), *series, "text_length_filter", "", "", ""] == 900
    assert found[exported_name("jobs_ended"), *series, "", "done", "", ""] == 1
    assert found[exported_name("queue_length"), *series, "", "", "", ""] == 5
    assert found[exported_name("workers"), *series, "", "", "", ""] == 0  # they have ended
    assert 0 < found[exported_name("gpu_wait_seconds"), *series, "", "", "", ""] < SCRAPE_S


def test_levels_add_up(monkeypatch):
    seen = []

    class Gauge:
        def set(self, value, tags):
            seen.append((value, tags["job"]))

    monkeypatch.setattr(telemetry, "is_connected", lambda: True)
    monkeypatch.setitem(telemetry._made, "workers", Gauge())
    with measured_as("r", "job", "Hook"):
        first, second = Level("workers"), Level("workers")
    first.set(2)
    second.set(3)
    second.set(3)
    first.set(0)
    second.set(0)
    assert seen == [(2, "job"), (5, "job"), (3, "job"), (0, "job")]


def test_without_ray_nothing_happens(monkeypatch):
    monkeypatch.setattr(telemetry, "is_connected", lambda: False)
    monkeypatch.setattr(telemetry, "_metric", lambda name: pytest.fail("there is no Ray"))
    count("units_done")
    observe("unit_seconds", 1.0)
    Level("workers").set(1)


def test_a_call_costs_little(cluster):
    """Some tens of microseconds at most, once per unit, which takes thousands of times as long."""
    with measured_as("cost", "job", "Hook"):
        count("units_done")
        start = time.process_time()  # of this process: others may be busy
        for _ in range(10_000):
            count("units_done")
        assert time.process_time() - start < 1.0


def test_the_dashboard_shows_what_exists():
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    texts = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    texts += [item["query"] for item in dashboard["templating"]["list"] if item["type"] == "query"]
    assert len(texts) > 8
    shown = {name for text in texts for name in re.findall(r"ray_raysandbox_\w+", text)}
    endings = {"counter": [""], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
    there = {exported_name(name) + end for name, kind in METRICS.items() for end in endings[kind.form]}
    assert shown <= there
    assert {re.sub("_(bucket|count|sum)$", "", name) for name in shown} == {exported_name(name) for name in METRICS}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
