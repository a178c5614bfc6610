"""Thresholds by feedback: planted relations are found on the right side, noise changes nothing."""

import copy
import math

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from raysandbox.core.errors import UserError
from raysandbox.ops.base import OPERATORS
from raysandbox.refine._copies import Copies
from raysandbox.refine._cuts import Chooser, Rule, gain_between
from raysandbox.refine._feedback_plot import save_picture
from raysandbox.refine._grid import Grid, bounds_on
from raysandbox.refine.model_feedback import MeasuredFilter, ModelFeedbackConfig, refine

RECIPE = {
    "project_name": "p",
    "process": [
        {"text_length_filter": {"min_len": 10, "max_len": 100_000}},
        {"alphanumeric_filter": {"min_ratio": 0.0, "max_ratio": 1.0}},
        {"character_repetition_filter": {"rep_len": 10, "max_ratio": 1.0}},
        {"word_repetition_filter": {"rep_len": 5, "max_ratio": "1.0"}},
    ],
}
KEYS = ("text_len", "alnum_ratio", "char_rep_ratio", "word_rep_ratio")


def random_stats(seed, rows):
    """Statistics that have nothing to do with one another."""
    rng = np.random.default_rng(seed)
    length = rng.lognormal(6, 1, rows).astype(int) + 10
    return rng, [length, rng.uniform(0.3, 1, rows), rng.beta(2, 5, rows), rng.beta(1, 9, rows)]


def refined(stats, feedback, recipe=RECIPE, keys=KEYS, **settings):
    measured = []
    for position, (step, key, values) in enumerate(zip(recipe["process"], keys, stats, strict=False)):
        ((name, arguments),) = [(step, None)] if isinstance(step, str) else step.items()
        filter = OPERATORS.get(name).model_validate(arguments or {})
        measured.append(MeasuredFilter(position, filter, {key: pa.array(values)}))
    config = ModelFeedbackConfig.model_validate({"path_refined_recipe": "r.yaml", **settings})
    return refine(recipe, measured, np.asarray(feedback, float), config)


def moved(result):
    return {(result.filters[m.bound.owner].filter.type_name, m.bound.argument): m.new for m in result.moves}


@pytest.mark.parametrize(
    ("column", "is_bad", "name", "between"),
    [
        (0, lambda v: v > 1500, ("text_length_filter", "max_len"), (1300, 1600)),
        (0, lambda v: v < 150, ("text_length_filter", "min_len"), (145, 200)),
        (1, lambda v: v < 0.4, ("alphanumeric_filter", "min_ratio"), (0.39, 0.45)),
        (1, lambda v: v > 0.9, ("alphanumeric_filter", "max_ratio"), (0.88, 0.91)),
        (2, lambda v: v > 0.5, ("character_repetition_filter", "max_ratio"), (0.46, 0.52)),
    ],
)
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_a_planted_relation_is_found_on_the_right_side(column, is_bad, name, between, goal):
    rng, stats = random_stats(1, 1200)
    loss = 2.3 + 0.4 * rng.standard_normal(1200) + 0.8 * is_bad(stats[column])
    result = refined(stats, loss if goal == "minimize" else -loss, goal=goal)
    found = moved(result)
    assert list(found) == [name]
    assert between[0] <= found[name] <= between[1]
    (move,) = result.moves
    assert move.folds == 5
    bad = np.mean(is_bad(stats[column]))
    assert result.gain.low <= 0.8 * bad <= result.gain.high
    assert 0.8 <= result.kept[1].mean() == pytest.approx(move.share[1])


def test_noise_changes_nothing():
    changed = 0
    for seed in range(200):
        rng, stats = random_stats(seed, 400)
        noise = (rng.standard_normal, rng.standard_cauchy, rng.standard_gamma)[seed % 3]
        result = refined(stats, noise(400) if seed % 3 < 2 else noise(0.3, 400))
        changed += bool(result.moves)
        if not result.moves:
            assert result.recipe == RECIPE
    assert changed <= 10  # 5 % of 200; none is what is expected


def test_the_judgement_on_held_out_rows_stands_by_itself(monkeypatch):
    """With cuts fitted to noise as greedily as can be, no more than the nominal share gets through."""
    monkeypatch.setattr("raysandbox.refine._cuts._Search.gate", -math.inf)
    changed = 0
    for seed in range(40):
        rng, stats = random_stats(1000 + seed, 300)
        changed += bool(refined(stats, rng.standard_normal(300)).moves)
    assert changed <= 4  # 2.5 % of 40 is 1; five or more have a chance of 0.3 %


