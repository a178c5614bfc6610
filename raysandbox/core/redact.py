"""Secrets never reach configs, journals, reports or wandb: redaction by key name and by value."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote

__all__ = [
    "REDACTED",
    "RedactingFormatter",
    "is_secret_key",
    "redact",
    "redact_text",
    "remember_secrets",
    "secret_values",
]

REDACTED = "***"
_SECRET_WORDS = re.compile(
    r"(^|_)(api_?key|access_?key|account_?key|key_?id|private_?key|ssh_?key|secret|secret_?key|token|password|passwd|"
    r"passphrase|pgpassword|credential|auth|authorization|cookie|bearer|connection_?string|signature|sig|sas|jwt|dsn)s?(_|$)"
)
# Keys that speak of tokens of text: special tokens of recipes and tokenizers, numbers of tokens.
_TEXT_TOKEN = re.compile(
    r"(special|bos|eos|pad|unk|cls|sep|mask|image|audio|video|eoc|eot|prefix|suffix|think_start|think_end)_token|suppress_tokens|(^|_)(max|min|num|new)_.*tokens?|tokens?_(num|len)|"
    r"^tokens$|tokens_per"
)
_PLACE = re.compile(r"_(env|(path|file|dir|folder)s?|sock|mode)$")  # says where a secret stands, or what kind it is
# Environment variables that are named more shortly: OPENAI_KEY, GITHUB_PAT, DB_PWD.
_SHORT_VARIABLE = re.compile(r"[A-Z0-9_]+_(KEY|PAT|PWD|PASS|PSW)$")
_WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_MIN_SECRET = 8  # shorter values would blank out ordinary words
_MIN_LINE = 16  # of a secret of several lines, each line counts from this length on

# What is a secret by its place in a text: https://user:PASSWORD@host, ?token=SECRET, Authorization: Bearer SECRET.
# A password may hold what should be written %40: it ends at the last @ before the path.
_IN_ADDRESS = re.compile(r"""(?<=://)([^\s/?#:"'<>]*)(?::([^\s/?#]*))?@""")
_IN_QUERY = re.compile(r"(?<=[?&;])([\w.\-]+)=([^\s&#\"'<>]+)")
_IN_HEADER = re.compile(r"(?i)(\bauthorization\W{1,4}(?:bearer|basic)\s+)([\w+/.~\-]+=*)")
_HEADER = re.compile(
    r"""(?i)(\b(?:proxy-)?authorization|api-key|auth-token|private-token|\b(?:set-)?cookie)"""
    r"""(["'\\]{0,3}[ \t]{0,2}[:=,][ \t]{0,2}(?:b(?=["']))?["'\\]{0,3})([^\r\n"'\\]+)"""
)
_HEADER_NAMES = ("uthorization", "api-key", "auth-token", "private-token", "cookie")
_SCHEMES = ("bearer", "basic", "token", "apikey", "api-key", "bot", "key", "negotiate", "ntlm")
_USER_IS_TOKEN = ("http://", "https://")  # elsewhere it is a name: ssh://git@host, abfss://container@account

_known: set[str] = set()  # secret values that configurations of this process hold


@lru_cache(maxsize=4096)
def is_secret_key(key: str) -> bool:
    """Whether a configuration key or environment variable names a secret."""
    words = _WORD_ENDS.sub("_", key).lower().replace("-", "_").replace(".", "_")
    if _PLACE.search(words) or _TEXT_TOKEN.search(words):
        return False
    return bool(_SECRET_WORDS.search(words) or _SHORT_VARIABLE.fullmatch(key))


def secret_values() -> set[str]:
    """Secrets of this process: of environment variables by their names, and of configurations seen."""
    # The mapping below os.environb, where Python has it: its own `items` looks each name up again, for every line.
    variables: Mapping[bytes, bytes] = getattr(os.environb, "_data", os.environb)
    return _known | _in_environment(tuple(variables.items()))


@lru_cache(maxsize=4)
def _in_environment(variables: tuple[tuple[bytes, bytes], ...]) -> frozenset[str]:
    found: set[str] = set()
    for name, value in ((os.fsdecode(name), os.fsdecode(value)) for name, value in variables):
        if is_secret_key(name) and len(value) >= _MIN_SECRET:
            found.add(value)
        elif "://" in value:  # a proxy's or an index's address
            found.update(_in_text(value))
    return frozenset(found)


def redact(value: Any) -> Any:
    """A copy of a JSON-like value with secrets replaced by "***", by key and wherever their values recur."""
    remember_secrets(value)
    return _redact(value, _pattern(frozenset(secret_values())))


def redact_text(text: str) -> str:
    """Text with known secrets, and what is one by its place in an address or a header, replaced by "***"."""
    return _without(text, _pattern(frozenset(secret_values())))


class RedactingFormatter(logging.Formatter):
    """Writes log records without secrets: messages and tracebacks quote what a library was given."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text, its traceback too."""
        return redact_text(super().format(record))


def remember_secrets(value: Any) -> None:
    """Notes the secrets that a configuration holds, so that messages that quote them are redacted."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if is_secret_key(str(key)):
                _known.update(text for text in _texts(item) if len(text) >= _MIN_SECRET)
            else:
                remember_secrets(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            remember_secrets(item)
    elif isinstance(value, str) and "://" in value:
        _known.update(_in_text(value))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def _in_text(text: str) -> Iterator[str]:
    """The secrets that addresses in a text hold, as they stand there and decoded."""
    found = [secret for match in _IN_ADDRESS.finditer(text) if (secret := _in_address(match)[1])]
    found += [match[2] for match in _IN_QUERY.finditer(text) if is_secret_key(match[1])]
    for secret in found:
        yield from (form for form in (secret, unquote(secret)) if len(form) >= _MIN_SECRET)


def _in_address(match: re.Match[str]) -> tuple[str, str]:
    """The user that an address names and its secret: the password, or a token that stands as the user."""
    user, password = match[1], match[2] or ""
    before = match.string[max(match.start() - 8, 0) : match.start()].lower()
    if password in ("", "x-oauth-basic") and before.endswith(_USER_IS_TOKEN):
        return "", user
    return user, password


@lru_cache(maxsize=8)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str] | None:
    """Matches any of some secrets, as they are and as addresses, JSON and Python write them."""
    forms = {form for secret in secrets for form in _forms(secret)}
    return re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True)))) if forms else None


def _forms(secret: str) -> Iterable[str]:
    yield from (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
    yield from (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1])
    if "\n" in secret:  # a log has it line by line
        yield from (line.strip() for line in secret.splitlines() if len(line.strip()) >= _MIN_LINE)


def _without(text: str, secrets: re.Pattern[str] | None) -> str:
    if secrets is not None:
        text = secrets.sub(REDACTED, text)
    if "://" in text:
        text = _IN_ADDRESS.sub(_address_without, text)
    if "=" in text:
        text = _IN_QUERY.sub(lambda match: f"{match[1]}={REDACTED}" if is_secret_key(match[1]) else match[0], text)
    lower = text.lower()
    if any(name in lower for name in _HEADER_NAMES):
        text = _IN_HEADER.sub(rf"\1{REDACTED}", text)
        text = _HEADER.sub(_header_without, text)
    return text


def _address_without(match: re.Match[str]) -> str:
    user, secret = _in_address(match)
    if not secret:
        return match[0]
    return f"{user}:{REDACTED}@" if user or match[1] == "" else f"{REDACTED}@"


def _header_without(match: re.Match[str]) -> str:
    """A header with its secret left out: a cookie is one as a whole, a scheme in front of the secret is none."""
    name, separator, value = match[1].lower(), match[2], match[3]
    if name.endswith("cookie"):
        return f"{match[1]}{separator}{REDACTED}" if "=" in value else match[0]
    words = value.split(" ", 2)
    if name.endswith("authorization"):
        if words[0].lower() in _SCHEMES:
            shown = [words[0], REDACTED, *words[2:]] if len(words) > 1 else words
        else:  # a scheme that nobody knows, or none
            shown = [REDACTED, *words[2:]] if len(value) >= _MIN_SECRET else words
    else:
        shown = [REDACTED, *words[1:]] if len(words[0]) >= _MIN_SECRET else words
    return f"{match[1]}{separator}{' '.join(shown)}"


def _redact(value: Any, secrets: re.Pattern[str] | None) -> Any:
    if isinstance(value, Mapping):
        return {
            _without(key, secrets) if isinstance(key, str) else key: (
                REDACTED if is_secret_key(str(key)) and item is not None else _redact(item, secrets)
            )
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redact(item, secrets) for item in value]
    return _without(value, secrets) if isinstance(value, str) else value
