"""Files that run code when they are read as pickles: the code only makes a mark."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path


class Trap:
    """Its pickle makes a file wherever it is loaded.

    Args:
        mark: the file.
    """

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def plain(target: Path, mark: Path) -> Path:
    """A bare pickle."""
    target.write_bytes(pickle.dumps({"weight": Trap(mark)}, protocol=2))  # torch warns at others
    return target


def as_torch(target: Path, mark: Path) -> Path:
    """A pickle in the archive that `torch.save` writes."""
    import torch

    torch.save({"weight": Trap(mark)}, target)
    return target


def as_old_torch(target: Path, mark: Path) -> Path:
    """A pickle as `torch.save` wrote it before it wrote archives."""
    import torch

    torch.save({"weight": Trap(mark)}, target, _use_new_zipfile_serialization=False)
    return target


def as_npz(target: Path, mark: Path) -> Path:
    """An archive of NumPy with an array of objects."""
    import numpy as np

    with target.open("wb") as file:
        np.savez(file, features=np.array([Trap(mark)], dtype=object))
    return target


def as_torchscript(target: Path, mark: Path) -> Path:
    """An archive that looks like TorchScript's, whose data are the pickle."""
    content = pickle.dumps(Trap(mark), protocol=2)
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in (("data.pkl", content), ("constants.pkl", content), ("version", b"3\n")):
            archive.writestr(f"model/{name}", data)
    return target


WEIGHTS = (plain, as_torch, as_old_torch)


def springs(trap: Path) -> bool:
    """Whether a trap would work: it is read as its victim would read it."""
    mark = trap.with_name("sprung")
    trap.write_bytes(pickle.dumps(Trap(mark)))
    pickle.loads(trap.read_bytes()).close()
    return mark.exists()
