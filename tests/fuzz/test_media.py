"""Mutated images and videos: every row is processed or quarantined, and the run ends in bounded time and memory.

The long form, which prints what it counted:

    pytest -m slow -s tests/fuzz/test_media.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import media, seeds
from tests.fuzz.test_configs import processes_with

IMAGES, VIDEOS = range(250), range(250)
# A FIFO, a list of itself, other strange ones, and mutations.
FEW = {"image": [0, 4, 9, 12, 16, 17, *range(24, 36)], "video": [4, 9, 11, *range(24, 32)]}
MOST_MB = 4096
DROPPING = {"image_deduplicator", "video_deduplicator"}


def judged(
    kind: str, folder: Path, recipes: str, numbers: list[int], timeout_s: float, limit_s: float
) -> dict[str, Any]:
    """What the driver says, of which all rows are accounted for."""
    mark = uuid.uuid4().hex
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz.media_driver",
            kind,
            str(folder),
            str(timeout_s),
            recipes,
            *map(str, numbers),
        ],
        cwd=seeds.ROOT,
        env={**os.environ, "FUZZ_MARK": mark},
        capture_output=True,
        text=True,
        errors="replace",  # libraries quote bytes of the files
        timeout=limit_s,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert not processes_with(mark)
    found = json.loads(ended.stdout.splitlines()[-1])
    for recipe in found["recipes"]:
        if DROPPING.isdisjoint(recipe["steps"]):
            assert {*recipe["kept"], *recipe["set_aside"]} == {*numbers}, recipe
        if "video_split_by_duration_mapper" not in recipe["steps"]:  # of one row come two there
            assert not {*recipe["kept"]} & {*recipe["set_aside"]}, recipe
        assert recipe["kept"], recipe
        assert recipe["set_aside"], recipe
        mistakes = [reason for reason in recipe["reasons"] if reason.startswith("ends the decoder: status")]
        assert not mistakes, ended.stderr[-3000:]
    assert max(found["own_mb"], found["decoder_mb"]) < MOST_MB
    return found


@pytest.mark.parametrize(("kind", "recipes"), [("image", "0"), ("video", "0,4")])
def test_damaged_and_strange_files_are_processed_or_set_aside(tmp_path: Path, kind: str, recipes: str) -> None:
    judged(kind, tmp_path, recipes, FEW[kind], timeout_s=1.0, limit_s=280)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("kind", "numbers"), [("image", IMAGES), ("video", VIDEOS)])
def test_five_hundred_files(tmp_path: Path, kind: str, numbers: range) -> None:
    found = judged(kind, tmp_path, "all", list(numbers), timeout_s=5.0, limit_s=3000)
    print(f"\n{len(numbers)} files of {kind}s, {len(media.STRANGE)} of them strange:")
    for recipe in found["recipes"]:
        kept, bad, seconds = len(recipe["kept"]), len(recipe["set_aside"]), recipe["seconds"]
        print(f"  {', '.join(recipe['steps'])}: {kept} processed, {bad} quarantined, {seconds} s")
        print(f"    {Counter(recipe['reasons']).most_common(8)}")
    print(f"  at most {found['own_mb']} MB, decoders {found['decoder_mb']} MB")
