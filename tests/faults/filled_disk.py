"""Runs a configuration on a disk of 50 MB that something else fills up at some moment, then makes room and goes on.

A program of its own, to be started with a mount namespace (`unshare -m`). The moment is a number of lines in the
journal of the run. It prints one JSON object per moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.faults.full_disk import ROOM, mount, unmount

LIMIT_S = 240.0  # of a run; one that hangs takes longer
_FILLER = "filler"


def results(work: Path) -> dict[str, Any]:
    """What a run is for, without the times that it took."""
    found: dict[str, Any] = {}
    for path in sorted(work.rglob("*")):
        name = str(path.relative_to(work))
        if path.suffix in (".mp4", ".safetensors") and "/." not in f"/{name}":
            found[name] = path.read_bytes().hex()
        elif path.name == "training.json" and not path.is_symlink():
            content = json.loads(path.read_text())
            found[name] = {key: content.get(key) for key in ("losses", "loss", "checkpoint")}
        elif path.name in ("best_config.yaml", "kept.jsonl"):
            found[name] = path.read_text()
    return found


def fill(disk: Path) -> None:
    """Takes all room that is left."""
    for size in (1 << 20, 4096):
        with contextlib.suppress(OSError), (disk / _FILLER).open("ab", buffering=0) as file:
            while file.write(bytes(size)) == size:
                pass


def lines(work: Path) -> int:
    """How far a run is."""
    journals = [work / "journal.jsonl", *work.glob("trials/*/journal.jsonl")]
    with contextlib.suppress(OSError):
        return sum(path.read_bytes().count(b"\n") for path in journals if path.exists())
    return 0


def attempt(config: Path, work: Path, *more: str, moment: int | None = None) -> tuple[int, str]:
    """Runs; fills the disk at a moment. Returns the exit status and all that was printed."""
    log = config.with_name("driver.log")
    with log.open("wb") as output:
        command = [sys.executable, "-m", "raysandbox", "run", str(config), *more]
        driver = subprocess.Popen(command, cwd=config.parent, stdout=output, stderr=output)
    end = time.monotonic() + LIMIT_S
    try:
        while driver.poll() is None and time.monotonic() < end:
            if moment is not None and lines(work) >= moment:
                fill(work)
                moment = None
            time.sleep(0.01)
        status = driver.poll()
    finally:
        driver.kill()
        driver.wait()
    return 99 if status is None else status, log.read_text(errors="replace")


def state(work: Path) -> str | None:
    """What status.json says; None where there is none. One that is damaged raises."""
    path = work / "status.json"
    return json.loads(path.read_text())["state"] if path.exists() else None


def main() -> None:
    config, work, cache, rounds = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    mount(work, ROOM)
    status, text = attempt(config, work)
    assert status == 0, text
    wanted, last = results(work), lines(work)
    chance = random.Random(rounds)
    unmount(work)
    for moment in sorted(chance.sample(range(1, last), rounds)):
        shutil.rmtree(cache, ignore_errors=True)
        mount(work, ROOM)
        status, text = attempt(config, work, moment=moment)
        seen = {"moment": moment, "of": last, "exit": status, "state": state(work), "text": text[-4000:]}
        (work / _FILLER).unlink(missing_ok=True)
        again, text = attempt(config, work, "--resume")
        left = sorted(str(path) for path in work.rglob(".tmp-*"))
        same = not again and results(work) == wanted
        print(json.dumps({**seen, "again": again, "resumed": text[-4000:], "left": left, "same": same}), flush=True)
        unmount(work)


if __name__ == "__main__":
    os.environ["WANDB_MODE"] = "disabled"
    main()
