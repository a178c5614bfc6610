"""Videos and prompts find each other, or are named."""

import json
import logging

import pytest

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.core.names import safe_stem
from raysandbox.evaluators._vbench.suite import Prompt, custom_clips, read_prompts, standard_clips

CAT = Prompt("a cat", ("temporal_flickering", "dynamic_degree"), {})
DOG = Prompt("a dog-like cloud", ("dynamic_degree",), {})
CAR = Prompt("a red car", ("color",), {"color": {"color": "red"}})


def touch(folder, *names):
    for name in names:
        (folder / name).touch()


def names_of(clips):
    return {dimension: [clip.path.name for clip in found] for dimension, found in clips.items()}


def test_videos_of_prompts_in_the_order_of_the_suite(tmp_path, caplog):
    touch(
        tmp_path, *(f"a cat-{n}.mp4" for n in range(5)), *(f"a dog-like cloud-{n}.gif" for n in range(5)), "notes.txt"
    )
    found = standard_clips(tmp_path, [DOG, CAT, CAR], ["dynamic_degree", "temporal_flickering"], "suite.json")
    cats = [f"a cat-{n}.mp4" for n in range(5)]
    assert names_of(found) == {
        "dynamic_degree": [f"a dog-like cloud-{n}.gif" for n in range(5)] + cats,
        "temporal_flickering": cats,
    }
    assert found["dynamic_degree"][0].prompt == "a dog-like cloud"
    assert not caplog.records  # prompts of other dimensions need no videos


def test_what_does_not_fit_is_named(tmp_path, caplog):
    touch(tmp_path, "a cat-0.mp4", "a cat-0.gif", "a cat-7.mp4", "A cat-1.mp4", "a bird.mp4")
    with caplog.at_level(logging.WARNING):
        found = standard_clips(tmp_path, [CAT, DOG], ["dynamic_degree"], "suite.json")
    assert names_of(found) == {"dynamic_degree": ["a cat-0.mp4"]}
    strays, missing = (record.getMessage() for record in caplog.records)
    assert strays.startswith(
        "4 of 5 videos belong to no prompt of suite.json and are not scored ('A cat-1.mp4', 'a bird.mp4'"
    )
    assert "9 videos of the suite are missing" in missing
    assert "1 prompts have none ('a dog-like cloud')" in missing


def test_suffixes_may_be_in_capitals(tmp_path, caplog):
    touch(tmp_path, "a cat-0.MP4", "a cat-0.mp4", "a cat-1.Mp4", "a cat-2.GIF", "a cat-3.mp4", "a cat-4.mp4")
    found = standard_clips(tmp_path, [CAT], ["dynamic_degree"], "suite.json")
    expected = ["a cat-0.mp4", "a cat-1.Mp4", "a cat-2.GIF", "a cat-3.mp4", "a cat-4.mp4"]
    assert names_of(found) == {"dynamic_degree": expected}
    (strays,) = (record.getMessage() for record in caplog.records)
    assert strays.startswith("1 of 6 videos belong to no prompt of suite.json and are not scored ('a cat-0.MP4')")
    assert len(custom_clips(tmp_path, ["dynamic_degree"])["dynamic_degree"]) == 6


def test_names_that_had_to_change_are_found(tmp_path, caplog):
    prompt = Prompt("a fox / a hen" + " and so on" * 40, ("temporal_flickering",), {})
    touch(tmp_path, *(f"{safe_stem(prompt.text)}-{n}.mp4" for n in range(5)))
    (clips,) = standard_clips(tmp_path, [prompt], ["temporal_flickering"], "suite.json").values()
    assert [clip.prompt for clip in clips] == [prompt.text] * 5
    assert not caplog.records


def test_files_that_vbench_does_not_read_are_named(tmp_path, caplog):
    touch(tmp_path, "a cat-0.avi", "a cat-1.WebM", "notes.txt")
    with pytest.raises(JobFailed, match=r"holds no videos .*; VBench does not read 'a cat-0.avi', 'a cat-1.WebM'"):
        custom_clips(tmp_path, ["dynamic_degree"])
    touch(tmp_path, *(f"a cat-{n}.mp4" for n in range(5)))
    standard_clips(tmp_path, [CAT], ["dynamic_degree"], "suite.json")
    custom_clips(tmp_path, ["dynamic_degree"])
    said = f"2 files of {tmp_path} are not scored ('a cat-0.avi', 'a cat-1.WebM'): videos are .mp4, .gif"
    assert [record.getMessage() for record in caplog.records] == [said, said]


def test_nothing_to_score_is_an_error(tmp_path):
    with pytest.raises(JobFailed, match=r"videos_path: there is no folder .*/none"):
        standard_clips(tmp_path / "none", [CAT], ["dynamic_degree"], "suite.json")
    with pytest.raises(JobFailed, match=r"holds no videos \(\.mp4, \.gif\)"):
        custom_clips(tmp_path, ["dynamic_degree"])
    touch(tmp_path, "a cat-0.mp4")
    with pytest.raises(
        JobFailed, match=r"color has no videos in .*: none is named after one of its prompts in suite\.json"
    ):
        standard_clips(tmp_path, [CAT, CAR], ["dynamic_degree", "color"], "suite.json")


def test_a_prompt_must_say_what_its_dimension_needs(tmp_path):
    touch(tmp_path, "a red car-0.mp4")
    assert standard_clips(tmp_path, [CAR], ["color"], "s")["color"][0].auxiliary == {"color": "red"}
    with pytest.raises(JobFailed, match="s: the prompt 'a red car' has no auxiliary_info for color"):
        standard_clips(tmp_path, [Prompt("a red car", ("color",), {})], ["color"], "s")


def test_videos_of_ones_own(tmp_path):
    touch(tmp_path, "a cat-12.mp4", "a well-known dog.mp4", "info.json")
    found = custom_clips(tmp_path, ["temporal_style"])["temporal_style"]
    assert [(clip.path.name, clip.prompt) for clip in found] == [
        ("a cat-12.mp4", "a cat"),
        ("a well-known dog.mp4", "a well-known dog"),
    ]
    assert len(custom_clips(tmp_path / "a cat-12.mp4", ["temporal_style"])["temporal_style"]) == 1


def test_prompt_information(tmp_path):
    path = tmp_path / "info.json"
    entry = {"prompt_en": "a red car", "dimension": "color", "auxiliary_info": {"color": {"color": "red"}}}
    path.write_text(json.dumps([entry]))
    assert read_prompts(path) == [CAR]
    for content in ('{"a": 1}', "[1", "[[]]", '[{"prompt_en": "a cat"}]'):
        path.write_text(content)
        with pytest.raises(UserError, match=r"full_json_dir: .*info\.json is not a list of"):
            read_prompts(path)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_prompts(tmp_path / "none.json")
