"""The scripts of the original's EasyAnimate, in an environment of their own: what is run, and how.

The checkout and its environment are the user's (`raysandbox env create easyanimate --source PATH`).
Scripts are called by argument lists; no shell reads a prompt or a path.
"""

from __future__ import annotations

import hashlib
import os
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from raysandbox.core.component import InputPath
from raysandbox.core.errors import UserError
from raysandbox.core.keys import code_version, digest
from raysandbox.core.programs import child_environment, run_program
from raysandbox.provision.environments import Environment, find, interpreter

__all__ = [
    "EXTERNAL_KEYS",
    "IDLE_KEYS",
    "BackendOptions",
    "ExternalScript",
    "absolute",
    "code_of",
    "external_script",
    "missing_environment",
    "surroundings_of",
]

_ENVIRONMENT = "easyanimate"
_CODE = (".py", ".sh", ".yaml")  # of a checkout: what its scripts do

Launcher = Literal["accelerate", "python"]


class BackendOptions(BaseModel):
    """What EasyAnimate runs with, and where its scripts are."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    backend: Literal["diffusers", "external"] = Field(
        "diffusers", description="diffusers (EasyAnimate 5.1), or the original's scripts (external: EasyAnimate v1)"
    )

    env: str | None = Field(
        None,
        description="external: name of an isolated environment, or path of an interpreter, that the scripts run in: "
        f"'{_ENVIRONMENT}'",
    )
    source: InputPath | None = Field(
        None, description="external: checkout that holds the scripts; by default the one that `env` was built from"
    )
    script: str | None = Field(
        None, description="external: the script, below `source`; a name that ends in .sh is run by bash"
    )
    launcher: Launcher | None = Field(
        None, description="external: what starts a Python script: training accelerate, inference python"
    )
    script_arguments: list[str] | None = Field(
        None,
        description="external: arguments of the script, with values in braces: --seed={seed}; an option "
        "without its value is left out; by default those of the original's script",
    )
    stall_timeout_s: float = Field(
        1800, gt=0, description="external: seconds without a line of output after which a script is ended"
    )
    model_name: str | None = Field(None, description="of the original; has no meaning here")
    env_name: str | None = Field(None, description="of the original; external: the same as env")
    env_manager: str | None = Field(None, description="of the original; has no meaning here")
    env_params: Any = Field(None, description="of the original; has no meaning here")


EXTERNAL_KEYS = ("env", "source", "script", "launcher", "script_arguments", "stall_timeout_s")
IDLE_KEYS = {"diffusers": ("env_name", "env_manager", "env_params"), "external": ("env_manager", "env_params")}


@dataclass(frozen=True)
class ExternalScript:
    """A script, ready to be called; plain values, so that it travels to workers.

    Attributes:
        python: interpreter of its environment.
        source: the checkout; also the working directory.
        script: its path below `source`.
        launcher: what starts a Python script.
        arguments: its arguments, with values in braces.
        stall_timeout_s: seconds without output after which it is ended.
    """

    python: str
    source: Path
    script: str
    launcher: Launcher
    arguments: tuple[str, ...]
    stall_timeout_s: float

    def command(self, values: Mapping[str, Any]) -> list[str]:
        """The argument list.

        Args:
            values: what stands for the names in braces; None leaves out an option, and is an empty
                argument where the position counts.
        """
        path = str(self.source / self.script)
        if path.endswith(".sh"):
            start = ["bash", path]
        elif self.launcher == "accelerate":
            start = [self.python, "-m", "accelerate.commands.launch"]
            start += [f"--mixed_precision={values['mixed_precision']}", path]
        else:
            start = [self.python, path]
        return start + [
            argument.format_map({key: "" if value is None else value for key, value in values.items()})
            for argument in self.arguments
            if not (argument.startswith("-") and any(values[name] is None for name in names_in(argument)))
        ]

    def run(self, values: Mapping[str, Any], on_line: Callable[[str], None], what: str) -> None:
        """Runs it to its end.

        Raises:
            JobFailed: it did not end well; the message has its last lines.
        """
        run_program(
            self.command(values),
            cwd=self.source,
            environment=child_environment(self.python),
            on_line=on_line,
            stall_timeout_s=self.stall_timeout_s,
            what=what,
        )


def external_script(
    options: BackendOptions,
    *,
    script: str,
    launcher: Launcher,
    arguments: Mapping[str, Sequence[str]],
    values: Mapping[str, Any],
    allow_user_code: bool,
) -> ExternalScript:
    """Finds the script and its environment.

    Args:
        options: the configuration.
        script: the script by default.
        launcher: what starts it by default.
        arguments: its arguments by default, by the ending of its name.
        values: the names that arguments may hold.
        allow_user_code: whether any checkout's code may run; that of the checkout that the environment
            was built from may, since the user named it then.

    Raises:
        UserError: no environment, no checkout, no such script below it, code that may not run, or an unknown
            name in braces.
    """
    env = options.env or options.env_name or _ENVIRONMENT
    python = interpreter(env)
    built = _built(env)
    known = built.source if built else None
    source = Path(options.source).expanduser().absolute() if options.source else known
    if source is None:
        raise UserError(f"source: the environment '{env}' was not built from a checkout: name the one with the scripts")
    name = options.script or script
    if not (source / name).is_file():
        raise UserError(f"source: {source} holds no {name}: correct source, or name the script in `script`")
    if not (source / name).resolve().is_relative_to(source.resolve()):
        raise UserError(f"script: {name} lies outside of {source}: give a script below source")
    if not allow_user_code and (known is None or source.resolve() != known.resolve()):
        raise UserError(
            f"source: code of {source} runs only with --allow-user-code, or after "
            f"`raysandbox env create {_ENVIRONMENT} --source {source}`"
        )
    usual = arguments[".sh" if name.endswith(".sh") else ".py"]
    given = usual if options.script_arguments is None else options.script_arguments
    _check_names(given, values)
    launch = options.launcher or launcher
    return ExternalScript(python, source, name, launch, tuple(given), options.stall_timeout_s)


def missing_environment(raw: Mapping[str, Any]) -> dict[str, str]:
    """The scripts' environment, when it is not built: for `Component.missing_weights`."""
    try:
        interpreter(_env_of(raw))
    except UserError as error:
        return {"env_name" if raw.get("env_name") and not raw.get("env") else "env": str(error)}
    return {}


