"""The mean squared error of predicted values."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from raysandbox.core.component import InputPaths
from raysandbox.core.errors import JobFailed, UserError
from raysandbox.core.registry import register
from raysandbox.core.runner import WorkSession
from raysandbox.evaluators._labels import Pairs, paired_files, read_pairs, reported
from raysandbox.evaluators.base import DataEvaluator

__all__ = ["MeanSquaredError"]

logger = logging.getLogger(__name__)


@register("mse")
class MeanSquaredError(DataEvaluator):
    """Compares predicted numbers with true ones; the best value is the lowest mean squared error.

    Texts that are numbers count as numbers. A predicted value that is none, as models write them at
    times, or that a row lacks, is a format error: it is counted and left out of the mean. A data set
    without any number has no error and does not compete for the best value.
    """

    example: ClassVar[Mapping[str, Any]] = {
        "predicted_dataset_path": "./outputs/demo/scored.jsonl",
        "predicted_value_key": "response.score",
        "ground_truth_value_key": "score",
    }

    predicted_dataset_path: InputPaths = Field(description="data sets with predicted values, one or several")
    ground_truth_dataset_path: InputPaths | None = Field(
        None,
        description="data set with the true values, row by row: one for all or one for each; by default the predicted",
    )
    predicted_value_key: str = Field(min_length=1, description="field of the predicted value; levels separated by dots")
    ground_truth_value_key: str = Field(min_length=1, description="field of the true value; levels separated by dots")

    def evaluate(self, session: WorkSession) -> tuple[list[dict[str, Any]], float]:
        """Returns the results of each data set (`mse`, `format_error`, `rows`), and the lowest error.

        Raises:
            UserError: a data set is empty or lacks the predicted field, the numbers of rows differ, or
                a true value is missing or no number.
            JobFailed: no predicted value of any data set is a number.
        """
        pairs = read_pairs(
            session.scorers,
            paired_files(self.predicted_dataset_path, self.ground_truth_dataset_path),
            ("predicted_value_key", self.predicted_value_key),
            ("ground_truth_value_key", self.ground_truth_value_key),
            gaps=True,
        )
        results = [self._compared(one) for one in pairs]
        errors = [result["mse"] for result in results]
        known = [error for error in errors if error is not None]
        if not known:
            names = ", ".join(result["predicted_dataset_path"] for result in results)
            raise JobFailed(
                f"no predicted value of '{self.predicted_value_key}' in {names} is a number; there is no error to "
                f"measure (set predicted_value_key)"
            )
        best = min(known)
        faults = sum(result["format_error"] for result in results)
        session.report({**reported("mse", errors, best), "format_error": float(faults)})
        return results, best

    def _compared(self, pairs: Pairs) -> dict[str, Any]:
        predicted = [_number(value) for value in pairs.predicted]
        truth = self._true_numbers(pairs)
        read = [(guess, true) for guess, true in zip(predicted, truth, strict=True) if guess is not None]
        faults = len(predicted) - len(read)
        if faults:
            first = predicted.index(None)
            message = (
                f"{pairs.path}: {faults} of {len(predicted)} predicted values of '{self.predicted_value_key}' are no "
                f"numbers, first in row {first + 1}: {pairs.predicted[first]!r}"
            )
            out_of = "the mean" if read else "the best value: the data set has no error to measure"
            logger.warning("%s; left out of %s", message, out_of)
        return {
            "predicted_dataset_path": pairs.path,
            "mse": _mean_squared(read),
            "format_error": faults,
            "rows": len(predicted),
        }

    def _true_numbers(self, pairs: Pairs) -> list[float]:
        numbers = []
        for row, value in enumerate(pairs.truth, start=1):
            number = _number(value)
            if number is None:
                raise UserError(
                    f"{pairs.truth_path}: row {row}: '{self.ground_truth_value_key}' is {value!r}, "
                    f"which is no number: correct it, or set ground_truth_value_key"
                )
            numbers.append(number)
        return numbers


def _mean_squared(pairs: Sequence[tuple[float, float]]) -> float | None:
    """The mean squared difference; None of nothing, infinity beyond what a float holds."""
    if not pairs:
        return None
    try:
        return math.fsum((guess - true) ** 2 for guess, true in pairs) / len(pairs)
    except OverflowError:
        return math.inf


def _number(value: Any) -> float | None:
    """The value, or what a text says, as a finite number; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
