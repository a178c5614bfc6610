from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysandbox.config.documents import load_document, show_path, to_yaml
from raysandbox.core.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_every_key_and_element_knows_its_line(tmp_path: Path) -> None:
    document = load_document(write(tmp_path / "a.yaml", "a: 1\nb:\n  - c: 2\n  -\n    d: 3\n"))
    assert document.data == {"a": 1, "b": [{"c": 2}, {"d": 3}]}
    assert document.line(("b",)) == 2
    assert document.line(("b", 0, "c")) == 3
    assert document.line(("b", 1, "d")) == 5
    assert document.line(("b", 1, "missing", "deeper")) == 5


def test_exponents_are_numbers_as_in_json(tmp_path: Path) -> None:
    document = load_document(write(tmp_path / "a.yaml", "lr: 3e-4\nname: 1e\nid: 12e5x\n"))
    assert document.data == {"lr": 3e-4, "name": "1e", "id": "12e5x"}


def test_json_with_tabs(tmp_path: Path) -> None:
    document = load_document(write(tmp_path / "a.json", '{\n\t"a": {\n\t\t"b": 3e-4}\n}\n'))
    assert document.data == {"a": {"b": 3e-4}}
    assert document.line(("a", "b")) == 3


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: [\n", 3, "is not valid YAML"),
        ("a: 1\na: 2\n", 2, "is given twice (first in line 1)"),
        ("a: ${env:NOT_SET_ANYWHERE}\n", 1, "environment variable NOT_SET_ANYWHERE is not set"),
        ("a: !!python/object:os.system {}\n", 1, ""),
        ("a: &x [*x]\n", 1, "expands without bound"),
        ("a:\n  " + "[" * 101 + "]" * 101, 2, "is nested deeper than 100 levels"),
        ("a: 1\nb: " + "[" * 20_000, 2, "is nested deeper than 100 levels"),
        ("a0: &a0 []\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 150)), 1, "is nested deeper than"),
        ("a: 0x" + "f" * 5000, 1, "is too large for a number"),
        ("a: 2026-99-99", 1, "cannot be read"),
        ("a: 1\n<<: [1]", 2, "a merge key takes a mapping"),
    ],
)
def test_what_is_wrong_is_located(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = write(tmp_path / "a.yaml", text)
    if "python/object" in text:
        assert load_document(path).data == {"a": {}}  # tags are never constructed
        return
    with pytest.raises(ConfigError) as caught:
        load_document(path)
    (problem,) = caught.value.problems
    assert problem.line == line
    assert message in problem.message


def test_environment_only_where_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "/data")
    text = "a: ${env:PLACE}/x\nb: ${env:NOT_SET_ANYWHERE,fallback}\nc: $PLACE\n"
    assert load_document(write(tmp_path / "a.yaml", text)).data == {"a": "/data/x", "b": "fallback", "c": "$PLACE"}


def test_expansion_is_bounded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ConfigError, match="expands without bound"):
        load_document(write(tmp_path / "a.yaml", "\n".join(lines)))


def test_merge_keys(tmp_path: Path) -> None:
    text = """\
a: &a {x: 1, y: 2}
b: &b {x: 3, z: 1}
list: {<<: [*a, *b], y: 9}
twice: {<<: *a, <<: *b}
itself: &c {<<: *c, k: 1}
2026-99-99: a date
"""
    data = load_document(write(tmp_path / "a.yaml", text)).data
    assert data["list"] == {"x": 1, "y": 9, "z": 1}
    assert data["twice"] == {"x": 3, "y": 2, "z": 1}
    assert data["itself"] == {"k": 1}
    assert data["2026-99-99"] == "a date"


def test_merges_of_merges_do_not_multiply(tmp_path: Path) -> None:
    lines = ["m0: &m0 {k: 1}"]
    lines += [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 10)}], k{n}: 1}}" for n in range(1, 30)]
    assert len(load_document(write(tmp_path / "a.yaml", "\n".join(lines))).data["m29"]) == 30


def test_what_is_too_large_for_a_configuration_is_not_read() -> None:
    with pytest.raises(ConfigError, match="larger than 16 MB"):
        load_document("/dev/zero")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_document(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(ConfigError, match="is not UTF-8 at byte 3"):
        load_document(tmp_path / "latin.yaml")


def test_show_path() -> None:
    assert show_path(("jobs", 0, "hook")) == "jobs[0].hook"


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab é😀:#", max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text("abc", min_size=1), children, max_size=3),
    max_leaves=10,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.dictionaries(st.text("abc", min_size=1), values, max_size=4))
def test_yaml_round_trip(tmp_path: Path, value: dict) -> None:
    path = write(tmp_path / "a.yaml", to_yaml(value))
    assert load_document(path).data == (value or {})
    assert yaml.safe_load(path.read_text()) == value


def test_json_as_python_writes_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", json.dumps({"a": "😀 é"}))
    assert load_document(path).data == {"a": "😀 é"}
