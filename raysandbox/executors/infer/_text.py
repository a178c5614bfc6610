"""What all inferences of texts share: rows → messages → answers → rows, one answer or one reason each."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from raysandbox.core.component import Component, InputPaths, OutputPath
from raysandbox.core.errors import BadRowsError, JobFailed, UserError, did_you_mean
from raysandbox.core.keys import digest
from raysandbox.core.registry import Registry
from raysandbox.core.runner import WorkSession
from raysandbox.executors.base import ModelInference
from raysandbox.executors.infer._answers import Answer, AnswerLog, Fault
from raysandbox.executors.infer._rows import BadRow, Row, read_rows, targets, write_quarantine, write_rows
from raysandbox.executors.messages.base import MESSAGE_BUILDERS, Message, MessageBuilder
from raysandbox.executors.parsers.base import OUTPUT_PARSERS, OutputParser

__all__ = ["Request", "TextInference"]

logger = logging.getLogger(__name__)

_SHOWN_BAD_ROWS = 5
_NULLABLE = ("model_params", "sampling_params", "func_kwargs", "api_endpoint", "response_path", "max_retry_num")


@dataclass(frozen=True)
class Request:
    """What a model is asked for a row.

    Attributes:
        messages: the chat.
        name: digest of the messages and of how often they came before; rows with equal messages are asked apart.
    """

    messages: list[Message]
    name: str


class TextInference(ModelInference):
    """Asks a language model about every row of JSON lines."""

    model: str = Field(description="the model's name")
    model_params: dict[str, Any] = Field(default_factory=dict, description="how the model is reached or loaded")
    sampling_params: dict[str, Any] = Field(default_factory=dict, description="how its texts are drawn")
    dataset_path: InputPaths = Field(description="file of JSON lines, or several")
    export_path: OutputPath = Field(description="folder; the rows of NAME.jsonl are written to NAME_inference.jsonl")
    build_messages_func: str = Field("build_messages", description="message builder: how a row becomes messages")
    parse_output_func: str = Field("parse_output", description="output parser: what of the text is kept")
    func_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="parameters of builder and parser: system_key, query_key, response_key, …"
    )
    infer_res_key: str = Field("response", description="key of the answer in the rows that are written")
    max_bad_rows: int | float = Field(
        0,
        ge=0,
        description="rows that may end without an answer, in quarantine: how many, or, below 1, which share",
    )
    api_endpoint: str = Field(
        "/chat/completions",
        description="of type api: URL of the chat completions, or the part after model_params.base_url "
        "(else OPENAI_BASE_URL)",
    )
    response_path: str = Field(
        "choices.0.message.content", description="of type api: where in the server's answer its text is"
    )
    max_retry_num: int = Field(5, ge=0, description="of type api: how often a failed request is sent again")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, raw: Any) -> Any:
        """The original's configurations write null for what stays at its default."""
        if not isinstance(raw, Mapping):
            return raw
        return {key: value for key, value in raw.items() if value is not None or key not in _NULLABLE}

    @field_validator("max_bad_rows")
    @classmethod
    def _number_or_share(cls, value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError("must be a number of rows, or a share below 1")
        return value

    @field_validator("build_messages_func")
    @classmethod
    def _known_builder(cls, value: str) -> str:
        return _known(MESSAGE_BUILDERS, value)

    @field_validator("parse_output_func")
    @classmethod
    def _known_parser(cls, value: str) -> str:
        return _known(OUTPUT_PARSERS, value)

    @field_validator("func_kwargs")
    @classmethod
    def _fitting_kwargs(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        builder, parser = info.data.get("build_messages_func"), info.data.get("parse_output_func")
        if builder and parser:  # else they have a problem of their own
            _functions(builder, parser, value)
        return value

    def infer(self, session: WorkSession) -> list[str]:
        """Answers every row; returns the paths written, in the order of the inputs.

        Reports rows, bad_rows, reused (answers of earlier runs), cut (answers that end at the limit of
        tokens), prompt_tokens, completion_tokens.

        Raises:
            UserError: an input or the model is not there.
            JobFailed: there are no rows, or none has an answer.
            BadRowsError: more rows than `max_bad_rows` have none.
        """
        files = targets(self.dataset_path, self.export_path)
        rows = [row for file in files for row in read_rows(file)]
        if not rows:
            raise JobFailed(f"dataset_path: no rows in {', '.join(map(str, files))}")
        builder, parser = _functions(self.build_messages_func, self.parse_output_func, self.func_kwargs)
        harvest = _Harvest(rows, self.max_bad_rows, session.quarantine / "inference.jsonl.quarantine")
        try:
            requests = self._requests(rows, builder, harvest)
            harvest.check()
            self._gather(requests, parser, harvest, session)
        finally:
            write_quarantine(harvest.quarantine, harvest.bad_rows())
        if not harvest.values:
            raise JobFailed(f"none of {len(rows)} rows has an answer; the reasons are in {harvest.quarantine}")
        session.report(harvest.metrics())
        self._warn_of_replaced(rows)
        for source, target in files.items():
            write_rows(target, self._answered(source, rows, harvest.values))
        return [str(target) for target in files.values()]

    def _identity(self, session: WorkSession) -> Any:
        """What the answers depend on beside the messages, as a JSON-like value."""
        raise NotImplementedError

    def _keys(self, requests: Sequence[Request]) -> list[str]:
        """Names of the requests in the log."""
        return [request.name for request in requests]

    def _ask(
        self, requests: Sequence[Request], missing: Sequence[int], session: WorkSession
    ) -> Generator[tuple[int, Answer | Fault], None, None]:
        """Yields (index, outcome) for at least the missing ones among the requests, in any order."""
        raise NotImplementedError

    def _requests(self, rows: Sequence[Row], builder: MessageBuilder, harvest: _Harvest) -> dict[int, Request]:
        """Requests by the indices of their rows."""
        seen: Counter[str] = Counter()
        requests: dict[int, Request] = {}
        for index, row in enumerate(rows):
            try:
                messages = builder.build(row.data())
                content = digest(messages)
            except UnicodeEncodeError:
                harvest.fault(index, "holds half of a surrogate pair, which is no text")
            except ValueError as error:
                harvest.fault(index, str(error))
            else:
                requests[index] = Request(messages, digest([content, seen[content]]))
                seen[content] += 1
        return requests

    def _gather(
        self, by_row: Mapping[int, Request], parser: OutputParser, harvest: _Harvest, session: WorkSession
    ) -> None:
        """Takes the outcomes that the log holds, then asks for the others."""
        indices, requests = list(by_row), list(by_row.values())
        keys = self._keys(requests)
        with AnswerLog(lambda: self._log_folder(session), read=session.use_cache) as log:
            known = {number: outcome for number, key in enumerate(keys) if (outcome := log.get(key)) is not None}
            missing = [number for number in range(len(requests)) if number not in known]
            for number, outcome in known.items():
                harvest.take(indices[number], outcome, parser)
            harvest.reused = len(known)
            harvest.check()
            if not missing:
                return
            # Closed at once: an error would keep it alive, and it would go on asking.
            with contextlib.closing(self._ask(requests, missing, session)) as outcomes:
                for number, outcome in outcomes:
                    if number in known:
                        continue
                    if isinstance(outcome, Answer) or outcome.lasting:
                        log.add(keys[number], outcome)
                    harvest.take(indices[number], outcome, parser)
                    harvest.check()

    def _log_folder(self, session: WorkSession) -> Path:
        return session.cache_dir / "inference" / f"{self.type_name}-{digest(self._identity(session))[:32]}"

    def _answered(self, source: Path, rows: Sequence[Row], values: Mapping[int, Any]) -> Iterator[dict[str, Any]]:
        for index, row in enumerate(rows):
            if row.file == source and index in values:
                yield {**row.data(), self.infer_res_key: values[index]}

    def _warn_of_replaced(self, rows: Sequence[Row]) -> None:
        key = f'"{self.infer_res_key}"'.encode()
        replaced = next((row for row in rows if key in row.raw and self.infer_res_key in _keys_of(row)), None)
        if replaced is not None:
            logger.warning(
                "%s:%d: the rows already hold '%s', which the answers replace: set infer_res_key to keep both",
                *(replaced.file, replaced.line, self.infer_res_key),
            )


@dataclass
class _Harvest:
    """What came of the rows.

    Attributes:
        rows: all rows.
        budget: how many may be bad, or below 1 which share.
        quarantine: where the bad ones are written.
        values: parsed answers by row.
        bad: bad rows by row.
        reused: outcomes that the log held.
    """

    rows: Sequence[Row]
    budget: float
    quarantine: Path
    values: dict[int, Any] = field(default_factory=dict)
    bad: dict[int, BadRow] = field(default_factory=dict)
    reused: int = 0
    _answers: list[Answer] = field(default_factory=list)

    def fault(self, index: int, reason: str) -> None:
        self.bad[index] = BadRow(self.rows[index], reason)

    def take(self, index: int, outcome: Answer | Fault, parser: OutputParser) -> None:
        if isinstance(outcome, Fault):
            self.fault(index, outcome.reason)
            return
        self._answers.append(outcome)
        try:
            self.values[index] = parser.parse(outcome.text)
        except ValueError as error:
            self.fault(index, str(error))

    def bad_rows(self) -> list[BadRow]:
        """In the order of the rows."""
        return [self.bad[index] for index in sorted(self.bad)]

    def check(self) -> None:
        """Raises BadRowsError when more rows are bad than may be."""
        bad: float = len(self.bad) / len(self.rows) if 0 < self.budget < 1 else len(self.bad)
        if bad > self.budget:
            shown = "".join(f"\n  {row}" for row in self.bad_rows()[:_SHOWN_BAD_ROWS])
            raise BadRowsError(
                f"{len(self.bad)} rows without an answer so far, max_bad_rows allows {self.budget}:{shown}\n"
                f"(mend the rows, or set max_bad_rows; all that were met are in {self.quarantine})"
            )

    def metrics(self) -> dict[str, float]:
        """Counts, and the tokens where every answer tells them."""
        cut = sum(answer.cut for answer in self._answers)
        if cut:
            logger.warning("%d of %d answers end where sampling_params allow no more tokens", cut, len(self._answers))
        found = {"rows": len(self.rows), "bad_rows": len(self.bad), "reused": self.reused, "cut": cut}
        for name in ("prompt_tokens", "completion_tokens"):
            counts = [getattr(answer, name) for answer in self._answers]
            untold = counts.count(None)
            if untold:
                logger.warning("%s is not reported: %d of %d answers do not tell it", name, untold, len(counts))
            else:
                found[name] = sum(counts)
        return {name: float(value) for name, value in found.items()}


def _keys_of(row: Row) -> Mapping[str, Any]:
    try:
        return row.data()
    except ValueError:
        return {}


def _known(registry: Registry, name: str) -> str:
    if name not in registry:
        raise ValueError(registry.unknown(name))
    return name


def _functions(builder: str, parser: str, kwargs: Mapping[str, Any]) -> tuple[MessageBuilder, OutputParser]:
    """Builder and parser with those of the parameters that each has.

    Raises:
        ValueError: neither has a parameter of that name, or a value is not what it takes.
    """
    classes: list[type[Component]] = [MESSAGE_BUILDERS.get(builder), OUTPUT_PARSERS.get(parser)]
    known = {name for cls in classes for name in cls.model_fields}
    for name in kwargs:
        if name not in known:
            hint = did_you_mean(name, known) or f"known: {', '.join(sorted(known))}"
            raise ValueError(f"neither {builder} nor {parser} has a parameter '{name}'; {hint}")
    try:
        made: list[Any] = [cls(**{k: v for k, v in kwargs.items() if k in cls.model_fields}) for cls in classes]
    except ValidationError as error:
        detail = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}") from error
    except UserError as error:
        raise ValueError(str(error)) from error
    return made[0], made[1]
