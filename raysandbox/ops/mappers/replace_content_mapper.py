"""Replaces what regular expressions match."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, model_validator

from raysandbox.core.registry import register
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.patterns import Pattern, compile_pattern, substitute

__all__ = ["ReplaceContentMapper"]


@register("replace_content_mapper")
class ReplaceContentMapper(Mapper):
    """Replaces the matches of one or several regular expressions, one after the other."""

    example: ClassVar[Mapping[str, Any]] = {"pattern": ["●+", r"\d{4}"], "repl": ["*", "year"]}

    pattern: Pattern | list[Pattern] = Field(None, description="regular expressions; none by default")
    repl: str | list[str] = Field(
        "", description="what to put in place of their matches: one text for all, or one for each pattern"
    )

    @model_validator(mode="after")
    def _enough_texts(self) -> ReplaceContentMapper:
        if isinstance(self.repl, list) and len(self.repl) < len(self._patterns()):
            raise ValueError(f"repl has {len(self.repl)} texts for {len(self._patterns())} patterns; give one for each")
        return self

    def _patterns(self) -> list[str]:
        patterns = self.pattern if isinstance(self.pattern, list) else [self.pattern]
        return [pattern for pattern in patterns if pattern is not None]

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch with the matches replaced."""
        for index, pattern in enumerate(self._patterns()):
            repl = self.repl[index] if isinstance(self.repl, list) else self.repl
            batch = substitute(batch, compile_pattern(pattern), repl)
        return batch
