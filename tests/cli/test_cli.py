from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import raysandbox
from raysandbox.cli.main import main
from raysandbox.core.errors import RunInterrupted

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path
    for path in (ROOT / "configs").rglob("*.yaml")
    if re.search("_job_configs|^process:", path.read_text(), re.MULTILINE) and "data" not in path.parts
)


def command(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "raysandbox", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **more,
    )


def status_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    out, err = capsys.readouterr()
    code = caught.value.code
    return (code if isinstance(code, int) else 0), out, err


def test_public_names() -> None:
    assert raysandbox.__all__ == ["analyze", "load_config", "process", "register", "run"]
    assert all(callable(getattr(raysandbox, name)) for name in raysandbox.__all__)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["check", "configs/demo/sandbox.yaml"], ["ls"], ["plan", "configs/demo/sandbox.yaml"]]
)
def test_light_verbs_import_neither_torch_nor_ray(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom raysandbox.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    code = end.code or 0\n"
        "heavy = {'torch', 'ray', 'data_juicer', 'transformers', 'modelscope', 'wandb'} & set(sys.modules)\n"
        "assert not heavy, heavy\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_configuration_passes_check(config: Path) -> None:
    done = command("check", str(config.relative_to(ROOT)), cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_check_lists_all_and_is_quick(workspace: Path) -> None:
    Path("bad.yaml").write_text("max_iter_num: 0\nprobe_job_configs:\n  - hook: Nope\n  - meta_name: x\n")
    start = time.monotonic()
    done = command("check", "bad.yaml")
    assert time.monotonic() - start < 10  # about 0.5 s on a quiet machine; measured in the closing notes
    assert done.returncode == 2
    assert [line.split(": ")[0] for line in done.stderr.splitlines()[:3]] == ["bad.yaml:1", "bad.yaml:3", "bad.yaml:4"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["chekc", "x"], 2, "unknown verb 'chekc'; did you mean 'check'?"),
        (["report"], 2, "verb 'report' is not in this version"),
        (["run", "none.yaml"], 2, "none.yaml: cannot be read: No such file or directory"),
        (["run"], 2, "give one configuration file"),
        (["process", "none.yaml"], 2, "cannot be read"),
        (["ls", "opps"], 2, "unknown kind 'opps'; did you mean 'ops'?"),
        (["ls", "ops", "text_length_filtr"], 2, "did you mean 'text_length_filter'?"),
    ],
)
def test_errors_are_one_message_and_a_status(
    workspace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    code, _, err = status_of(capsys, *arguments)
    assert code == status
    assert message in err
    assert "Traceback" not in err


def test_an_interrupted_run_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(**_: object) -> None:
        raise RunInterrupted(15)

    monkeypatch.setattr("raysandbox.cli.main.app", interrupted)
    code, _, err = status_of(capsys)
    assert code == 143
    assert "--resume" in err


def test_process_and_analyze_from_the_command_line(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["short", "a text that is long enough to stay", "another text that is long enough"]
    Path("data.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    Path("recipe.yaml").write_text(
        "dataset_path: data.jsonl\nexport_path: out/kept.jsonl\nprocess:\n  - text_length_filter: {min_len: 10}\n"
    )
    main_ok("process", "recipe.yaml")
    assert len(Path("out/kept.jsonl").read_text().splitlines()) == 2
    assert "2 of 3 rows" in capsys.readouterr().out
    main_ok("process", "recipe.yaml", "-o", "process.0.text_length_filter.min_len=33", "--no-cache")
    assert "1 of 3 rows" in capsys.readouterr().out
    main_ok("analyze", "recipe.yaml", "--out", "analysis")
    assert "text_len" in capsys.readouterr().out
    assert Path("analysis/analysis.json").exists()


def main_ok(*arguments: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert not caught.value.code


def test_ls_shows_parameters_defaults_and_example(capsys: pytest.CaptureFixture[str]) -> None:
    main_ok("ls", "ops", "text_length_filter")
    out = capsys.readouterr().out
    assert "fewest characters (int | None; 10)" in out
    assert "example:" in out


def test_a_package_from_outside_adds_one_of_each(tmp_path: Path) -> None:
    target = tmp_path / "site"
    install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
        "--target",
    ]
    example = str(ROOT / "tests/plugin_example")
    subprocess.run([sys.executable, *install, str(target), example], check=True, timeout=120)
    (tmp_path / "data.jsonl").write_text('{"text": "abc"}\n{"text": "de"}\n')
    (tmp_path / "a.yaml").write_text(
        """
work_dir: work
execution_job_configs:
  - {hook: ProcessDataHook, meta_name: p, output: [path],
     dj_configs: {dataset_path: data.jsonl, export_path: loud.jsonl, process: [shout_mapper]}}
  - {hook: TrainModelHook, meta_name: t, input: {extra_configs.train_dataset: -1.path}, output: [model],
     extra_configs: {type: memorise, model_path: model.bin}}
evaluation_job_configs:
  - {hook: EvaluateDataHook, meta_name: e, output: [score],
     extra_configs: {type: mean_length, dataset_path: loud.jsonl}}
publish_job_configs:
  - {hook: CountLinesHook, meta_name: c, output: [lines], input: {extra_configs.path: anonymous.t.model}}
"""
    )
    path = f"{target}{os.pathsep}{ROOT}"
    done = command("run", "a.yaml", cwd=tmp_path, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr + done.stdout
    infos = json.loads((tmp_path / "work/context_infos.json").read_text())[0]["pipeline_infos"][0]["job_infos"]
    assert [list(info.items())[-1] for info in infos] == [
        ("path", "loud.jsonl"),
        ("model", "model.bin"),
        ("score", 2.5),
        ("lines", 2),
    ]
    assert (tmp_path / "model.bin").read_text().startswith('{"text":"ABC"}')
