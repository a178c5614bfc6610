"""Units: seeds depend on seed, prompt and index alone; names are apart."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysandbox.executors._video.generation.units import VideoUnit, file_names, seed_of, units_of

PROMPTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1)


def test_seeds_are_what_they_were():
    # Part of what is promised: another version gives the same videos' noise.
    assert seed_of(42, "a cat", 0) == 6530796343659033157
    assert seed_of(42, "a cat", 1) == 5709336109133841630


@given(st.integers(0), PROMPTS, st.integers(0, 10_000))
def test_seeds_fit_every_generator(seed, prompt, index):
    assert 0 <= seed_of(seed, prompt, index) < 2**63
    assert seed_of(seed, prompt, index) == seed_of(seed, prompt, index)


@given(st.lists(st.tuples(st.integers(0, 99), PROMPTS, st.integers(0, 99)), unique=True))
def test_seeds_differ(units):
    assert len({seed_of(*unit) for unit in units}) == len(units)


@given(st.dictionaries(PROMPTS, st.integers(1, 4), min_size=1, max_size=6), st.randoms())
def test_a_unit_does_not_depend_on_the_others(prompts, rng):
    def by_place(units: list[VideoUnit]) -> dict:
        return {(unit.prompt, unit.index): unit for unit in units}

    whole = by_place(units_of(prompts, 3, ["model"]))
    assert set(whole) == {(prompt, index) for prompt, count in prompts.items() for index in range(count)}
    some = rng.sample(list(prompts), rng.randint(1, len(prompts)))
    part = by_place(units_of({prompt: 1 for prompt in some}, 3, ["model"]))
    assert all(whole[place] == unit for place, unit in part.items())
    assert len({unit.file for unit in whole.values()}) == len({unit.key for unit in whole.values()}) == len(whole)


def test_first_all_prompts_then_the_second_videos():
    units = units_of({"a": 1, "b": 3, "c": 2}, 0, None)
    assert [unit.file for unit in units] == ["a-0.mp4", "b-0.mp4", "c-0.mp4", "b-1.mp4", "c-1.mp4", "b-2.mp4"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"identity": ["other"]}, {"prompts": {"b": 1}}])
def test_keys_follow_what_a_video_depends_on(change):
    given_ = {"prompts": {"a": 1}, "seed": 0, "identity": ["model"]}
    assert units_of(**given_)[0].key == units_of(**given_)[0].key
    assert units_of(**given_)[0].key != units_of(**{**given_, **change})[0].key


def test_prompts_that_differ_in_case_only():
    prompts = ["A fantasy landscape", "a fantasy landscape", "x"]
    assert list(file_names(prompts).values()) == prompts
    folded = file_names(prompts, lambda: True)
    assert folded["A fantasy landscape"] == "A fantasy landscape"
    assert folded["a fantasy landscape"].startswith("a fantasy landscape~")
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert len(set(file_names([composed, decomposed], lambda: True).values())) == 2


def test_a_prompt_that_reads_like_the_name_of_another_one():
    for prompts in (["a/b", "a_b~c14cddc0"], ["a_b~c14cddc0", "a/b"], ["x", "X", "X~4b68ab38"]):
        for folds in (False, True):
            names = list(file_names(prompts, lambda folds=folds: folds).values())
            assert len({name.casefold() if folds else name for name in names}) == len(prompts)
    assert file_names(["a/b"])["a/b"] == "a_b~c14cddc0"  # else this tests nothing


def test_the_file_system_is_asked_only_where_it_matters():
    def ask() -> bool:
        raise AssertionError

    assert len(file_names(["a", "b"], ask)) == 2


@given(st.lists(st.text(alphabet="aA/_.~\u00e9e\u0301", min_size=1, max_size=5), unique=True))
def test_names_are_apart_where_case_does_not_count(prompts):
    names = file_names(prompts, lambda: True)
    assert len({name.casefold() for name in names.values()}) == len(prompts)


def test_a_unit_with_its_prompt_encoded_is_the_same_otherwise():
    (unit,) = units_of({"a": 1}, random.Random(0).randrange(9), None)
    assert unit.with_encoded("file").with_encoded(None) == unit
