"""Secrets by their keys, by their values in every form of writing, and by their place in a text."""

import time
from urllib.parse import quote

import pytest

from raysandbox.core import redact as redaction
from raysandbox.core.redact import is_secret_key, redact, redact_text, remember_secrets

CANARY = "canary/4b1d+7e&é"


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(redaction, "_known", set())


OTHERS = (
    "text_key image_key eos_token max_new_tokens api_key_env PWD token_num key author RAY_AUTH_TOKEN_PATH "
    "SSH_AUTH_SOCK PGPASSWORD_FILE RAY_AUTH_MODE credentials_dir k_sigma"
)
NAMES = (
    "api_key apiKey WANDB_API_KEY HF_TOKEN AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID X-Auth-Token connection_string "
    "azure_storage_account_key X-Amz-Signature OPENAI_KEY GITHUB_PAT DB_PWD sig sas_token SENTRY_DSN service.jwt"
)


@pytest.mark.parametrize("key", NAMES.split())
def test_names_of_secrets(key):
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key",
    OTHERS.split(),
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("git+https://ghp_0123456789abcdef@github.com/x", "git+https://***@github.com/x"),
        ("https://ghp_0123456789abcdef:x-oauth-basic@github.com/x", "https://***@github.com/x"),
        ("https://u:p@ss:w@h/x@y", "https://u:***@h/x@y"),
        ("redis://:pass@word@host:6379", "redis://:***@host:6379"),
        (
            "https://a.blob.core.windows.net/c?sv=2024&sig=abc%2Fdef%3D",
            "https://a.blob.core.windows.net/c?sv=2024&sig=***",
        ),
        ("AccountName=n;AccountKey=abc/def==", "AccountName=n;AccountKey=***"),
        ("Authorization: token ghp_0123456789", "Authorization: token ***"),
        ("{'Authorization': 'token ghp_0123456789', 'a': 1}", "{'Authorization': 'token ***', 'a': 1}"),
        ("(b'authorization', b'Custom ghp_0123456789')", "(b'authorization', b'***')"),
        ("Authorization: ghp_0123456789", "Authorization: ***"),
        ('{"Proxy-Authorization": "Basic dXNlcjpwdw=="}', '{"Proxy-Authorization": "Basic ***"}'),
        ("> X-Api-Key: 0123456789abcdef refused", "> X-Api-Key: *** refused"),
        ('"x-goog-api-key": "0123456789abcdef", "b"', '"x-goog-api-key": "***", "b"'),
        ("PRIVATE-TOKEN: 0123456789abcdef", "PRIVATE-TOKEN: ***"),
        ("Set-Cookie: session=0123456789abcdef; Path=/", "Set-Cookie: ***"),
    ],
)
def test_secrets_by_their_place(text, shown):
    assert redact_text(text) == shown
    assert redact_text(shown) == shown


def test_the_whole_password_of_an_address_is_known():
    remember_secrets(["https://user:p@ss:word@host/", "git+https://ghp_0123456789abcdef@github.com/x"])
    assert redact_text("p@ss:word of ghp_0123456789abcdef") == "*** of ***"


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "://",
        "://a:",
        "https://a",
        "a@",
        "?a",
        "&a=",
        "?sig=",
        "authorization: ",
        "x-api-key",
        "a-",
        "cookie:a=",
        ";",
    ],
)
def test_long_texts_take_no_long_time(piece):
    began = time.process_time()
    redact_text(piece * (1_000_000 // len(piece)))
    assert time.process_time() - began < 5  # about 0.1 s; growing with the square it would be hours


def test_an_environment_that_has_no_mapping_below(monkeypatch):
    monkeypatch.setattr(redaction.os, "environb", {b"MY_TOKEN": CANARY.encode()})
    assert redact_text(CANARY) == "***"


def test_headers():
    assert redact_text("Authorization: Bearer abcdef123456") == "Authorization: Bearer ***"
    assert redact_text('{"Authorization": "Basic dXNlcjpwdw=="}') == '{"Authorization": "Basic ***"}'


def test_what_is_no_secret_stays():
    text = "s3://bucket/key: Basic training of 3 tokens, a?b=c, user@host:22, https://host:8080/x?step=3"
    assert redact_text(text) == text
    text = "ssh://git@host/x, abfss://data@account/x, no cookie: none, authorization: off"
    assert redact_text(text) == text
    remember_secrets({"n": 1, "password": "short"})
    assert redact_text("a short text") == "a short text"
