"""Results of videos by content: what was scored once is not scored again."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysandbox.core.disk import dispensable
from raysandbox.core.files import atomic_write
from raysandbox.core.keys import digest

__all__ = ["ResultCache"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResultCache:
    """One small file per result, named by its key.

    Attributes:
        folder: where they are.
        read: whether results of earlier evaluations may be read.
    """

    folder: Path
    read: bool = True

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The result under a key; None when there is none, or its file is damaged."""
        path = self._path(key)
        if not self.read or not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["key"] == key and content["digest"] == digest(content["result"]):
                return content["result"]
        except (OSError, ValueError, TypeError, KeyError):
            pass  # damaged: named below
        logger.warning("%s is damaged: the video is scored again", path)
        return None

    def put(self, key: str, result: Mapping[str, Any]) -> None:
        """Keeps a result, a JSON-like mapping, if the disk takes it."""
        content = {"key": key, "digest": digest(result), "result": result}
        with dispensable("the cache of VBench's results", self._path(key)):
            atomic_write(self._path(key), json.dumps(content))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