@pytest.mark.parametrize("times", [2, 4, 10])
def test_noise_changes_nothing_where_rows_repeat(times):
    for seed in range(15):
        rng, stats = random_stats(seed, 200)
        feedback = np.tile(rng.standard_normal(200), times) * (1 + 1e-7 * rng.standard_normal(200 * times))
        assert not refined([np.tile(values, times) for values in stats], feedback, retention=0.7).moves


def test_the_judgement_stands_by_itself_where_rows_repeat(monkeypatch):
    monkeypatch.setattr("raysandbox.refine._cuts._Search.gate", -math.inf)
    changed = 0
    for seed in range(30):
        rng, stats = random_stats(1000 + seed, 300)
        times = rng.geometric(0.3, 300)
        feedback = np.repeat(rng.standard_normal(300), times)
        changed += bool(refined([np.repeat(values, times) for values in stats], feedback).moves)
    assert changed <= 4


def test_copies_count_in_the_means_and_not_in_the_evidence():
    rng, stats = random_stats(1, 1200)
    loss = 2.3 + 0.4 * rng.standard_normal(1200) + 0.8 * (stats[2] > 0.5)
    once = refined(stats, loss)
    thrice = refined([np.tile(values, 3) for values in stats], np.tile(loss, 3))
    assert moved(thrice) == moved(once)
    assert thrice.verdict == once.verdict
    assert len(thrice.feedback) == len(thrice.kept[0]) == 3600
    times = np.where(stats[2] > 0.5, 5, 1)  # bad rows repeat: dropping them drops more
    repeated = [np.repeat(values, times) for values in stats]
    some = refined(repeated, np.repeat(loss, times), retention=0.6)
    assert list(moved(some)) == [("character_repetition_filter", "max_ratio")]
    assert some.gain.before == pytest.approx(-np.average(loss, weights=times), abs=0.02)
    assert f"→ {some.kept[1].mean() * 100:.1f} %" in some.verdict


def test_copies_that_say_too_little_are_named():
    rng, stats = random_stats(7, 60)
    loss = rng.standard_normal(60)
    few = refined([np.tile(values, 5) for values in stats], np.tile(loss, 5))
    assert few.verdict == "nothing changes: 300 rows have feedback, 60 of them different, 5 folds need 100"
    rng, stats = random_stats(8, 400)
    times = np.where(np.arange(400) == 0, 100, 1)
    one = refined([np.repeat(values, times) for values in stats], np.repeat(rng.standard_normal(400), times))
    assert one.verdict.startswith("nothing changes: copies outweigh all else: the rows kept say as much as 24 would")


def test_what_copies_are():
    feedback = np.array([1.0, 1.0 + 1e-8, 1.0, 1.01, 1.0, 1.0, 1.0])
    stats = pa.array([[1.0, 2.0]] * 4 + [[1.0], None, None])
    copies = Copies.among(feedback, [stats, pa.array([1, 1, 1, 1, 1, None, None])])
    assert copies.first.tolist() == [0, 3, 4, 5]
    assert copies.of_row.tolist() == [0, 0, 0, 1, 2, 3, 3]
    assert copies.sizes.tolist() == [3, 1, 1, 2]


def test_two_relations_are_found_together():
    rng, stats = random_stats(2, 2000)
    loss = 2 + 0.5 * rng.standard_normal(2000) + 0.8 * (stats[1] < 0.45) + 0.8 * (stats[3] > 0.25)
    result = refined(stats, loss, retention=0.6)
    found = moved(result)
    assert set(found) == {("alphanumeric_filter", "min_ratio"), ("word_repetition_filter", "max_ratio")}
    assert 0.44 < found["alphanumeric_filter", "min_ratio"] < 0.5
    assert found["word_repetition_filter", "max_ratio"] == str(float(found["word_repetition_filter", "max_ratio"]))
    first, second = result.moves
    assert result.gain.value > max(first.gain.value, second.gain.value)
    assert all(move.gain.low > 0 for move in result.moves)
    assert sum(" → " in str(change) for change in result.changes) == 2


def test_both_sides_of_a_statistic_or_the_better_one():
    rng, stats = random_stats(3, 2000)
    loss = 2 + 0.5 * rng.standard_normal(2000) + 1.0 * (stats[1] < 0.45) + 0.7 * (stats[1] > 0.9)
    both = moved(refined(stats, loss, retention=0.6))
    assert set(both) == {("alphanumeric_filter", "min_ratio"), ("alphanumeric_filter", "max_ratio")}
    one = moved(refined(stats, loss, retention=0.6, two_sided=False))
    assert set(one) == {("alphanumeric_filter", "min_ratio")}


