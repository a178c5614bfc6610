from __future__ import annotations

import os

import pytest

from raysandbox.core.names import nameable


@pytest.mark.parametrize(
    "path", ["a.jsonl", "~/x", "./~x", "a/" * 2000 + "b", "ä" * 127, "s3://bucket/" + "k" * 900, ""]
)
def test_what_can_be_called_so_stays(path: str) -> None:
    assert nameable(path) == path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a\0b", "NUL"),
        ("x" * 256, "too long"),
        ("ä" * 128, "too long"),
        ("a/" * 3000, "too long"),
        ("~nobody-at-all/x", "no user nobody-at-all"),
    ],
)
def test_what_no_path_can_be_is_refused(path: str, message: str) -> None:
    assert not os.path.exists(path)
    with pytest.raises(ValueError, match=message):
        nameable(path)
