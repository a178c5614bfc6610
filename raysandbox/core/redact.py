"""Secrets never reach configs, journals, reports or wandb: redaction by key name and by value."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["REDACTED", "is_secret_key", "redact", "redact_text"]

REDACTED = "***"
_SECRET_KEY = re.compile(
    r"(^|[_\-.])(api[_-]?key|access[_-]?key|key[_-]?id|secret|token|password|passwd|credential|credentials|auth|"
    r"authorization|private[_-]?key)s?($|[_\-.])",
    re.IGNORECASE,
)
# Names that hold one of these words and no secret: special tokens of a data recipe, tokenizer settings.
_HARMLESS = re.compile(
    r"(special_token|_token$|tokenizer|max_.*token|num_token|min_.*token|hf_tokenizer)", re.IGNORECASE
)
_SECRET_TOKEN = re.compile(r"(hf|wandb|access|auth|api|bearer|github|ms|modelscope|session)_?token", re.IGNORECASE)
_MIN_SECRET = 8  # shorter values would blank out ordinary words


def is_secret_key(key: str) -> bool:
    """Whether a configuration key or environment variable names a secret."""
    if _SECRET_TOKEN.search(key) or re.fullmatch(r"token", key, re.IGNORECASE):
        return True
    return bool(_SECRET_KEY.search(key)) and not _HARMLESS.search(key)


def secret_values() -> set[str]:
    """Values of environment variables whose names say that they are secret."""
    return {v for k, v in os.environ.items() if is_secret_key(k) and len(v) >= _MIN_SECRET}


def redact(value: Any) -> Any:
    """A copy of a JSON-like value with secrets replaced by "***"."""
    secrets = secret_values() | _values_under_secret_keys(value)
    return _redact(value, secrets)


def redact_text(text: str) -> str:
    """Text with the values of secret environment variables replaced by "***"."""
    for secret in secret_values():
        text = text.replace(secret, REDACTED)
    return text


def _values_under_secret_keys(value: Any) -> set[str]:
    found: set[str] = set()
    if isinstance(value, Mapping):
        for key, item in value.items():
            if is_secret_key(str(key)) and isinstance(item, str) and len(item) >= _MIN_SECRET:
                found.add(item)
            else:
                found |= _values_under_secret_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            found |= _values_under_secret_keys(item)
    return found


def _redact(value: Any, secrets: set[str]) -> Any:
    if isinstance(value, Mapping):
        return {
            key: REDACTED if is_secret_key(str(key)) and isinstance(item, str | int) else _redact(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redact(item, secrets) for item in value]
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, REDACTED)
    return value
