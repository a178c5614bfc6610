"""Ray Tune alone with a trial like the trivial one of `hpo`: ten rows, those that are long enough are written.

    python _tune_alone.py FOLDER TRIALS CONCURRENT

Prints a list of the times at which trials ended, in seconds.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import ray  # noqa: TID253  # runs on its own
from ray import tune  # noqa: TID253


class Ends(tune.Callback):
    """Notes when trials end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """One ended."""
        self.times.append(time.time())


def trial(config: dict[str, Any]) -> None:
    """Filters the rows."""
    with open(config["data"], encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    kept = [row for row in rows if len(row["text"]) >= config["min_len"]]
    with open("kept.jsonl", "w", encoding="utf-8") as output:
        output.writelines(json.dumps(row) + "\n" for row in kept)
    tune.report({"rows_out": len(kept)})


def main() -> None:
    """Runs the search."""
    folder, trials, concurrent = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    logging.disable(logging.WARNING)
    ray.init("local", num_cpus=max(2, concurrent), include_dashboard=False, logging_level="ERROR")
    ends = Ends()
    tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space={"data": str(folder / "ten.jsonl"), "min_len": tune.grid_search(list(range(1, trials + 1)))},
        tune_config=tune.TuneConfig(max_concurrent_trials=concurrent),
        run_config=tune.RunConfig(name="alone", storage_path=str(folder / "alone"), callbacks=[ends], verbose=0),
    ).fit()
    print(json.dumps(ends.times))


if __name__ == "__main__":
    main()
