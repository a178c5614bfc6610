"""Texts by vLLM, in the environment that holds it; imports nothing else but Python's standard library."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysandbox.core.errors import JobFailed
from raysandbox.core.names import pinned
from raysandbox.executors.infer._answers import Answer, Fault
from raysandbox.executors.infer._prompts import Prompt, seed_of

__all__ = ["VllmChat"]

_DEFAULTS = {"temperature": 0.0, "max_tokens": 512}  # vLLM's own are 1 and 16


@dataclass(frozen=True)
class VllmChat:
    """Goes on with chats (`core.runner.UnitWork`).

    Attributes:
        model: folder, or id on the hub.
        model_params: for `vllm.LLM`.
        sampling_params: for `vllm.SamplingParams`.
        seed: of the draws.
        trust_remote_code: whether Python code that lies beside the weights may run.
    """

    model: str
    model_params: Mapping[str, Any]
    sampling_params: Mapping[str, Any]
    seed: int
    trust_remote_code: bool

    def load(self, device: str) -> Any:
        """The engine, on all GPUs of the worker.

        Raises:
            JobFailed: the worker has none.
        """
        if device != "cuda":
            raise JobFailed("vllm needs a GPU that its torch can use: set resources.num_gpus of the job")
        # The engine starts processes of its own; a fork would copy Ray's threads and sockets.
        os.environ["VLLM_WORKER_MULTIPROCESSING_METHOD"] = "spawn"
        vllm = importlib.import_module("vllm")
        gpus = len(os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(","))
        # Over several GPUs vLLM would ask Ray for the bundle that this worker holds already.
        parallel = {"tensor_parallel_size": gpus, "distributed_executor_backend": "mp"} if gpus > 1 else {}
        name, commit = pinned(self.model)
        revisions = dict.fromkeys(("revision", "tokenizer_revision", "code_revision"), commit) if commit else {}
        return vllm.LLM(
            model=name,
            trust_remote_code=self.trust_remote_code,
            **{"seed": self.seed % 2**31, **parallel, **revisions, **self.model_params},
        )

    def run(self, unit: Sequence[Prompt], state: Any) -> list[Answer | Fault]:
        """One outcome per prompt."""
        try:
            return self._answers(unit, state)
        except ValueError as error:  # one that is too long, or refused by the chat template, spoils them all
            if len(unit) == 1:
                return [Fault(f"vllm refuses the prompt: {error}", lasting=True)]
            return [outcome for prompt in unit for outcome in self.run([prompt], state)]

    def _answers(self, unit: Sequence[Prompt], engine: Any) -> list[Answer | Fault]:
        vllm = importlib.import_module("vllm")
        sampling = [
            vllm.SamplingParams(**{**_DEFAULTS, **self.sampling_params, "seed": seed_of(self.seed, prompt)})
            for prompt in unit
        ]
        if engine.get_tokenizer().chat_template:
            found = engine.chat([list(prompt.messages) for prompt in unit], sampling, use_tqdm=False)
        else:
            found = engine.generate([prompt.plain() for prompt in unit], sampling, use_tqdm=False)
        return [
            Answer(one.text, len(output.prompt_token_ids), len(one.token_ids), one.finish_reason == "length")
            for output in found
            for one in output.outputs[:1]
        ]
