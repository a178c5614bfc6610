"""Lets Data-Juicer 1.6.1 close videos with PyAV 14 and later, where streams have no `close` of their own.

Found by every Python process whose PYTHONPATH starts with this folder, Ray's workers included.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class _Closing(MetaPathFinder):
    """Replaces `close_video` of the module that has it, when that is imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Finds that module as always, and has it changed once it is there."""
        if name != "data_juicer.utils.mm_utils":
            return None
        spec = PathFinder.find_spec(name, path)
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            module.close_video = lambda container: container.close()

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Closing())
