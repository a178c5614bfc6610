"""Secrets never reach configs, journals, reports or wandb: redaction by key name and by value."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["REDACTED", "is_secret_key", "redact", "redact_text", "remember_secrets", "secret_values"]

REDACTED = "***"
_SECRET_WORDS = re.compile(
    r"(^|_)(api_?key|access_?key|key_?id|private_?key|ssh_?key|secret|token|password|passwd|passphrase|pgpassword|"
    r"credential|auth|authorization)s?(_|$)"
)
# Keys that speak of tokens of text: special tokens of recipes and tokenizers, numbers of tokens.
_TEXT_TOKEN = re.compile(
    r"(special|bos|eos|pad|unk|cls|sep|mask|image|audio|video|eoc|eot|prefix|suffix|think_start|think_end)_token|suppress_tokens|(^|_)(max|min|num|new)_.*tokens?|tokens?_(num|len)|"
    r"^tokens$|tokens_per"
)
_WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_MIN_SECRET = 8  # shorter values would blank out ordinary words

_known: set[str] = set()  # secret values that configurations of this process hold


def is_secret_key(key: str) -> bool:
    """Whether a configuration key or environment variable names a secret."""
    words = _WORD_ENDS.sub("_", key).lower().replace("-", "_").replace(".", "_")
    if words.endswith("_env"):  # the name of a variable that holds one
        return False
    return bool(_SECRET_WORDS.search(words)) and not _TEXT_TOKEN.search(words)


def secret_values() -> set[str]:
    """Secrets of this process: of environment variables by their names, and of configurations seen."""
    return _known | {v for k, v in os.environ.items() if is_secret_key(k) and len(v) >= _MIN_SECRET}


def redact(value: Any) -> Any:
    """A copy of a JSON-like value with secrets replaced by "***", by key and wherever their values recur."""
    remember_secrets(value)
    return _redact(value, secret_values())


def redact_text(text: str) -> str:
    """Text with the values of known secrets replaced by "***"."""
    for secret in secret_values():
        text = text.replace(secret, REDACTED)
    return text


def remember_secrets(value: Any) -> None:
    """Notes the secrets that a configuration holds, so that messages that quote them are redacted."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if is_secret_key(str(key)):
                _known.update(text for text in _texts(item) if len(text) >= _MIN_SECRET)
            else:
                remember_secrets(item)
    elif isinstance(value, list | tuple):
        for item in value:
            remember_secrets(item)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def _redact(value: Any, secrets: set[str]) -> Any:
    if isinstance(value, Mapping):
        return {
            key: REDACTED if is_secret_key(str(key)) and item is not None else _redact(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redact(item, secrets) for item in value]
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, REDACTED)
    return value
