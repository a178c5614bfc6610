"""Runs operators over mutated files in a process of its own, whose memory and time are then known.

`python -m tests.fuzz.media_driver image|video FOLDER SECONDS RECIPES NUMBER…`: seconds that a file may take, the
indices of the recipes (0,2,4 or all), and which files.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from raysandbox import process
from tests.fuzz import media

ALL = {"min_ratio": 0, "max_ratio": 1e12}
# Recipes whose filters keep every row that can be judged, and deduplicators, which drop some.
RECIPES: dict[str, tuple[list[dict[str, Any]], ...]] = {
    "image": (
        [
            {"image_size_filter": {"min_size": 0, "max_size": "9GB"}},
            {"image_shape_filter": {"max_width": 10**9}},
            {"image_aspect_ratio_filter": ALL},
        ],
        [{"image_deduplicator": {"method": "phash"}}],
    ),
    "video": (
        [
            {"video_duration_filter": {"min_duration": -(10**18), "max_duration": 10**18}},
            {"video_resolution_filter": {"min_width": 0, "min_height": 0}},
            {"video_aspect_ratio_filter": ALL},
            {"video_motion_score_filter": {"min_score": -2}},
        ],
        [{"video_deduplicator": {}}],
        [{"video_extract_frames_mapper": {"frame_sampling_method": "all_frames", "output_format": "bytes"}}],
        [
            {
                "video_extract_frames_mapper": {
                    "frame_sampling_method": "uniform",
                    "duration": 1,
                    "output_format": "bytes",
                }
            }
        ],
        [
            {"video_split_by_duration_mapper": {"split_duration": 0.5}},
            {"video_resize_resolution_mapper": {"max_width": 32}},
        ],
        [
            {"audio_size_filter": {"min_size": 0, "max_size": "9GB"}},
            {"audio_duration_filter": {"min_duration": 0, "max_duration": 10**9}},
        ],
    ),
}


def main(kind: str, folder: Path, timeout_s: float, chosen: str, numbers: list[int]) -> None:
    """Prints a JSON object: what became of the rows in each recipe and why, seconds, MB of this process, decoders."""
    sources = folder / "sources"
    sources.mkdir()
    made = media.pictures(sources) if kind == "image" else [media.clip(sources / f"clip{end}") for end in media.CLIPS]
    files = media.mutants(folder / "files", made, numbers)
    lines = [
        json.dumps({"id": number, "text": f"<__dj__{kind}> words", f"{kind}s": [str(path)], "audios": [str(path)]})
        for number, path in zip(numbers, files, strict=True)
    ]
    (folder / "rows.jsonl").write_text("".join(line + "\n" for line in lines))
    indices = range(len(RECIPES[kind])) if chosen == "all" else [int(index) for index in chosen.split(",")]
    found = [_run(folder, index, RECIPES[kind][index], timeout_s) for index in indices]
    usage = [resource.getrusage(who).ru_maxrss // 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"recipes": found, "own_mb": usage[0], "decoder_mb": usage[1]}))


def _run(folder: Path, index: int, steps: list[dict[str, Any]], timeout_s: float) -> dict[str, Any]:
    recipe = {
        "dataset_path": str(folder / "rows.jsonl"),
        "export_path": str(folder / f"out-{index}" / "rows.jsonl"),
        "skip_op_error": True,
        "row_timeout_s": timeout_s,
        "engine": "local",
        "process": steps,
    }
    began = time.monotonic()
    result = process(recipe, cache=False)
    seconds = time.monotonic() - began
    bad = [json.loads(line) for line in Path(result.quarantine).read_text().splitlines()] if result.quarantine else []
    kept = [json.loads(line)["id"] for line in Path(recipe["export_path"]).read_text().splitlines()]
    return {
        "steps": [name for step in steps for name in step],
        "kept": sorted(set(kept)),
        "set_aside": sorted(json.loads(row["raw"])["id"] for row in bad),
        "reasons": Counter(row["reason"].partition(": ")[2] for row in bad),
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4], [int(number) for number in sys.argv[5:]])