def test_of_two_statistics_that_say_the_same_one_moves():
    rng, stats = random_stats(4, 2000)
    stats[3] = 0.5 * stats[2] + 0.02 * rng.standard_normal(2000)
    loss = 2 + 0.5 * rng.standard_normal(2000) + 2 * stats[2]
    assert set(moved(refined(stats, loss, retention=0.7))) == {("character_repetition_filter", "max_ratio")}


@pytest.mark.parametrize("retention", [0.5, 0.75, 0.95])
def test_the_retention_holds_and_is_used(retention):
    rng, stats = random_stats(5, 2000)
    loss = 2 + 0.3 * rng.standard_normal(2000) + 3 * stats[2]
    result = refined(stats, loss, retention=retention)
    assert retention <= result.kept[1].mean() < retention + 0.03
    tolerant = refined(stats, loss, retention=retention, retention_tolerance=0.1)
    assert retention - 0.1 <= tolerant.kept[1].mean() < retention


def test_a_recipe_that_keeps_less_than_wanted_is_loosened_where_it_pays():
    rng, stats = random_stats(6, 2000)
    loss = 5 + 0.5 * rng.standard_normal(2000) - 0.5 * np.log(stats[0])
    recipe = {"process": [{"text_length_filter": {"min_len": 300, "max_len": 500}}]}
    result = refined(stats, loss, recipe, retention=0.7)
    assert result.kept[0].mean() < 0.3
    assert result.kept[1].mean() >= 0.7
    assert result.recipe["process"][0]["text_length_filter"]["max_len"] > 2000
    same = refined(stats, -loss, {"process": [{"text_length_filter": {"max_len": 180}}]}, retention=0.7)
    assert not same.moves
    assert "(the recipe keeps" in same.verdict


def test_a_change_explains_itself():
    rng, stats = random_stats(7, 1000)
    loss = 2.3 + 0.3 * rng.standard_normal(1000) + 1.0 * (stats[2] > 0.5)
    result = refined(stats, loss)
    lines = [str(change) for change in result.changes]
    assert lines[0] == "text_length_filter: kept (no cut of text_len adds to the others beyond chance)"
    old, new = (f"{100 * kept.mean():.1f} %" for kept in result.kept)
    (move,) = result.moves
    assert lines[2].startswith(f"character_repetition_filter.max_ratio: 1.0 → {move.new} (rows kept {old} → {new}; ")
    assert "held-out model_loss 2.4" in lines[2]
    assert "95 % CI 0." in lines[2]
    assert lines[2].endswith("chosen in 5 of 5 folds)")
    assert result.verdict.startswith(f"rows kept {old} → {new}; held-out model_loss")


def test_a_bound_that_the_recipe_does_not_give_may_be_set():
    rng, stats = random_stats(8, 1000)
    loss = 2.3 + 0.3 * rng.standard_normal(1000) + 1.0 * (stats[0] > 1500)
    recipe = {"process": ["text_length_filter", {"alphanumeric_filter": None}]}
    before = copy.deepcopy(recipe)
    result = refined(stats, loss, recipe)
    assert recipe == before
    assert list(result.recipe["process"][0]["text_length_filter"]) == ["max_len"]
    assert isinstance(result.recipe["process"][0]["text_length_filter"]["max_len"], int)
    assert result.recipe["process"][1] == {"alphanumeric_filter": None}
    line = str(result.changes[0])
    assert line.startswith("text_length_filter.max_len: unbounded → ")
    assert line.endswith("; the recipe leaves it at its default)")


def test_only_the_operators_that_are_named_move():
    rng, stats = random_stats(9, 1000)
    loss = 2.3 + 0.3 * rng.standard_normal(1000) + 1.0 * (stats[2] > 0.5)
    result = refined(stats, loss, operators=["text_length_filter"])
    assert not result.moves
    assert str(result.changes[2]) == "character_repetition_filter: kept (not among `operators`)"
    with pytest.raises(UserError, match=r"no filter 'text_lenth_filter'; did you mean 'text_length_filter'"):
        refined(stats, loss, operators=["text_lenth_filter"])


