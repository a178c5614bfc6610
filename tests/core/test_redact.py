"""Secrets by their keys, by their values in every form of writing, and by their place in a text."""

from urllib.parse import quote

import pytest

from raysandbox.core import redact as redaction
from raysandbox.core.redact import is_secret_key, redact, redact_text, remember_secrets

CANARY = "canary/4b1d+7e&é"


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(redaction, "_known", set())


NAMES = (
    "api_key apiKey WANDB_API_KEY HF_TOKEN AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID X-Auth-Token connection_string "
    "azure_storage_account_key X-Amz-Signature OPENAI_KEY GITHUB_PAT DB_PWD"
)


@pytest.mark.parametrize("key", NAMES.split())
def test_names_of_secrets(key):
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key", ["text_key", "image_key", "eos_token", "max_new_tokens", "api_key_env", "PWD", "token_num", "key", "author"]
)
def test_names_of_other_things(key):
    assert not is_secret_key(key)


@pytest.mark.parametrize("name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_KEY"])
def test_a_secret_of_the_environment_in_every_form(monkeypatch, name):
    monkeypatch.setenv(name, CANARY)
    for form in (CANARY, quote(CANARY), quote(CANARY, safe=""), "canary/4b1d+7e&\\u00e9"):
        assert redact_text(f"<{form}>") == "<***>"
    assert redact({"said": [f"<{CANARY}>"], CANARY: 1}) == {"said": ["<***>"], "***": 1}


def test_the_longer_of_two_secrets_goes_first(monkeypatch):
    monkeypatch.setenv("A_TOKEN", "abcdefgh")
    monkeypatch.setenv("B_TOKEN", "abcdefgh-and-more")
    assert redact_text("abcdefgh-and-more abcdefgh") == "*** ***"


def test_a_secret_of_several_lines(monkeypatch):
    monkeypatch.setenv(
        "SSH_PRIVATE_KEY", "-----BEGIN-----\nc2VjcmV0c2VjcmV0c2VjcmV0\nbGluZXR3b2xpbmV0d28=\n-----END-----"
    )
    assert redact_text("log: c2VjcmV0c2VjcmV0c2VjcmV0") == "log: ***"


def test_passwords_in_addresses():
    config = {"url": "https://user:p%40ssw0rd-1@host/x?api_key=querysecret&page=2"}
    assert redact(config) == {"url": "https://user:***@host/x?api_key=***&page=2"}
    assert redact_text("cannot log in with p@ssw0rd-1 or querysecret") == "cannot log in with *** or ***"


def test_a_proxy_of_the_environment(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:proxysecret@proxy:3128")
    assert redact_text("407 for proxysecret") == "407 for ***"


def test_headers():
    assert redact_text("Authorization: Bearer abcdef123456") == "Authorization: Bearer ***"
    assert redact_text('{"Authorization": "Basic dXNlcjpwdw=="}') == '{"Authorization": "Basic ***"}'


def test_what_is_no_secret_stays():
    text = "s3://bucket/key: Basic training of 3 tokens, a?b=c, user@host:22, https://host:8080/x?step=3"
    assert redact_text(text) == text
    remember_secrets({"n": 1, "password": "short"})
    assert redact_text("a short text") == "a short text"
