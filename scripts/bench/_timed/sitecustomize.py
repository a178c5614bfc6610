"""Notes the CPU seconds that operators, evaluators, trainers and the rest of the engine take.

Found by every Python process whose PYTHONPATH starts with this folder, Ray's workers included. Each process
appends to a file of its own in the folder that RAYSANDBOX_BENCH_TIMES names: one line per outermost call, with
the CPU seconds of its process by kind. A call's time is that of its kind, less what calls inside it take.
"""

import functools
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# Module → (what is called, kind). Finding what earlier runs left counts as the work that it replaces.
CALLS = {
    "raysandbox.recipe.fused": [("FusedOps.run", "operators")],
    "raysandbox.recipe.recall": [("Recall.replay", "operators"), ("Recall.missing", "operators")],
    "raysandbox.recipe.score_work": [("ScoreWork._scores", "evaluators"), ("ScoreWork.run", "rest")],
    "raysandbox.recipe.score_lines": [("scored_lines", "evaluators")],
    "raysandbox.recipe.units": [("Work.run", "rest")],
    "raysandbox.recipe.processing": [("process", "rest")],
    "raysandbox.recipe.scoring": [("DatasetScorers.score", "rest")],
    "raysandbox.executors.train.modelscope": [("ModelscopeTrainer.train", "training")],
}
_local = threading.local()


def _timed(call: Callable[..., Any], kind: str) -> Callable[..., Any]:
    @functools.wraps(call)
    def run(*args: Any, **kwargs: Any) -> Any:
        stack = _local.__dict__.setdefault("stack", [])  # of each call, the seconds of the calls in it
        seconds = _local.__dict__.setdefault("seconds", Counter())
        stack.append(0.0)
        started = time.process_time()
        try:
            return call(*args, **kwargs)
        finally:
            took = time.process_time() - started
            seconds[kind] += took - stack.pop()
            if stack:
                stack[-1] += took
            else:
                _write(seconds)
                seconds.clear()

    return run


def _write(seconds: Counter[str]) -> None:
    with open(os.path.join(os.environ["RAYSANDBOX_BENCH_TIMES"], f"{os.getpid()}.jsonl"), "a") as file:
        file.write(json.dumps(seconds) + "\n")


class _Timing(MetaPathFinder):
    """Replaces the calls of a module when it is imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Finds the module as always, and has it changed once it is there."""
        if name not in CALLS:
            return None
        spec = PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            for called, kind in CALLS[name]:
                owner, _, attribute = called.rpartition(".")
                place = getattr(module, owner) if owner else module
                setattr(place, attribute, _timed(getattr(place, attribute), kind))

        spec.loader.exec_module = exec_module
        return spec


if "RAYSANDBOX_BENCH_TIMES" in os.environ:
    sys.meta_path.insert(0, _Timing())
