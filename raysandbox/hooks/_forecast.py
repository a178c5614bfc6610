"""What `plan` says of jobs that apply a recipe."""

from __future__ import annotations

from pathlib import Path

from raysandbox.core.errors import UserError
from raysandbox.hooks.base import Job
from raysandbox.recipe.api import known_statistics

__all__ = ["statistics_forecast"]


def statistics_forecast(job: Job, cache_dir: Path, *, analysis: bool, allow_user_code: bool) -> str:
    """How many of the statistics that a job needs the statistics store holds."""
    try:
        known, wanted = known_statistics(
            job.recipe or {}, cache_dir, analysis=analysis, allow_user_code=allow_user_code
        )
    except UserError:
        return ""  # an input is missing: the run says so
    return f"statistics: {known} of {wanted} stored" if wanted else ""
