"""The same recipe in this process and on Ray: the same bytes."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from raysandbox.core.errors import BadRowsError, UserError
from raysandbox.core.progress import Progress
from raysandbox.recipe.api import analyze, process
from raysandbox.recipe.parts import InMemory, Unit, UnitReport
from raysandbox.recipe.ray_data import RayDataEngine

STEPS = [
    "whitespace_normalization_mapper",
    {"text_length_filter": {"min_len": 5}},
    "document_deduplicator",
    {"random_selector": {"select_ratio": 0.8}},
    {"words_num_filter": {"min_num": 2}},
]


pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def source(tmp_path):
    generator = random.Random(0)
    words = ["wórd", "data", "文字", "ray ", "\u3000x", "12", ""]
    lines = []
    for number in range(400):
        text = " ".join(generator.choices(words, k=generator.randrange(12)))
        extra = generator.choice([{"x": 1}, {"x": 1.5}, {"x": "y"}, {"m": {"a": [number]}}, {}])
        lines.append(json.dumps({"id": number, "text": text, **extra}))
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(lines))
    return path


def run(source, target, engine, **keys):
    block_bytes = keys.pop("block_bytes", None)
    recipe = {"dataset_path": str(source), "export_path": str(target), "process": STEPS, **keys}
    return process(recipe, engine=engine, cache=False, block_bytes=block_bytes)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "jsonl.zst"])
def test_same_bytes_as_in_process(tmp_path, source, suffix):
    local = run(source, tmp_path / f"local.{suffix}", "local", keep_stats_in_res_ds=True)
    on_ray = run(source, tmp_path / f"ray.{suffix}", "ray", keep_stats_in_res_ds=True, block_bytes=3000)
    assert (local.engine, on_ray.engine) == ("local", "ray")
    assert 0 < local.rows_out < local.rows_in
    assert (tmp_path / f"local.{suffix}").read_bytes() == (tmp_path / f"ray.{suffix}").read_bytes()
    assert [(op.name, op.rows_in, op.rows_out) for op in local.ops] == [
        (op.name, op.rows_in, op.rows_out) for op in on_ray.ops
    ]
    assert local.stats["text_len"].count == on_ray.stats["text_len"].count


def test_bad_rows_are_the_same(tmp_path, source):
    lines = source.read_bytes().splitlines()
    lines[7], lines[300] = b'{"text": "broken', b'{"id": 3}'
    source.write_bytes(b"\n".join(lines))
    for engine, block_bytes in (("local", None), ("ray", 2000)):
        result = run(source, tmp_path / f"{engine}.jsonl", engine, max_bad_rows=2, block_bytes=block_bytes)
        assert result.quarantined == 2
        with pytest.raises(BadRowsError, match=r"in\.jsonl:8: broken JSON"):
            run(source, tmp_path / "none.jsonl", engine, block_bytes=block_bytes)
    records = [(tmp_path / f"{engine}.jsonl.quarantine").read_text() for engine in ("local", "ray")]
    assert records[0] == records[1]
    assert (tmp_path / "local.jsonl").read_bytes() == (tmp_path / "ray.jsonl").read_bytes()


def test_analysis_is_the_same(tmp_path, source):
    recipe = {"dataset_path": str(source), "process": STEPS}
    local = analyze(recipe, out_dir=tmp_path / "local", engine="local")
    on_ray = analyze(recipe, out_dir=tmp_path / "ray", engine="ray")
    assert local.rows == on_ray.rows == 400
    assert local.analysis.numeric == on_ray.analysis.numeric
    assert (tmp_path / "local/dataset_stats.jsonl").read_bytes() == (tmp_path / "ray/dataset_stats.jsonl").read_bytes()


@dataclass(frozen=True)
class LeaveFile:
    """Stands in for a recipe: each unit leaves a file of its own; the last one may fail."""

    staging: Path
    refuse: int = -1
    resources: tuple = ()

    def run(self, unit):
        if unit.index == self.refuse:
            raise UserError(f"unit {unit.index} is not wanted")
        part = self.staging / f"{unit.index}.part"
        part.write_text(str(unit.index))
        return UnitReport(unit.index, [], [], parts=[part])


def test_reports_and_files_come_in_order_and_errors_as_they_were_raised(tmp_path):
    units = [Unit(number, InMemory([])) for number in range(20)]
    reports = list(RayDataEngine(most=3).run(LeaveFile(tmp_path), units))
    assert [report.parts for report in reports] == [[tmp_path / f"{number}.part"] for number in range(20)]
    assert [(tmp_path / f"{number}.part").read_text() for number in range(20)] == [str(n) for n in range(20)]
    with pytest.raises(UserError, match="unit 2 is not wanted"):
        list(RayDataEngine().run(LeaveFile(tmp_path, refuse=2), units[:3]))
    assert list(RayDataEngine().run(LeaveFile(tmp_path), [])) == []


def test_progress_reaches_its_total(tmp_path, source):
    class Recorded(Progress):
        total = done = 0.0

        def begin(self, description, total=None, unit="rows"):
            self.total += total

        def advance(self, amount):
            self.done += amount

    seen = Recorded()
    recipe = {"dataset_path": str(source), "export_path": str(tmp_path / "out.jsonl"), "process": STEPS}
    process(recipe, engine="ray", cache=False, progress=seen)
    assert seen.done == seen.total > 0
