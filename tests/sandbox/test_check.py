from __future__ import annotations

from pathlib import Path

import pytest

from raysandbox.api import check, run
from raysandbox.core.errors import ConfigError, Problem

PLANTED = """\
project_name: planted
experiment_nam: typo
max_iter_num: many
iter_targets: ["anonymous.score >= 1"]
probe_job_configs:
  - hook: ProbeViaAnalyserHook
  - hook: ProbeViaAnalyzerHook
    meta_name: probe
    output: [path]
    dj_configs:
      dataset_path: data.jsonl
      process:
        - text_length_filte: {min_len: 1}
        - text_length_filter: {min_le: 1}
  - hook: ProbeViaAnalyzerHook
    meta_name: twice
    output: [path]
    dj_configs: missing_side_file.yaml
  - hook: ProbeViaAnalyzerHook
    meta_name: twice
    output: [path]
    dj_configs: {dataset_path: data.jsonl, process: []}
    retries: -1
refine_recipe_job_configs:
  - hook: RefineRecipeViaKSigmaHook
    meta_name: nobody
    dj_configs: {dataset_path: data.jsonl, process: []}
    extra_configs: {path_k_sigma_recipe: refined.yaml}
execution_job_configs:
  - hook: TrainModelHook
    meta_name: train
    input: {extra_configs.train_dataset: anonymous.later.path}
    extra_configs: {type: modelscop}
  - hook: TrainModelHook
    meta_name: later
    output: [path]
    input: {extra_configs.train_dataset: anonymous.nothing.path}
    extra_configs: {type: huggingface}
executin_job_configs: []
"""

EXPECTED = [
    (2, "unknown key 'experiment_nam'", "did you mean 'experiment_name'"),
    (3, "max_iter_num: should be a valid integer", ""),
    (4, "names no output of a job", ""),
    (6, "unknown hook 'ProbeViaAnalyserHook'", "did you mean 'ProbeViaAnalyzerHook'"),
    (13, "unknown operator 'text_length_filte'", "did you mean 'text_length_filter'"),
    (14, "unknown parameter 'min_le' of text_length_filter", "did you mean 'min_len'"),
    (18, "missing_side_file.yaml cannot be read", ""),
    (23, "retries: should be greater than or equal to 0", ""),
    (26, "no earlier probe has the meta_name 'nobody'", "probe"),
    (32, "'anonymous.later.path' is made by job anonymous.later#", ""),
    (33, "unknown model trainer 'modelscop'", "did you mean 'modelscope'"),
    (37, "'anonymous.nothing.path' names no output", ""),
    (38, "model trainer 'huggingface' is not in this version", ""),
    (39, "unknown stage 'executin'", "did you mean 'execution_job_configs'"),
]


