import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysandbox.core.errors import BadRowsError, JobFailed
from raysandbox.recipe.api import process
from raysandbox.recipe.problems import recipe_problems
from raysandbox.recipe.validators import VALIDATORS, validator_of

MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
TURN = {"instruction": "i", "query": "q", "response": "r"}


@pytest.mark.parametrize(
    ("validator", "row", "fault"),
    [
        ({"required_fields": ["a"]}, {"a": 0}, None),
        ({"required_fields": ["a"]}, {"b": 1}, "no 'a'"),
        ({"required_fields": ["a"]}, {"a": None}, "'a' is null"),
        ({"required_fields": ["a"], "allow_missing": 0.1}, {"a": None}, None),
        ({"required_fields": ["a"], "field_types": {"a": "STR"}}, {"a": 1}, "'a' is of type int, not STR"),
        ({"required_fields": ["a"], "field_types": {"a": "float"}}, {"a": 1}, None),
        ({"required_fields": ["a"], "field_types": {"a": "int"}}, {"a": 1.5}, "'a' is of type float, not int"),
        ({"required_fields": ["a"], "field_types": {"a": "list", "b": "int"}}, {"a": [], "b": "x"}, None),
        ({"type": "swift_messages"}, {"messages": MESSAGES}, None),
        ({"type": "swift_messages"}, {}, "no 'messages'"),
        ({"type": "swift_messages"}, {"messages": "a"}, "'messages' is not a list"),
        ({"type": "swift_messages", "max_turns": 1}, {"messages": MESSAGES}, "2 turns, not 1 to 1"),
        ({"type": "swift_messages"}, {"messages": []}, "0 turns, not 1 to 100"),
        ({"type": "swift_messages"}, {"messages": ["a"]}, "message 0 is not an object"),
        ({"type": "swift_messages"}, {"messages": [{"role": "user"}]}, "message 0 has no 'content'"),
        (
            {"type": "swift_messages"},
            {"messages": [{"role": "tool", "content": ""}]},
            "message 0 has the role 'tool', not one of system, user, assistant",
        ),
        ({"type": "dj_conversation"}, TURN, None),
        ({"type": "dj_conversation"}, {**TURN, "system": None, "history": None}, None),
        ({"type": "dj_conversation"}, {**TURN, "history": [["a", "b"]]}, None),
        ({"type": "dj_conversation"}, {**TURN, "history": [["a"]]}, "turn 0 of the history is no [query, response]"),
        ({"type": "dj_conversation"}, {**TURN, "history": "a"}, "'history' is not a list"),
        ({"type": "dj_conversation", "min_turns": 2}, {**TURN, "history": []}, "1 turns, not 2 to 100"),
        ({"type": "dj_conversation"}, {**TURN, "query": 1}, "'query' is not a string"),
        ({"type": "dj_conversation"}, {"instruction": "i"}, "no 'query'"),
        ({"type": "dj_conversation"}, {**TURN, "system": 1}, "'system' is not a string"),
        ({"type": "code"}, {}, None),
    ],
)
def test_faults(validator, row, fault):
    assert validator_of({"type": "required_fields", **validator}).fault(row) == fault


def run(source, target, **keys):
    recipe = {"dataset_path": str(source), "export_path": str(target), "process": [], **keys}
    return process(recipe, engine="local", cache=False)


@pytest.fixture(params=["jsonl", "parquet"])
def source(request, tmp_path, write_jsonl):
    rows = [{"a": 1, "t": "x"}, {"a": None, "t": "y"}, {"a": 3, "t": None}, {"a": 4, "t": "z"}]
    if request.param == "jsonl":
        return write_jsonl(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    return tmp_path / "in.parquet"


def test_rows_that_do_not_comply_are_bad_rows(source, tmp_path):
    validators = [{"type": "required_fields", "required_fields": ["a", "t"], "field_types": {"a": "int", "t": "str"}}]
    with pytest.raises(BadRowsError, match="'a' is null"):
        run(source, tmp_path / "out.jsonl", validators=validators)
    assert not (tmp_path / "out.jsonl").exists()
    result = run(source, tmp_path / "out.jsonl", validators=validators, max_bad_rows=2)
    assert (result.rows_in, result.rows_out, result.quarantined) == (4, 2, 2)
    records = list(map(json.loads, Path(result.quarantine).read_text().splitlines()))
    assert [record["reason"] for record in records] == ["'a' is null", "'t' is null"]


def test_a_share_of_rows_may_lack_a_value(source, tmp_path):
    validators = [{"type": "required_fields", "required_fields": ["a"], "allow_missing": 0.25}]
    assert run(source, tmp_path / "out.jsonl", validators=validators).rows_out == 4
    validators[0]["allow_missing"] = 0.2
    with pytest.raises(JobFailed, match=r"1 of 4 rows have no 'a' \(25.0%\)"):
        run(source, tmp_path / "other.jsonl", validators=validators)
    assert not (tmp_path / "other.jsonl").exists()


def test_a_column_that_no_row_has(source, tmp_path):
    validators = [{"type": "required_fields", "required_fields": ["nothing"]}]
    with pytest.raises(BadRowsError, match="no 'nothing'"):
        run(source, tmp_path / "out.jsonl", validators=validators)


def test_rows_are_validated_once_as_they_were_read(tmp_path, write_jsonl):
    rows = [{"text": "a  b"}, {"text": "a  b"}, {"text": "c"}]
    steps = ["document_deduplicator", {"text_length_filter": {"min_len": 2}}]
    validators = [{"type": "required_fields", "required_fields": ["text"], "allow_missing": 0.5}]
    result = run(write_jsonl(rows), tmp_path / "out.jsonl", process=steps, validators=validators)
    assert (result.rows_in, result.rows_out) == (3, 1)


@pytest.mark.parametrize(
    ("validator", "where", "message"),
    [
        ({"type": "required_field"}, ("validators", 0, "type"), "did you mean 'required_fields'?"),
        ({"required_fields": ["a"]}, ("validators", 0), "has no type"),
        ("required_fields", ("validators", 0), "has no type"),
        ({"type": "required_fields"}, ("validators", 0, "required_fields"), "is required"),
        (
            {"type": "required_fields", "required_fields": [], "field_types": {"a": "strng"}},
            ("validators", 0, "field_types"),
            "unknown type 'strng' of 'a'; did you mean 'string'?",
        ),
        ({"type": "swift_messages", "min_turn": 1}, ("validators", 0, "min_turn"), "unknown key"),
        ({"type": "swift_messages", "min_turns": 5, "max_turns": 2}, ("validators", 0), "no row would do"),
    ],
)
def test_problems(validator, where, message):
    (problem,) = recipe_problems({"validators": [validator]})
    assert problem.path == where
    assert message in f"{problem.message} {problem.fix}"


def test_validators_are_a_list():
    (problem,) = recipe_problems({"validators": {"type": "swift_messages"}})
    assert problem.path == ("validators",)


def test_what_has_no_effect_is_said():
    (problem,) = recipe_problems({"validators": [{"type": "swift_messages", "sample_size": 5}]})
    assert problem.severity == "warning"
    assert "sample_size" in problem.message


@pytest.mark.parametrize("name", sorted(VALIDATORS))
def test_every_field_is_described(name):
    assert all(field.description for field in VALIDATORS[name].model_fields.values())
