"""The files for `ray up`, against Ray's own schema and preparation; nothing is asked of a cloud."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from tests.cluster._files import changed, load

FILES = ["aws", "on_premise"]


def prepared(document: Any) -> Any:
    """A cluster's file as `ray up` completes and checks it before it asks the provider."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    document = prepare_config(copy.deepcopy(document))
    validate_config(document)
    return document


@pytest.mark.parametrize("name", FILES)
def test_file_fits_the_schema_and_is_prepared(name: str) -> None:
    document = load(f"ray_up/{name}.yaml")
    found = prepared(document)
    assert found["cluster_name"] == "raysandbox"
    for key in ("docker", "file_mounts", "initialization_commands"):
        assert found[key] == document[key]
    # Ray joins the commands of a kind to those of all machines: none of its defaults may come in.
    for role in ("head", "worker"):
        assert found[f"{role}_setup_commands"] == document["setup_commands"]
        assert found[f"{role}_start_ray_commands"] == document[f"{role}_start_ray_commands"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("idle_timeout_minute",), 5),
        (("max_workers",), "eight"),
        (("auth", "ssh_usr"), "ray"),
        (("docker", "imagee"), "x"),
        (("docker", "run_options"), "--user 0"),
        (("provider", "type"), None),
    ],
)
def test_planted_errors_are_found(name: str, place: tuple[str, ...], value: Any) -> None:
    document = changed(load(f"ray_up/{name}.yaml"), *place, value=value)
    with pytest.raises((jsonschema.ValidationError, ValueError, TypeError, NotImplementedError)):
        prepared(document)


def _without(key: str) -> Callable[[Any], None]:
    return lambda document: document.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("head_node_type"), "head_node_type"),
        (lambda document: document["available_node_types"]["gpu"].update(max_worker=1), "max_worker"),
        (lambda document: document["available_node_types"]["cpu"].update(min_workers=9), "min_workers"),
        (lambda document: document.update(head_node_type="boss"), "head_node_type"),
        (lambda document: document["docker"].pop("image"), "container & image"),
    ],
)
def test_planted_errors_of_node_types_are_found(change: Callable[[Any], None], message: str) -> None:
    document = load("ray_up/aws.yaml")
    change(document)
    with pytest.raises((jsonschema.ValidationError, ValueError, AssertionError), match=message):
        prepared(document)


def test_on_premise_without_addresses_is_refused() -> None:
    document = load("ray_up/on_premise.yaml")
    del document["provider"]["worker_ips"]
    with pytest.raises(Exception, match="worker_ips"):
        prepared(document)


def test_on_premise_uses_all_machines() -> None:
    found = prepared(load("ray_up/on_premise.yaml"))
    (kind,) = found["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == len(found["provider"]["worker_ips"])


@pytest.mark.parametrize("name", FILES)
def test_cluster_is_closed_and_asks_for_its_token(name: str) -> None:
    document = load(f"ray_up/{name}.yaml")
    options = dict(shlex.split(option)[:2] for option in document["docker"]["run_options"] if option.startswith("-v"))
    variables = [shlex.split(option)[1] for option in document["docker"]["run_options"] if option.startswith("-e ")]
    environment = dict(variable.split("=", 1) for variable in variables)
    assert options == {"-v": "/shared:/shared"}
    assert environment["RAY_AUTH_MODE"] == "token"
    folder = environment["RAY_AUTH_TOKEN_PATH"].rpartition("/")[0]
    assert folder in document["file_mounts"]
    assert environment["RAYSANDBOX_ROOT"].startswith("/shared/")
    start = document["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in start
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start


def test_machines_on_aws_have_no_open_port() -> None:
    document = load("ray_up/aws.yaml")
    assert document["provider"]["use_internal_ips"] is True
    for name, kind in document["available_node_types"].items():
        node = kind["node_config"]
        assert node["SecurityGroupIds"], name  # without it Ray makes one that opens ssh to the world
        assert node["MetadataOptions"]["HttpTokens"] == "required", name
        assert node["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True, name


def test_head_on_aws_is_on_demand_and_workers_are_not() -> None:
    kinds = load("ray_up/aws.yaml")["available_node_types"]
    spot = {name for name, kind in kinds.items() if "InstanceMarketOptions" in kind["node_config"]}
    assert spot == {"cpu", "gpu"}
