"""Operators in the user's own files, for recipes with `custom_operator_paths`."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from raysandbox.core.errors import UserError
from raysandbox.ops.base import Operator

__all__ = ["custom_modules", "import_operators"]

_PREFIX = "raysandbox_custom_"
# What code of a user may raise when it is imported.
_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    UserError,
    ValueError,
)


def import_operators(path: Path) -> None:
    """Imports a file whose classes are registered as operators; this runs its code.

    The module is named by the file's content: the same content is imported once, another anew.

    Raises:
        UserError: the file cannot be read, fails, or registers no operator.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error
    name = _PREFIX + hashlib.sha256(content).hexdigest()[:16]
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    if spec is None:
        raise UserError(f"'{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)  # the content that the name stands for
        if not _registered(module):
            raise UserError("it registers no operator (decorate a Mapper, Filter … with @register('name'))")
    except _FAULTS as error:
        del sys.modules[name]
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        raise UserError(f"'{path}' cannot be used: {kind}{error}") from error


def _registered(module: ModuleType) -> bool:
    classes = (value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Operator))
    return any(cls.__module__ == module.__name__ and cls.type_name for cls in classes)


def custom_modules() -> list[ModuleType]:
    """The modules that were made of users' files: other processes cannot import them."""
    return [module for name, module in sys.modules.items() if name.startswith(_PREFIX)]
