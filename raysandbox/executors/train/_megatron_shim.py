"""Makes ModelScope's plain GPT-3 class importable without Megatron.

`modelscope.models.nlp.gpt3` imports `megatron_util` for its distributed class even where only the
plain one is used. The name stands for an unrelated empty package on PyPI, and the real one is not
distributed there. So the import, and nothing else, sees stand-ins.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from raysandbox.core.errors import MissingExtraError

__all__ = ["import_plain_gpt3"]

_STAND_INS = (
    "megatron_util",
    "megatron_util.global_vars",
    "megatron_util.model",
    "megatron_util.model.fused_softmax",
)


class _Missing:
    """Stands for any name of `megatron_util`; attributes are found, a call is an error."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> _Missing:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Missing(f"{self._name}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"{self._name} belongs to Megatron, which is not installed")


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> _Missing:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Missing(f"{self.__name__}.{name}")


def import_plain_gpt3() -> None:
    """Imports ModelScope's GPT-3 module, so that later imports of it find it loaded.

    Raises:
        MissingExtraError: modelscope or one of its own needs is not installed.
    """
    try:
        with _megatron_stand_ins():
            importlib.import_module("modelscope.models.nlp.gpt3.text_generation")
    except (ImportError, RuntimeError) as error:  # ModelScope's lazy modules turn the one into the other
        raise MissingExtraError("modelscope", "modelscope", "ModelScope's GPT-3") from error


@contextmanager
def _megatron_stand_ins() -> Iterator[None]:
    """While the block runs, `megatron_util` is made of stand-ins; an installed one comes back after."""
    before = {name: sys.modules.get(name) for name in _STAND_INS}
    sys.modules.update({name: _StandIn(name) for name in _STAND_INS})
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
