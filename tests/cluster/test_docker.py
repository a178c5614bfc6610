"""Dockerfiles by hadolint, the compose file by the compose specification, and rules of our own for both."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from tests.cluster._files import CLUSTER, PINS, PROJECT, ROOT, changed, load

HADOLINT = Path(sys.executable).with_name("hadolint")
DOCKERFILES = sorted(path for path in CLUSTER.glob("docker/Dockerfile*") if path.suffix != ".dockerignore")
SETTINGS = {"RAY_AUTH_TOKEN": "0" * 64, "SHARED_FOLDER": "/srv/raysandbox"}


def hadolint(text: str) -> str:
    """What hadolint says of a Dockerfile."""
    done = subprocess.run([HADOLINT, "-"], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 or done.stdout, done.stderr
    return done.stdout


def instructions(path: Path) -> list[tuple[str, str]]:
    """(name, arguments) of a Dockerfile, continued lines joined, comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def interpolated(text: str, settings: dict[str, str]) -> str:
    """A compose file's text as `docker compose` reads it; a missing `${NAME:?…}` raises KeyError."""

    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        given = settings.get(match["name"], "")
        if not given and match["kind"] == ":?":
            raise KeyError(match["name"])
        return given or match["default"]

    return re.sub(r"(?P<dollar>\$\$)|\$\{(?P<name>\w+)(?P<kind>:[-?])(?P<default>[^}]*)\}", value, text)


def compose(**settings: str) -> Any:
    """The compose file as `docker compose` sees it."""
    found = yaml.safe_load(interpolated((CLUSTER / "docker/compose.yaml").read_text(), SETTINGS | settings))
    return {key: value for key, value in found.items() if not key.startswith("x-")}


def refused(document: Any) -> str:
    """What the compose specification finds wrong; "" when nothing."""
    try:
        PyCompose.from_yaml(yaml.safe_dump(document)).validate()
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    assert hadolint(path.read_text()) == ""


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("--no-install-recommends ", "", "DL3015"),
        ("pip install --no-cache-dir -c scripts/constraints.txt", "pip install", "DL3042"),
        ("USER 1000:1000", "USER 0", "DL3002"),
        ("WORKDIR /home/ray", "WORKDIR ray", "DL3000"),
        ('CMD ["raysandbox", "doctor"]', "CMD raysandbox doctor", "DL3025"),
        ("ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm", "ARG PYTHON_IMAGE=python", "DL3006"),
    ],
)
def test_hadolint_finds_planted_errors(old: str, new: str, rule: str) -> None:
    text = (CLUSTER / "docker/Dockerfile").read_text()
    assert old in text
    text = text.replace(old, new)
    if rule == "DL3006":
        text = text.replace("${PYTHON_IMAGE}", "python")
    assert rule in hadolint(text)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfile_is_pinned_unprivileged_and_knows_no_secret(path: Path) -> None:
    found = instructions(path)
    images = [value for name, value in found if name == "ARG" and "IMAGE=" in value]
    assert images, "the images that it builds on are arguments"
    for image in images:
        tag = image.rpartition(":")[2]
        assert re.match(r"\d+\.\d+", tag), image
    assert [value for name, value in found if name == "USER"][-1] == "1000:1000"
    assert not [value for name, value in found if name == "ADD"]
    for name, value in found:
        if name in {"ARG", "ENV"}:
            assert not re.search(r"\b\w*(TOKEN|SECRET|PASSWORD|API_KEY)\w*=", value), value
        if name == "RUN":
            assert "pip install" not in value or ("--no-cache-dir" in value and "-c scripts/constraints.txt" in value)


def test_what_a_build_copies_is_sent_and_nothing_else() -> None:
    rules = (CLUSTER / "docker/Dockerfile.dockerignore").read_text().splitlines()
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    assert rules[0] == "*"
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    copied: set[str] = set()
    for name, value in instructions(CLUSTER / "docker/Dockerfile"):
        if name == "COPY" and "--from" not in value:
            copied |= {source.split("/")[0] for source in value.split()[:-1]}
    assert copied == sent
    assert all((ROOT / path).exists() for path in sent)


