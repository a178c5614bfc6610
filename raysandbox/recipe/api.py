"""What others use of the recipe engine."""

from __future__ import annotations

from raysandbox.recipe.analyzing import AnalysisResult, analyze
from raysandbox.recipe.forecast import known_statistics
from raysandbox.recipe.processing import OpCount, Result, StatSummary, process

__all__ = ["AnalysisResult", "OpCount", "Result", "StatSummary", "analyze", "known_statistics", "process"]