def surroundings_of(raw: Mapping[str, Any]) -> Any:
    """What a script's result depends on beside the configuration and its inputs: what its environment holds."""
    built = _built(_env_of(raw))
    held = [built.manifest.get("packages"), built.manifest.get("source")] if built else None
    # A checkout that the configuration names is one of the job's inputs.
    code = code_of(built.source) if built and built.source and not raw.get("source") else None
    return [code_version(BackendOptions), held, code]


def code_of(source: Path) -> str:
    """A digest of a checkout's code as it is now; hidden folders do not count."""
    files = sorted(path for path in source.rglob("*") if path.suffix in _CODE and path.is_file())
    names = [(path, str(path.relative_to(source))) for path in files]
    shown = [(path, name) for path, name in names if not name.startswith(".") and "/." not in name]
    return digest([[name, hashlib.sha256(path.read_bytes()).hexdigest()] for path, name in shown])


def _built(env: str) -> Environment | None:
    """The environment of a name; the path of an interpreter names none, even where it ends like one."""
    return None if os.sep in env else find(env)


def _env_of(raw: Mapping[str, Any]) -> str:
    return str(raw.get("env") or raw.get("env_name") or _ENVIRONMENT)


def names_in(argument: str) -> list[str]:
    """The names in braces.

    Raises:
        ValueError: a brace has no partner.
    """
    return [name for _, name, _, _ in string.Formatter().parse(argument) if name is not None]


def _check_names(arguments: Sequence[str], values: Mapping[str, Any]) -> None:
    for argument in arguments:
        try:
            unknown = [name for name in names_in(argument) if name not in values]
        except ValueError as error:
            raise UserError(f"script_arguments: '{argument}': {error} (write {{{{ and }}}} for braces)") from error
        if unknown:
            raise UserError(f"script_arguments: '{argument}' names {unknown[0]!r}; known: {', '.join(sorted(values))}")


def absolute(path: str | None) -> str | None:
    """A path as another working directory needs it; names of a hub, and nothing, stay as they are."""
    if not path:
        return path
    expanded = Path(path).expanduser()
    return str(expanded.absolute()) if expanded.exists() else path
