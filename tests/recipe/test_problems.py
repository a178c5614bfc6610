import subprocess
import sys

import pytest

from raysandbox.core.errors import ConfigError
from raysandbox.recipe.problems import parse_recipe, recipe_problems


def messages(raw, severity="error"):
    return [problem.message for problem in recipe_problems(raw) if problem.severity == severity]


def test_every_problem_at_once():
    raw = {
        "dataset_pth": "a.jsonl",
        "dataset_path": "0.3 0.7 a.jsonl",
        "export_path": "out.docx",
        "np": "many",
        "process": [
            {"text_lenght_filter": {}},
            {"text_length_filter": {"min_le": 3}},
            {"text_length_filter": {"min_len": "x"}},
            {"text_length_filter": {"min_len": 9, "max_len": 3}},
            3,
        ],
    }
    found = {problem.path: problem for problem in recipe_problems(raw)}
    assert found["dataset_pth",].fix == "did you mean 'dataset_path'?"
    assert "followed by the weight" in found["dataset_path",].message
    assert "cannot write 'out.docx'" in found["export_path",].message
    assert "integer" in found["np",].message
    assert found["process", 0].message == "unknown operator 'text_lenght_filter'; did you mean 'text_length_filter'?"
    typo = found["process", 1, "text_length_filter", "min_le"]
    assert typo.message == "unknown parameter 'min_le' of text_length_filter; did you mean 'min_len'?"
    assert "integer" in found["process", 2, "text_length_filter", "min_len"].message
    assert "above max_len" in found["process", 3, "text_length_filter", "min_len"].message
    assert "one operator" in found["process", 4].message


def test_keys_of_data_juicer_are_named_in_one_warning():
    raw = {"use_cache": True, "executor_type": "ray", "process": []}
    assert messages(raw) == []
    assert messages(raw, "warning") == ["these keys of Data-Juicer have no effect here: use_cache, executor_type"]


def test_parameters_of_data_juicer_without_meaning_are_named():
    raw = {"process": [{"text_length_filter": {"min_len": 1, "num_proc": 4}}]}
    assert messages(raw) == []
    assert messages(raw, "warning") == ["these parameters have no effect here: num_proc"]
    assert parse_recipe(raw).operators()[0].min_len == 1


@pytest.mark.parametrize("step", ["text_length_filter", {"text_length_filter": None}, {"text_length_filter": {}}])
def test_a_step_needs_no_parameters(step):
    assert parse_recipe({"process": [step]}).operators()[0].type_name == "text_length_filter"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_bad_rows", -1),
        ("max_bad_rows", 1.5),
        ("engine", "spark"),
        ("percentiles", [25]),
        ("export_shard_size", -1),
        ("process", {"a": 1}),
        ("custom_operator_paths", ["x.py"]),
        ("dataset", {"configs": [{"type": "remote", "path": "x"}]}),
        ("dataset", {"configs": []}),
        ("text_keys", []),
        ("text_keys", 3),
    ],
)
def test_wrong_values(key, value):
    problems = [problem for problem in recipe_problems({key: value}) if problem.severity == "error"]
    assert problems
    assert problems[0].path[0] == key


def test_two_sources_are_one_too_many():
    raw = {"dataset_path": "a.jsonl", "dataset": {"configs": [{"path": "b.jsonl"}]}}
    assert "give one" in messages(raw)[0]


def test_parse_raises_with_every_problem():
    with pytest.raises(ConfigError) as caught:
        parse_recipe({"foo": 1, "np": 0}, "r.yaml")
    assert len(caught.value.problems) == 2
    assert str(caught.value).startswith("r.yaml: foo: unknown key 'foo'")


def test_what_a_recipe_says():
    recipe = parse_recipe(
        {
            "dataset": {"configs": [{"type": "local", "path": "a.jsonl", "weight": 2}, {"path": "b"}]},
            "text_keys": ["content"],
            "image_key": "pics",
            "suffixes": [".txt", "jsonl"],
            "skip_op_error": True,
        }
    )
    assert [part.path for part in recipe.parts()] == ["a.jsonl", "b"]
    assert recipe.field_keys().text == "content"
    assert recipe.field_keys().image == "pics"
    assert recipe.file_suffixes() == {".txt", ".jsonl"}
    assert recipe.bad_row_budget() is None


def test_budget_of_bad_rows():
    assert parse_recipe({}).bad_row_budget() == 0
    assert parse_recipe({"skip_op_error": False}).bad_row_budget() == 0
    assert parse_recipe({"max_bad_rows": 0.1}).bad_row_budget() == 0.1
    assert parse_recipe({"max_bad_rows": 3.0}).bad_row_budget() == 3
    assert parse_recipe({"max_bad_rows": 3, "skip_op_error": True}).bad_row_budget() == 3


def test_checking_imports_no_engine():
    code = (
        "import sys; from raysandbox.recipe.problems import recipe_problems;"
        "recipe_problems({'process': ['text_length_filter']});"
        "bad = {'ray', 'torch', 'pandas', 'datasets', 'data_juicer'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_code_beside_a_model_must_be_allowed():
    raw = {"process": [{"token_num_filter": {"trust_remote_code": True}}]}
    (problem,) = [found for found in recipe_problems(raw) if found.severity == "error"]
    assert problem.path == ("process", 0, "token_num_filter", "trust_remote_code")
    assert "--allow-user-code" in problem.fix
    assert [found for found in recipe_problems(raw, allow_user_code=True) if found.severity == "error"] == []
    raw["process"][0]["token_num_filter"]["trust_remote_code"] = False
    assert messages(raw) == []


def test_some_weight_is_not_zero():
    parts = [{"path": "a.jsonl", "weight": 0}, {"path": "b.jsonl", "weight": 0}]
    (message,) = messages({"dataset": {"configs": parts, "max_sample_num": 3}})
    assert "every weight is 0" in message
