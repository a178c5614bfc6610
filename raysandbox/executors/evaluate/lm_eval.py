"""Benchmarks of language models by EleutherAI's lm-evaluation-harness."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from raysandbox.core.component import InputPaths, LibraryOptions, ModelPath
from raysandbox.core.errors import MissingMetricError, UserError
from raysandbox.core.files import atomic_write
from raysandbox.core.names import pinned
from raysandbox.core.redact import is_secret_key, redact, redact_text
from raysandbox.core.registry import register
from raysandbox.core.runner import WorkSession
from raysandbox.executors._causal_lm import Dtype, located
from raysandbox.executors.base import ModelEvaluator
from raysandbox.executors.evaluate._harness import Harness, files_of, is_path
from raysandbox.ops.pretrained import hub_commit, warn_unpinned

__all__ = ["LmEval"]

# What the harness writes beside the metrics of a task.
_NO_METRICS = ("alias", "name", "sample_len", "sample_count")
# Arguments of the harness's model that are said elsewhere: where.
_SAID_ELSEWHERE = {
    "pretrained": "set the key `model`",
    "dtype": "set the key `dtype`",
    "max_length": "set the key `max_length`",
    "batch_size": "set the key `batch_size`",
    "device": "the job's `resources` give it",
}
_PATH_ARGUMENTS = ("peft", "delta", "tokenizer")  # these may be folders, or ids on the hub
_HARMLESS = (
    "add_bos_token attn_implementation backend chat_template_args delta device_map enable_thinking gguf_file "
    "load_in_4bit load_in_8bit logits_cache low_cpu_mem_usage max_batch_size max_cpu_memory max_gen_toks "
    "max_memory_per_gpu mixed_precision_dtype offload_folder parallelize peft prefix_token_id quantization_config "
    "softmax_dtype subfolder think_end_token tokenizer tp_plan truncation use_fast_tokenizer use_safetensors "
    "variant weights_only"
)
_TOKENS_OF_TEXT = ("think_end_token",)  # told from a secret by nothing in its name


@register("lm_eval")
class LmEval(ModelEvaluator):
    """Runs tasks of lm-evaluation-harness on a Hugging Face model, in one worker, without a network.

    Tasks are the harness's own, by name, or YAML files of yours. What they and the model need must be
    on this machine, unless `allow_download` is set.
    """

    extras: ClassVar[tuple[str, ...]] = ("lm-eval",)
    example: ClassVar[Mapping[str, Any]] = {
        "model": "./outputs/demo/model",
        "tasks": ["./tasks/river_facts.yaml"],
        "num_fewshot": 2,
        "metrics": ["river_facts.acc"],
    }

    model: ModelPath = Field(description="folder of the model, or its id on the Hugging Face hub")
    tasks: str | list[str] = Field(
        description="tasks, groups or tags by name; or paths of YAML files, or of folders to run all tasks of"
    )
    include_path: InputPaths | None = Field(None, description="folders with YAML files of more tasks to choose by name")
    num_fewshot: int | None = Field(None, ge=0, description="examples before each question; by default the task's own")
    limit: float | None = Field(None, gt=0, description="questions per task; below 1 a share of them")
    batch_size: int | Literal["auto"] = Field(8, description="questions at once; auto tries what the GPU holds")
    max_length: int | None = Field(None, ge=2, description="tokens that the model sees at once; by default its context")
    dtype: Dtype = Field("auto", description="type of the weights; auto keeps them as they are stored")
    apply_chat_template: bool = Field(False, description="put questions into the tokenizer's chat template")
    model_args: Annotated[dict[str, Any], LibraryOptions(frozenset(_HARMLESS.split()))] = Field(
        default_factory=dict, description="more arguments of the harness's `hf` model, such as peft or add_bos_token"
    )
    gen_kwargs: dict[str, Any] = Field(default_factory=dict, description="arguments of generation, over the task's own")
    metrics: list[str] = Field(
        default_factory=list, description="metrics that must be among the results: task.metric, or task.metric.filter"
    )
    bootstrap_iters: int = Field(
        1000, ge=0, description="samples for the standard errors of metrics that are no means; 0 for no standard errors"
    )
    log_samples: bool = Field(True, description="write each question with the model's answer to the artefacts")
    allow_download: bool = Field(False, description="fetch data of tasks, and the model, from the Hugging Face hub")
    trust_remote_code: bool = Field(
        False, description="whether Python code that lies beside the weights may run; needs --allow-user-code"
    )
    seed: int = Field(1234, ge=0, description="seed of the few-shot examples and of every random choice")

    @classmethod
    def more_inputs(cls, raw: Mapping[str, Any]) -> Sequence[str]:
        """Files and folders of `tasks`, what their YAML files name, and folders that `model_args` names."""
        tasks, arguments = raw.get("tasks"), raw.get("model_args")
        paths = [task for task in (tasks if isinstance(tasks, list) else [tasks]) if isinstance(task, str)]
        named = [arguments.get(key) for key in _PATH_ARGUMENTS] if isinstance(arguments, Mapping) else []
        return [
            *dict.fromkeys(file for task in paths if is_path(task) for file in files_of(task)),
            *(path for path in named if isinstance(path, str) and path.startswith((".", os.sep))),
        ]

    @field_validator("model_args")
    @classmethod
    def _has_no_key_of_its_own(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for key in arguments:
            if key in _SAID_ELSEWHERE:
                raise ValueError(f"must not hold '{key}': {_SAID_ELSEWHERE[key]}")
        return arguments

    @field_validator("model_args", "gen_kwargs")
    @classmethod
    def _brings_no_code_and_no_secret(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for key, value in _entries(arguments):
            if key == "trust_remote_code":
                raise ValueError(f"must not hold '{key}': set the key `trust_remote_code`, with --allow-user-code")
            if isinstance(value, str) and is_secret_key(key) and key not in _TOKENS_OF_TEXT:
                raise ValueError(f"must not hold the secret '{key}': set it in the environment (HF_TOKEN)")
        return arguments

    def evaluate(self, session: WorkSession) -> dict[str, float]:
        """Returns `{task.metric: value}`, with `task.metric_stderr` where it is known.

        Everything that the harness tells is in `results.json` of the artefacts, the answers in
        `samples_TASK.jsonl`.

        Raises:
            UserError: a task is unknown, or brings code that may not run.
            MissingMetricError: a metric is missing, or not a number.
            MissingExtraError: the harness is not installed.
        """
        names = [self.tasks] if isinstance(self.tasks, str) else self.tasks
        if not names:
            raise UserError("tasks: the list is empty (name at least one task)")
        folders = [self.include_path] if isinstance(self.include_path, str) else self.include_path or []
        for path in [*folders, *filter(is_path, names)]:
            if not Path(path).exists():
                raise UserError(f"tasks: there is no file or folder {path}")
        if self.trust_remote_code and not session.allow_user_code:
            raise UserError("trust_remote_code runs code that lies beside the model: allow it with --allow-user-code")
        harness = self._harness([str(Path(folder).absolute()) for folder in folders], session.allow_user_code)
        ((_, answer),) = session.workers.map(harness, [names], description="lm_eval")
        found = json.loads(answer)
        for task, samples in found.pop("samples", {}).items():
            lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
            atomic_write(session.artifacts / f"samples_{_file_name(task)}.jsonl", lines)
        found |= redact({key: found[key] for key in ("config", "configs") if key in found})  # metrics have any name
        text = redact_text(json.dumps(found, indent=2, ensure_ascii=False))
        atomic_write(session.artifacts / "results.json", text + "\n")
        scores = _scores(found)
        missing = [name for name in self.metrics if name not in scores]
        if missing:
            raise MissingMetricError(f"metrics: {missing[0]} is not among the results: {', '.join(scores)}")
        session.report(scores)
        return scores

    def _harness(self, folders: Sequence[str], allow_user_code: bool) -> Harness:
        """The evaluation as a unit of work."""
        seeds = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
        if self.trust_remote_code:
            warn_unpinned("model", self.model, hub_commit(self.model))
        name, commit = pinned(located(self.model))
        revision = {"revision": commit} if commit else {}
        length = {} if self.max_length is None else {"max_length": self.max_length}
        return Harness(
            model_args={
                **self.model_args,
                "pretrained": name,
                **revision,
                "dtype": self.dtype,
                "trust_remote_code": self.trust_remote_code,
                **length,
            },
            options={
                "num_fewshot": self.num_fewshot,
                "limit": self.limit,
                "batch_size": self.batch_size,
                "apply_chat_template": self.apply_chat_template,
                "gen_kwargs": self.gen_kwargs or None,
                "bootstrap_iters": self.bootstrap_iters,
                "log_samples": self.log_samples,
                **dict.fromkeys(seeds, self.seed),
            },
            include=tuple(folders),
            folder=os.getcwd(),
            offline=not self.allow_download,
            allow_user_code=allow_user_code,
        )


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth of mappings and lists."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key), item
            yield from _entries(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _entries(item)


def _file_name(task: str) -> str:
    return re.sub(r"[^\w.-]+", "_", task)


def _scores(found: Mapping[str, Any]) -> dict[str, float]:
    """The metrics as `task.metric`, or `task.metric.filter` where answers were filtered.

    Raises:
        MissingMetricError: a task has none, answered no question, or a metric is not a number.
    """
    scores: dict[str, float] = {}
    for task, results in found["results"].items():
        if found.get("n-samples", {}).get(task, {}).get("effective") == 0:
            raise MissingMetricError(f"lm_eval: the task {task} has no question (look at its data, or at limit)")
        metrics = dict(_metrics(task, results))
        if not metrics and task not in found.get("group_subtasks", {}):
            raise MissingMetricError(f"lm_eval: the task {task} gives no metric (add a metric_list to its YAML file)")
        scores |= metrics
    return scores


def _metrics(task: str, results: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in results.items():
        name, _, chosen = key.partition(",")
        if name in _NO_METRICS or (name.endswith("_stderr") and not isinstance(value, int | float)):
            continue  # "N/A" stands for a standard error that is not known
        if not isinstance(value, int | float) or not math.isfinite(value):
            if name.endswith("_stderr"):
                continue  # of one question
            raise MissingMetricError(f"lm_eval: {task}.{name} is {value!r}, not a number (look at the task's data)")
        yield f"{task}.{name}" if chosen in ("", "none") else f"{task}.{name}.{chosen}", float(value)
