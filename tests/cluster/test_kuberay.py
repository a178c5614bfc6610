"""KubeRay's manifests, against Kubernetes' own schema and, where they are at hand, KubeRay's CRDs.

RAYSANDBOX_KUBERAY_CRDS names a folder with the CRDs rayclusters.yaml and rayjobs.yaml of an operator.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.cluster._files import changed, load

CRDS = os.environ.get("RAYSANDBOX_KUBERAY_CRDS", "")
NEEDS_CRDS = pytest.mark.skipif(not CRDS, reason="RAYSANDBOX_KUBERAY_CRDS names no folder with KubeRay's CRDs")
KUBERNETES = "1.32.0"
CUSTOM = {"kuberay/raycluster.yaml": "rayclusters.yaml", "kuberay/rayjob.yaml": "rayjobs.yaml"}
PLAIN = ["kuberay/storage.yaml", "kuberay/secret.example.yaml", "kuberay/network_policy.yaml"]
POD = ("spec", "headGroupSpec", "template", "spec")
WORKER = ("spec", "workerGroupSpecs", 1, "template", "spec")


def closed(schema: Any) -> Any:
    """A CRD's schema that refuses fields which it does not know."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    is_object = schema.get("type") == "object" and isinstance(schema.get("properties"), dict)
    if is_object and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


@cache
def validator(crd: str) -> jsonschema.Draft202012Validator:
    """Of the version v1 of a CRD."""
    document = yaml.load(Path(CRDS, crd).read_text(), yaml.CSafeLoader)  # 1 MB of it
    schema = next(v["schema"]["openAPIV3Schema"] for v in document["spec"]["versions"] if v["name"] == "v1")
    schema = closed(schema)
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own, which CRDs leave open
    return jsonschema.Draft202012Validator(schema)


def problems(crd: str, document: Any) -> list[str]:
    """What a CRD finds wrong: "place: message"."""
    found = validator(crd).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def cluster_specs() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "cluster", load("kuberay/raycluster.yaml")["spec"]
    yield "job", load("kuberay/rayjob.yaml")["spec"]["rayClusterSpec"]


def pods() -> dict[str, dict[str, Any]]:
    """Every pod template of the manifests."""
    found = {}
    for name, spec in cluster_specs():
        found[f"{name}-head"] = spec["headGroupSpec"]["template"]
        found |= {f"{name}-{group['groupName']}": group["template"] for group in spec["workerGroupSpecs"]}
    return found | {"submitter": load("kuberay/rayjob.yaml")["spec"]["submitterPodTemplate"]}


def as_pod_template(template: dict[str, Any]) -> dict[str, Any]:
    """A template as an object of its own, which Kubernetes' schema knows."""
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": template}


@NEEDS_CRDS
@pytest.mark.parametrize("path", CUSTOM)
def test_manifest_fits_its_crd(path: str) -> None:
    assert problems(CUSTOM[path], load(path)) == []


@NEEDS_CRDS
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("spec", "enableInTreeAutoscalling"), True, "'enableInTreeAutoscalling' was unexpected"),
        (("spec", "authOptions", "modus"), "token", "'modus' was unexpected"),
        (("spec", "authOptions", "mode"), "tokens", "'tokens' is not one of"),
        (("spec", "autoscalerOptions", "version"), "v3", "'v3' is not one of"),
        (("spec", "workerGroupSpecs", 1, "replica"), 1, "'replica' was unexpected"),
        (("spec", "workerGroupSpecs", 1, "maxReplicas"), "eight", "'eight' is not of type 'integer'"),
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0, "0 is not of type 'string'"),
        ((*POD, "containers", 0, "imagePullPolice"), "Always", "'imagePullPolice' was unexpected"),
        ((*POD, "containers", 0, "env", 0, "values"), "x", "'values' was unexpected"),
        ((*POD, "securityContext", "runAsUser"), "1000", "'1000' is not of type 'integer'"),
        ((*POD, "volumes", 0, "persistentVolumeClaim", "claim"), "x", "'claim' was unexpected"),
        ((*WORKER, "volumes", 1, "emptyDir", "sizelimit"), "1Gi", "'sizelimit' was unexpected"),
        ((*WORKER, "tolerations", 0, "key"), 1, "1 is not of type 'string'"),
        ((*WORKER, "containers", 0, "resources", "limit"), {}, "'limit' was unexpected"),
    ],
)
def test_planted_errors_are_found(place: tuple[str | int, ...], value: Any, message: str) -> None:
    document = load("kuberay/raycluster.yaml")
    assert any(message in problem for problem in problems("rayclusters.yaml", changed(document, *place, value=value)))
    job = load("kuberay/rayjob.yaml")
    inner = ("spec", "rayClusterSpec", *place[1:])
    assert any(message in problem for problem in problems("rayjobs.yaml", changed(job, *inner, value=value)))


