"""The units of a generation: one video each, with a seed and a file of its own."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from raysandbox.core.keys import canonical_json, digest
from raysandbox.core.names import safe_stem

__all__ = ["VideoUnit", "file_names", "seed_of", "units_of"]

_SEED_BITS = 63  # fits the signed and unsigned integers of all generators


@dataclass(frozen=True)
class VideoUnit:
    """One video to be made.

    Attributes:
        prompt: what it shows.
        index: which of the prompt's videos it is, from 0.
        seed: of its noise.
        file: its name in the output's folder.
        key: digest of everything that its content depends on.
        encoded: safetensors file that holds the encoded prompt; None when the worker encodes it.
    """

    prompt: str
    index: int
    seed: int
    file: str
    key: str
    encoded: str | None = None

    def with_encoded(self, path: str | None) -> VideoUnit:
        """The unit with its prompt encoded."""
        return replace(self, encoded=path)


def seed_of(seed: int, prompt: str, index: int) -> int:
    """The seed of a video: the first 63 bits of the SHA-256 of `[seed, prompt, index]` as JSON.

    It depends on nothing else: not on order, number of prompts or workers, machine.
    """
    text = canonical_json([seed, prompt, index]).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> (64 - _SEED_BITS)


def units_of(
    prompts: Mapping[str, int], seed: int, identity: object, folds_case: Callable[[], bool] = lambda: False
) -> list[VideoUnit]:
    """The units in the order in which they are made: the first videos of all prompts, then the second ones.

    So what an interrupted generation leaves shows every prompt, and not only the first ones.

    Args:
        prompts: how many videos each one gets.
        seed: of the generation.
        identity: what all videos depend on beside prompt, index and seed; JSON-like.
        folds_case: see `file_names`.
    """
    stems = file_names(list(prompts), folds_case)
    of_all = digest(identity)
    found: list[VideoUnit] = []
    for index in range(max(prompts.values(), default=0)):
        for prompt, count in prompts.items():
            if index < count:
                own = seed_of(seed, prompt, index)
                key = digest([of_all, prompt, own])
                found.append(VideoUnit(prompt, index, own, f"{stems[prompt]}-{index}.mp4", key))
    return found


def file_names(prompts: Sequence[str], folds_case: Callable[[], bool] = lambda: False) -> dict[str, str]:
    """The names of prompts' files, less `-{index}.mp4`: different for different prompts (see `safe_stem`).

    Prompts that differ only in case, or in how Unicode composes their characters, keep their names where
    the file system tells these apart (VBench's own suite has both "a fantasy landscape" and "A fantasy
    landscape"); elsewhere the second one and further ones are told apart by digits. So is, everywhere, a
    prompt that reads like the name of another one.

    Args:
        prompts: all prompts of the folder, each once.
        folds_case: tells whether such names are one file there; it is asked only if there are some.
    """
    taken: set[str] = set()
    taken_folded: set[str] = set()
    found: dict[str, str] = {}
    for prompt in prompts:
        stem, told = safe_stem(prompt), prompt
        while stem in taken or (_folded(stem) in taken_folded and folds_case()):
            stem = told = safe_stem(told, tell_apart=True)
        taken.add(stem)
        taken_folded.add(_folded(stem))
        found[prompt] = stem
    return found


def _folded(stem: str) -> str:
    return unicodedata.normalize("NFC", stem).casefold()
