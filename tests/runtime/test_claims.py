"""What the names of placement groups say."""

from __future__ import annotations

from typing import Any

import pytest

from raysandbox.runtime.claims import claims, held_text


def table_of(name: str) -> list[dict[str, Any]]:
    return [{"name": name, "state": "CREATED", "bundles": {0: {"CPU": 2.0}}, "bundles_to_node_id": {0: "n"}}]


@pytest.mark.parametrize(
    "name",
    [
        "raysandbox:mine",
        "raysandbox:",
        "raysandbox:[1]",
        "raysandbox:7",
        'raysandbox:{"run":"1"}',
        'raysandbox:{"run":"1","job":"a","elastic":true,"crew":"c","labels":3}',
    ],
)
def test_a_name_that_is_not_ours_or_of_another_version_is_nobodys(name: str) -> None:
    assert claims(table_of(name)) == []
    assert held_text(table_of(name)) == f"{name}: 2 CPU"
