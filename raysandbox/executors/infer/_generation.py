"""Texts by a causal language model of transformers: batched, and the same for every layout of workers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysandbox.core.errors import UserError, did_you_mean
from raysandbox.core.memory import batches_that_fit
from raysandbox.executors.infer._answers import Answer, Fault
from raysandbox.executors.infer._prompts import Prompt, seed_of
from raysandbox.ops.pretrained import Source, load_model, load_part, transformers_package

__all__ = ["Generation", "Generator"]

_NEW_TOKENS = 512
_DRAWS = ("temperature", "top_k", "top_p", "min_p")
# What a model's own generation_config may ask for: answers are greedy unless the job says otherwise.
_GREEDY = {"do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": None}


@dataclass(frozen=True)
class Generation:
    """Goes on with chats (`core.runner.UnitWork`).

    Attributes:
        model: folder, or id on the hub.
        model_params: for `from_pretrained`.
        sampling_params: for `generate`.
        seed: of the draws.
        trust_remote_code: whether Python code that lies beside the weights may run.
    """

    model: str
    model_params: Mapping[str, Any]
    sampling_params: Mapping[str, Any]
    seed: int
    trust_remote_code: bool

    def load(self, device: str) -> Generator:
        """Tokenizer and model, ready to generate.

        Raises:
            UserError: the model is not there, is no causal language model, or lacks weights; or a
                sampling parameter is unknown.
        """
        transformers = transformers_package("A language model")
        source = Source("model", self.model, device, 1, self.trust_remote_code)
        tokenizer = load_part(source, transformers.AutoTokenizer)
        model = load_model(source, transformers.AutoModelForCausalLM, **self.model_params)
        if "device_map" not in self.model_params:
            model = model.to(device)
        settings, warp = _settings(self.sampling_params, model.generation_config, transformers)
        settings.pad_token_id = next(
            (token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None), 0
        )
        model.generation_config = settings
        return Generator(model, tokenizer, warp, self.seed)

    def run(self, unit: Sequence[Prompt], state: Generator) -> list[Answer | Fault]:
        """One outcome per prompt."""
        return state.answers(unit)


@dataclass(frozen=True)
class Generator:
    """A loaded model.

    Attributes:
        model: of transformers; its generation_config is what the job asks for.
        tokenizer: its tokenizer.
        warp: from token ids and logits, of shapes (n, t) and (n, vocabulary), to the logits to draw
            from; None for greedy answers.
        seed: of the draws.
    """

    model: Any
    tokenizer: Any
    warp: Callable[[Any, Any], Any] | None
    seed: int

    def answers(self, prompts: Sequence[Prompt]) -> list[Answer | Fault]:
        """Goes on with all prompts at once; those that do not fit are left out.

        Raises:
            JobFailed: the memory does not hold one of them.
        """
        outcomes: list[Any] = [self._encoded(prompt) for prompt in prompts]
        places = [place for place, found in enumerate(outcomes) if not isinstance(found, Fault)]
        if places:
            encoded = [outcomes[place] for place in places]
            texts = self._fitting(encoded, [seed_of(self.seed, prompts[place]) for place in places])
            for place, ids, new in zip(places, encoded, texts, strict=True):
                text = self.tokenizer.decode(new, skip_special_tokens=True)
                ended = (bool(new) and new[-1] in self._ends) or any(stop in text for stop in self._stops)
                outcomes[place] = Answer(text, len(ids), len(new), len(new) == self._new_tokens and not ended)
        return outcomes

    @property
    def _new_tokens(self) -> int:
        return self.model.generation_config.max_new_tokens

    @property
    def _ends(self) -> set[int | None]:
        """The tokens that end a text."""
        ends = self.model.generation_config.eos_token_id
        return set(ends) if isinstance(ends, list) else {ends}

    @property
    def _stops(self) -> list[str]:
        """The strings that end a text."""
        stops = self.model.generation_config.stop_strings or []
        return [stops] if isinstance(stops, str) else list(stops)

    def _encoded(self, prompt: Prompt) -> list[int] | Fault:
        """Token ids of a chat."""
        from jinja2 import TemplateError

        has_template = bool(self.tokenizer.chat_template)
        try:
            text = self._templated(prompt) if has_template else prompt.plain()
        except TemplateError as error:
            return Fault(f"the model's chat template refuses the messages: {error}", lasting=True)
        ids = self.tokenizer(text, add_special_tokens=not has_template, verbose=False)["input_ids"]
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if context and len(ids) + self._new_tokens > context:
            return Fault(
                f"{len(ids)} tokens and {self._new_tokens} new ones are more than the {context} that the model sees",
                lasting=True,
            )
        return ids if ids else Fault("the prompt has no tokens", lasting=True)

    def _templated(self, prompt: Prompt) -> str:
        messages = [dict(message) for message in prompt.messages]
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _fitting(self, encoded: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[list[int]]:
        """The new tokens of each row; of fewer at a time where the memory does not hold all."""

        def refusal(rows: Sequence[int]) -> str:
            tokens = f"{len(encoded[rows[0]])} tokens and {self._new_tokens} new ones"
            return f"the memory does not hold the model and one row of {tokens}: set a smaller max_new_tokens"

        def generated(rows: Sequence[int]) -> list[list[int]]:
            return self._generated([encoded[row] for row in rows], [seeds[row] for row in rows])

        batches = batches_that_fit(range(len(encoded)), len(encoded), generated, refusal)
        return [new for _, some in batches for new in some]

    def _generated(self, encoded: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[list[int]]:
        """The new tokens of each row, with the one that ends it."""
        import torch

        settings, longest = self.model.generation_config, max(map(len, encoded))
        ids = torch.full((len(encoded), longest), settings.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(encoded):  # on the left: new tokens go on the right
            ids[row, longest - len(sequence) :] = torch.tensor(sequence)
            mask[row, longest - len(sequence) :] = 1
        draw = [] if self.warp is None else [_Draw(self.warp, seeds, longest, self._new_tokens)]
        device = self.model.device
        with torch.inference_mode():
            found = self.model.generate(
                ids.to(device), attention_mask=mask.to(device), logits_processor=draw, tokenizer=self.tokenizer
            )
        # Only a row that a string ended is padded without a token that ends it.
        pad = settings.pad_token_id if self._stops else None
        return [_until(row, self._ends, pad) for row in found[:, longest:].tolist()]


class _Draw:
    """Draws the next tokens by inversion of their distribution, each row from its own random numbers.

    `generate` would draw all rows from one generator, so that a row's tokens would depend on the rows
    beside it. Given to it as a processor of logits, this leaves it one token to choose.
    """

    def __init__(self, warp: Callable[[Any, Any], Any], seeds: Sequence[int], start: int, steps: int) -> None:
        import torch

        self._warp, self._start = warp, start
        generators = (torch.Generator().manual_seed(seed) for seed in seeds)
        # Of 24 bits, so that a number below 1 stays below 1 times any sum of float64.
        self._uniform = torch.stack([torch.rand(steps, generator=generator) for generator in generators]).double()

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """From logits of shape (n, vocabulary) to 0 for the token drawn and -inf for the others."""
        import torch

        sums = self._warp(input_ids, scores).double().softmax(-1).cumsum(-1)
        uniform = self._uniform[:, input_ids.shape[1] - self._start, None].to(sums.device)
        drawn = torch.searchsorted(sums, uniform * sums[:, -1:], right=True)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)


def _settings(params: Mapping[str, Any], own: Any, transformers: Any) -> tuple[Any, Callable[[Any, Any], Any] | None]:
    """The generation config that the parameters ask for, and how the logits are warped before a draw.

    Raises:
        UserError: a parameter is unknown, or they ask for draws and beams.
    """
    draws = {name: params[name] for name in _DRAWS if params.get(name) is not None}
    drawing = params.get("do_sample", bool(draws)) and draws.get("temperature", 1.0) != 0
    others = {name: value for name, value in params.items() if name not in (*_DRAWS, "do_sample")}
    settings = copy.deepcopy(own)
    unknown = settings.update(**{"max_new_tokens": _NEW_TOKENS, **others, **_GREEDY})
    if unknown:
        name = next(iter(unknown))
        hint = did_you_mean(name, settings.to_dict())
        raise UserError(f"sampling_params: generate() of transformers has no '{name}'" + (f"; {hint}" if hint else ""))
    if not drawing:
        return settings, None
    if settings.num_beams > 1:
        raise UserError("sampling_params: draws (temperature …) and beams (num_beams) do not go together")
    kinds = transformers.generation.logits_process
    warpers = transformers.LogitsProcessorList()
    if draws.get("temperature", 1.0) != 1.0:
        warpers.append(kinds.TemperatureLogitsWarper(float(draws["temperature"])))
    if draws.get("top_k"):
        warpers.append(kinds.TopKLogitsWarper(draws["top_k"]))
    if draws.get("top_p", 1.0) < 1.0:
        warpers.append(kinds.TopPLogitsWarper(draws["top_p"]))
    if draws.get("min_p"):
        warpers.append(kinds.MinPLogitsWarper(draws["min_p"]))
    return settings, warpers


def _until(tokens: Sequence[int], ends: set[int | None], pad: int | None) -> list[int]:
    """Tokens up to the first one that ends the text; else without the padding after them."""
    for place, token in enumerate(tokens):
        if token in ends:
            return list(tokens[: place + 1])
    last = len(tokens)
    while last and tokens[last - 1] == pad:
        last -= 1
    return list(tokens[:last])
