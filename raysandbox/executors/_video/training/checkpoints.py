"""What a training leaves: checkpoints, the states to go on from, and a marker at the end.

In `output_dir`: `checkpoint-{step}.safetensors` (the LoRA), `training.json` once it has finished, and the
hidden folder `.state` with the weights and moments of the optimizer after the last checkpoints. A state
is written before its checkpoint, each by rename, so that a checkpoint can always be gone on from.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysandbox.core.errors import JobFailed
from raysandbox.core.files import atomic_path, atomic_write, read_object, remove
from raysandbox.executors._video.models.lora_formats import some
from raysandbox.executors.train._staging import MARKER

if TYPE_CHECKING:
    import torch

__all__ = ["FINISHED", "Checkpoints", "Progressed", "checkpoint_name"]

logger = logging.getLogger(__name__)

FINISHED = -1
_STATES = ".state"
_OWN = "own.json"  # names the training that the folder belongs to, and its files


def checkpoint_name(step: int) -> str:
    """The file of a checkpoint, named as the original's."""
    return f"checkpoint-{step}.safetensors"


@dataclass
class Progressed:
    """How far a training is.

    Attributes:
        step: steps that are done.
        losses: of each of them.
        validation: held-out losses, by step.
        seconds: spent on them.
        extra: numbers of the optimizer that are no tensors.
        timesteps: shares of noise of the last held-out loss.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    validation: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    extra: dict[str, float] = field(default_factory=dict)
    timesteps: int = 0


@dataclass(frozen=True)
class Checkpoints:
    """The folder of one training.

    Attributes:
        folder: `output_dir`.
        key: names everything that the weights depend on.
        keep_last: how many states stay.
        execution: where nothing may be reused that an earlier execution of the job left, the name of this one;
            None where it may.
    """

    folder: Path
    key: str
    keep_last: int
    execution: str | None = None

    def open(self) -> int:
        """Takes the folder over; what another training left goes, with a warning, and files of others stay.

        Returns:
            the step to go on from, 0 for a training from the beginning, or `FINISHED`.
        """
        marker, own = self.finished(), self._own()
        files = sorted({*own["files"], *marker["files"]})
        strange = own.get("key", marker.get("key")) != self.key
        if strange or (self.execution is not None and own.get("execution") != self.execution):
            standing = [name for name in files if (self.folder / name).exists()]
            if standing:
                what = "another training" if strange else "an earlier run of this training, and caches are not read"
                logger.warning("%s: of %s; it is removed: %s", self.folder, what, some(standing))
            self._clear([*files, _STATES, MARKER])
            self._claim([])
            return 0
        self._drop_damaged(files, {**marker["digests"], **own["digests"]})
        if marker.get("key") == self.key and all((self.folder / name).exists() for name in marker["files"]):
            return FINISHED
        (self.folder / MARKER).unlink(missing_ok=True)
        return self._newest_whole()

    def finished(self) -> dict[str, Any]:
        """What the marker says of a training that has finished; no files without one, or where it is damaged."""
        return _with_files(self.folder / MARKER)

    def can_go_on_from(self, step: int) -> bool:
        """Whether the state after a step is here."""
        return self._state(step).is_file()

    def write(self, state: Mapping[str, torch.Tensor], progress: Progressed) -> None:
        """Writes the state of the optimizer after a step; those before the last ones go."""
        import torch
        from safetensors.torch import save

        notes = {"step": progress.step, "validation": progress.validation, "seconds": progress.seconds}
        notes |= {"timesteps": progress.timesteps}
        about = {"key": self.key, "notes": json.dumps({**notes, "extra": progress.extra})}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        tensors["losses"] = torch.tensor(progress.losses, dtype=torch.float64)
        self.own(checkpoint_name(progress.step))
        with atomic_path(self._state(progress.step)) as temporary:
            temporary.write_bytes(save(tensors, about))

    def forget(self) -> None:
        """Removes the states before the last ones; to be called once a new checkpoint stands."""
        self._sign()
        passing = self.in_passing()
        for step in passing:
            self._state(step).unlink(missing_ok=True)
            (self.folder / checkpoint_name(step)).unlink(missing_ok=True)
        if passing:
            gone = {checkpoint_name(step) for step in passing}
            own = self._own()
            digests = {name: value for name, value in own["digests"].items() if name not in gone}
            self._claim([name for name in own["files"] if name not in gone], digests=digests)
        for step in self._steps()[: -self.keep_last]:
            self._state(step).unlink()

    def in_passing(self) -> list[int]:
        """Steps with a checkpoint that nobody asked for, written since a node had to be left."""
        return self._own()["in_passing"]

    def pass_by(self, step: int) -> None:
        """Notes that the checkpoint of a step, not written yet, is not to stay."""
        own = self._own()
        self._claim(own["files"], [*own["in_passing"], step], own["digests"])

    def read(self, step: int) -> tuple[dict[str, torch.Tensor], Progressed]:
        """The state after a step: tensors of the optimizer, and how far the training was.

        Raises:
            JobFailed: it is not here, although the first worker wrote it.
        """
        from safetensors import safe_open

        if not self._state(step).is_file():
            raise JobFailed(
                f"output_dir: {self._state(step)} is not on this node: `output_dir` must be a folder that all nodes "
                f"share"
            )
        with safe_open(self._state(step), "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            notes = json.loads(file.metadata()["notes"])
        losses = tensors.pop("losses").tolist()
        validation = {int(number): loss for number, loss in notes["validation"].items()}
        return tensors, Progressed(step, losses, validation, notes["seconds"], notes["extra"], notes["timesteps"])

    def own(self, name: str) -> None:
        """Notes a file or folder as the training's, before it is written."""
        own = self._own()
        if name not in own["files"]:
            self._claim([*own["files"], name], own["in_passing"], own["digests"])

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Writes the marker: the training is complete."""
        own = self._own()
        files = [name for name in own["files"] if (self.folder / name).exists()]
        digests = {name: value for name, value in own["digests"].items() if name in files}
        content = {"key": self.key, **summary, "files": files, "digests": digests}
        atomic_write(self.folder / MARKER, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def _own(self) -> dict[str, Any]:
        """What is noted of the folder: whose it is, its files with their digests, and what of them is not to stay."""
        return _with_files(self.folder / _STATES / _OWN)

    def _claim(
        self, files: list[str], in_passing: Sequence[int] = (), digests: Mapping[str, str] | None = None
    ) -> None:
        own = {"key": self.key, "execution": self.execution, "files": files, "digests": digests or {}}
        if in_passing:
            own["in_passing"] = list(in_passing)
        atomic_write(self.folder / _STATES / _OWN, json.dumps(own))

    def _sign(self) -> None:
        """Notes the digests of checkpoints that stand."""
        own = self._own()
        new = [name for name in own["files"] if _is_checkpoint(name) and name not in own["digests"]]
        found = {name: _sha256(self.folder / name) for name in new if (self.folder / name).is_file()}
        self._claim(own["files"], own["in_passing"], {**own["digests"], **found})

    def _drop_damaged(self, names: Collection[str], digests: Mapping[str, str]) -> None:
        """Removes checkpoints that are not what was written, by name: nobody is to take one for good."""
        for name in sorted(filter(_is_checkpoint, names)):
            path = self.folder / name
            if name in digests and path.is_file() and _sha256(path) != digests[name]:
                logger.warning("%s has changed since it was written: it is removed", path)
                path.unlink()

    def _clear(self, names: list[str]) -> None:
        for name in names:
            path = self.folder / name
            if path.exists() and path.resolve().is_relative_to(self.folder.resolve()):
                remove(path)

    def _newest_whole(self) -> int:
        """The last step whose state and checkpoint are whole; what is damaged is named and removed."""
        for step in reversed(self._steps()):
            damage = self._damage(self._state(step)) or self._damage(self.folder / checkpoint_name(step), of_us=False)
            if not damage:
                return step
            logger.warning("the checkpoint after step %d is passed over: %s", step, damage)
            self._state(step).unlink()
            (self.folder / checkpoint_name(step)).unlink(missing_ok=True)
        return 0

    def _damage(self, path: Path, *, of_us: bool = True) -> str:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
        except (OSError, SafetensorError) as error:
            return f"{path} cannot be read: {error}"
        return f"{path} is of another training" if of_us and about.get("key") != self.key else ""

    def _state(self, step: int) -> Path:
        return self.folder / _STATES / checkpoint_name(step)

    def _steps(self) -> list[int]:
        files = (self.folder / _STATES).glob("checkpoint-*.safetensors")
        return sorted(int(file.stem.removeprefix("checkpoint-")) for file in files)


def _with_files(path: Path) -> dict[str, Any]:
    """The notes in a file, which may be of another version or damaged; lists and digests are there in any case."""
    empty: dict[str, Any] = {"files": [], "in_passing": [], "digests": {}}
    found = {**empty, **read_object(path)}
    return found if all(isinstance(found[name], type(value)) for name, value in empty.items()) else empty


def _is_checkpoint(name: str) -> bool:
    return name.startswith("checkpoint-")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
