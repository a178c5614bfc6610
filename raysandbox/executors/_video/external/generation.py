"""A generation by the original's script: the prompts in contiguous shards, one call of the script for each."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.core.files import atomic_write, remove
from raysandbox.core.keys import DigestMemo, digest
from raysandbox.core.names import LONGEST_NAME
from raysandbox.core.runner import UnitFailed, WorkSession
from raysandbox.executors._video.clips import file_name
from raysandbox.executors._video.external.settings import (
    BackendOptions,
    ExternalScript,
    absolute,
    code_of,
    external_script,
)

__all__ = ["ShardWork", "external_generation", "is_whole_mp4", "shards_of"]

_SCRIPT = "infer_lora.py"
_OPTIONS = (
    "--config_path=config/easyanimate_video_motion_module_v1.yaml",
    "--prompt_info_path={prompt_info_path}",
    "--pretrained_model_name_or_path={pretrained_model_name_or_path}",
    "--transformer_path={transformer_path}",
    "--lora_path={lora_path}",
    "--image_size={image_size}",
    "--chunks_num={gpu_num}",
    "--chunk_id=0",
    "--batch_size={batch_size}",
    "--video_num_per_prompt={video_num_per_prompt}",
    "--mixed_precision={mixed_precision}",
    "--save_path={output_video_dir}",
    "--seed={seed}",
)
_POSITIONS = (
    *("{pretrained_model_name_or_path}", "{transformer_path}", "{lora_path}", "{image_size}"),
    *("{prompt_info_path}", "{gpu_num}", "{batch_size}", "{mixed_precision}"),
    *("{video_num_per_prompt}", "{seed}", "{output_video_dir}"),
)
_DEFAULTS: Mapping[str, Any] = {
    "transformer_path": None,
    "lora_path": None,
    "image_size": 256,
    "batch_size": 8,
    "mixed_precision": "bf16",
    "video_num_per_prompt": 5,
    "seed": 43,
}
_PATHS = ("pretrained_model_name_or_path", "transformer_path", "lora_path")
_PROMPTS_PER_SHARD = 50  # loading the model takes a minute, their videos the greater part of an hour
_TRIES = 2
_NOTES = ".external"
_SHOWN = 3


@dataclass(frozen=True)
class ShardWork:
    """Runs the script on one shard (`core.runner.UnitWork`).

    Attributes:
        script: the script.
        values: its values, all but the prompts' file and the videos' folder.
        per_prompt: videos of each prompt.
        output: folder of the videos.
        notes: folder for records of finished videos and for unfinished shards.
    """

    script: ExternalScript
    values: Mapping[str, Any]
    per_prompt: int
    output: Path
    notes: Path

    @property
    def shared_folders(self) -> tuple[Path, ...]:
        """Where workers leave files."""
        return (self.output,)

    def load(self, device: str) -> None:
        """Nothing: each call of the script loads the model."""

    def run(self, unit: Sequence[str], state: None) -> list[str]:
        """Makes the videos of prompts that have not all of theirs; returns the names of the new files.

        Raises:
            JobFailed: the script did not end well, or videos are missing; whole ones are kept.
        """
        folder = self.notes / f"shard-{digest(list(unit))[:12]}"
        if (folder / "prompts.json").exists():  # of a worker that was lost
            self.collect(folder)
        there = finished(self.notes, self.output)
        prompts = [prompt for prompt in unit if not self.files_of(prompt) <= there]
        if not prompts:
            return []
        videos = folder / "videos"
        videos.mkdir(parents=True, exist_ok=True)
        # Through a file: a prompt may hold quotes, which the original's shell stumbles over.
        listed = folder / "prompts.json"
        atomic_write(listed, json.dumps([{"prompt_en": prompt} for prompt in prompts]))
        what = f"{self.script.script} on {len(prompts)} prompts from {prompts[0]!r} on"
        values = {**self.values, "prompt_info_path": str(listed), "output_video_dir": str(videos)}
        try:
            self.script.run(values, _ignore, what)
        except JobFailed:
            self.collect(folder)
            raise
        made = self.collect(folder)
        missing = sorted({name for prompt in prompts for name in self.files_of(prompt)} - {*made, *there})
        if missing:
            shown = ", ".join(missing[:_SHOWN]) + (" …" if len(missing) > _SHOWN else "")
            raise JobFailed(f"{what} ended with status 0, but {len(missing)} videos are missing or damaged: {shown}")
        return made

    def collect(self, folder: Path) -> list[str]:
        """Moves the whole videos of a shard to where they belong, with a record, and removes its folder."""
        made: list[str] = []
        names = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
        with (self.notes / f"{folder.name}.jsonl").open("a", encoding="utf-8") as records:
            for prompt in (entry["prompt_en"] for entry in names):
                for index in range(self.per_prompt):
                    source, target = folder / "videos" / f"{prompt}-{index}.mp4", file_name(prompt, index)
                    if is_whole_mp4(source):
                        records.write(json.dumps(_record(source, target)) + "\n")
                        records.flush()
                        os.replace(source, self.output / target)
                        made.append(target)
        remove(folder)
        return made

    def files_of(self, prompt: str) -> set[str]:
        """Names of a prompt's videos."""
        return {file_name(prompt, index) for index in range(self.per_prompt)}


