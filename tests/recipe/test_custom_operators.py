"""Operators in the user's own files."""

import importlib
import json
import sys

import pytest

from raysandbox.api import check
from raysandbox.api import run as run_experiment
from raysandbox.core.errors import ConfigError
from raysandbox.core.keys import code_version
from raysandbox.recipe.api import process
from raysandbox.recipe.problems import recipe_problems
from raysandbox.recipe.schema import Recipe

CODE = '''
from pydantic import Field

from raysandbox import register
from raysandbox.ops.base import Mapper

SEEN = []


def marked(text, mark):
    return text.upper() + mark


@register("{name}")
class Shout(Mapper):
    """Says it louder."""

    mark: str = Field("!", description="what to end with")

    def process(self, batch, state):
        return batch.with_texts([marked(text, self.mark) for text in batch.texts])
'''


@pytest.fixture
def write_code(tmp_path):
    def write(name, old="!", new="!"):
        path = tmp_path / f"{name}.py"
        path.write_text(CODE.replace("{name}", name).replace(old, new))
        return str(path)

    return write


def errors_of(recipe, **more):
    return [(problem.path, problem.message, problem.fix) for problem in recipe_problems(recipe, **more)]


@pytest.mark.parametrize("key", ["custom_operator_paths", "custom-operator-paths"])
def test_code_runs_only_when_allowed(key, write_code):
    recipe = {key: write_code("louder_mapper"), "process": ["louder_mapper"]}
    message = ("custom_operator_paths",), "runs code of yours", "allow it with --allow-user-code"
    assert errors_of(recipe) == [message]
    with pytest.raises(ConfigError, match="allow it with --allow-user-code"):
        process(recipe, rows=[{"text": "a"}])
    assert process(recipe, rows=[{"text": "a"}], allow_user_code=True).rows == [{"text": "A!"}]


def test_parameters_are_checked(write_code):
    recipe = {"custom_operator_paths": [write_code("checked_mapper")], "process": [{"checked_mapper": {"mrk": 1}}]}
    ((path, message, _),) = errors_of(recipe, allow_user_code=True)
    assert path == ("process", 0, "checked_mapper", "mrk")
    assert message == "unknown parameter 'mrk' of checked_mapper; did you mean 'mark'?"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("1 +", "SyntaxError"),
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("x = 1", "registers no operator"),
        (CODE.replace("{name}", "text_length_filter"), "operator 'text_length_filter' is registered twice"),
        (CODE.replace("{name}", "ray_document_deduplicator"), "'ray_document_deduplicator' is another name of"),
    ],
)
def test_a_file_that_cannot_be_used_is_explained(content, message, tmp_path):
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    ((where, found, _),) = errors_of({"custom_operator_paths": str(path)}, allow_user_code=True)
    assert where == ("custom_operator_paths",)
    assert str(path) in found
    assert message in found


def test_a_changed_file_is_another_code(tmp_path, write_code, write_jsonl, read_jsonl):
    recipe = {
        "dataset_path": str(write_jsonl([{"text": "a"}])),
        "export_path": str(tmp_path / "out.jsonl"),
        "process": ["changing_mapper"],
    }
    recipe["custom_operator_paths"] = write_code("changing_mapper")
    assert not process(recipe, allow_user_code=True).cached
    assert process(recipe, allow_user_code=True).cached
    write_code("changing_mapper", "text.upper()", "text.title() * 2")
    assert not process(recipe, allow_user_code=True).cached
    assert read_jsonl(tmp_path / "out.jsonl") == [{"text": "AA!"}]


def test_a_changed_helper_is_another_code(tmp_path, write_code, monkeypatch):
    path, helper, below = write_code("helped_mapper"), tmp_path / "shout_helper.py", tmp_path / "more" / "deep.py"
    below.parent.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))

    def version():
        (op,) = Recipe.model_validate({"process": ["helped_mapper"], "custom_operator_paths": [path]}).operators()
        return code_version(type(op))

    def look():
        assert not errors_of({"process": ["helped_mapper"], "custom_operator_paths": path}, allow_user_code=True)
        return version()

    alone = look()
    helper.write_text("LEVEL = 1\n")
    first = look()
    assert first != alone
    assert look() == first
    below.write_text("")  # no package: nothing that it imports
    assert look() == first
    (below.parent / "__init__.py").write_text("")
    second = look()
    assert second != first
    importlib.import_module("shout_helper")
    helper.write_text("LEVEL = 2\n")
    assert look() == second  # Python has the old one
    del sys.modules["shout_helper"]
    assert look() != second


@pytest.mark.usefixtures("cluster")
def test_workers_have_the_code(tmp_path, write_code, write_jsonl, read_jsonl):
    recipe = {
        "dataset_path": str(write_jsonl([{"text": "a"}, {"text": "b"}])),
        "export_path": str(tmp_path / "out.jsonl"),
        "process": [{"travelling_mapper": {"mark": "?"}}],
        "custom_operator_paths": write_code("travelling_mapper"),
    }
    assert process(recipe, allow_user_code=True, engine="ray").engine == "ray"
    assert read_jsonl(tmp_path / "out.jsonl") == [{"text": "A?"}, {"text": "B?"}]


def test_recipes_of_experiments(workspace, write_code, write_jsonl, read_jsonl):
    recipe = {
        "dataset_path": str(write_jsonl([{"text": "a"}])),
        "export_path": "out.jsonl",
        "process": ["experimental_mapper"],
        "custom_operator_paths": write_code("experimental_mapper"),
    }
    job = {"hook": "ProcessDataHook", "meta_name": "p", "dj_configs": recipe}
    (workspace / "cfg.yaml").write_text(json.dumps({"work_dir": "work", "execution_job_configs": [job]}))
    (problem,) = [found for found in check("cfg.yaml") if found.severity == "error"]
    assert "--allow-user-code" in str(problem)
    assert not [found for found in check("cfg.yaml", allow_user_code=True) if found.severity == "error"]
    with pytest.raises(ConfigError, match="--allow-user-code"):
        run_experiment("cfg.yaml")
    run_experiment("cfg.yaml", allow_user_code=True)
    assert read_jsonl(workspace / "out.jsonl") == [{"text": "A!"}]
