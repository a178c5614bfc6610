"""Inference by a model in the job's workers, some rows at once."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from raysandbox.core.component import ModelPath
from raysandbox.core.errors import UserError
from raysandbox.core.keys import DigestMemo, code_version, digest
from raysandbox.core.names import pinned
from raysandbox.core.runner import UnitWork, WorkSession
from raysandbox.executors.infer._answers import Answer, Fault
from raysandbox.executors.infer._prompts import Prompt
from raysandbox.executors.infer._text import Request, TextInference
from raysandbox.ops.pretrained import hub_commit, missing_weights_of, warn_unpinned

__all__ = ["ChunkInference"]

logger = logging.getLogger(__name__)

_FOR_SERVERS = ("api_endpoint", "response_path", "max_retry_num")


class ChunkInference(TextInference):
    """Loads a language model in every worker and gives each some rows at a time.

    Which rows are worked on together depends on the data set alone, since what a network computes
    for a row depends, in the last bits, on the rows beside it. The log therefore knows an answer by
    the whole chunk that it was computed in.

    Class attributes:
        misplaced: sampling parameters that do not belong there, and what to do instead.
    """

    misplaced: ClassVar[Mapping[str, str]] = {}

    model: ModelPath = Field(description="folder of the model, or its id on the Hugging Face hub (id@COMMIT pins it)")
    batch_size: int = Field(8, ge=1, description="rows that are worked on together, and logged together")
    seed: int = Field(42, description="of the draws where sampling_params ask for some; each row has its own")
    trust_remote_code: bool = Field(
        False, description="whether Python code that lies beside the weights may run; needs --allow-user-code"
    )

    @field_validator("model_params")
    @classmethod
    def _for_loading(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "trust_remote_code" in value:
            raise ValueError("'trust_remote_code' is a key of its own, beside model_params")
        if "revision" in value:
            raise ValueError("'revision' has no effect: give NAME@COMMIT as model, or the folder of `hf download`")
        return value

    @field_validator("sampling_params")
    @classmethod
    def _for_one_answer(cls, value: dict[str, Any]) -> dict[str, Any]:
        given = {key: item for key, item in value.items() if item is not None}
        for key in given:
            if key in cls.misplaced:
                raise ValueError(f"'{key}': {cls.misplaced[key]}")
        return given

    @classmethod
    def missing_weights(cls, raw: Mapping[str, Any]) -> Mapping[str, str]:
        """The model, when it is named by an id and not on this machine."""
        missing = missing_weights_of(raw.get("model"))
        return {"model": missing} if missing else {}

    def infer(self, session: WorkSession) -> list[str]:
        """As of every inference; names the keys that only a server has a use for."""
        unused = [name for name in _FOR_SERVERS if name in self.model_fields_set]
        if unused:
            logger.warning("%s: no effect here, where no server is asked: %s", self.type_name, ", ".join(unused))
        return super().infer(session)

    def _work(self) -> UnitWork:
        """What the workers do: lists of `Prompt` to lists of `Answer | Fault`."""
        raise NotImplementedError

    def _python(self) -> str | None:
        """The interpreter of the workers; None for this environment's."""
        return None

    def _versions(self) -> Mapping[str, str | None]:
        """What computes the answers in the workers, with its versions."""
        return {}

    def _identity(self, session: WorkSession) -> Any:
        content = DigestMemo(session.cache_dir / "digests").of(Path(self.model).expanduser())
        parameters = [self.model_params, self.sampling_params, self.batch_size, self.seed, self.trust_remote_code]
        model = content or [self.model, _snapshot(self.model)]
        return [model, parameters, code_version(type(self._work())), self._versions()]

    def _keys(self, requests: Sequence[Request]) -> list[str]:
        keys: list[str] = []
        for start in range(0, len(requests), self.batch_size):
            chunk = requests[start : start + self.batch_size]
            name = digest([request.name for request in chunk])
            keys += [f"{name}-{place}" for place in range(len(chunk))]
        return keys

    def _ask(
        self, requests: Sequence[Request], missing: Sequence[int], session: WorkSession
    ) -> Generator[tuple[int, Answer | Fault], None, None]:
        if self.trust_remote_code and not session.allow_user_code:
            raise UserError("trust_remote_code runs code that lies beside the model: allow it with --allow-user-code")
        if self.trust_remote_code:
            warn_unpinned("model", self.model, hub_commit(self.model))
        starts = sorted({number - number % self.batch_size for number in missing})
        units = [
            [Prompt(request.messages, request.name) for request in requests[start : start + self.batch_size]]
            for start in starts
        ]
        answered = session.workers.map(
            self._work(), units, description=f"{self.type_name}: {self.model}", python=self._python()
        )
        for index, outcomes in answered:
            yield from enumerate(outcomes, start=starts[index])


def _snapshot(name: str) -> str | None:
    """The commit of a model of the hub that lies on this machine; None when there is none."""
    try:
        from huggingface_hub import snapshot_download

        name, commit = pinned(name)
        return Path(snapshot_download(name, revision=commit, local_files_only=True)).name
    except (ImportError, OSError, ValueError):  # ValueError: the name is no id of the hub
        return None
