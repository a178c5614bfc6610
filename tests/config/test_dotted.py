from __future__ import annotations

from pathlib import Path

import pytest

from raysandbox.config.documents import Document
from raysandbox.config.dotted import apply_overrides, get_dotted, set_dotted
from raysandbox.core.errors import ConfigError


def test_lists_are_entered_by_index_meta_name_and_operator() -> None:
    data: dict = {
        "jobs": [{"hook": "A", "meta_name": "train", "extra_configs": None}, {"hook": "B"}],
        "process": [{"text_length_filter": {"min_len": 1}}, {"fix_unicode_mapper": None}],
    }
    assert set_dotted(data, "jobs.train.extra_configs.lr", 0.1) == ("jobs", 0, "extra_configs", "lr")
    assert set_dotted(data, "jobs.1.hook", "C") == ("jobs", 1, "hook")
    where = set_dotted(data, "process.text_length_filter.min_len", 5)
    assert where == ("process", 0, "text_length_filter", "min_len")
    set_dotted(data, "process.fix_unicode_mapper.normalization", "NFKC")
    assert data["jobs"][0]["extra_configs"] == {"lr": 0.1}
    assert data["jobs"][1]["hook"] == "C"
    assert data["process"] == [
        {"text_length_filter": {"min_len": 5}},
        {"fix_unicode_mapper": {"normalization": "NFKC"}},
    ]


def test_a_key_that_holds_dots_is_spelt_out() -> None:
    data: dict = {"p": {"a.b": {"x": 1}, "a.b.c": {"x": 1}, "a": {"y": 1}}}
    assert set_dotted(data, "p.a.b.x", 2) == ("p", "a.b", "x")
    assert set_dotted(data, "p.a.b.c.x", 3) == ("p", "a.b.c", "x")
    assert set_dotted(data, "p.a.y", 4) == ("p", "a", "y")
    assert set_dotted(data, "p.a.b", 5) == ("p", "a.b")
    assert data == {"p": {"a.b": 5, "a.b.c": {"x": 3}, "a": {"y": 4}}}


@pytest.mark.parametrize("path", ["a.b.c", "list.7", "list.x", "list.x.y"])
def test_paths_that_lead_nowhere(path: str) -> None:
    with pytest.raises(KeyError):
        set_dotted({"a": {"b": 1}, "list": [1, 2]}, path, 0)


def test_equal_operators_need_an_index() -> None:
    with pytest.raises(KeyError, match="use an index"):
        set_dotted({"process": [{"f": {}}, {"f": {}}]}, "process.f.x", 0)


def test_overrides_are_yaml_and_all_errors_come_at_once() -> None:
    document = apply_overrides(Document({"a": {"b": 1}}, "f"), ["a.b=[1, 2e-3]", "new.key=true", "text=x=y"])
    assert document.data == {"a": {"b": [1, 2e-3]}, "new": {"key": True}, "text": "x=y"}
    with pytest.raises(ConfigError) as caught:
        apply_overrides(Document({"a": {"b": 1}}, "f"), ["no-equals", "a.b.c=1", "a=[", "=1"])
    assert len(caught.value.problems) == 4


def test_get_dotted() -> None:
    assert get_dotted({"a": [{"b": 3}]}, ["a", "0", "b"]) == 3
    for path in (["a", "5"], ["x"], ["a", "0", "b", "c"]):
        with pytest.raises(KeyError):
            get_dotted({"a": [{"b": 3}]}, path)


def test_an_operator_may_stand_alone_in_its_list() -> None:
    data: dict = {"process": ["a", "fix_unicode_mapper", {"b": {}}]}
    where = set_dotted(data, "process.fix_unicode_mapper.normalization", "NFKC")
    assert where == ("process", 1, "fix_unicode_mapper", "normalization")
    assert data == {"process": ["a", {"fix_unicode_mapper": {"normalization": "NFKC"}}, {"b": {}}]}
    with pytest.raises(KeyError, match="use an index"):
        set_dotted({"process": ["a", {"a": {}}]}, "process.a.x", 0)


def test_an_override_inside_a_sweep_file_takes_it_in(workspace: Path) -> None:
    Path("sweep.yaml").write_text("run_cap: 3\nmethod: grid\n")
    document = apply_overrides(Document({"hpo_config": "sweep.yaml"}, "f"), ["hpo_config.run_cap=5", "x=1"])
    assert document.data == {"hpo_config": {"run_cap": 5, "method": "grid"}, "x": 1}
    with pytest.raises(ConfigError, match="cannot be read"):
        apply_overrides(Document({"hpo_config": "gone.yaml"}, "f"), ["hpo_config.run_cap=5"])