@NEEDS_CRDS
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shutdownAfterJobFinish", True, "was unexpected"),
        ("ttlSecondsAfterFinished", "600", "is not of type 'integer'"),
        ("submitterConfig", {"backoff": 1}, "was unexpected"),
    ],
)
def test_planted_errors_of_a_job_are_found(key: str, value: Any, message: str) -> None:
    job = changed(load("kuberay/rayjob.yaml"), "spec", key, value=value)
    assert any(message in problem for problem in problems("rayjobs.yaml", job))


@pytest.mark.parametrize("path", PLAIN)
def test_plain_manifest_fits_kubernetes(path: str) -> None:
    kubernetes_validate.validate(load(path), KUBERNETES, strict=True)


@pytest.mark.parametrize("name", pods())
def test_pod_fits_kubernetes(name: str) -> None:
    kubernetes_validate.validate(as_pod_template(pods()[name]), KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("spec", "containers", 0, "imagePullPolice"), "Always"),
        (("spec", "volumes", 1, "emptyDir", "sizelimit"), "1Gi"),
        (("spec", "securityContext", "runAsUser"), "somebody"),
    ],
)
def test_kubernetes_finds_planted_errors(place: tuple[str | int, ...], value: Any) -> None:
    template = changed(pods()["cluster-gpu"], *place, value=value)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(as_pod_template(template), KUBERNETES, strict=True)


@pytest.mark.parametrize("name", pods())
def test_pod_may_do_little(name: str) -> None:
    pod = pods()[name]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    if not name.endswith("head"):  # the head's autoscaler speaks to Kubernetes
        assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert set(container["resources"]) == {"requests", "limits"}
        assert not any("hostPort" in port for port in container.get("ports", ()))
    assert "hostNetwork" not in pod
    assert not any("hostPath" in volume for volume in pod.get("volumes", ()))


@pytest.mark.parametrize("name", [name for name in pods() if name != "submitter"])
def test_node_sees_the_shared_folder_and_has_shared_memory(name: str) -> None:
    pod = pods()[name]["spec"]
    container = pod["containers"][0]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    claim = mounts["/shared"]["persistentVolumeClaim"]["claimName"]
    assert claim == load("kuberay/storage.yaml")["metadata"]["name"]
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    values = {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}
    assert values["RAYSANDBOX_ROOT"].startswith("/shared/")
    secret = values["WANDB_API_KEY"]["secretKeyRef"]
    example = load("kuberay/secret.example.yaml")
    assert (secret["name"], list(example["stringData"])) == (example["metadata"]["name"], [secret["key"]])


def test_both_manifests_describe_the_same_cluster() -> None:
    (_, cluster), (_, job) = cluster_specs()
    assert cluster == job


def test_cluster_asks_for_its_token_and_grows() -> None:
    spec = load("kuberay/raycluster.yaml")["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert groups["gpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert all(group["minReplicas"] < group["maxReplicas"] for group in groups.values())


def test_job_cleans_up_after_itself() -> None:
    spec = load("kuberay/rayjob.yaml")["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["backoffLimit"] > 0
    assert "--resume" in spec["entrypoint"]


def test_network_policy_covers_all_pods() -> None:
    policy = load("kuberay/network_policy.yaml")["spec"]
    chosen = policy["podSelector"]["matchLabels"].items()
    assert all(chosen <= template["metadata"]["labels"].items() for template in pods().values())
