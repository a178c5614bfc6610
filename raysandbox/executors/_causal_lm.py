"""Losses of texts under a causal language model of Hugging Face or ModelScope."""

from __future__ import annotations

import importlib
import json
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from raysandbox.core.errors import JobFailed, MissingExtraError, UserError
from raysandbox.core.memory import batches_that_fit
from raysandbox.executors.train._megatron_shim import import_plain_gpt3
from raysandbox.executors.train._modelscope_hub import read_configuration, resolve_model
from raysandbox.ops.pretrained import Source, load_model, load_part, transformers_package

__all__ = [
    "CausalLM",
    "Dtype",
    "LanguageModel",
    "TextLoss",
    "Window",
    "located",
    "windows",
]

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

_LONGEST_DEFAULT = 2048  # tokens; the logits of a window are this many times the vocabulary
_NO_LIMIT = 10**9  # transformers writes 10^30 where a tokenizer knows no length


@dataclass(frozen=True)
class LanguageModel:
    """Which model to load, and how.

    Attributes:
        name: folder, or id on the hub.
        hub: where an id is looked up.
        dtype: type of the weights; "auto" keeps them as they are stored.
        max_length: tokens that the model sees at once; None for its context, at most 2048.
        stride: tokens by which the window moves on; None for half of `max_length`.
        batch_size: windows at once.
        trust_remote_code: whether Python code that lies beside the weights may run.
        revision: of an id on the ModelScope hub; the hub's default when None.
    """

    name: str
    hub: Literal["huggingface", "modelscope"]
    dtype: Dtype = "auto"
    max_length: int | None = None
    stride: int | None = None
    batch_size: int = 8
    trust_remote_code: bool = False
    revision: str | None = None

    def load(self, device: str) -> CausalLM:
        """The model on a device, ready to score.

        Raises:
            UserError: it is not there, is no causal language model, or `max_length` is too long for it.
            MissingExtraError: torch, transformers or modelscope is not installed.
        """
        folder = self.name
        if self.hub == "modelscope":
            _require_modelscope()
            folder = str(resolve_model(self.name, self.revision, allow_download=True, key="model"))
            if _is_plain_gpt3(Path(folder)):
                return self._gpt3(folder, device)
        transformers = transformers_package("A language model")
        source = Source("model", folder, device, self.batch_size, self.trust_remote_code)
        tokenizer = load_part(source, transformers.AutoTokenizer)
        model = load_model(source, transformers.AutoModelForCausalLM, dtype=self.dtype).to(source.device)
        known = (getattr(model.config, "max_position_embeddings", None), tokenizer.model_max_length)
        context = min((length for length in known if length and length < _NO_LIMIT), default=_LONGEST_DEFAULT)
        return self._ready(
            lambda texts: tokenizer(texts, verbose=False)["input_ids"],
            lambda ids, mask: model(input_ids=ids, attention_mask=mask, use_cache=False).logits,
            context,
            device,
        )

    def _gpt3(self, folder: str, device: str) -> CausalLM:
        """ModelScope's own GPT-3 class, which transformers does not know; its texts end with [SEP]."""
        import_plain_gpt3()
        import torch
        from modelscope.models.nlp.gpt3 import GPT3Model
        from transformers import BertTokenizer

        tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
        try:
            model: Any = GPT3Model.from_pretrained(folder)
        except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
            reason = str(error).split(". ", 1)[0]
            raise UserError(f"model: the weights in {folder} cannot be read as a GPT-3's: {reason}") from error
        dtype = None if self.dtype == "auto" else getattr(torch, self.dtype)
        model = model.eval().requires_grad_(False).to(device=device, dtype=dtype)
        return self._ready(
            lambda texts: tokenizer(texts, verbose=False)["input_ids"],
            lambda ids, mask: model(ids).logits,
            model.config.max_position_embeddings,
            device,
        )

    def _ready(
        self, encode: Callable[[list[str]], list[list[int]]], logits: Callable[..., Any], context: int, device: str
    ) -> CausalLM:
        if self.max_length is not None and self.max_length > context:
            raise UserError(
                f"max_length is {self.max_length}, and the model '{self.name}' sees {context} tokens: lower max_length"
            )
        max_length = self.max_length or min(context, _LONGEST_DEFAULT)
        stride = self.stride or max(1, max_length // 2)
        if stride > max_length:
            raise UserError(f"stride is {stride}, more than max_length ({max_length}): tokens would be left out")
        return CausalLM(encode, logits, max_length, stride, self.batch_size, device)


class Window(NamedTuple):
    """A piece of a text as the model sees it.

    Attributes:
        begin: its first token.
        end: the one after its last.
        scored: the first token whose loss counts; those before it are context.
    """

    begin: int
    end: int
    scored: int


class TextLoss(NamedTuple):
    """The loss of a text.

    Attributes:
        total: sum of the negative log-likelihoods of its predicted tokens, in nats.
        tokens: their number: all but the first, unless windows do not overlap.
    """

    total: float
    tokens: int


def windows(tokens: int, max_length: int, stride: int) -> Iterator[Window]:
    """The windows of a text, as transformers' guide "Perplexity of fixed-length models" slides them.

    Every token counts once, in the first window that holds it with something before it. Where the
    windows do not overlap (`stride` equals `max_length`) the first token of each is not predicted.

    Args:
        tokens: of the text.
        max_length: of a window.
        stride: from one window to the next.
    """
    last_end = 0
    for begin in range(0, tokens, stride):
        end = min(begin + max_length, tokens)
        scored = max(last_end, begin + 1)
        if scored < end:
            yield Window(begin, end, scored)
        last_end = end
        if end == tokens:
            return


@dataclass(frozen=True)
class CausalLM:
    """A loaded language model.

    Attributes:
        encode: token ids of each text, with the special tokens that the tokenizer adds by itself.
        logits: from ids and mask, both int64 tensors of shape (batch, time), to logits of shape
            (batch, time, vocabulary).
        max_length: tokens that it sees at once.
        stride: tokens by which the window moves on.
        batch_size: windows at once.
        device: torch device.
    """

    encode: Callable[[list[str]], list[list[int]]]
    logits: Callable[..., Any]
    max_length: int
    stride: int
    batch_size: int
    device: str

    def losses(self, texts: Sequence[str]) -> list[TextLoss]:
        """The loss of every text; the same whatever else is in the list, up to rounding.

        Windows of about the same length go through the model together, padded on the right, where a
        causal model does not look.

        Raises:
            JobFailed: the memory does not hold one text.
        """
        if not texts:
            return []
        encoded = self.encode(list(texts))
        work = [
            (row, one) for row, ids in enumerate(encoded) for one in windows(len(ids), self.max_length, self.stride)
        ]
        work.sort(key=lambda item: item[1].end - item[1].begin, reverse=True)  # too little memory shows at once
        sums: list[list[float]] = [[] for _ in texts]
        counts = [0] * len(texts)

        def batch_losses(batch: Sequence[tuple[int, Window]]) -> list[float]:
            parts = [(encoded[row][one.begin : one.end], one.scored - one.begin) for row, one in batch]
            return self._batch_losses(parts)

        def refusal(batch: Sequence[tuple[int, Window]]) -> str:
            tokens = batch[0][1].end - batch[0][1].begin
            return f"the memory does not hold the model and one text of {tokens} tokens: set a smaller max_length"

        for batch, found in batches_that_fit(work, self.batch_size, batch_losses, refusal):
            for (row, one), total in zip(batch, found, strict=True):
                sums[row].append(total)
                counts[row] += one.end - one.scored
        return [TextLoss(math.fsum(parts), count) for parts, count in zip(sums, counts, strict=True)]

    def _batch_losses(self, batch: Sequence[tuple[Sequence[int], int]]) -> list[float]:
        """For each sequence of ids the sum of the losses of its tokens from a position on."""
        import torch
        from torch.nn.functional import cross_entropy

        longest = max(len(ids) for ids, _ in batch)
        ids = torch.zeros((len(batch), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, (sequence, _) in enumerate(batch):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        with torch.inference_mode():
            logits = self.logits(ids, mask)
            return [
                # Row by row, so that the float32 copy of the logits stays small.
                cross_entropy(
                    logits[row, first - 1 : len(sequence) - 1].float(),
                    ids[row, first : len(sequence)],
                    reduction="none",
                )
                .double()
                .sum()
                .item()
                for row, (sequence, first) in enumerate(batch)
            ]


def located(name: str) -> str:
    """The name of a model, with the path of one on this machine made absolute: workers may start elsewhere."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def _require_modelscope() -> None:
    try:
        importlib.import_module("torch")
        importlib.import_module("modelscope")
    except ImportError as error:
        raise MissingExtraError(error.name or "modelscope", "modelscope", "A model of ModelScope") from error


def _is_plain_gpt3(folder: Path) -> bool:
    """Whether a directory holds a model of ModelScope's own class.

    Raises:
        JobFailed: it holds a Megatron model.
    """
    configuration = read_configuration(folder)
    if "megatron" in configuration:
        raise JobFailed(
            f"model: {folder} is a Megatron model (its configuration.json has the key 'megatron'), "
            f"and Megatron cannot be installed here (use a model of the plain GPT-3 class)"
        )
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type") == "gpt3"
    except (OSError, ValueError, AttributeError):
        return False
