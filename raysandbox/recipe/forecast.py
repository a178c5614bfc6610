"""What a run of a recipe would find in the statistics store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysandbox.core.keys import DigestMemo
from raysandbox.recipe.analyzing import analysed_filters
from raysandbox.recipe.plan import plan_input
from raysandbox.recipe.prepare import load_recipe, units_of, work_of
from raysandbox.recipe.store import StatisticsStore

__all__ = ["known_statistics"]


def known_statistics(
    raw: Mapping[str, Any], shared: Path, *, analysis: bool = False, allow_user_code: bool = False
) -> tuple[int, int]:
    """Counts statistics, one per operator and piece of the input, without reading rows.

    Args:
        raw: the recipe.
        shared: the cache that runs share.
        analysis: whether the recipe's filters are analysed instead of applied.
        allow_user_code: whether code that the recipe names may be imported.

    Returns:
        the statistics that the store holds, and all that a run needs.

    Raises:
        UserError: the recipe or its input is wrong.
    """
    recipe, _ = load_recipe(raw, allow_user_code=allow_user_code)
    operators = analysed_filters(recipe.operators())[0] if analysis else recipe.operators()
    memo = DigestMemo(shared / "digests")
    store = StatisticsStore(shared / "statistics")
    keys = work_of(recipe, operators, "nothing", analysis=analysis).keys_in(store, memo)
    wanted = [key for key in keys.operators if key is not None]
    units = units_of(plan_input(recipe), memo)
    folders = [store.unit(unit.digest) for unit in units if unit.digest]
    return sum(folder.has(key) for folder in folders for key in wanted), len(units) * len(wanted)
