"""Every file that a run leaves, damaged in every way: it is made again, or refused by its name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysandbox.api import check, run
from raysandbox.cli.main import main
from raysandbox.core.errors import JobFailed
from raysandbox.hooks.process_data import ProcessDataHook
from raysandbox.report.markdown import write_report
from tests.faults.damages import DAMAGES, problems_with, some_damages


class Workspace:
    """A configuration of two jobs, and what a run of it left, to be damaged and put back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "run.yaml"
        self.work, self.cache = folder / "live/work", folder / "live/cache"
        lines = [json.dumps({"text": f"text {n} " * (1 + n % 7), "n": n}) for n in range(60)]
        (folder / "data.jsonl").write_text("\n".join([*lines, "{no row"]) + "\n")
        recipe = {"dataset_path": str(folder / "data.jsonl"), "max_bad_rows": 1}
        steps: list[Any] = [{"text_length_filter": {"min_len": 20}}, {"document_deduplicator": {}}]
        kept = str(self.work / "out/kept.jsonl")
        probe = {"hook": "ProbeViaAnalyzerHook", "meta_name": "a", "dj_configs": {**recipe, "process": steps[:1]}}
        write = {"hook": "ProcessDataHook", "meta_name": "p", "output": ["path"]}
        write["dj_configs"] = {**recipe, "export_path": kept, "process": steps, "open_tracer": True}
        config = {"work_dir": str(self.work), "cache_dir": str(self.cache)}
        config |= {"probe_job_configs": [probe], "execution_job_configs": [write]}
        self.config.write_text(yaml.safe_dump(config))

    def keep(self) -> None:
        """Remembers the state."""
        shutil.copytree(self.folder / "live", self.folder / "kept")

    def restore(self) -> None:
        """Puts the remembered state back."""
        shutil.rmtree(self.folder / "live")
        shutil.copytree(self.folder / "kept", self.folder / "live")

    def files(self) -> list[Path]:
        """Everything that the run left."""
        return sorted(path for path in (self.folder / "live").rglob("*") if path.is_file() and path.name != ".lock")

    def results(self) -> dict[str, Any]:
        context = json.loads((self.work / "context_infos.json").read_text())
        return {"context": context, "rows": (self.work / "out/kept.jsonl").read_text()}


@pytest.fixture(params=["finished", "interrupted"])
def state(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A run that finished, or was interrupted after its first job; `results` are those of one that finished."""
    space = Workspace(tmp_path)
    if request.param == "interrupted":
        with monkeypatch.context() as patched:

            def interrupt(*args: Any) -> None:
                raise JobFailed("no room")

            patched.setattr(ProcessDataHook, "run", interrupt)
            with pytest.raises(JobFailed):
                run(space.config)
    else:
        run(space.config)
    space.keep()
    return space


@some_damages
def test_a_damaged_file_is_made_again_or_refused_by_its_name(
    state: Workspace, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(state.config, resume=True)
    wanted = state.results()
    problems: list[str] = []
    for path in state.files():
        state.restore()
        if not path.exists():
            continue
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
        name = path.relative_to(state.folder)
        looks = {
            "report": lambda: write_report(state.work),
            "check": lambda: check(state.config),
            "plan": lambda: plan(state.config),
        }
        runs = {"resume": lambda: run(state.config, resume=True), "new run": lambda: run(state.config)}
        problems += problems_with(path, str(name), looks)
        problems += problems_with(path, str(name), runs, lambda: state.results() == wanted)
    capsys.readouterr()
    assert not problems, "\n".join(problems)


def plan(config: Path) -> None:
    """`raysandbox plan`; errors that would be shown with a traceback go through."""
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(config)])
    assert ended.value.code == 0