def test_min_gain_must_be_surely_exceeded():
    rng, stats = random_stats(10, 1000)
    loss = 2.3 + 0.3 * rng.standard_normal(1000) + 1.0 * (stats[2] > 0.5)
    gain = refined(stats, loss).gain
    assert refined(stats, loss, min_gain=gain.low * 0.9).moves
    result = refined(stats, loss, min_gain=gain.low * 1.5)
    assert not result.moves
    assert "the gain is within noise, not surely" in result.verdict
    assert "the gain of a cut of char_rep_ratio is within noise" in str(result.changes[2])


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda stats, loss: (stats, loss[:99]), "99 rows have feedback, 5 folds need 100"),
        (lambda stats, loss: (stats, np.where(np.arange(400) < 350, np.nan, loss)), "50 rows have feedback"),
        (lambda stats, loss: (stats, np.ones(400)), "model_loss is the same in all rows"),
        (lambda stats, loss: ([np.full(400, 20)] * 4, loss), "no filter of the recipe has a bound that could move"),
        (lambda stats, loss: ([np.full(400, 2), *stats[1:]], loss), "the recipe keeps 0 of the 400 rows"),
    ],
)
def test_what_hinders_is_said(change, verdict):
    rng, stats = random_stats(11, 400)
    stats, loss = change(stats, 2 + rng.standard_normal(400))
    result = refined([values[: len(loss)] for values in stats], loss)
    assert result.verdict.startswith(f"nothing changes: {verdict}")
    assert result.recipe == RECIPE
    assert result.moves == ()


def test_an_unreachable_retention_is_said():
    rng, stats = random_stats(12, 400)
    recipe = {"process": [RECIPE["process"][0], {"alphanumeric_filter": {"min_ratio": 0.6}}]}
    result = refined(stats, rng.standard_normal(400), recipe, retention=0.9, operators=["text_length_filter"])
    assert result.verdict.startswith("nothing changes: the loosest bounds keep")
    assert str(result.changes[0]) == "text_length_filter: kept (nothing was tried)"


def test_rows_without_feedback_or_statistic():
    rng, stats = random_stats(13, 1200)
    loss = 2.3 + 0.3 * rng.standard_normal(1200) + 1.0 * (stats[2] > 0.5)
    loss[::10], loss[1] = np.nan, np.inf
    stats[2] = [None if row % 50 == 7 else value for row, value in enumerate(stats[2].tolist())]
    result = refined(stats, loss)
    assert list(moved(result)) == [("character_repetition_filter", "max_ratio")]
    assert result.without_feedback == 121
    assert len(result.feedback) == 1079
    missing = np.array([value.as_py() is None for value in result.filters[2].stats["char_rep_ratio"]])
    assert missing.any()
    assert not (result.kept[0] & missing).any()  # the filter drops them, so they count as dropped


def test_operators_that_cannot_be_moved_say_why():
    rng, stats = random_stats(14, 400)
    process = [
        "clean_links_mapper",
        {"text_length_filter": {"min_len": 10, "reversed_range": True}},
        {"suffix_filter": {"suffixes": [".txt"]}},
        {"alphanumeric_filter": {"min_ratio": 0.1}},
    ]
    filters = [
        MeasuredFilter(1, OPERATORS.get("text_length_filter")(min_len=5000, max_len=6000, reversed_range=True), {}),
        MeasuredFilter(2, OPERATORS.get("suffix_filter")(suffixes=[".txt"]), {}),
        MeasuredFilter(3, OPERATORS.get("alphanumeric_filter")(min_ratio=0.1), {}),
    ]
    columns = [{"text_len": stats[0]}, {"suffix": [".txt"] * 400}, {"alnum_ratio": [0.5] * 400}]
    measured = [
        MeasuredFilter(f.position, f.filter, {key: pa.array(values) for key, values in column.items()})
        for f, column in zip(filters, columns, strict=True)
    ]
    config = ModelFeedbackConfig(path_refined_recipe="r.yaml")
    result = refine({"process": process}, measured, rng.standard_normal(400), config)
    assert [str(change) for change in result.changes] == [
        "clean_links_mapper: kept (it is no filter)",
        "text_length_filter: kept (it keeps what lies outside its bounds)",
        "suffix_filter: kept (it declares no statistics with bounds)",
        "alphanumeric_filter: kept (alnum_ratio is the same in all rows)",
    ]


def test_several_files_per_row_count_as_the_filter_says():
    rng = np.random.default_rng(15)
    durations = [list(rng.uniform(1, 100, rng.integers(0, 4))) for _ in range(1500)]
    bad = np.array([bool(row) and min(row) < 30 for row in durations])
    loss = 2 + 0.4 * rng.standard_normal(1500) + 1.0 * bad
    recipe = {"process": [{"video_duration_filter": {"min_duration": 0, "any_or_all": "all"}}]}
    result = refined([durations], loss, recipe, ["video_duration"], retention=0.5)
    assert 29 < moved(result)["video_duration_filter", "min_duration"] < 35
    filter = OPERATORS.get("video_duration_filter").model_validate(result.recipe["process"][0]["video_duration_filter"])
    assert (filter.keep(result.filters[0].stats) == result.kept[1]).all()


