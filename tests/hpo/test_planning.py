"""What is wrong with a search can be said before it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from raysandbox.config.documents import Document
from raysandbox.config.load import parse_config
from raysandbox.hpo.planning import plan_search

SEARCH = {"method": "grid", "metric": "p.score", "parameters": {"text_length_filter.min_len": {"values": [1, 2]}}}


@pytest.mark.parametrize(
    ("export_path", "refused"),
    [("out/kept.jsonl", False), ("elsewhere/kept.jsonl", True), ("s3://bucket/kept.jsonl", True)],
)
def test_an_output_that_all_trials_would_write_is_refused(workspace: Path, export_path: str, refused: bool) -> None:
    (workspace / "in.jsonl").write_text('{"text": "x"}\n')
    recipe = {
        "dataset_path": "in.jsonl",
        "export_path": export_path,
        "process": [{"text_length_filter": {"min_len": 1}}],
    }
    (workspace / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for given in (recipe, "recipe.yaml"):
        job = {"hook": "ProcessDataHook", "meta_name": "p", "dj_configs": given}
        content = {"work_dir": "out", "hpo_config": SEARCH, "execution_job_configs": [job]}
        config, problems = parse_config(Document(content, "test.yaml"))
        assert config is not None, problems
        found = [str(problem) for problem in plan_search(config)[0].problems]
        assert any("every trial of the search would write" in text for text in found) is refused
