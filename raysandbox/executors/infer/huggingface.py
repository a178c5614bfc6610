"""Answers of a causal language model of transformers, in the job's workers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, ClassVar

from pydantic import Field

from raysandbox.core.component import LibraryOptions
from raysandbox.core.registry import register
from raysandbox.executors._causal_lm import located
from raysandbox.executors.infer._chunks import ChunkInference
from raysandbox.executors.infer._generation import Generation

__all__ = ["HuggingFaceInference"]

_HARMLESS = (
    "attn_implementation cache_dir device_map dtype experts_implementation gguf_file ignore_mismatched_sizes "
    "key_mapping load_in_4bit load_in_8bit low_cpu_mem_usage max_memory max_position_embeddings offload_buffers "
    "offload_folder offload_state_dict quantization_config rope_parameters rope_scaling rope_theta sliding_window "
    "subfolder torch_dtype tp_plan tp_size use_cache use_safetensors variant weights_only"
)


@register("huggingface")
class HuggingFaceInference(ChunkInference):
    """Generates an answer to every row with transformers; greedy unless sampling_params say otherwise.

    The messages go through the tokenizer's chat template; a model without one continues their text.
    """

    extras: ClassVar[tuple[str, ...]] = ("models",)
    example: ClassVar[Mapping[str, Any]] = {
        "model": "./outputs/demo/model",
        "model_params": {"dtype": "bfloat16"},
        "sampling_params": {"max_new_tokens": 256},
        "dataset_path": "./data/questions.jsonl",
        "export_path": "./outputs/demo/inference",
        "batch_size": 16,
    }
    misplaced: ClassVar[Mapping[str, str]] = {
        "max_tokens": "is called max_new_tokens by transformers",
        "max_length": "counts the prompt too, whose length differs from row to row: set max_new_tokens",
        "return_dict_in_generate": "a row gets the text of its answer and nothing else: remove it",
        "num_return_sequences": "a row gets one answer; repeat the row in the data instead",
        "seed": "is a key of its own, beside sampling_params",
        **dict.fromkeys(
            ("typical_p", "epsilon_cutoff", "eta_cutoff"),
            "answers are drawn by temperature, top_k, top_p and min_p only",
        ),
    }

    model_params: Annotated[dict[str, Any], LibraryOptions(frozenset(_HARMLESS.split()))] = Field(
        default_factory=dict, description="for from_pretrained of transformers: dtype, attn_implementation, …"
    )
    sampling_params: dict[str, Any] = Field(
        default_factory=dict,
        description="for generate of transformers: max_new_tokens (512), temperature, top_p, top_k, min_p, …",
    )

    def _versions(self) -> Mapping[str, str | None]:
        return {name: _version(name) for name in ("transformers", "torch")}

    def _work(self) -> Generation:
        return Generation(
            located(self.model), self.model_params, self.sampling_params, self.seed, self.trust_remote_code
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
