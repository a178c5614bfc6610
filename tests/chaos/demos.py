"""The demos as they run on a cluster, and what two runs of one must have in common.

Equal must be:

- the data that jobs wrote (`.jsonl`, `.json` of `train_data`, recipes): byte for byte;
- videos: by digest; checkpoints (`.safetensors`, `.pth`, `.bin`): tensor by tensor;
- `context_infos.json`, VBench's results and scores: every value;
- the last value of every metric at every step;
- of a search: each trial's number, point, state and value, and the best configuration.

Where a run's folder or the submitted copy stands in a text, both read the same. Not compared are times,
rates, process ids, logs, events, plots, and what a trainer keeps for going on.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from raysandbox.core.events import read_events
from raysandbox.sandbox.trials import read_trials

ROOT = Path(__file__).parents[2]
_PACKAGE = re.compile(r"/[^\s\"']*/runtime_resources/working_dir_files/_ray_pkg_[0-9a-f]+")
# What is done or found is the last attempt's count, and workers are those that it needed; `best.` the best so far, in
# the order in which trials ended.
_UNLIKE = re.compile(
    r"second|prompts_encoded|videos_(done|found|made)$|_per_s|eta_s|time|gpu_|memory|busy|wait|workers$|^best\."
)
_LEFT_OUT = ("artifacts", "logs", "wandb", "previous", "quarantine", ".state", ".records", "trials", "best")
_RECORDS = ("journal.jsonl", "metrics.jsonl", "videos.jsonl")
_TENSORS = (".safetensors", ".pth", ".bin")


@dataclass(frozen=True)
class Demo:
    """A demo.

    Attributes:
        name: of it.
        config: what `run` is given, in the submitted folder.
        work_dir: below the root of outputs.
        folders: of `configs/` that are submitted.
        overrides: `-o` for every run.
        prepare: changes the submitted copy.
    """

    name: str
    config: str
    work_dir: str
    folders: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    prepare: Callable[[Path], None] = lambda folder: None

    def place(self, folder: Path) -> None:
        """Puts the demo's files into the folder that is submitted."""
        for name in self.folders:
            if not (folder / "configs" / name).exists():  # demos share data
                shutil.copytree(ROOT / "configs" / name, folder / "configs" / name)
        self.prepare(folder)

    def arguments(self, cache: Path) -> list[str]:
        """Of `raysandbox run`."""
        options = [f"cache_dir={cache}", *self.overrides]
        return [self.config, *(part for option in options for part in ("-o", option))]


def _text(folder: Path) -> None:
    """Recipes on Ray Data, whatever their size."""
    data = folder / "configs/demo/data"
    if not (data / ".complete").exists():
        subprocess.run([ROOT / "scripts/make_demo_inputs", str(data)], check=True, timeout=300)
    recipe = folder / "configs/demo/process.yaml"
    content = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**content, "engine": "ray"}, sort_keys=False))


def _on_a_gpu(config: str, job: str) -> Callable[[Path], None]:
    """As `_text`, with one job's worker on a (logical) GPU."""

    def prepare(folder: Path) -> None:
        _text(folder)
        path = folder / config
        content = yaml.safe_load(path.read_text())
        for stage in content.values():
            for each in stage if isinstance(stage, list) else ():
                if isinstance(each, dict) and each.get("meta_name") == job:
                    each["resources"] = {"num_gpus": 1}
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    return prepare


def _few_texts(prepare: Callable[[Path], None]) -> Callable[[Path], None]:
    """The first 1,500 documents, and 60 to measure the model with."""

    def prepare_few(folder: Path) -> None:
        prepare(folder)
        for name, count in (("documents", 1500), ("held_out", 60)):
            path = folder / f"configs/demo/data/{name}.jsonl"
            path.write_text("".join(path.read_text().splitlines(keepends=True)[:count]))

    return prepare_few


def _few_videos(folder: Path) -> None:
    """Two prompts with two videos of each, and half of the training."""
    demo = folder / "configs/text_to_video/demo"
    prompts = demo / "data/prompts.json"
    prompts.write_text(json.dumps(json.loads(prompts.read_text())[:2]))
    train = yaml.safe_load((demo / "model_train.yaml").read_text())
    train["train"]["training_config"]["num_train_epochs"] = 10
    (demo / "model_train.yaml").write_text(yaml.safe_dump(train, sort_keys=False))


_TEXT = "configs/demo/sandbox.yaml"
_VIDEO = "configs/text_to_video/demo/1_single_op_pipeline.yaml"
_HPO = "configs/hpo/quality_score.yaml"

