"""`raysandbox doctor`: this machine, the cluster, and what a configuration needs of them."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raysandbox.cli.options import AllowUserCode, Overrides

if TYPE_CHECKING:
    from raysandbox.cli.needs import Needs
    from raysandbox.report.doctor.lines import Line
    from raysandbox.runtime.machine import Machine

__all__ = ["command"]

_LIMIT_S = 30.0


def command(
    config: Annotated[
        str | None, typer.Argument(metavar="[CFG]", help="Also what this configuration or recipe needs and lacks.")
    ] = None,
    override: Overrides = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Connect to Ray (RAY_ADDRESS, or a local one) and ask every node.")
    ] = False,
    node_limit: Annotated[
        float, typer.Option("--node-limit", metavar="SECONDS", min=0.1, help="How long a node may take to answer.")
    ] = _LIMIT_S,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Yellow counts as red.")] = False,
    allow_user_code: AllowUserCode = False,
) -> None:
    """Look at versions, resources, storage, GPUs, ports and tokens; with --cluster on every node of Ray.

    Status 0: all green or yellow; 1: something is red (with --strict also yellow); 2: the configuration is wrong.
    """
    from raysandbox.cli.needs import Needs, needs_of
    from raysandbox.report.doctor.installation import packages_of
    from raysandbox.report.doctor.lines import status_of
    from raysandbox.runtime.machine import examine

    needs = needs_of(config, override or [], allow_user_code) if config else Needs()
    machine = examine(_folders(needs), more_packages=packages_of(list(needs.extras)))
    lines = [*_here(machine, needs)]
    lines += _on_cluster(machine, needs, node_limit) if cluster else _alone(machine, needs)
    _print(lines, as_json)
    sys.exit(2 if needs.is_wrong else status_of(lines, strict=strict))


def _folders(needs: Needs) -> dict[str, str]:
    """The local folders to look at, by what they are for."""
    from raysandbox.core.files import cache_dir
    from raysandbox.core.names import is_remote
    from raysandbox.runtime.checkup import session_folder

    found = {
        "temporary files": tempfile.gettempdir(),
        "Ray's session": session_folder(),
        "cache": str(cache_dir(needs.cache_dir).absolute()),
        "work_dir": needs.mirror or needs.work_dir or os.getcwd(),
    }
    if root := os.environ.get("RAYSANDBOX_ROOT"):
        found["RAYSANDBOX_ROOT"] = root
    return {role: path for role, path in found.items() if not is_remote(path)}


def _storage(needs: Needs) -> dict[str, str]:
    """The folders and URLs that all nodes must share."""
    from raysandbox.core.files import cache_dir

    found = {"cache": str(cache_dir(needs.cache_dir).absolute())}
    if needs.work_dir:
        found["work_dir"] = needs.work_dir
    if root := os.environ.get("RAYSANDBOX_ROOT"):
        found["RAYSANDBOX_ROOT"] = root
    return found


def _here(machine: Machine, needs: Needs) -> Iterator[Line]:
    """What is said of this installation, with or without a cluster."""
    from raysandbox.cli.env import rows
    from raysandbox.core.keys import package_version
    from raysandbox.report.doctor import installation
    from raysandbox.report.doctor.ports import auth_line
    from raysandbox.report.doctor.versions import version_lines

    yield from version_lines(machine, package_version())
    yield from installation.extra_lines(needs.extras)
    yield from installation.environment_lines(rows())
    yield from installation.weight_lines()
    yield from installation.hub_lines()
    yield _wandb(needs)
    yield auth_line(machine)
    if needs.config:
        from raysandbox.report.doctor.needs import extra_need_lines, problem_lines

        yield from problem_lines(needs.config, needs.problems)
        yield from extra_need_lines(needs.extras)


def _wandb(needs: Needs) -> Line:
    from raysandbox.report.doctor.installation import is_installed, wandb_line
    from raysandbox.watcher.config import WatchConfig, has_wandb_key

    asked = needs.wandb != "auto" or bool(os.environ.get("WANDB_MODE"))
    mode = WatchConfig("", "", "", Path(), wandb=needs.wandb).resolve_wandb()
    return wandb_line(mode, is_installed("wandb"), has_wandb_key(), asked=asked)


def _alone(machine: Machine, needs: Needs) -> Iterator[Line]:
    """Without Ray: this machine, and what a store says to it."""
    from raysandbox.core.names import is_remote
    from raysandbox.report.doctor.clusters import storage_lines
    from raysandbox.report.doctor.machines import machine_lines
    from raysandbox.report.doctor.ports import port_lines
    from raysandbox.runtime.checkup import ClusterReport
    from raysandbox.runtime.session import this_machine
    from raysandbox.runtime.shared_storage import place, remove

    yield from machine_lines(machine)
    yield from port_lines(machine)
    if is_remote(needs.work_dir):
        probe = place("work_dir", needs.work_dir)
        remove(probe)
        yield from storage_lines(ClusterReport((), (probe,)))
    if needs.plan is not None:
        from raysandbox.report.doctor.needs import resource_lines

        yield from resource_lines(needs.plan, this_machine(), "this machine")


def _on_cluster(machine: Machine, needs: Needs, limit_s: float) -> Iterator[Line]:
    """With Ray: every node."""
    from raysandbox.core.errors import UserError
    from raysandbox.report.doctor.clusters import cluster_lines
    from raysandbox.report.doctor.installation import packages_of
    from raysandbox.report.doctor.lines import Line
    from raysandbox.report.doctor.machines import machine_lines
    from raysandbox.runtime.checkup import Request, ask_nodes
    from raysandbox.runtime.session import cluster_summary, ensure_ray

    try:
        ensure_ray()
    except UserError as error:
        yield from machine_lines(machine)
        yield Line("nodes", "cluster", "red", str(error))
        return
    packages = packages_of(list(needs.extras))
    report = ask_nodes(Request(_folders(needs), packages=packages), _storage(needs), limit_s=limit_s)
    if not any(node.is_drivers and node.machine for node in report.nodes):
        yield from machine_lines(machine)
    yield from cluster_lines(report, machine, packages)
    if needs.plan is not None:
        from raysandbox.report.doctor.needs import resource_lines

        summary = cluster_summary()
        name = "this machine" if summary.local else f"the cluster of {len(summary.nodes)} node(s)"
        yield from resource_lines(needs.plan, summary, name)


def _print(lines: Sequence[Line], as_json: bool) -> None:
    from raysandbox.core.redact import redact
    from raysandbox.report.doctor import lines as doctor

    if as_json:
        typer.echo(json.dumps(redact(doctor.as_json(lines)), indent=2, ensure_ascii=False))
        return
    from raysandbox.cli.doctor_table import print_lines

    print_lines(doctor.together(lines), doctor.overview(lines))
