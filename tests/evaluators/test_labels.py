"""`accuracy` and `mse`: pairs by position, nested keys, several files, format errors, named errors."""

import json
import math
from types import SimpleNamespace

import pytest

from raysandbox.core.errors import ConfigError, JobFailed, UserError
from raysandbox.evaluators.accuracy import Accuracy
from raysandbox.evaluators.base import DATA_EVALUATORS
from raysandbox.evaluators.mse import MeanSquaredError
from raysandbox.recipe.scoring import DatasetScorers


@pytest.fixture
def run(tmp_path):
    def evaluate(cls, **config):
        reported = {}
        session = SimpleNamespace(
            scorers=DatasetScorers("local"), report=lambda metrics, step=None: reported.update(metrics)
        )
        results, best = cls.model_validate(config).evaluate(session)
        return results, best, reported

    return evaluate


@pytest.fixture
def write(tmp_path):
    def jsonl(name, rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return jsonl


LABELS = {"predicted_label_key": "guess", "ground_truth_label_key": "label"}
VALUES = {"predicted_value_key": "guess", "ground_truth_value_key": "value"}


@pytest.mark.parametrize(("name", "cls"), [("accuracy", Accuracy), ("mse", MeanSquaredError)])
def test_they_are_registered_and_their_examples_hold(name, cls):
    assert DATA_EVALUATORS.get(name) is cls
    assert cls.model_validate(cls.example).model_dump(exclude_defaults=True) == dict(cls.example)


def test_accuracy_of_one_file(run, write):
    rows = [{"guess": "a", "label": "a"}, {"guess": "b", "label": "a"}, {"guess": 1, "label": 1.0}]
    path = write("rows.jsonl", [*rows, {"guess": "1", "label": 1}])
    results, best, reported = run(Accuracy, predicted_dataset_path=path, **LABELS)
    assert results == [{"predicted_dataset_path": path, "accuracy": 0.5, "correct": 2, "rows": 4}]
    assert best == 0.5
    assert reported == {"accuracy": 0.5}


def test_true_is_not_one(run, write):
    rows = [(True, 1), (0, False), ([True], [1]), ({"a": 1}, {"a": True}), (True, True), ({"a": [1]}, {"a": [1.0]})]
    path = write("rows.jsonl", [{"guess": guess, "label": label} for guess, label in rows])
    assert run(Accuracy, predicted_dataset_path=path, **LABELS)[0][0]["correct"] == 2


def test_several_files_nested_keys_and_the_best_value(run, write):
    truth = write("truth.jsonl", [{"meta": {"label": n}} for n in (1, 2, 3, 4)])
    first = write("first.jsonl", [{"answer": {"label": n}, "other": "x"} for n in (1, 2, 0, 0)])
    second = write("second.jsonl", [{"answer": {"label": n}} for n in (1, 2, 3, 0)])
    keys = {"predicted_label_key": "answer.label", "ground_truth_label_key": "meta.label"}
    results, best, reported = run(
        Accuracy, predicted_dataset_path=[first, second], ground_truth_dataset_path=truth, **keys
    )
    assert [result["accuracy"] for result in results] == [0.5, 0.75]
    assert best == 0.75
    assert reported == {"accuracy": 0.75, "accuracy.0": 0.5, "accuracy.1": 0.75}
    paths = {"predicted_dataset_path": [first, second], "ground_truth_dataset_path": [truth, truth]}
    assert run(Accuracy, **paths, **keys)[1] == 0.75


def test_labels_that_cannot_be_equal_are_named(run, write, caplog):
    path = write("rows.jsonl", [{"guess": "1", "label": 1}] * 2)
    assert run(Accuracy, predicted_dataset_path=path, **LABELS)[1] == 0.0
    assert "no predicted label has the type of a true one ('1' against 1)" in caplog.text


def test_mse_counts_format_errors_and_the_lowest_is_best(run, write, caplog):
    rows = [(1, 1), ("2.5", 2), (" 4 ", "3"), ("about five", 5), (True, 1), ("nan", 1), ([1], 1)]
    first = write("first.jsonl", [{"guess": guess, "value": value} for guess, value in rows])
    second = write("second.jsonl", [{"guess": 1, "value": 1.5}])
    results, best, reported = run(MeanSquaredError, predicted_dataset_path=[first, second], **VALUES)
    assert results == [
        {"predicted_dataset_path": first, "mse": pytest.approx(1.25 / 3), "format_error": 4, "rows": 7},
        {"predicted_dataset_path": second, "mse": 0.25, "format_error": 0, "rows": 1},
    ]
    assert best == 0.25
    assert reported == {"mse": 0.25, "mse.0": pytest.approx(1.25 / 3), "mse.1": 0.25, "format_error": 4.0}
    assert "4 of 7 predicted values of 'guess' are no numbers, first in row 4: 'about five'" in caplog.text


def test_missing_predicted_values_are_format_errors_where_the_field_is_known(run, write, caplog):
    keys = {"predicted_value_key": "answer.score", "ground_truth_value_key": "value"}
    answers = [{"answer": {"score": 3}}, {"answer": {"score": None}}, {"answer": None}, {"answer": {}}, {}]
    path = write("rows.jsonl", [{**row, "value": 1} for row in answers])
    results, best, reported = run(MeanSquaredError, predicted_dataset_path=path, **keys)
    assert results == [{"predicted_dataset_path": path, "mse": 4.0, "format_error": 4, "rows": 5}]
    assert (best, reported) == (4.0, {"mse": 4.0, "format_error": 4.0})
    assert "4 of 5 predicted values of 'answer.score' are no numbers, first in row 2: None" in caplog.text
    other = write("other.jsonl", [{"answer": {"label": 1}, "value": 1}] * 2)
    with pytest.raises(UserError, match=r"no value of 'answer\.score' \(2 of 2 rows.*set predicted_value_key"):
        run(MeanSquaredError, predicted_dataset_path=[path, other], **keys)
    truth = write("truth.jsonl", [{"guess": 1, "value": 1}, {"guess": 1, "value": None}])
    with pytest.raises(UserError, match="row 2 has no value of 'value'"):
        run(MeanSquaredError, predicted_dataset_path=truth, **VALUES)


def test_a_file_without_numbers_does_not_compete(run, write, caplog):
    words = write("words.jsonl", [{"guess": "many", "value": 1}])
    nulls = write("nulls.jsonl", [{"guess": None, "value": 1}])
    numbers = write("numbers.jsonl", [{"guess": 3, "value": 1}])
    results, best, reported = run(MeanSquaredError, predicted_dataset_path=[words, nulls, numbers], **VALUES)
    assert [(result["mse"], result["format_error"]) for result in results] == [(None, 1), (None, 1), (4.0, 0)]
    assert (best, reported) == (4.0, {"mse": 4.0, "mse.2": 4.0, "format_error": 2.0})
    assert "words.jsonl: 1 of 1 predicted values" in caplog.text
    assert "left out of the best value" in caplog.text
    with pytest.raises(JobFailed, match=r"words\.jsonl, .*nulls\.jsonl is a number"):
        run(MeanSquaredError, predicted_dataset_path=[words, nulls], **VALUES)


def test_what_is_missing_is_named(run, write):
    path = write("rows.jsonl", [{"guess": 1, "label": 1}, {"label": 1}, {"guess": None, "label": 1}])
    with pytest.raises(UserError, match=r"rows\.jsonl: row 2 has no value of 'guess' \(2 of 3 .*predicted_label_key"):
        run(Accuracy, predicted_dataset_path=path, **LABELS)
    whole = write("whole.jsonl", [{"guess": 1}])
    keys = {"predicted_label_key": "guess", "ground_truth_label_key": "deep.label"}
    with pytest.raises(UserError, match=r"row 1 has no value of 'deep\.label'.*set ground_truth_label_key"):
        run(Accuracy, predicted_dataset_path=whole, **keys)
    with pytest.raises(UserError, match=r"empty\.jsonl has no rows"):
        run(Accuracy, predicted_dataset_path=write("empty.jsonl", []), **LABELS)
    with pytest.raises(ConfigError, match="absent"):
        run(Accuracy, predicted_dataset_path="absent.jsonl", **LABELS)


def test_different_numbers_of_rows_are_refused(run, write):
    guesses, truth = write("guesses.jsonl", [{"guess": 1}] * 3), write("truth.jsonl", [{"value": 1}] * 2)
    with pytest.raises(UserError, match=r"guesses\.jsonl has 3 rows and .*truth\.jsonl has 2"):
        run(MeanSquaredError, predicted_dataset_path=guesses, ground_truth_dataset_path=truth, **VALUES)
    paths = {"predicted_dataset_path": [guesses] * 3, "ground_truth_dataset_path": [truth] * 2}
    with pytest.raises(UserError, match="names 2 data sets and predicted_dataset_path 3"):
        run(MeanSquaredError, **paths, **VALUES)
    with pytest.raises(UserError, match="the list is empty"):
        run(MeanSquaredError, predicted_dataset_path=[], **VALUES)


def test_no_number_is_never_a_result(run, write):
    words = write("words.jsonl", [{"guess": "many", "value": 1}])
    with pytest.raises(JobFailed, match=r"no predicted value of 'guess' in .*words\.jsonl.*no error to measure"):
        run(MeanSquaredError, predicted_dataset_path=words, **VALUES)
    truth = write("truth.jsonl", [{"guess": 1, "value": 1}, {"guess": 1, "value": "x"}])
    with pytest.raises(UserError, match=r"row 2: 'value' is 'x', which is no number"):
        run(MeanSquaredError, predicted_dataset_path=truth, **VALUES)
    huge = write("huge.jsonl", [{"guess": 1e200, "value": -1e200}])
    with pytest.raises(JobFailed, match="the mse is not a finite number"):
        run(MeanSquaredError, predicted_dataset_path=huge, **VALUES)
    assert not math.isnan(
        run(MeanSquaredError, predicted_dataset_path=write("one.jsonl", [{"guess": 1, "value": 1}]), **VALUES)[1]
    )