def errors(problems: list[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.severity == "error"]


@pytest.mark.parametrize(("line", "message", "fix"), EXPECTED)
def test_every_planted_error_is_found_with_its_line(workspace: Path, line: int, message: str, fix: str) -> None:
    Path("planted.yaml").write_text(PLANTED)
    found = [str(problem) for problem in errors(check("planted.yaml"))]
    assert any(text.startswith(f"planted.yaml:{line}: ") and message in text and fix in text for text in found), found


def test_nothing_else_is_called_an_error(workspace: Path) -> None:
    Path("planted.yaml").write_text(PLANTED)
    assert len(errors(check("planted.yaml"))) == len(EXPECTED)


def test_missing_data_is_a_warning(workspace: Path) -> None:
    Path("a.yaml").write_text(
        "probe_job_configs:\n"
        "  - hook: ProbeViaAnalyzerHook\n"
        "    dj_configs: {dataset_path: none.jsonl, process: [text_length_filter: {min_len: 1}]}\n"
    )
    (problem,) = check("a.yaml")
    assert (problem.severity, problem.missing_path, problem.line) == ("warning", True, 3)


def test_a_missing_published_model_is_known_before_anything_starts(workspace: Path) -> None:
    Path("data.jsonl").write_text('{"text": "x"}\n')
    evaluator = "{type: dj_text_quality_classifier, dataset_path: data.jsonl%s}"
    job = f"evaluation_job_configs:\n  - hook: EvaluateDataHook\n    extra_configs: {evaluator}\n"
    Path("a.yaml").write_text(job % "")
    (problem,) = check("a.yaml")
    assert (problem.severity, problem.missing_path, problem.line) == ("warning", True, 3)
    assert "put Data-Juicer's gpt3_quality_model.zip to" in problem.message
    with pytest.raises(ConfigError, match=r"gpt3_quality_model\.zip"):
        run("a.yaml")
    Path("a.yaml").write_text(job % ", model: []")
    assert errors(check("a.yaml"))


def test_side_files_are_located_in_themselves(workspace: Path) -> None:
    Path("recipe.yaml").write_text("dataset_path: data.jsonl\nprocess:\n  - nothing_filter:\n")
    Path("data.jsonl").write_text("")
    Path("a.yaml").write_text(
        "probe_job_configs:\n"
        "  - hook: ProbeViaAnalyzerHook\n"
        "    dj_configs: recipe.yaml\n"
        "    local: {dj_configs.np: x}\n"
    )
    found = [str(problem) for problem in check("a.yaml")]
    assert any(text.startswith("recipe.yaml:3: process[0]") and "unknown operator" in text for text in found), found
    assert any(text.startswith("a.yaml:4: ") and "np" in text for text in found), found


def test_a_refined_recipe_is_known_before_it_is_written(workspace: Path) -> None:
    """The original's own layout: process.yaml refined, processed, and its export trained on."""
    Path("data.jsonl").write_text('{"text": "x"}\n')
    Path("process.yaml").write_text(
        "dataset_path: data.jsonl\nexport_path: out/processed.jsonl\nprocess:\n  - text_length_filter: {min_len: 1}\n"
    )
    Path("train.json").write_text('{"type": "fake", "train_dataset": "out/processed.jsonl", "work_dir": "out/model"}')
    Path("a.yaml").write_text(
        """
probe_job_configs:
  - {hook: ProbeViaAnalyzerHook, meta_name: a, dj_configs: process.yaml, extra_configs: }
refine_recipe_job_configs:
  - {hook: RefineRecipeViaKSigmaHook, meta_name: a, dj_configs: process.yaml,
     extra_configs: {path_k_sigma_recipe: out/refined.yaml}}
execution_job_configs:
  - {hook: ProcessDataHook, meta_name: , dj_configs: out/refined.yaml, extra_configs: }
  - {hook: TrainModelHook, meta_name: , dj_configs: , extra_configs: train.json}
"""
    )
    assert check("a.yaml") == []


def messages(text: str, *overrides: str) -> list[str]:
    Path("a.yaml").write_text(text)
    return [str(problem) for problem in check("a.yaml", overrides)]


def test_paths_that_collide(workspace: Path) -> None:
    Path("own.jsonl").write_text("")
    recipe = "{dataset_path: own.jsonl, export_path: %s, process: []}"
    found = messages(
        f"""
work_dir: work
execution_job_configs:
  - {{hook: ProcessDataHook, dj_configs: {recipe % "own.jsonl"}}}
  - {{hook: ProcessDataHook, dj_configs: {recipe % "work/metrics.jsonl"}}}
  - {{hook: ProcessDataHook, meta_name: first, dj_configs: {recipe % "out.jsonl"}}}
  - {{hook: ProcessDataHook, meta_name: second, dj_configs: {recipe % "./out.jsonl"}}}
"""
    )
    assert len(found) == 3
    expected = ["is both read and written", "is the run's own", "is also written by job anonymous.first#2"]
    assert [text.split(": ")[0] for text in found] == ["a.yaml:4", "a.yaml:5", "a.yaml:7"]
    assert all(part in text for part, text in zip(expected, found, strict=True))


def test_outputs_and_updates_are_counted_and_known(workspace: Path) -> None:
    Path("data.jsonl").write_text("")
    found = messages(
        """
max_iter_num: 2
iter_updater:
  anonymous.p.path: [anonymous.p.dj_configs.datasett_path, anonymous.p.dj_configs.dataset_path]
execution_job_configs:
  - {hook: ProcessDataHook, meta_name: p, output: [path, more],
     dj_configs: {dataset_path: data.jsonl, export_path: out.jsonl, process: []}}
"""
    )
    assert any("names 2 values; ProcessDataHook returns export_path" in text for text in found)
    assert any("dj_configs.datasett_path: unknown key 'datasett_path'" in text for text in found)
    assert len(found) == 2


def test_a_broken_job_does_not_hide_or_break_others(workspace: Path) -> None:
    Path("data.jsonl").write_text("")
    found = messages(
        """
iter_targets: [3.5, "anonymous.p.path == x", nonsense]
probe_job_configs:
  - {hook: ProbeViaAnalyzerHook, meta_name: a, retrys: 1, dj_configs: {dataset_path: data.jsonl, process: [nope]}}
refine_recipe_job_configs:
  - {hook: RefineRecipeViaKSigmaHook, meta_name: a, dj_configs: {dataset_path: data.jsonl, process: []},
     extra_configs: {path_k_sigma_recipe: r.yaml}}
execution_job_configs:
  - {hook: ProcessDataHook, meta_name: p, output: [path], retries: x, dj_configs: r.yaml}
"""
    )
    expected = [
        "'retrys'",
        "'3.5' is not a condition",
        "unknown operator 'nope'",
        "retries",
        "'nonsense' is not a condition",
    ]
    assert len(found) == len(expected), found
    assert all(any(part in text for text in found) for part in expected)


def test_overrides_reach_side_files_and_never_end_in_a_traceback(workspace: Path) -> None:
    Path("data.jsonl").write_text("")
    Path("recipe.yaml").write_text("dataset_path: data.jsonl\nprocess:\n  - text_length_filter: {min_len: 1}\n")
    text = "probe_job_configs:\n  - {hook: ProbeViaAnalyzerHook, meta_name: p, dj_configs: recipe.yaml}\n"
    job = "probe_job_configs.p"
    assert messages(text, f"{job}.dj_configs.np=2", f"{job}.local.dj_configs.np=3") == []
    (found,) = messages(text, f"{job}.dj_configs.process.text_length_filter.min_le=2")
    assert "unknown parameter 'min_le'" in found
    (found,) = messages(text, "probe_job_configs.q.retries=1")
    assert "leads nowhere at 'q'" in found
    for odd in ("probe_job_configs.--1.retries=1", "probe_job_configs.².x=1", "work_dir=[", "a=b=[", "=", "x"):
        assert len(messages(text, odd)) == 1, odd
    for odd in ("work_dir=2024-01-01", "experiment_name=2024"):
        assert messages(text, odd) == [], odd


@pytest.mark.parametrize(
    "text",
    [
        "watcher.wandb: disabled\nprobe_job_configs: [{hook: ProbeViaAnalyzerHook}]",
        "execution_job_configs: [{hook: TrainModelHook, extra_configs: {type: [a]}}]",
        "execution_job_configs: [{hook: TrainModelHook, extra_configs: {type: {}}}]",
        'iter_targets: ["anonymous.j.q >= [1", "anonymous.j.q >= *a", "a.b.c >= 2024-99-99"]\nprobe_job_configs: []',
        'probe_job_configs: [{hook: ProbeViaAnalyzerHook, dj_configs: "a\\0b"}]',
        "stages: [a, a]\na_job_configs: []",
        "probe_job_configs: " + "[" * 3000,
    ],
)
def test_odd_configurations_end_in_messages(workspace: Path, text: str) -> None:
    assert messages(text)


def test_models_that_come_later_do_not_refuse_a_run(workspace: Path) -> None:
    Path("data.jsonl").write_text('{"text": "x"}\n')

    def problems(model: str) -> list[Problem]:
        Path("a.yaml").write_text(
            "execution_job_configs:\n"
            "  - hook: TrainModelHook\n"
            "    extra_configs: {type: fake, train_dataset: data.jsonl, work_dir: out/model}\n"
            "evaluation_job_configs:\n"
            "  - hook: EvaluateModelHook\n"
            f"    extra_configs: {{type: perplexity, dataset_path: data.jsonl, model: {model}}}\n"
        )
        return check("a.yaml")

    assert problems("out/model") == []
    (found,) = problems("somebody/model")
    assert "is fetched from the Hugging Face hub when first used" in str(found)
    assert (found.severity, found.missing_path) == ("warning", False)


def test_paths_that_cannot_be_and_endless_amounts_are_errors(workspace: Path) -> None:
    Path("cfg.yaml").write_text(
        """\
work_dir: ~nobody-at-all/x
execution_job_configs:
  - hook: ProcessDataHook
    meta_name: process
    dj_configs: {dataset_path: "a\\0b", export_path: out.jsonl, process: []}
    resources: {num_cpus: .inf}
  - hook: ProcessDataHook
    meta_name: side
    dj_configs: "%s"
"""
        % ("x" * 300)
    )
    found = {(problem.line, problem.path): problem.message for problem in check("cfg.yaml")}
    assert "no user nobody-at-all" in found[1, "work_dir"]
    assert "NUL" in found[5, "execution_job_configs[0].dj_configs.dataset_path"]
    assert "finite" in found[6, "execution_job_configs[0].resources.num_cpus"]
    assert "too long" in found[9, "execution_job_configs[1].dj_configs"]
