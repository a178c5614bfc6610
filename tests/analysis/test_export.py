import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raysandbox.analysis.export import load, save
from raysandbox.analysis.summary import summarise


@pytest.fixture(scope="module")
def analysis():
    rng = np.random.default_rng(0)
    return summarise(
        pa.table(
            {
                "text_len": np.rint(np.exp(rng.normal(6, 1.5, 300))).astype(int) + 1,
                "flagged_ratio": np.where(rng.random(300) < 0.97, 0.0, rng.random(300)),
                "a/b $x$": np.ones(300),
                "empty": pa.nulls(300),
                "lang": rng.choice(["en", "$\\frac", "a very long value of a statistic"], 300),
            }
        )
    )


@pytest.fixture(scope="module")
def saved(analysis, tmp_path_factory):
    folder = tmp_path_factory.mktemp("analysis") / "made on the way"
    return folder, save(analysis, folder)


def test_every_file_is_named_and_nothing_else_is_left(saved):
    folder, paths = saved
    assert sorted(paths) == sorted(folder.iterdir())
    assert {path.name for path in paths} == {
        "analysis.json",
        "overall.csv",
        "overall.md",
        "correlation.csv",
        "text_len.png",
        "flagged_ratio.png",
        "a_b_x_.png",
        "lang.png",
        "overview.png",
        "correlation.png",
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths if path.suffix == ".png")


def test_loads_what_was_saved(saved, analysis):
    assert load(saved[0]) == analysis


def test_overall_csv_has_a_column_per_statistic(saved, analysis):
    with (saved[0] / "overall.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    values = {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}
    assert header[1:] == ["text_len", "flagged_ratio", "a/b $x$", "empty", "lang"]
    assert float(values["mean"]["text_len"]) == analysis.numeric["text_len"].mean
    assert float(values["50%"]["text_len"]) == analysis.numeric["text_len"].percentiles[1]
    assert values["mean"]["lang"] == values["mean"]["empty"] == ""
    assert values["unique"]["lang"] == "3"


def test_overall_markdown_is_a_table(saved):
    text = (saved[0] / "overall.md").read_text()
    assert text.startswith("# Statistics of 300 rows\n")
    assert "| text_len " in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.count(" | ") for line in lines[:6]}) == 1


def test_correlation_csv_holds_both_kinds(saved):
    with (saved[0] / "correlation.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["method", "statistic", "text_len", "flagged_ratio", "a/b $x$", "empty"]
    assert [row[0] for row in rows[1:]] == ["pearson"] * 4 + ["spearman"] * 4
    assert rows[1][2] == "1.0"


def test_nothing_to_draw(tmp_path: Path):
    paths = save(summarise(pa.table({"empty": pa.nulls(2)})), tmp_path)
    assert [path.name for path in paths] == ["analysis.json", "overall.csv", "overall.md", "correlation.csv"]
