import json

import pytest

from raysandbox.core.errors import JobFailed
from raysandbox.recipe.api import analyze


def test_statistics_of_all_rows(tmp_path, write_jsonl, read_jsonl):
    source = write_jsonl([{"text": "a b"}, {"text": "  longer text  "}])
    steps = [
        "whitespace_normalization_mapper",
        {"text_length_filter": {"min_len": 5}},
        {"words_num_filter": {"min_num": 9}},
    ]
    result = analyze({"dataset_path": str(source), "process": steps}, out_dir=tmp_path / "out")
    assert result.path == str(tmp_path / "out/dataset_stats.jsonl")
    assert read_jsonl(result.path) == [
        {"__dj__stats__": {"text_len": 3, "num_words": 2}},
        {"__dj__stats__": {"text_len": 15, "num_words": 2}},
    ]
    assert result.rows == 2
    assert result.analysis.numeric["text_len"].mean == 9
    assert (tmp_path / "out" / "overall.csv").exists()
    assert "left out: whitespace_normalization_mapper" in result.warnings[0]


def test_the_data_set_with_its_statistics(tmp_path, write_jsonl, read_jsonl):
    source = write_jsonl([{"text": "abc", "n": 1}])
    recipe = {"dataset_path": str(source), "process": ["text_length_filter"], "export_original_dataset": True}
    result = analyze(recipe, out_dir=tmp_path)
    assert result.path == str(tmp_path / "dataset.jsonl")
    assert read_jsonl(result.path) == [{"text": "abc", "n": 1, "__dj__stats__": {"text_len": 3}}]
    result = analyze({**recipe, "export_path": str(tmp_path / "x.json")}, out_dir=tmp_path)
    assert json.loads((tmp_path / "x.json").read_text())[0]["__dj__stats__"] == {"text_len": 3}
    assert result.path == str(tmp_path / "x.json")


def test_of_equal_statistics_the_first_is_analysed(tmp_path, write_jsonl):
    source = write_jsonl([{"text": "abc"}])
    steps = [{"text_length_filter": {"min_len": 1}}, {"text_length_filter": {"min_len": 2}}]
    result = analyze({"dataset_path": str(source), "process": steps}, out_dir=tmp_path / "out")
    assert "the first is analysed" in result.warnings[0]


@pytest.mark.parametrize(
    ("steps", "rows"), [(["document_deduplicator"], [{"text": "a"}]), (["text_length_filter"], [])]
)
def test_nothing_to_analyse(tmp_path, write_jsonl, steps, rows):
    with pytest.raises(JobFailed, match=r"no filter|no rows"):
        analyze({"dataset_path": str(write_jsonl(rows)), "process": steps}, out_dir=tmp_path / "out")