DEMOS = {
    "text": Demo("text", _TEXT, "outputs/demo-sandbox", ("demo",), prepare=_on_a_gpu(_TEXT, "train_model")),
    "video": Demo("video", _VIDEO, "outputs/text_to_video_demo/1_single_op", ("text_to_video",)),
    "hpo": Demo(
        "hpo",
        _HPO,
        "outputs/quality-score",
        ("demo", "hpo"),
        # What a Bayesian search asks next depends on which trials have ended: points by chance do not.
        ("hpo_config.method=random", "hpo_config.sweep_max_count=8", "hpo_config.early_terminate=null"),
        _text,
    ),
}
SMALL = {
    "text": replace(DEMOS["text"], prepare=_few_texts(DEMOS["text"].prepare)),
    "video": replace(DEMOS["video"], prepare=_few_videos),
    "hpo": replace(
        DEMOS["hpo"],
        overrides=(*DEMOS["hpo"].overrides, "hpo_config.sweep_max_count=6"),
        prepare=_few_texts(DEMOS["hpo"].prepare),
    ),
}


def outputs(root: Path, work_dir: str, submitted: Path) -> dict[str, Any]:
    """What a run made, in the form in which it is compared.

    Args:
        root: where relative outputs start.
        work_dir: below it.
        submitted: the folder that was submitted.

    Returns:
        name → digest, text or values.
    """
    work = root / work_dir

    def plain(text: str) -> str:
        return _PACKAGE.sub("<submitted>", text.replace(str(root), "<root>").replace(str(submitted), "<submitted>"))

    found: dict[str, Any] = {}
    for path in _files(work):
        name = str(path.relative_to(work))
        if path.suffix == ".mp4":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.suffix in _TENSORS:
            found[name] = _tensors(path)
        elif _is_data(name):
            found[name] = hashlib.sha256(plain(path.read_text()).encode()).hexdigest()
    infos = work / "context_infos.json"
    found["context_infos.json"] = json.loads(plain(infos.read_text())) if infos.exists() else "there is none"
    found["metrics"] = json.loads(plain(json.dumps(_metrics(work / "metrics.jsonl"))))
    if (work / "trials").exists():
        found.update(_trials(work))
    return found


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What is not equal, one line each."""
    names = sorted({*expected, *found})
    lines = []
    for name in names:
        one, other = expected.get(name, "missing"), found.get(name, "missing")
        if one != other and isinstance(one, dict) and isinstance(other, dict):
            parts = [key for key in {*one, *other} if one.get(key) != other.get(key)]
            told = [f"{key}: {one.get(key)} != {other.get(key)}" for key in sorted(map(str, parts))[:4] if key in one]
            lines.append(f"{name}: {len(parts)} of {len(one)} differ ({'; '.join(told)})")
        elif one != other:
            lines.append(f"{name}: {str(one)[:300]} != {str(other)[:300]}")
    return lines


def _files(work: Path) -> Iterator[Path]:
    for path in sorted(work.rglob("*")):
        if path.is_file() and not {*path.relative_to(work).parts[:-1]} & {*_LEFT_OUT}:
            yield path


def _is_data(name: str) -> bool:
    path = Path(name)
    if path.name in _RECORDS or path.name.startswith("."):
        return False
    recipe = path.suffix == ".yaml" and path.name != "config.yaml"
    results = path.suffix == ".json" and path.parts[0] in ("train_data", "vbench")
    return path.suffix == ".jsonl" or recipe or results


def _tensors(path: Path) -> dict[str, str]:
    """Digest of every tensor in a checkpoint; a trainer's own state, which holds times, has none."""
    import torch

    if path.name.endswith("_trainer_state.pth"):
        return {}
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        content: Any = load_file(path)
    else:
        content = torch.load(path, map_location="cpu", weights_only=False)
    content = content.get("state_dict", content)
    return {
        name: hashlib.sha256(value.detach().contiguous().numpy().tobytes()).hexdigest()
        for name, value in content.items()
        if isinstance(value, torch.Tensor)
    }


def _metrics(path: Path) -> dict[str, Any]:
    """The last value of each metric at each step; which attempt told it is not the question."""
    return {
        f"{line['name']}@{line['step']}": line["value"]
        for line in read_events(path)
        if not _UNLIKE.search(line["name"])
    }


def _trials(work: Path) -> dict[str, Any]:
    found = {
        f"trial {record.number}": {"point": dict(record.params), "value": record.value, "state": record.state}
        for record in read_trials(work / "journal.jsonl")
    }
    ended = [event["number"] for event in read_events(work / "journal.jsonl") if event["event"] == "trial_ended"]
    return {**found, "trials ended": sorted(ended)}
