"""`ls ops`."""

import re

import pytest

from raysandbox.cli.main import main
from raysandbox.ops import bridge_peer
from raysandbox.ops.base import OPERATORS
from raysandbox.ops.describe import facts_of


@pytest.fixture
def shown(capsys):
    def show(*arguments):
        with pytest.raises(SystemExit) as end:
            main(["ls", *arguments])
        assert not end.value.code
        return capsys.readouterr().out

    return show


@pytest.mark.parametrize("kind", ["ops", "operator"])
def test_operators_by_kind(shown, kind):
    lines = shown(kind).splitlines()
    filters = next(line for line in lines if line.startswith("filters ("))
    mappers = next(line for line in lines if line.startswith("mappers ("))
    (length,) = [line for line in lines if line.startswith("  text_length_filter ")]
    assert lines.index(filters) < lines.index(length) < lines.index(mappers)
    assert OPERATORS.get("text_length_filter").summary() in length
    assert any(line.startswith("  image_nsfw_filter ") and line.endswith("[model]") for line in lines)


@pytest.mark.parametrize(("here", "state"), [(True, "(installed)"), (False, "pip install 'raysandbox[datajuicer]'")])
def test_operators_of_data_juicer_stand_apart(shown, monkeypatch, here, state):
    monkeypatch.setattr(bridge_peer, "installed", lambda: here)
    ours, _, theirs = shown("ops").partition("from py-data-juicer")
    assert state in theirs.splitlines()[0]
    assert "pii_redaction_mapper" in theirs
    assert "pii_redaction_mapper" not in ours
    assert "whitespace_normalization_mapper" not in theirs
    assert "ray_repartition_pipeline" not in theirs


def test_one_operator_in_full(shown):
    text = shown("ops", "text_length_filter")
    own, _, shared = text.partition("shared")
    assert "  min_len " in own
    assert "text_key" not in own
    assert "text_key, min_closed_interval" in shared
    assert "image_key" not in shared
    assert "text_len (min_len to max_len)" in text
    assert "example:\n  text_length_filter:" in text
    assert "model" not in text


def test_one_of_data_juicers(shown, monkeypatch):
    monkeypatch.setattr(bridge_peer, "installed", lambda: False)
    text = shown("ops", "image_captioning_mapper")
    assert re.search(r"^  caption_num +\(int; 1\)$", text, re.MULTILINE)
    assert re.search(r"^  prompt +\(str \| None; null\)$", text, re.MULTILINE)
    assert "uses a GPU" in text
    assert "text_key, image_key" in text
    assert "pip install 'raysandbox[datajuicer]'" in text


def test_another_name(shown):
    assert shown("ops", "ray_document_deduplicator").startswith("ray_document_deduplicator: document_deduplicator by")


def test_facts_of_a_filter():
    facts = facts_of(OPERATORS.get("text_length_filter"))
    assert (facts.kind, facts.model, facts.peer) == ("filter", False, False)
    assert [key.name for key in facts.parameters] == ["min_len", "max_len"]
    assert facts.statistics == ("text_len (min_len to max_len)",)
