"""Names that a registry does not find in folders: aliases and a provider's."""

import sys
from types import ModuleType

import pytest

from raysandbox.core.errors import UnknownNameError, UserError
from raysandbox.core.registry import Registry


class Own:
    """A component."""


class Made:
    """Made on demand."""


@pytest.fixture
def registry(monkeypatch):
    module = ModuleType("some_provider")
    module.names = lambda: ["own", "other", "alias"]
    module.make = lambda name: Made
    monkeypatch.setitem(sys.modules, "some_provider", module)
    registry = Registry("sample", aliases={"alias": "own", "theirs": "other"}, provider="some_provider")
    registry.add("own", Own)
    return registry


def test_own_components_come_before_provided_ones(registry):
    assert registry.names() == ["own"]
    assert registry.provided_names() == ["other"]
    assert registry.get("own") is Own
    assert registry.get("other") is Made


def test_aliases_lead_to_either(registry):
    assert registry.get("alias") is Own
    assert registry.get("theirs") is Made


def test_membership(registry):
    assert all(name in registry for name in ("own", "alias", "other"))
    assert "nothing" not in registry
    assert ["own"] not in registry


def test_all_names_are_suggested(registry):
    with pytest.raises(UnknownNameError, match="unknown sample 'othr'; did you mean 'other'"):
        registry.get("othr")
    with pytest.raises(UnknownNameError, match="did you mean 'alias'"):
        registry.get("alais")


def test_an_alias_is_taken(registry):
    with pytest.raises(UserError, match="sample 'alias' is another name of 'own'"):
        registry.add("alias", Made)


def test_without_a_provider():
    assert Registry("sample").provided_names() == []