def test_image_does_not_ask_for_gpus() -> None:
    assert not [value for _, value in instructions(CLUSTER / "docker/Dockerfile") if "NVIDIA_VISIBLE_DEVICES" in value]


def test_login_shells_find_the_environment() -> None:
    """`ray up` runs its commands in them, and Debian's profile sets PATH anew."""
    found = instructions(CLUSTER / "docker/Dockerfile")
    assert any(name == "ENV" and "PATH=/opt/venv/bin:$PATH" in value for name, value in found)
    (profile,) = [value for name, value in found if name == "RUN" and "/etc/profile.d/" in value]
    assert r'"export PATH=/opt/venv/bin:\$PATH"' in profile


def test_autoscaler_on_aws_has_its_library() -> None:
    runs = [value for name, value in instructions(CLUSTER / "docker/Dockerfile") if name == "RUN"]
    assert any("pip install" in value and value.endswith("boto3") for value in runs)
    assert "boto3" in PINS


def test_image_holds_extras_that_exist_and_pinned_torch() -> None:
    arguments = dict(
        value.split("=", 1)
        for name, value in instructions(CLUSTER / "docker/Dockerfile")
        if name == "ARG" and "=" in value
    )
    assert set(arguments["EXTRAS"].split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    assert "torch" in PINS


@pytest.mark.parametrize("image", ["raysandbox:0.1.0-cpu", "registry.example.com:5000/team/raysandbox:0.1.0-cuda"])
def test_compose_file_fits_the_specification(image: str) -> None:
    assert refused(compose(RAYSANDBOX_IMAGE=image)) == ""


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("services", "head", "imagee"), "x"),
        (("services", "head", "healthcheck", "tests"), "x"),
        (("services", "gpu-worker", "deploy", "resources", "reservation"), {}),
        (("services", "gpu-worker", "deploy", "resources", "reservations", "devices", 0, "counts"), 1),
        (("services", "head", "ports"), ["nowhere:8265"]),
        (("services", "worker", "networks"), ["another"]),
        (("services", "worker", "shm_size"), "4 elephants"),
        (("services", "worker", "depends_on", "head", "condition"), "service_well"),
        (("servics",), {}),
    ],
)
def test_compose_specification_finds_planted_errors(place: tuple[str | int, ...], value: Any) -> None:
    document = compose()
    assert refused(document) == ""
    assert refused(changed(document, *place, value=value))


@pytest.mark.parametrize("missing", SETTINGS)
def test_compose_refuses_to_start_without_its_settings(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        compose(**{missing: ""})
    example = (CLUSTER / "docker/.env.example").read_text()
    assert re.search(rf"^{missing}=", example, re.MULTILINE)


def test_compose_publishes_on_loopback_only() -> None:
    for name, service in compose()["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert service["user"] == "1000:1000", name
        assert service["cap_drop"] == ["ALL"], name
        assert not service.get("privileged"), name
        assert service.get("network_mode") != "host", name
        assert service["environment"]["RAY_AUTH_MODE"] == "token", name


def test_compose_services_do_their_part() -> None:
    services = compose()["services"]
    assert set(services) == {"head", "worker", "gpu-worker", "job"}
    assert services["gpu-worker"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert services["job"]["profiles"] == ["job"]
    assert {service["shm_size"] for service in services.values()} == {"4gb"}
    script = services["job"]["command"][-1]
    assert "${" not in script
    assert '"$RAYSANDBOX_ROOT/configs/demo/data"' in script
    assert subprocess.run(["bash", "-n", "-c", script], timeout=10, check=False).returncode == 0


def test_example_settings_hold_no_secret() -> None:
    lines = (CLUSTER / "docker/.env.example").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert values["RAY_AUTH_TOKEN"] == values["WANDB_API_KEY"] == ""
    assert load("docker/compose.yaml")["name"] == "raysandbox"
