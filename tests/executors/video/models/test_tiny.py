"""The tiny EasyAnimate: whole, small, the same each time."""

from __future__ import annotations

import re
import runpy
import stat
import sys
from pathlib import Path

import pytest

from raysandbox.executors._video.models.layout import missing_weights_of, read_layout
from raysandbox.executors._video.models.tiny import byte_symbols, make_tiny_easyanimate

ROOT = Path(__file__).parents[4]


def test_equal_seeds_give_equal_bytes_of_less_than_a_megabyte(tiny_easyanimate: Path, tmp_path: Path) -> None:
    again = make_tiny_easyanimate(tmp_path / "again")
    other = make_tiny_easyanimate(tmp_path / "other", seed=1)
    files = sorted(str(file.relative_to(again)) for file in again.rglob("*") if file.is_file())

    assert sum((again / file).stat().st_size for file in files) < 1_000_000
    assert all((again / file).read_bytes() == (tiny_easyanimate / file).read_bytes() for file in files)
    differing = [file for file in files if (again / file).read_bytes() != (other / file).read_bytes()]
    assert [file.split("/")[0] for file in differing] == ["text_encoder", "transformer", "vae"]


def test_it_is_a_whole_model_that_others_may_read(tiny_easyanimate: Path) -> None:
    assert read_layout(tiny_easyanimate).pipeline == "EasyAnimatePipeline"
    assert missing_weights_of(str(tiny_easyanimate)) is None
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tiny_easyanimate.rglob("*") if file.is_file()}
    assert len(modes) == 1


def test_every_byte_has_a_symbol() -> None:
    symbols = byte_symbols()

    assert sorted(symbols.values()) == list(range(256))
    assert symbols["a"] == ord("a")
    assert symbols["Ġ"] == ord(" ")


def test_the_script_says_how_large_the_model_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["make_tiny_video_model", "--out", str(tmp_path / "model"), "--seed", "3"])
    runpy.run_path(str(ROOT / "scripts" / "make_tiny_video_model"), run_name="__main__")

    assert re.fullmatch(rf"{tmp_path / 'model'}: 0\.\d\d MB in \d+\.\d s\n", capsys.readouterr().out)
    assert (tmp_path / "model" / "model_index.json").exists()
