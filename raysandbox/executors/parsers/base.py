"""Output parsers: what of a model's text becomes the row's value, chosen by `parse_output_func`."""

from __future__ import annotations

from typing import Any, ClassVar

from raysandbox.core.component import Component
from raysandbox.core.registry import Registry

__all__ = ["OUTPUT_PARSERS", "OutputParser"]

OUTPUT_PARSERS = Registry("output parser", ["raysandbox.executors.parsers"])


class OutputParser(Component):
    """Reads a model's text; its fields are what `func_kwargs` may set."""

    registry: ClassVar[Registry] = OUTPUT_PARSERS

    def parse(self, text: str) -> Any:
        """The row's new value, of any type that JSON has.

        Raises:
            ValueError: the text is not what was asked for: the row becomes a bad row with this reason.
        """
        raise NotImplementedError
