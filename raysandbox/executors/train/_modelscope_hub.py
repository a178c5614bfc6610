"""Finds a model for ModelScope before ModelScope does, without its half minute of hub retries."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raysandbox.core.errors import JobFailed

__all__ = ["MODELSCOPE_FAULTS", "read_configuration", "resolve_model", "without_hub"]

# What ModelScope raises at configurations and models that do not fit, and at weights that would run code.
MODELSCOPE_FAULTS = (
    AssertionError,
    AttributeError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)
CONFIGURATION = "configuration.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")
_HUB_URL = "https://www.modelscope.cn"
_REACH_TIMEOUT_S = 5


def resolve_model(
    name: str, revision: str | None = None, *, allow_download: bool = False, key: str = "model_name"
) -> Path:
    """Returns the directory of a model: a local one, else a cached snapshot, else a download.

    Args:
        name: local directory or hub id ("owner/name").
        revision: revision of a hub id; the hub's default when None.
        allow_download: whether to fetch a hub id that is not cached.
        key: what messages call the setting.

    Raises:
        JobFailed: there is no such model, or it is no model directory of ModelScope.
    """
    local = Path(name).expanduser()
    if local.exists():
        return _checked(local.resolve(), key)
    if not _HUB_ID.fullmatch(name):
        raise JobFailed(f"{key}: the directory {name} does not exist")
    snapshot = _cached(name, revision)
    if snapshot is None and allow_download:
        snapshot = _download(name, revision, key)
    if snapshot is None:
        raise JobFailed(
            f"{key}: '{name}' is neither a local directory nor a cached ModelScope model in {_cache_root()} "
            f"(pass a local path, or set allow_download: true to fetch it from {_HUB_URL})"
        )
    return _checked(snapshot, key)


def read_configuration(model_dir: Path) -> dict[str, Any]:
    """The model's `configuration.json`.

    Raises:
        JobFailed: it is not a JSON object.
    """
    path = model_dir / CONFIGURATION
    try:
        configuration = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise JobFailed(f"model_name: {path} is not JSON: {error}") from error
    if not isinstance(configuration, dict):
        raise JobFailed(f"model_name: {path} does not hold a JSON object")
    return configuration


def _checked(model_dir: Path, key: str) -> Path:
    if not (model_dir / CONFIGURATION).is_file():
        raise JobFailed(f"{key}: {model_dir} is no ModelScope model directory: it has no {CONFIGURATION}")
    return model_dir


def _cache_root() -> Path:
    return Path(os.environ.get("MODELSCOPE_CACHE", "~/.cache/modelscope")).expanduser()


def _cached(name: str, revision: str | None) -> Path | None:
    from modelscope.hub.errors import HubError
    from modelscope.hub.snapshot_download import snapshot_download

    try:
        return Path(snapshot_download(name, revision, _cache_root(), local_files_only=True))
    except (HubError, ValueError, OSError):
        return None


def _download(name: str, revision: str | None, key: str) -> Path:
    from modelscope.hub.errors import HubError
    from modelscope.hub.snapshot_download import snapshot_download

    _require_hub(name, key)
    try:
        # waits: ModelScope gives each of its requests a timeout and counts its tries
        return Path(snapshot_download(name, revision, _cache_root()))
    except (HubError, OSError) as error:  # requests' errors are OSErrors
        raise JobFailed(f"{key}: '{name}' could not be fetched from {_HUB_URL}: {error}") from error


def _require_hub(name: str, key: str) -> None:
    """One short request: ModelScope itself retries an unreachable hub for half a minute."""
    try:
        urllib.request.urlopen(_HUB_URL, timeout=_REACH_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return  # it answered
    except OSError as error:
        raise JobFailed(
            f"{key}: '{name}' is not cached in {_cache_root()} and {_HUB_URL} cannot be reached ({error}); "
            f"pass a local path"
        ) from error


@contextmanager
def without_hub() -> Iterator[None]:
    """Within the block, ModelScope neither asks the hub nor prepares an upload to it.

    Asking: for a local model directory it looks up whether the files are the latest, which costs
    7 s of retries without a network, and only logs the answer.

    Uploading: at the end of every training it forks a manager process, even with nothing to
    upload. The fork lives as long as the worker and shares its sockets: a worker that is killed
    afterwards leaves an orphan, and Ray, which sees the sockets open, waits for the dead worker.

    The functions are imported by name into several modules; these are loaded first, so that what
    they keep afterwards are the originals.
    """
    places = [(importlib.import_module(module), name, stand_in) for module, name, stand_in in _HUB_FUNCTIONS]
    originals = [getattr(module, name) for module, name, _ in places]
    for module, name, stand_in in places:
        setattr(module, name, stand_in)
    try:
        yield
    finally:
        for (module, name, _), original in zip(places, originals, strict=True):
            setattr(module, name, original)


def _nothing(*args: object, **kwargs: object) -> None:
    """Stands in for a function whose work is not wanted."""


def _no_upload(queue_name: str, **task: Any) -> None:
    """Stands in for ModelScope's upload queue; closing it is fine, an upload is not.

    Raises:
        JobFailed: a checkpoint hook has `push_to_hub`.
    """
    if not task.get("done"):
        raise JobFailed("train: push_to_hub is not supported (upload the folder output of work_dir afterwards)")


_CHECKPOINT_HOOK = "modelscope.trainers.hooks.checkpoint.checkpoint_hook"
_HUB_FUNCTIONS: Sequence[tuple[str, str, Callable[..., None]]] = (
    ("modelscope.trainers.base", "check_local_model_is_latest", _nothing),
    ("modelscope.trainers.trainer", "check_local_model_is_latest", _nothing),
    (_CHECKPOINT_HOOK, "push_to_hub_in_queue", _no_upload),
    (_CHECKPOINT_HOOK, "wait_for_done", _nothing),
)
