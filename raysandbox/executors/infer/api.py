"""Answers from a server that speaks the chat completions protocol of OpenAI: hosted ones, vLLM, llama.cpp."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from pydantic import ConfigDict, Field, field_validator

from raysandbox.core.errors import UserError
from raysandbox.core.redact import is_secret_key, remember_secrets
from raysandbox.core.registry import register
from raysandbox.core.runner import WorkSession
from raysandbox.executors.infer._answers import Answer, Fault
from raysandbox.executors.infer._client import ChatClient
from raysandbox.executors.infer._text import Request, TextInference

__all__ = ["ApiInference"]

logger = logging.getLogger(__name__)

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_LIKE_A_KEY = re.compile(r"[A-Za-z0-9]{24}")  # hf_…, gsk_…, AIza…: no word of a name is that long
_OURS = {"model": "model", "messages": "build_messages_func", "stream": None, "n": None}


@register("api")
class ApiInference(TextInference):
    """Asks an OpenAI-compatible server about every row: many at once, with retries, resumable.

    The key is read from the environment when the job runs and stands in no configuration, log or error.
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # it may be a key that stands in the wrong place

    example: ClassVar[Mapping[str, Any]] = {
        "model": "my-model",
        "api_endpoint": "http://127.0.0.1:8000/v1/chat/completions",
        "sampling_params": {"temperature": 0, "max_tokens": 512},
        "dataset_path": "./data/questions.jsonl",
        "export_path": "./outputs/demo/inference",
        "concurrency": 16,
    }

    model: str = Field(description="the model's name on the server")
    model_params: dict[str, Any] = Field(
        default_factory=dict, description="base_url, to which an api_endpoint like /chat/completions is added"
    )
    sampling_params: dict[str, Any] = Field(
        default_factory=dict, description="sent with every request: temperature, max_tokens, top_p, seed, …"
    )
    api_key_env: str | None = Field(
        None, description="environment variable of the key; by default OPENAI_API_KEY, if it is set"
    )
    concurrency: int = Field(8, ge=1, description="requests that wait for an answer at the same time")
    requests_per_minute: float | None = Field(None, gt=0, description="limit of requests started, retries included")
    timeout_s: float = Field(120.0, gt=0, description="seconds after which a request has failed")

    @field_validator("api_endpoint")
    @classmethod
    def _is_endpoint(cls, value: str) -> str:
        return value if "://" not in value else _checked_url(value)

    @field_validator("api_key_env")
    @classmethod
    def _is_variable(cls, value: str | None) -> str | None:
        if value is not None and (not _VARIABLE.fullmatch(value) or _LIKE_A_KEY.search(value)):
            remember_secrets({"api_key": value})
            raise ValueError(
                "must be the name of an environment variable (letters, digits and _): write the key itself nowhere, "
                "set e.g. MY_MODELS_KEY to it in the environment, and api_key_env: MY_MODELS_KEY"
            )
        return value

    @field_validator("model_params")
    @classmethod
    def _only_base_url(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, item in value.items():
            if is_secret_key(key):
                raise ValueError(f"'{key}' must not stand here: set api_key_env to the variable that holds the key")
            if key != "base_url":
                raise ValueError(f"knows base_url only, not '{key}'; for requests see sampling_params, timeout_s")
            _checked_url(str(item))
        return value

    @field_validator("sampling_params")
    @classmethod
    def _for_the_server(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if key in _OURS:
                raise ValueError(f"'{key}' is not for the user to send: " + (_OURS[key] or "one whole answer per row"))
        return value

    @classmethod
    def surroundings(cls, raw: Mapping[str, Any]) -> Any:
        """The address in the environment that the endpoint is added to; None where the configuration tells it."""
        params = raw.get("model_params")
        if "://" in str(raw.get("api_endpoint")) or (isinstance(params, Mapping) and params.get("base_url")):
            return None
        return os.environ.get("OPENAI_BASE_URL")

    def _identity(self, session: WorkSession) -> Any:
        return [self._url(), self.model, self.sampling_params, self.response_path]

    def _ask(
        self, requests: Sequence[Request], missing: Sequence[int], session: WorkSession
    ) -> Generator[tuple[int, Answer | Fault], None, None]:
        """Asks for the missing ones; reports requests, retries and requests_per_s."""
        client = ChatClient(
            url=self._url(),
            key=self._key(),
            response_path=self.response_path.split("."),
            concurrency=self.concurrency,
            requests_per_minute=self.requests_per_minute,
            timeout_s=self.timeout_s,
            retries=self.max_retry_num,
        )
        bodies = [
            {**self.sampling_params, "model": self.model, "messages": requests[number].messages} for number in missing
        ]
        began = time.monotonic()
        session.progress.begin(f"asking {self.model}", len(missing), "rows")
        try:
            with contextlib.closing(client.ask(bodies)) as outcomes:
                for index, outcome in outcomes:
                    session.progress.advance(1)
                    yield missing[index], outcome
        finally:
            session.progress.end()
            seconds = time.monotonic() - began
            session.report(
                {
                    "requests": float(client.requests),
                    "retries": float(client.retried),
                    "requests_per_s": client.requests / seconds,
                }
            )

    def _url(self) -> str:
        """The address of the chat completions.

        Raises:
            UserError: it is not told.
        """
        if "://" in self.api_endpoint:
            return self.api_endpoint
        base = self.model_params.get("base_url") or os.environ.get("OPENAI_BASE_URL")
        if not base:
            raise UserError(
                f"api_endpoint: '{self.api_endpoint}' is no URL: write https://…/v1/chat/completions, or set "
                f"model_params.base_url or the environment variable OPENAI_BASE_URL"
            )
        try:
            return f"{_checked_url(str(base)).rstrip('/')}/{self.api_endpoint.lstrip('/')}"
        except ValueError as error:
            raise UserError(f"OPENAI_BASE_URL: {error}") from error

    def _key(self) -> str | None:
        """The key, if there is one.

        Raises:
            UserError: the variable that was named is not set, or no header can hold its value.
        """
        name = self.api_key_env or "OPENAI_API_KEY"
        key = os.environ.get(name, "").strip()
        if not key:
            if self.api_key_env:
                raise UserError(f"api_key_env: the environment variable {name} is not set")
            return None
        remember_secrets({"api_key": key})
        if not (key.isascii() and key.isprintable()):
            raise UserError(f"api_key_env: the value of {name} holds characters that no key has")
        url = urlsplit(self._url())
        if url.scheme == "http" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
            logger.warning("the key of %s goes to %s unencrypted: use https", name, url.hostname)
        return key


def _checked_url(text: str) -> str:
    """An http(s) address that holds no secret.

    Raises:
        ValueError: it is something else; the message does not quote it.
    """
    try:
        url = urlsplit(text)
        host, _port = url.hostname, url.port  # raises when the port is no number
        secret = bool(url.username or url.password) or any(is_secret_key(key) for key, _ in parse_qsl(url.query))
    except ValueError as error:
        raise ValueError("is no address") from error
    if url.scheme not in ("http", "https") or not host:
        raise ValueError("must begin with http:// or https:// and name a host")
    if secret:
        raise ValueError("must hold no user, password or key: set api_key_env to the variable that holds the key")
    return text
