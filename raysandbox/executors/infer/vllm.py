"""Answers of a language model in vLLM, in the job's workers, in an environment of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from raysandbox.core.component import LibraryOptions
from raysandbox.core.errors import UserError
from raysandbox.core.registry import register
from raysandbox.executors._causal_lm import located
from raysandbox.executors.infer._chunks import ChunkInference
from raysandbox.executors.infer._vllm_chat import VllmChat
from raysandbox.provision.environments import find, interpreter

__all__ = ["VllmInference"]

# Not hf_overrides, compilation_config, speculative_config, distributed_executor_backend: these take names of classes.
_HARMLESS = (
    "block_size calculate_kv_scales chat_template_content_format config_format cpu_offload_gb dcp_size "
    "disable_cascade_attn disable_custom_all_reduce disable_sliding_window dtype enable_chunked_prefill enable_lora "
    "enable_prefix_caching enforce_eager fully_sharded_loras gpu_memory_utilization kv_cache_dtype limit_mm_per_prompt "
    "load_format long_prefill_token_threshold max_cpu_loras max_logprobs max_lora_rank max_loras max_model_len "
    "max_num_batched_tokens max_num_seqs max_seq_len_to_capture mm_processor_kwargs num_gpu_blocks_override "
    "num_scheduler_steps override_generation_config pipeline_parallel_size quantization rope_scaling rope_theta "
    "seed skip_tokenizer_init swap_space tensor_parallel_size tokenizer tokenizer_mode"
)


@register("vllm")
class VllmInference(ChunkInference):
    """Generates an answer to every row with vLLM; greedy unless sampling_params say otherwise.

    vLLM pins a torch of its own: `raysandbox env create vllm` builds its environment. Every worker
    of the job (`resources`) runs an engine on its GPUs.
    """

    example: ClassVar[Mapping[str, Any]] = {
        "model": "./outputs/demo/model",
        "model_params": {"max_model_len": 4096},
        "sampling_params": {"max_tokens": 256},
        "dataset_path": "./data/questions.jsonl",
        "export_path": "./outputs/demo/inference",
    }
    misplaced: ClassVar[Mapping[str, str]] = {
        "max_new_tokens": "is called max_tokens by vLLM",
        "n": "a row gets one answer; repeat the row in the data instead",
        "seed": "is a key of its own, beside sampling_params",
    }

    model_params: Annotated[dict[str, Any], LibraryOptions(frozenset(_HARMLESS.split()))] = Field(
        default_factory=dict, description="for vllm.LLM: max_model_len, gpu_memory_utilization, dtype, …"
    )
    sampling_params: dict[str, Any] = Field(
        default_factory=dict, description="for vllm.SamplingParams: max_tokens (512), temperature (0), top_p, …"
    )
    batch_size: int = Field(
        256, ge=1, description="rows that an engine gets at once, and that are logged together; it schedules them"
    )
    env: str = Field("vllm", description="environment of `raysandbox env create`, or path of an interpreter")

    @classmethod
    def missing_weights(cls, raw: Mapping[str, Any]) -> Mapping[str, str]:
        """The model, and the environment when it is not built."""
        found = dict(super().missing_weights(raw))
        try:
            interpreter(str(raw.get("env", cls.model_fields["env"].default)))
        except UserError as error:
            found["env"] = str(error)
        return found

    def _versions(self) -> Mapping[str, str | None]:
        found = find(self.env)
        if found is None:  # the path of an interpreter, of which nothing more is known
            return {"env": self.env}
        packages = found.manifest.get("packages", {})
        return {name: packages.get(name) for name in ("vllm", "torch", "transformers")}

    def _work(self) -> VllmChat:
        return VllmChat(located(self.model), self.model_params, self.sampling_params, self.seed, self.trust_remote_code)

    def _python(self) -> str:
        return interpreter(self.env)
