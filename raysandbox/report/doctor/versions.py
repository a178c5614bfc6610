"""Judges versions: of this machine, and where nodes differ from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raysandbox.report.doctor.lines import Line, State
from raysandbox.runtime.machine import Machine

__all__ = ["difference_lines", "version_lines"]

_CORE = ("ray", "pyarrow", "numpy", "pydantic")
_DIGEST_DIGITS = 12


def version_lines(machine: Machine, own_version: str) -> Iterator[Line]:
    """The versions of this machine."""
    yield Line("versions", "python", "green", f"{machine.python} ({machine.executable})")
    yield Line("versions", "raysandbox", "green", f"{own_version}, code {machine.package[:_DIGEST_DIGITS]}")
    for package, found in machine.versions.items():
        needed = package in _CORE
        state: State = "green" if found else "red" if needed else "note"
        fix = f"pip install {package}" if needed and not found else ""
        yield Line("versions", package, state, found or "not installed", fix)


def difference_lines(driver: Machine, node: Machine, name: str, wanted: Sequence[str] = ()) -> Iterator[Line]:
    """Where a node's versions differ from the driver's; one green line where they do not.

    Args:
        driver: this machine.
        node: the other one.
        name: its name.
        wanted: packages that jobs of the configuration need on every node.
    """
    found = [*_interpreters(driver, node, name), *_code(driver, node, name)]
    for package in driver.versions:
        here, there = driver.versions[package], node.versions.get(package, "")
        if here != there:
            found.append(_difference(package, here, there, name, package in wanted))
    for package in wanted:
        if package not in driver.versions and not node.versions.get(package):
            found.append(_difference(package, "", "", name, True))
    yield from found or [Line("versions", "on the nodes", "green", "the same as here", "", name)]


def _interpreters(driver: Machine, node: Machine, name: str) -> Iterator[Line]:
    if driver.python == node.python:
        return
    minor = driver.python.rpartition(".")[0] != node.python.rpartition(".")[0]
    found = f"{node.python}, here {driver.python}"
    fix = "the same Python everywhere: Ray's objects and functions do not travel between minor versions"
    yield Line("versions", "python", "red" if minor else "yellow", found, fix if minor else "", name)


def _code(driver: Machine, node: Machine, name: str) -> Iterator[Line]:
    if driver.package == node.package:
        return
    found = f"runs code {node.package[:_DIGEST_DIGITS]}, here {driver.package[:_DIGEST_DIGITS]}"
    yield Line("versions", "raysandbox", "red", found, "install the driver's version there, or remove it there", name)


def _difference(package: str, here: str, there: str, name: str, wanted: bool) -> Line:
    found = f"{there or 'not installed'}, here {here or 'not installed'}"
    lacks = not there and (package in _CORE or wanted)
    serious = package == "ray" or lacks
    fix = "the driver's versions: the same image, or scripts/constraints.txt, on every node"
    if not there and not serious:
        fix = f"jobs that need {package} fail there: install it, or keep them away by resources.label_selector"
    return Line("versions", package, "red" if serious else "yellow", found, fix, name)
