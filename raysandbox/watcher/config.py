"""What the watcher of a run needs to know."""

from __future__ import annotations

import netrc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["WandbMode", "WatchConfig", "has_wandb_key"]

WandbMode = Literal["auto", "online", "offline", "disabled"]
_WANDB_HOST = "api.wandb.ai"


@dataclass(frozen=True)
class WatchConfig:
    """Names and places of one watched run; picklable.

    Attributes:
        run_id: stable over restarts and resumes; wandb's run has the same.
        project: wandb's project.
        experiment: name of the run in wandb.
        work_dir: holds `metrics.jsonl`, `metrics.wandb.json` and `wandb/`.
        group: wandb's group, e.g. the search that the run is a trial of.
        wandb: how metrics go to wandb; "auto" is settled by `resolve_wandb`.
    """

    run_id: str
    project: str
    experiment: str
    work_dir: Path
    group: str | None = None
    wandb: WandbMode = "auto"

    def resolve_wandb(self) -> Literal["online", "offline", "disabled"]:
        """The mode meant by "auto" on this machine: WANDB_MODE, else online with credentials, else disabled."""
        if self.wandb != "auto":
            return self.wandb
        asked = os.environ.get("WANDB_MODE", "").lower()
        if asked in ("online", "run", "shared"):
            return "online"
        if asked in ("offline", "dryrun"):
            return "offline"
        return "online" if not asked and has_wandb_key() else "disabled"


def has_wandb_key() -> bool:
    """Whether an API key of wandb is known: in the environment, or in the file of passwords."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(_WANDB_HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False
