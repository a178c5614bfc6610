"""Operators in the user's own files, for recipes with `custom_operator_paths`."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from raysandbox.core.errors import UserError
from raysandbox.core.keys import CODE_BESIDE
from raysandbox.ops.base import Operator

__all__ = ["custom_modules", "import_operators"]

_PREFIX = "raysandbox_custom_"
_SEEN: dict[Path, str] = {}  # digests of files beside such modules; of one that is loaded, as it was before
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

    The module is named by the file's content: the same content is imported once, another anew. Python
    files beside it count as its code, since it may import them.

    Raises:
        UserError: the file cannot be read, fails, or registers no operator.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error
    name = _PREFIX + hashlib.sha256(content).hexdigest()[:16]
    if name in sys.modules:
        _note_code_beside(sys.modules[name])
        return
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    if spec is None:
        raise UserError(f"'{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _note_code_beside(module)
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


def _note_code_beside(module: ModuleType) -> None:
    """Tells `core.keys.code_version` what stands beside a module's file: of what is loaded, what was there then."""
    folder = Path(str(module.__file__)).parent
    if not folder.is_dir():  # the same content, that was read elsewhere before
        return
    files = [Path(os.path.realpath(path)) for path in _code_files(folder)]
    names = {path.name for path in files}
    others = [getattr(each, "__file__", None) for key, each in list(sys.modules.items()) if not key.startswith(_PREFIX)]
    loaded = {os.path.realpath(file) for file in others if isinstance(file, str) and os.path.basename(file) in names}
    for path in files:
        if str(path) not in loaded or path not in _SEEN:
            _SEEN[path] = hashlib.sha256(path.read_bytes()).hexdigest()
    setattr(module, CODE_BESIDE, [[os.path.relpath(path, os.path.realpath(folder)), _SEEN[path]] for path in files])


def _code_files(folder: Path) -> Iterator[Path]:
    """The Python files of a folder and of the packages in it, in order."""
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py" and path.is_file():
            yield path
        elif (path / "__init__.py").is_file() and not path.is_symlink():
            yield from _code_files(path)


def custom_modules() -> list[ModuleType]:
    """The modules that were made of users' files: other processes cannot import them."""
    return [module for name, module in sys.modules.items() if name.startswith(_PREFIX)]
