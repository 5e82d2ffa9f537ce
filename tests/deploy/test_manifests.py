"""cluster/deploy fits the schemas, the settings, and itself. Offline: nothing is applied anywhere."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml

from cluster.ray_node import SPARES, TUNING
from cluster.settings import PREFIX, Settings

DEPLOY = Path(__file__).parents[2] / "cluster" / "deploy"
KUBERNETES = "1.31"
OURS = {"RayCluster": "raycluster.json", "RayJob": "rayjob.json"}


def documents() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{path.name}: {one['kind']} {one['metadata']['name']}", one)
        for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
        for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


DOCUMENTS = documents()
every = pytest.mark.parametrize("one", [one for _, one in DOCUMENTS], ids=[name for name, _ in DOCUMENTS])


def pods(one: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pod templates in a document."""
    if isinstance(one, dict):
        if isinstance(one.get("spec"), dict) and "containers" in one["spec"]:
            yield one
        for value in one.values():
            yield from pods(value)
    elif isinstance(one, list):
        for value in one:
            yield from pods(value)


def check(one: dict[str, Any]) -> None:
    """Raises where a document breaks its schema."""
    if one["kind"] in OURS:
        jsonschema.validate(one, json.loads((DEPLOY / "schemas" / OURS[one["kind"]]).read_text(encoding="utf-8")))
    else:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    for pod in pods(one):
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": pod}, KUBERNETES, strict=True
        )


@every
def test_it_fits_its_schema(one: dict[str, Any]) -> None:
    check(one)


def test_the_check_can_fail() -> None:
    named = {name.split(": ")[1]: one for name, one in DOCUMENTS}
    for name, path, wrong in (
        ("Deployment waybill-doors", ("spec", "replicas"), "two"),
        ("Deployment waybill-doors", ("spec", "template", "spec", "containers", 0, "imagee"), "x"),
        ("RayCluster waybill", ("spec", "workerGroupSpecs", 0, "replicaz"), 3),
        ("RayCluster waybill", ("spec", "headGroupSpec", "template", "spec", "containers", 0, "ports", 0, "containerPort"), "x"),
        ("RayJob waybill-import", ("spec", "submissionMode"), "Pigeon"),
    ):
        broken = copy.deepcopy(named[name])
        at: Any = broken
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = wrong
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            check(broken)


def test_every_waybill_variable_is_a_setting_and_its_value_is_taken() -> None:
    names = {PREFIX + name.upper() for name in Settings.model_fields}
    for path in [*DEPLOY.glob("**/*.yaml"), DEPLOY / "Dockerfile"]:
        used = set(re.findall(r"\bWAYBILL_[A-Z_]+", path.read_text(encoding="utf-8")))
        assert used <= names, path.name
    [doors] = [one for _, one in DOCUMENTS if one["kind"] == "Deployment"]
    given = {one["name"]: one["value"] for one in doors["spec"]["template"]["spec"]["containers"][0]["env"] if "value" in one}
    values = {name.removeprefix(PREFIX).lower(): value for name, value in given.items() if name.startswith(PREFIX)}
    files = ("tls_cert", "tls_key", "report_key")
    kept = {name: value for name, value in values.items() if name not in files}
    Settings(**{**kept, "host": "127.0.0.1", "database_url": "postgresql://waybill:x@db/waybill"})  # type: ignore[arg-type]
    assert values["host"] == "0.0.0.0"
    assert set(files) <= values.keys()


def test_all_that_read_or_write_the_archive_name_one_place_that_all_nodes_reach() -> None:
    boxes = [box for _, one in DOCUMENTS for pod in pods(one) for box in pod["spec"]["containers"] if box["image"].startswith("waybill:")]
    ours = {box["name"]: {one["name"]: one for one in box["env"]} for box in boxes if box["name"] != "submit"}
    assert ours.keys() == {"waybill", "ray-head", "ray-worker", "archive"}
    for env in ours.values():
        assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= env.keys()
    named = {name: env["WAYBILL_ARCHIVE"]["value"] for name, env in ours.items() if "WAYBILL_ARCHIVE" in env}
    assert named.keys() == ours.keys() - {"ray-worker"}, "a shard is told by the database where a part lies"
    assert len(set(named.values())) == 1
    assert next(iter(named.values())).startswith("s3://")


def test_rays_tuning_is_the_one_that_was_measured() -> None:
    tuning = {**TUNING, **SPARES}
    containers = [box for _, one in DOCUMENTS for pod in pods(one) for box in pod["spec"]["containers"]]
    given = [{e["name"]: e.get("value") for e in box.get("env", [])} for box in containers]
    nodes = [one for one in given if "RAY_health_check_period_ms" in one]
    assert len(nodes) == 3  # head, workers, doors
    for one in nodes:
        assert {name: value for name, value in one.items() if name in tuning} == {name: tuning[name] for name in one if name in tuning}
    text = (DEPLOY / "ray-cluster.yaml").read_text(encoding="utf-8")
    for name, value in re.findall(r"\b(RAY_[A-Za-z_]+|MALLOC_[A-Z_]+)=(\S+)", text):
        assert name in ("RAY_AUTH_MODE", "RAY_HEAD_IP") or tuning[name] == value, name


def test_secrets_volumes_labels_and_ports_refer_to_what_is_there() -> None:
    secrets = {one["metadata"]["name"]: set(one["stringData"]) for _, one in DOCUMENTS if one["kind"] == "Secret"}
    claims = {one["metadata"]["name"] for _, one in DOCUMENTS if one["kind"] == "PersistentVolumeClaim"}
    labels = [pod.get("metadata", {}).get("labels", {}) for _, one in DOCUMENTS for pod in pods(one)]
    for _, one in DOCUMENTS:
        for pod in pods(one):
            spec = pod["spec"]
            templates = {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
            volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
            for volume in volumes.values():
                assert volume.get("secret", {"secretName": "waybill"})["secretName"] in secrets
                for item in volume.get("secret", {}).get("items", []):
                    assert item["key"] in secrets[volume["secret"]["secretName"]]
                assert volume.get("persistentVolumeClaim", {"claimName": next(iter(claims))})["claimName"] in claims
            for box in spec["containers"]:
                assert {mount["name"] for mount in box.get("volumeMounts", [])} <= volumes.keys() | templates
                for variable in box.get("env", []):
                    if "valueFrom" in variable:
                        reference = variable["valueFrom"]["secretKeyRef"]
                        assert reference["key"] in secrets[reference["name"]]
                assert box["resources"]["requests"]["memory"]
                named = {port["name"] for port in box.get("ports", [])}
                for probe in ("readinessProbe", "startupProbe"):
                    if "tcpSocket" in box.get(probe, {}):
                        assert box[probe]["tcpSocket"]["port"] in named
        if one["kind"] in ("Service", "NetworkPolicy", "PodDisruptionBudget"):
            spec = one["spec"]
            chosen = spec.get("podSelector", {}).get("matchLabels") or spec.get("selector", {})
            chosen = chosen.get("matchLabels", chosen)
            assert any(chosen.items() <= label.items() for label in labels), one["metadata"]["name"]


def test_what_is_secret_is_a_placeholder() -> None:
    for _, one in DOCUMENTS:
        if one["kind"] == "Secret":
            assert all("CHANGE-ME" in value for value in one["stringData"].values())


def test_the_ray_cluster_file_fits_rays_own_schema() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    file = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(file, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**file, "max_worker": 2}, schema)
