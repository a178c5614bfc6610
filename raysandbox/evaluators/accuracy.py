"""The share of rows whose predicted label is the true one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from raysandbox.core.component import InputPaths
from raysandbox.core.registry import register
from raysandbox.core.runner import WorkSession
from raysandbox.evaluators._labels import Pairs, paired_files, read_pairs, reported
from raysandbox.evaluators.base import DataEvaluator

__all__ = ["Accuracy"]

logger = logging.getLogger(__name__)


@register("accuracy")
class Accuracy(DataEvaluator):
    """Compares predicted labels with true ones; the best value is the highest accuracy.

    Labels are equal as their JSON values are: 1 equals 1.0; "1" and true do not.
    """

    example: ClassVar[Mapping[str, Any]] = {
        "predicted_dataset_path": ["./outputs/demo/model_a.jsonl", "./outputs/demo/model_b.jsonl"],
        "ground_truth_dataset_path": "./outputs/demo/truth.jsonl",
        "predicted_label_key": "response.label",
        "ground_truth_label_key": "label",
    }

    predicted_dataset_path: InputPaths = Field(description="data sets with predicted labels, one or several")
    ground_truth_dataset_path: InputPaths | None = Field(
        None,
        description="data set with the true labels, row by row: one for all or one for each; by default the predicted",
    )
    predicted_label_key: str = Field(min_length=1, description="field of the predicted label; levels separated by dots")
    ground_truth_label_key: str = Field(min_length=1, description="field of the true label; levels separated by dots")

    def evaluate(self, session: WorkSession) -> tuple[list[dict[str, Any]], float]:
        """Returns the results of each data set, and the highest accuracy.

        Raises:
            UserError: a data set is empty, the numbers of rows differ, or a row has no label.
        """
        pairs = read_pairs(
            session.scorers,
            paired_files(self.predicted_dataset_path, self.ground_truth_dataset_path),
            ("predicted_label_key", self.predicted_label_key),
            ("ground_truth_label_key", self.ground_truth_label_key),
        )
        results = [_compared(one) for one in pairs]
        accuracies = [result["accuracy"] for result in results]
        best = max(accuracies)
        session.report(reported("accuracy", accuracies, best))
        return results, best


def _compared(pairs: Pairs) -> dict[str, Any]:
    correct = sum(_equal(predicted, true) for predicted, true in zip(pairs.predicted, pairs.truth, strict=True))
    rows = len(pairs.truth)
    kinds = ({type(value) for value in values} for values in (pairs.predicted, pairs.truth))
    if correct == 0 and not set.intersection(*kinds):
        logger.warning(
            "%s: no predicted label has the type of a true one (%r against %r), so none can be equal",
            pairs.path,
            pairs.predicted[0],
            pairs.truth[0],
        )
    return {"predicted_dataset_path": pairs.path, "accuracy": correct / rows, "correct": correct, "rows": rows}


def _equal(predicted: Any, true: Any) -> bool:
    """Whether two JSON values are the same, at any depth; to Python, True is 1."""
    if isinstance(predicted, dict) and isinstance(true, dict):
        return predicted.keys() == true.keys() and all(_equal(value, true[key]) for key, value in predicted.items())
    if isinstance(predicted, list) and isinstance(true, list):
        return len(predicted) == len(true) and all(map(_equal, predicted, true))
    return isinstance(predicted, bool) == isinstance(true, bool) and predicted == true
