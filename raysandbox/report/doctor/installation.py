"""Judges what is installed: extras of this package, isolated environments, model files, wandb."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from raysandbox.provision.weights import components, files_of, missing
from raysandbox.report.doctor.lines import Line, State

__all__ = [
    "EXTRAS",
    "environment_lines",
    "extra_lines",
    "hub_lines",
    "is_installed",
    "packages_of",
    "wandb_line",
    "weight_lines",
]

# Extra → (package it brings, module that must be importable).
EXTRAS = {
    "media": ("PyWavelets", "pywt"),
    "models": ("transformers", "transformers"),
    "datasets": ("datasets", "datasets"),
    "modelscope": ("modelscope", "modelscope"),
    "video": ("diffusers", "diffusers"),
    "hpo": ("optuna", "optuna"),
    "wandb": ("wandb", "wandb"),
    "s3": ("s3fs", "s3fs"),
    "datajuicer": ("py-data-juicer", "data_juicer"),
    "lm-eval": ("lm_eval", "lm_eval"),
    "quality": ("scikit-learn", "sklearn"),
}
_TORCH = frozenset({"models", "modelscope", "video", "lm-eval"})  # extras that work by torch
_SIGN_IN = "wandb login, or export WANDB_API_KEY=…"


def is_installed(extra: str) -> str:
    """The version of an extra's package, "" when it is not there."""
    package, module = EXTRAS[extra]
    try:
        found = version(package)  # a folder `datasets` here is a module too
    except PackageNotFoundError:
        return ""
    return found if importlib.util.find_spec(module) is not None else ""


def packages_of(extras: Sequence[str]) -> tuple[str, ...]:
    """The packages by which extras are known on other nodes."""
    torch = ("torch",) if _TORCH.intersection(extras) else ()
    return tuple(dict.fromkeys((*(EXTRAS[extra][0] for extra in extras), *torch)))


def extra_lines(wanted: Collection[str] = ()) -> Iterator[Line]:
    """The extras; those that a configuration wants have lines of their jobs, and are left out."""
    for extra, (package, _) in EXTRAS.items():
        found = is_installed(extra)
        if found:
            yield Line("installation", f"extra {extra}", "green", f"{package} {found}")
        elif extra not in wanted:
            fix = f"pip install 'raysandbox[{extra}]'"
            yield Line("installation", f"extra {extra}", "note", "not installed", fix)


def environment_lines(rows: Iterable[tuple[str, str, str]]) -> Iterator[Line]:
    """The isolated environments: (name, state, what there is to say) of each, as `env list` shows them."""
    states: dict[str, State] = {"ok": "green", "absent": "note", "old": "yellow", "unusable": "yellow"}
    for name, state, text in rows:
        found = text if state == "ok" else f"{state}: {text}"
        yield Line("installation", f"environment {name}", states.get(state, "yellow"), found)


def weight_lines() -> Iterator[Line]:
    """How many of the model files of each component are here."""
    for component in components():
        files, absent = files_of(component), missing(component)
        found = f"{len(files) - len(absent)} of {len(files)} model files here"
        fix = f"raysandbox weights list {component}" if absent else ""
        yield Line("installation", f"weights {component}", "note" if absent else "green", found, fix)


def hub_lines() -> Iterator[Line]:
    """Where models of the hubs are kept."""
    folders = {
        "modelscope": Path(os.environ.get("MODELSCOPE_CACHE", Path.home() / ".cache" / "modelscope")),
        "huggingface": Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")),
    }
    for name, folder in folders.items():
        there = folder.exists()
        found = f"{folder}" if there else f"nothing at {folder}"
        yield Line("installation", f"models of {name}", "green" if there else "note", found)


def wandb_line(
    mode: Literal["online", "offline", "disabled"], installed: str, has_key: bool, *, asked: bool = False
) -> Line:
    """How metrics go to wandb.

    Args:
        mode: what a run would use.
        installed: wandb's version, "" without.
        has_key: whether an API key is known; it is never shown.
        asked: whether a configuration or WANDB_MODE asks for the mode.
    """
    key = "with an API key" if has_key else "without an API key"
    found = f"wandb {installed or 'not installed'}, mode {mode}, {key}"
    if mode == "disabled":
        return Line("installation", "wandb", "note", f"{found}: metrics are in metrics.jsonl", _SIGN_IN)
    if not installed:
        state: State = "yellow" if asked else "note"
        return Line("installation", "wandb", state, found, "pip install 'raysandbox[wandb]'")
    if mode == "online" and not has_key:
        return Line("installation", "wandb", "yellow", f"{found}: nothing will arrive", _SIGN_IN)
    return Line("installation", "wandb", "green", found)
