"""What in a configuration would run code of its author's: refused unless the run has --allow-user-code.

Mappings that go on to a library (`model_params`, `model_args`, …) may hold keys that make it read pickles,
fetch code, or import what a name says. Where the keys are known that do not (`LibraryOptions`), no others
are taken; elsewhere, and deeper in such a mapping, those are refused that are told by their names.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from raysandbox.config.documents import KeyPath
from raysandbox.core.component import LibraryOptions, nested_model
from raysandbox.core.errors import did_you_mean

__all__ = ["ALLOW", "code_in_environment", "code_in_options"]

ALLOW = "allow it with --allow-user-code"

_PICKLES = ("weights_only", "use_safetensors")  # anything but true lets weights be programs
_SWITCHES = ("trust_remote_code", "allow_remote", "use_kernels")  # anything but false fetches code
_NAMES_CODE = re.compile(
    r"(.*_)?(cls|class|classes|callable|callables|plugin|plugins)|custom_.*|.*logits_processors?|auto_map|code_revision|"
    r"kernel_config"
)
_HUB_CODE = re.compile(r"[/:]")  # attn_implementation: org/kernels, org/kernels:function

# Each changes which code a process runs: Python's and the loader's paths, programs to start instead of others,
# plug-ins of libraries, and switches that let weights be programs.
_VARIABLES = re.compile(
    r"PYTHON.*|LD_.*|DYLD_.*|PATH|RAY_.*|HOME|BASH_ENV|ENV|CC|CXX|CUDA_HOME|CUDA_PATH|TRITON_.*|TORCH_FORCE_.*|"
    r"OPENSSL_CONF|OPENSSL_ENGINES|GCONV_PATH|GIT_.*|VLLM_ALLOW_.*|USE_HUB_KERNELS|.*TRUST_REMOTE_CODE|.*PRELOAD.*|"
    r".*PLUGIN.*|.*INJECTION.*|.*_(EXE|BINARY|EXECUTABLE|COMMAND)"
)


def code_in_options(model: type[BaseModel], raw: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str, str]]:
    """The keys of a component's raw configuration that run code: path, what is wrong, what to do.

    Args:
        model: the component.
        raw: its configuration, which may be wrong otherwise.
    """
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for key, value in raw.items():
        field = fields.get(key)
        if key == "trust_remote_code" and value:
            yield (key,), "runs code that lies beside a model", ALLOW
        elif field is not None and _is_open(field.annotation):
            options = next((item for item in field.metadata if isinstance(item, LibraryOptions)), None)
            yield from _in_mapping((key,), value, options)


def code_in_environment(raw: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str, str]]:
    """The keys of a job's `runtime_env` that run code: path, what is wrong, what to do."""
    for key, value in raw.items():
        if key == "env_vars":
            names = value if isinstance(value, Mapping) else ()
            for name in (str(name) for name in names):
                if _VARIABLES.fullmatch(name.upper()):
                    yield (key, name), f"the variable {name} decides which code the workers run", ALLOW
        elif key != "py_executable":
            yield (key,), "runs code of yours in the workers (env_vars and py_executable do not)", ALLOW
        elif not isinstance(value, str) or not value or any(letter.isspace() for letter in value):
            yield (
                (key,),
                f"should be the path of an interpreter, without blanks, not {value!r}",
                f"correct it, or {ALLOW}",
            )


def _is_open(annotation: Any) -> bool:
    """Whether a field takes keys that it does not declare."""
    nested = nested_model(annotation)
    if nested is not None:
        return nested.model_config.get("extra") == "allow" or any(
            _is_open(field.annotation) for field in nested.model_fields.values()
        )
    return annotation is Any or any(map(_is_open, typing.get_args(annotation)))


def _in_mapping(path: KeyPath, value: Any, options: LibraryOptions | None) -> Iterator[tuple[KeyPath, str, str]]:
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _in_mapping((*path, index), item, None)
    if not isinstance(value, Mapping):
        return
    for key, item in ((str(key), item) for key, item in value.items()):
        where = (*path, key)
        if reason := _reason(key, item):
            yield where, reason, ALLOW
        elif options is not None and key not in options.harmless:
            hint = did_you_mean(key, options.harmless) or f"known: {', '.join(sorted(options.harmless))}"
            yield where, f"'{key}' is not among the keys that are known to run no code", f"{hint}; or {ALLOW}"
        else:
            yield from _in_mapping(where, item, None)


def _reason(key: str, value: Any) -> str:
    """Why a key runs code; "" where it does not."""
    if key in _PICKLES and value is not True:
        return "lets weights be pickles, which run code when they are read"
    if key in _SWITCHES:
        return "runs code that lies beside a model" if value not in (None, False) else ""
    if _NAMES_CODE.fullmatch(key) and value not in (None, False):
        return "names code that a library imports or fetches"
    if key.endswith("_implementation") and any(map(_HUB_CODE.search, _strings(value))):
        return "names code that is fetched from a hub"
    return ""


def _strings(value: Any) -> Iterator[str]:
    for item in value.values() if isinstance(value, Mapping) else (value,):
        if isinstance(item, str):
            yield item