def test_what_the_grid_says_is_what_filters_keep():
    rng, stats = random_stats(16, 300)
    stats[0] = [None if value > 2000 else int(value) for value in stats[0]]
    filter = OPERATORS.get("text_length_filter")(min_len=50, max_len=900, min_closed_interval=False)
    measured = MeasuredFilter(0, filter, {"text_len": pa.array(stats[0])})
    grid = Grid([measured], bounds_on(0, measured), 300)
    assert [bound.argument for bound in grid.bounds] == ["min_len", "max_len"]
    for _ in range(20):
        state = tuple(int(rng.integers(len(bound.cuts))) for bound in grid.bounds)
        low, high = (bound.cuts[cut] for bound, cut in zip(grid.bounds, state, strict=True))
        expected = [value is not None and low < value <= high for value in stats[0]]
        assert grid.kept(state).tolist() == expected
    for bound in grid.bounds:
        assert all(isinstance(cut, int) for cut in bound.cuts)
        assert bound.cuts[bound.old] == getattr(filter, bound.argument)


def test_the_interval_covers_the_truth():
    """On many draws of the same sets, the difference of their means lies inside 95 of 100 times."""
    rng = np.random.default_rng(17)
    inside = 0
    for _ in range(500):
        statistic = rng.uniform(0, 1, 200)
        utility = statistic + rng.standard_normal(200)
        gain = gain_between(utility, statistic > 0.2, statistic > 0.6, np.arange(200) % 5, 0.95)
        inside += gain.low <= 0.2 <= gain.high  # mean 0.8 after, 0.6 before
    assert 0.92 <= inside / 500 <= 0.98


def test_a_choice_is_better_on_the_rows_it_is_made_on_than_on_others():
    """What is reported is measured elsewhere, so the planted effect is not overestimated."""
    over = []
    for seed in range(30):
        rng, stats = random_stats(100 + seed, 500)
        loss = rng.standard_normal(500) + 0.8 * (stats[2] > 0.45)
        result = refined(stats, loss)
        if result.moves:
            threshold = result.moves[0].new
            truth = 0.8 * (np.mean(stats[2] > 0.45) - np.mean(stats[2][stats[2] <= threshold] > 0.45))
            over.append(result.gain.value - truth)
    assert len(over) > 20
    assert abs(np.mean(over)) < 0.03


def test_the_same_seed_gives_the_same_recipe():
    rng, stats = random_stats(18, 600)
    loss = 2.3 + 0.5 * rng.standard_normal(600) + 0.6 * (stats[2] > 0.5)
    assert refined(stats, loss).verdict == refined(stats, loss).verdict
    assert refined(stats, loss).verdict != refined(stats, loss, seed=1).verdict  # other folds


def test_nothing_is_chosen_among_rows_that_are_all_the_same():
    _, stats = random_stats(19, 200)
    measured = MeasuredFilter(0, OPERATORS.get("text_length_filter")(), {"text_len": pa.array(stats[0])})
    grid = Grid([measured], bounds_on(0, measured), 200)
    chooser = Chooser(grid, np.ones(200), np.ones(200), Rule(0.5, 20, 0.95, 5, True))
    assert chooser.choose(np.ones(200, bool), {0, 1}) == grid.old


def test_a_picture_per_statistic_that_has_a_new_bound(tmp_path):
    rng, stats = random_stats(20, 1000)
    assert not save_picture(refined(stats, rng.standard_normal(1000)), "loss", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    loss = 2 + 0.3 * rng.standard_normal(1000) + 0.8 * (stats[1] < 0.45) + 0.8 * (stats[1] > 0.95)
    result = refined(stats, loss, retention=0.6)
    assert save_picture(result, "lo$$", tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    few = refined([np.arange(1000) % 3 + 10, *stats[1:]], loss + (np.arange(1000) % 3 == 2), retention=0.3)
    assert ("text_length_filter", "max_len") in moved(few)
    assert save_picture(few, "loss", tmp_path / "few.png")


@pytest.mark.parametrize(
    "wrong",
    [
        {"path_refined_recipe": "x.txt"},
        {"retention": 0},
        {"retention": 1.2},
        {"folds": 1},
        {"confidence": 1},
        {"goal": "down"},
        {"min_gain": float("inf")},
        {"thresholds": 1},
    ],
)
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(ValidationError):
        ModelFeedbackConfig.model_validate({**ModelFeedbackConfig.example, **wrong})


def test_the_example_is_valid():
    assert ModelFeedbackConfig.model_validate(ModelFeedbackConfig.example).retention == 0.8
