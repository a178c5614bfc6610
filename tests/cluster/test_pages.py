"""What the pages tell a person to type exists, and both READMEs tell the same."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main

from raysandbox.cli.main import app
from tests.cluster._files import CLUSTER, PAGES, ROOT

ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README_ZH.md"
TEXTS = [*sorted(PAGES.glob("*.md")), ENGLISH, CHINESE]
VERBS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
MADE_BY_THE_READER = {"cluster/docker/.env", "configs/demo/data"}


def ray_commands() -> Mapping[str, Any]:
    """Ray's commands by name; a group's own are in its `commands`."""
    from ray.scripts.scripts import cli

    return cli.commands


def blocks(path: Path) -> list[str]:
    """Fenced blocks of commands."""
    found = re.findall(r"```(\w*)\n(.*?)```", path.read_text(), re.DOTALL)
    return [text for language, text in found if language in {"bash", ""}]


def commands(path: Path) -> list[str]:
    """Command lines of the fenced blocks and of code in running text, comments left out."""
    lines = [line for block in blocks(path) for line in block.splitlines()]
    prose = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    lines += re.findall(r"`((?:raysandbox|ray|sbatch|docker|kubectl|python) [^`]+)`", prose)
    return [bare for line in lines if (bare := re.sub(r"\s+#.*| {3,}.*", "", line).strip())]


def words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # a quotation over several lines
        return command.split()


def files(path: Path) -> set[str]:
    """Files of the project that a page names."""
    return set(re.findall(r"(?<![\w/.-])((?:cluster|scripts|configs)/[\w./-]*[\w/])", path.read_text()))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_files_exist(path: Path) -> None:
    missing = [name for name in files(path) - MADE_BY_THE_READER if not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        assert page.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, target


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_verbs_exist(path: Path) -> None:
    for command in commands(path):
        for match in re.finditer(r"(?:^|[\s'\"])(?:python -m )?raysandbox ([a-z]+)\b", command):
            assert match[1] in VERBS, command
        for match in re.finditer(r"(?:^|[\s'\"(])ray ([a-z][a-z-]+)(?: ([a-z]+))?", command):
            assert match[1] in ray_commands(), command
            if match[1] == "job" and match[2]:
                assert match[2] in ray_commands()["job"].commands, command


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_options_of_ray_exist(path: Path) -> None:
    for command in commands(path):
        found = words(command)
        if found[:2] != ["ray", "job"] or not found[2].isalpha():
            continue
        own = found[3 : found.index("--")] if "--" in found else found[3:]
        known = {name for option in ray_commands()["job"].commands[found[2]].params for name in option.opts}
        assert {word for word in own if word.startswith("--")} <= known, command


def test_wrong_commands_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\nraysandbox rum cfg.yaml   # run\n```\nand `ray jobs submit` of cluster/nothing.yaml\n")
    assert commands(page) == ["raysandbox rum cfg.yaml", "ray jobs submit"]
    assert files(page) == {"cluster/nothing.yaml"}
    with pytest.raises(AssertionError):
        test_verbs_exist(page)
    with pytest.raises(AssertionError):
        test_files_exist(page)


def test_every_deployment_file_has_its_page() -> None:
    named = set().union(*(files(page) for page in PAGES.glob("*.md")))
    for path in CLUSTER.rglob("*"):
        if path.is_file() and not path.name.startswith(".git") and path.suffix != ".dockerignore":
            name = path.relative_to(ROOT).as_posix()
            assert any(name == known or (known.endswith("/") and name.startswith(known)) for known in named), name


def test_both_readmes_tell_the_same() -> None:
    assert _code(CHINESE) == _code(ENGLISH)
    assert _numbers(CHINESE) == _numbers(ENGLISH)
    english = [target for target in _targets(ENGLISH) if target != CHINESE.name]
    assert [target for target in _targets(CHINESE) if target != ENGLISH.name] == english


def test_readmes_link_each_other() -> None:
    assert ENGLISH.name in _targets(CHINESE)
    assert CHINESE.name in _targets(ENGLISH)


def _code(path: Path) -> list[str]:
    """Code blocks without comments and blank lines, whose words may be translated."""
    text = "\n".join(re.findall(r"```\w*\n(.*?)```", path.read_text(), re.DOTALL))
    text = re.sub(r'"[^"\n]*"', '""', text)
    lines = (re.sub(r"\s+#.*", "", line).rstrip() for line in text.splitlines())
    return [line for line in lines if line]


def _numbers(path: Path) -> list[str]:
    """Figures of the running text, sorted; languages order them differently."""
    text = re.sub(r"```.*?```|\]\([^)]*\)", "", path.read_text(), flags=re.DOTALL)
    return sorted(re.findall(r"\d[\d,.]*\d|\d", text))


def _targets(path: Path) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", path.read_text())
