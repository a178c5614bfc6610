"""Validators of a recipe: what every row of the data set must hold, checked while it is read.

Names, parameters and rules are Data-Juicer's. It looks at the first rows of a data set and fails;
here every row is looked at, a row that does not comply is a bad row, and `max_bad_rows` says how
many of them the job puts up with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from raysandbox.core.errors import JobFailed, did_you_mean

__all__ = ["VALIDATORS", "Validator", "check_missing", "validator_of"]

# An integer is a fraction too: JSON writes 1.0 as 1 as often as not.
_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "string": (str,),
    "int": (int,),
    "integer": (int,),
    "float": (float, int),
    "bool": (bool,),
    "boolean": (bool,),
    "list": (list,),
    "dict": (dict,),
    "tuple": (tuple,),
    "set": (set,),
    "bytes": (bytes,),
}
_ROLES = ("system", "user", "assistant")


class Validator(BaseModel):
    """What rows must hold.

    Class attributes:
        no_meaning_here: fields of Data-Juicer that are accepted and have no effect here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    no_meaning_here: ClassVar[tuple[str, ...]] = ("sample_size",)

    sample_size: int | None = Field(None, description="rows that Data-Juicer looks at; here it is all of them")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it looks at."""
        raise NotImplementedError

    def fault(self, row: Mapping[str, Any]) -> str | None:
        """What is wrong with a row, None if nothing is."""
        raise NotImplementedError

    def missing(self, row: Mapping[str, Any]) -> Sequence[str]:
        """Columns whose value the row lacks and of which a share of the rows may lack it."""
        return ()


class RequiredFields(Validator):
    """Columns that every row must have, and the types of their values."""

    required_fields: list[str] = Field(description="columns that must hold a value")
    field_types: dict[str, str] = Field(default_factory=dict, description="of these columns, the type of the values")
    allow_missing: float = Field(0.0, ge=0, le=1, description="share of all rows that may lack a value of a column")

    @field_validator("field_types")
    @classmethod
    def _known_types(cls, value: dict[str, str]) -> dict[str, str]:
        for column, name in value.items():
            if name.lower() not in _TYPES:
                hint = did_you_mean(name.lower(), _TYPES) or f"known: {', '.join(_TYPES)}"
                raise ValueError(f"unknown type '{name}' of '{column}'; {hint}")
        return value

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it looks at."""
        return tuple(self.required_fields)

    def fault(self, row: Mapping[str, Any]) -> str | None:
        """What is wrong with a row, None if nothing is."""
        for name in self.required_fields:
            value = row.get(name)
            if value is None:
                if self.allow_missing == 0:
                    return f"'{name}' is null" if name in row else f"no '{name}'"
            elif name in self.field_types and not isinstance(value, _TYPES[self.field_types[name].lower()]):
                return f"'{name}' is of type {type(value).__name__}, not {self.field_types[name]}"
        return None

    def missing(self, row: Mapping[str, Any]) -> Sequence[str]:
        """Columns whose value the row lacks and of which a share of the rows may lack it."""
        return [name for name in self.required_fields if row.get(name) is None]


class _Conversations(Validator):
    min_turns: int = Field(1, description="least number of turns")
    max_turns: int = Field(100, description="largest number of turns")

    @model_validator(mode="after")
    def _ordered(self) -> _Conversations:
        if self.min_turns > self.max_turns:
            raise ValueError(f"min_turns ({self.min_turns}) is above max_turns ({self.max_turns}): no row would do")
        return self

    def _turns_fault(self, turns: int) -> str | None:
        if self.min_turns <= turns <= self.max_turns:
            return None
        return f"{turns} turns, not {self.min_turns} to {self.max_turns}"


class SwiftMessages(_Conversations):
    """Conversations as a list `messages` of {role, content}."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it looks at."""
        return ("messages",)

    def fault(self, row: Mapping[str, Any]) -> str | None:
        """What is wrong with a row, None if nothing is."""
        messages = row.get("messages")
        if messages is None:
            return "no 'messages'"
        if not isinstance(messages, list):
            return "'messages' is not a list"
        faults = (_message_fault(index, message) for index, message in enumerate(messages))
        return self._turns_fault(len(messages)) or next(filter(None, faults), None)


def _message_fault(index: int, message: Any) -> str | None:
    if not isinstance(message, dict):
        return f"message {index} is not an object"
    if message.get("role") not in _ROLES:
        return f"message {index} has the role {message.get('role')!r}, not one of {', '.join(_ROLES)}"
    return f"message {index} has no 'content'" if message.get("content") is None else None


class DataJuicerConversation(_Conversations):
    """Conversations in Data-Juicer's own form: instruction, query, response, and a history of pairs."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it looks at."""
        return ("system", "instruction", "query", "response", "history")

    def fault(self, row: Mapping[str, Any]) -> str | None:
        """What is wrong with a row, None if nothing is."""
        if not isinstance(row.get("system", ""), str | None):
            return "'system' is not a string"
        for name in ("instruction", "query", "response"):
            if not isinstance(row.get(name), str):
                return f"'{name}' is not a string" if row.get(name) is not None else f"no '{name}'"
        history = row.get("history")
        if history is None:
            return None
        if not isinstance(history, list):
            return "'history' is not a list"
        faults = (
            f"turn {index} of the history is no [query, response]"
            for index, turn in enumerate(history)
            if not _is_pair(turn)
        )
        return self._turns_fault(len(history) + 1) or next(faults, None)


def _is_pair(turn: Any) -> bool:
    return isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)


class Code(Validator):
    """Accepted for Data-Juicer's sake: it checks nothing there either."""

    no_meaning_here: ClassVar[tuple[str, ...]] = ("sample_size", "supported_languages")

    supported_languages: list[str] = Field(default_factory=list, description="has no effect")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it looks at."""
        return ()

    def fault(self, row: Mapping[str, Any]) -> str | None:
        """What is wrong with a row, None if nothing is."""
        return None


VALIDATORS: Mapping[str, type[Validator]] = {
    "required_fields": RequiredFields,
    "swift_messages": SwiftMessages,
    "dj_conversation": DataJuicerConversation,
    "code": Code,
}


def validator_of(raw: Mapping[str, Any]) -> Validator:
    """The validator of one entry of `validators`."""
    parameters = {key: value for key, value in raw.items() if key != "type"}
    return VALIDATORS[raw["type"]].model_validate(parameters)


def check_missing(validators: Sequence[Validator], missing: Mapping[str, int], rows: int) -> None:
    """Judges the shares of rows that lack a value, once all rows are read.

    Args:
        validators: the recipe's.
        missing: number of rows that lack each column.
        rows: number of rows read.

    Raises:
        JobFailed: more rows lack a column than `allow_missing` says.
    """
    for validator in validators:
        if isinstance(validator, RequiredFields) and validator.allow_missing:
            for name in validator.required_fields:
                if missing.get(name, 0) > validator.allow_missing * rows:
                    share = f"{missing[name]} of {rows} rows have no '{name}' ({missing[name] / rows:.1%})"
                    raise JobFailed(f"validators: {share}; allow_missing allows {validator.allow_missing:.1%}")
