"""Every file that a run leaves, damaged in every way."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from raysandbox.core.errors import SandboxError

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "garbage": lambda content: random.Random(len(content)).randbytes(max(len(content), 40)),
    "other shape": lambda content: b'{"a": [1, 2], "key": {}, "jobs": 3, "files": 7}\n',
    "a list": lambda content: b"[1, 2]\n",
}
_SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in DAMAGES if name != "half"]
some_damages = pytest.mark.parametrize("damage", ["half", *_SLOW])


class Snapshot:
    """What a run left in a folder, to be damaged and put back."""

    def __init__(self, live: Path) -> None:
        self.live = live
        self._kept = live.with_name(f"{live.name}-kept")
        shutil.copytree(live, self._kept, symlinks=True)

    def restore(self) -> None:
        """Puts the remembered state back."""
        shutil.rmtree(self.live)
        shutil.copytree(self._kept, self.live, symlinks=True)

    def files(self) -> list[Path]:
        """Everything that the run left."""
        found = (self.live / path.relative_to(self._kept) for path in self._kept.rglob("*") if path.is_file())
        return sorted(path for path in found if path.name != ".lock")

    def damaged(self, damage: str, wanted: Callable[[Path], bool] = lambda path: True) -> Iterator[Path]:
        """Damages each file in turn, and nothing else."""
        for path in self.files():
            if wanted(path):
                self.restore()
                path.write_bytes(DAMAGES[damage](path.read_bytes()))
                yield path


def problems_with(
    path: Path, name: str, acts: Mapping[str, Callable[[], object]], same: Callable[[], bool] | None = None
) -> list[str]:
    """What is wrong with what is done after a file was damaged: it may be refused by its name.

    Args:
        path: the damaged file.
        name: for messages.
        acts: what to do, one after the other.
        same: whether the results after an act are those of an undamaged run.
    """
    problems: list[str] = []
    for what, act in acts.items():
        try:
            act()
        except SandboxError as error:
            if str(path if path.parent.name != ".records" else path.parent) not in str(error):
                problems.append(f"{name}: {what}: refused without its name: {error}")
        except Exception as error:  # noqa: BLE001  # each is a finding
            problems.append(f"{name}: {what}: {type(error).__name__}: {error}")
        else:
            if same is not None and not same():
                problems.append(f"{name}: {what}: other results")
    return problems
