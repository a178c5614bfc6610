"""What a component gets, in this process."""

import pickle
from pathlib import Path
from types import SimpleNamespace

from raysandbox.recipe.scoring import DatasetScorers


class InProcess:
    """`core.runner.Workers` with one worker, the last unit first; counts units."""

    def __init__(self):
        self.units = 0

    def map(self, work, units, *, description="", python=None, elastic=False):
        work = pickle.loads(pickle.dumps(work))
        state = work.load("cpu") if units else None
        for index, unit in reversed(list(enumerate(units))):
            self.units += 1
            yield index, work.run(pickle.loads(pickle.dumps(unit)), state)


def session(cache: Path, workers=None, use_cache=True):
    """A session that keeps what is reported."""
    reported = []
    return SimpleNamespace(
        scorers=DatasetScorers(),
        workers=workers or InProcess(),
        report=lambda metrics, step=None: reported.append((dict(metrics), step)),
        cache_dir=cache,
        use_cache=use_cache,
        reported=reported,
    )