def external_generation(
    options: BackendOptions,
    given: Mapping[str, Any],
    prompts: Sequence[str],
    output: Path,
    session: WorkSession,
    num_workers: int | None,
) -> dict[str, list[Path]]:
    """Generates the videos of all prompts that have not theirs yet; returns the videos of each.

    Args:
        options: of the external backend.
        given: values by the original's names; those that are None get the original's.
        prompts: each once.
        output: folder of the videos.
        session: of the job.
        num_workers: where the job's `resources` do not say.

    Raises:
        UserError: the script, its checkout or environment is not there, or a prompt cannot name a file.
        JobFailed: a shard failed; the others are finished.
    """
    values = {**_DEFAULTS, **{key: value for key, value in given.items() if value is not None}, "gpu_num": 1}
    values |= {key: absolute(values[key]) for key in _PATHS}
    script = external_script(
        options,
        script=_SCRIPT,
        launcher="python",
        arguments={".py": _OPTIONS, ".sh": _POSITIONS},
        values={**values, "prompt_info_path": "", "output_video_dir": ""},
        allow_user_code=session.allow_user_code,
    )
    per_prompt, output = int(values["video_num_per_prompt"]), output.absolute()
    _check_names(prompts, per_prompt)
    key = _key(script, values, DigestMemo(session.cache_dir / "digests"))
    work = ShardWork(script, values, per_prompt, output, output / _NOTES / key)
    _begin(work)
    there = finished(work.notes, output)
    todo = [prompt for prompt in prompts if not work.files_of(prompt) <= there]
    if len(todo) < len(prompts):
        session.emit("units_found", count=len(there), prompts=len(prompts) - len(todo))
    shards = shards_of(todo, num_workers or 1)
    failures: list[str] = []
    for index, result in session.workers.map(
        work, shards, description="shards of prompts", num_workers=num_workers, elastic=True, tries=_TRIES
    ):
        if isinstance(result, UnitFailed):
            failures.append(f"shard {index + 1} of {len(shards)}: {result.reason}")
            session.emit("unit_failed", shard=index, reason=result.reason)
            continue
        for name in result:
            session.emit("unit_done", file=name, shard=index)
    if failures:
        raise JobFailed(
            f"{len(failures)} of {len(shards)} shards failed; --resume makes only what is missing:\n"
            + "\n".join(failures)
        )
    made = {prompt: [output / file_name(prompt, index) for index in range(per_prompt)] for prompt in prompts}
    lost = [path for paths in made.values() for path in paths if not path.exists()]
    if lost:
        raise JobFailed(
            f"{len(lost)} videos that workers made are not in {output} here (e.g. {lost[0].name!r}): on several nodes "
            f"the folder must lie on storage that all of them share"
        )
    return made


def shards_of(prompts: Sequence[str], num_workers: int) -> list[tuple[str, ...]]:
    """Contiguous shards of nearly equal size: at least one for each worker, none of more than 50 prompts."""
    count = min(len(prompts), max(num_workers, -(-len(prompts) // _PROMPTS_PER_SHARD)))
    bounds = [len(prompts) * index // count for index in range(count + 1)] if count else [0]
    return [tuple(prompts[start:end]) for start, end in itertools.pairwise(bounds)]


def finished(notes: Path, output: Path) -> set[str]:
    """Names of the videos that are as they were recorded."""
    return {record["file"] for record in _records(notes) if _record_fits(record, output)}


def is_whole_mp4(path: Path) -> bool:
    """Whether a file consists of whole boxes, an index (`moov`) among them, as one that was cut does not.

    Source: ISO/IEC 14496-12, 4.2: each box begins with its size (4 bytes) and type (4 bytes); a size of
    1 means that 8 bytes with the size follow, a size of 0 that it reaches to the end.
    """
    found: set[bytes] = set()
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            at = 0
            while at < total:
                file.seek(at)
                head = file.read(16)
                size, kind = int.from_bytes(head[:4], "big"), head[4:8]
                size = int.from_bytes(head[8:], "big") if size == 1 else size or total - at
                if size < 8:
                    return False
                found.add(kind)
                at += size
    except OSError:
        return False
    return at == total and {b"ftyp", b"moov"} <= found


def _ignore(line: str) -> None:
    """The script's lines are in the log; there is nothing to measure in them."""


def _check_names(prompts: Sequence[str], per_prompt: int) -> None:
    """The script names files by the prompts as they are."""
    for prompt in prompts:
        name = f"{prompt}-{per_prompt - 1}.mp4"
        if "/" in prompt or "\0" in prompt or len(name.encode()) > LONGEST_NAME:
            raise UserError(
                f"prompts: the script of backend: external cannot write a file named after {prompt[:80]!r} "
                f"(it is too long, or holds a slash): change the prompt, or use backend: diffusers"
            )


def _key(script: ExternalScript, values: Mapping[str, Any], memo: DigestMemo) -> str:
    """Digest of what the videos depend on, the prompts aside."""
    files = {key: memo.of(Path(values[key])) for key in _PATHS if values[key]}
    call = [script.python, str(script.source), script.script, script.launcher, list(script.arguments)]
    return digest([dict(values), files, code_of(script.source), call])[:16]


def _begin(work: ShardWork) -> None:
    """Removes what another configuration made, and keeps what a run that was ended has finished."""
    work.notes.mkdir(parents=True, exist_ok=True)
    for other in work.notes.parent.iterdir():
        if other != work.notes:
            for record in _records(other):
                if _record_fits(record, work.output):
                    (work.output / record["file"]).unlink()
            remove(other)
    for folder in work.notes.glob("shard-*/"):
        if (folder / "prompts.json").exists():
            work.collect(folder)


def _record(source: Path, name: str) -> dict[str, Any]:
    stat = source.stat()
    return {"file": name, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _records(notes: Path) -> Iterator[Mapping[str, Any]]:
    for file in sorted(notes.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # the last line of a killed worker: its video was not moved
                record = json.loads(line)
                if isinstance(record, dict) and {"file", "bytes", "mtime_ns"} <= record.keys():
                    yield record


def _record_fits(record: Mapping[str, Any], output: Path) -> bool:
    path = output / record["file"]
    return path.is_file() and _record(path, record["file"]) == record
