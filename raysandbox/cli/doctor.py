"""`raysandbox doctor`: this machine, the cluster, extras, isolated environments, model files."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]

# Extra → (package it brings, module that must be importable).
_EXTRAS = {
    "media": ("PyWavelets", "pywt"),
    "models": ("transformers", "transformers"),
    "datasets": ("datasets", "datasets"),
    "modelscope": ("modelscope", "modelscope"),
    "video": ("diffusers", "diffusers"),
    "hpo": ("optuna", "optuna"),
    "wandb": ("wandb", "wandb"),
    "datajuicer": ("py-data-juicer", "data_juicer"),
    "lm-eval": ("lm_eval", "lm_eval"),
    "quality": ("scikit-learn", "sklearn"),
}
_CORE = ("raysandbox", "ray", "pyarrow", "numpy", "pydantic", "torch")


def command(
    config: Annotated[
        str | None, typer.Argument(metavar="[CFG]", help="Also what this configuration needs and lacks.")
    ] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="Connect to Ray and show the cluster.")] = False,
) -> None:
    """Show versions, resources, extras, environments and model files; with --cluster also Ray's nodes."""
    from raysandbox.cli.console import print_table
    from raysandbox.report.summary import Table

    rows = [*_machine(), *_versions(), *_extras(), *_environments(), *_weights(), *_hubs()]
    if config:
        rows += _needs(config)
    if cluster:
        rows += _cluster()
    print_table(Table("doctor", ("what", "state", "found"), tuple(rows), texts=3))


def _machine() -> Iterator[tuple[str, str, str]]:
    yield "python", "ok", f"{platform.python_version()} on {platform.platform()}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield "machine", "ok", f"{os.cpu_count()} CPUs, {memory:.0f} GiB memory"
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    yield "disk here", "ok" if free > 5 else "low", f"{free:.0f} GiB free"
    shared = shutil.disk_usage("/dev/shm").free / 2**30 if Path("/dev/shm").exists() else 0.0
    yield "shared memory", "ok" if shared > 1 else "low", f"{shared:.1f} GiB free in /dev/shm"


def _versions() -> Iterator[tuple[str, str, str]]:
    for package in _CORE:
        found = _version(package)
        yield package, "ok" if found else "absent", found or "not installed"


def _extras() -> Iterator[tuple[str, str, str]]:
    for extra, (package, module) in _EXTRAS.items():
        found = _version(package)  # a folder `datasets` here is a module too
        if found is None or importlib.util.find_spec(module) is None:
            yield f"extra {extra}", "absent", f"pip install 'raysandbox[{extra}]'"
        else:
            yield f"extra {extra}", "ok", f"{package} {found}"


def _environments() -> Iterator[tuple[str, str, str]]:
    from raysandbox.cli.env import rows

    for name, state, text in rows():
        yield f"environment {name}", state, text


def _weights() -> Iterator[tuple[str, str, str]]:
    from raysandbox.provision.weights import components, files_of, missing

    for component in components():
        files, absent = files_of(component), missing(component)
        found = f"{len(files) - len(absent)} of {len(files)} model files here"
        more = f": raysandbox weights list {component}" if absent else ""
        yield f"weights {component}", "incomplete" if absent else "ok", found + more


def _needs(config: str) -> Iterator[tuple[str, str, str]]:
    from raysandbox.api import check
    from raysandbox.core.redact import redact_text

    problems = check(config)
    for problem in problems:
        state = "missing" if problem.missing_path else problem.severity
        yield f"{config}:{problem.line or ''} {problem.path}", state, redact_text(problem.message)
    if not problems:
        yield config, "ok", "nothing is missing"


def _hubs() -> Iterator[tuple[str, str, str]]:
    folders = {
        "modelscope cache": Path(os.environ.get("MODELSCOPE_CACHE", Path.home() / ".cache" / "modelscope")),
        "huggingface cache": Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")),
    }
    for name, folder in folders.items():
        yield name, "ok" if folder.exists() else "absent", str(folder)


def _cluster() -> Iterator[tuple[str, str, str]]:
    from raysandbox.runtime.session import cluster_summary, ensure_ray

    ensure_ray()
    cluster = cluster_summary()
    yield "ray", "ok", f"{'local' if cluster.local else 'cluster'}, ray {cluster.versions['ray']}"
    for node in cluster.nodes:
        memory = node.resources.get("memory", 0.0) / 2**30
        yield f"node {node.name}", "ok", f"{node.cpus:g} CPUs, {node.gpus:g} GPUs, {memory:.0f} GiB for work"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
