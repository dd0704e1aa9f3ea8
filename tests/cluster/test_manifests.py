"""The manifests as `kubectl kustomize` renders them, against Kubernetes' own schema and KubeRay's definitions, strictly: a
field that these do not know would be ignored there. And what they say, against the code that they run.
"""

import importlib
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import ray
import yaml
from kubernetes_validate import validate

import refiner
from cluster import credentials
from cluster.running import CHECKOUT
from refiner.command import parse
from refiner.telemetry import OFF

KUBERNETES = "1.34"
CRDS = CHECKOUT.parent / "shared" / "crds"
OVERLAYS = ("small", "aistpp", "gpu")
# Of Ray's pods: a key of what holds them -> where the cluster is in it.
CLUSTERS = {"RayCluster": (), "RayService": ("rayClusterConfig",), "RayJob": ("rayClusterSpec",)}
UNKNOWN = {"monitoring.coreos.com/v1"}  # whose definitions are not at hand
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a definition has 30,000 lines


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request) -> list[dict[str, Any]]:
    """What one overlay renders to."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not here, which renders the overlays")
    return rendered(request.param)


def rendered(name: str) -> list[dict[str, Any]]:
    command = ["kubectl", "kustomize", str(CHECKOUT / "cluster/kuberay/overlays" / name)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.load_all(done.stdout, LOADER))


def ray_cluster(resource: dict[str, Any]) -> dict[str, Any]:
    spec = resource["spec"]
    for key in CLUSTERS[resource["kind"]]:
        spec = spec[key]
    return spec


def groups(resource: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = ray_cluster(resource)
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pods(resources: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every pod's template, by what makes it."""
    templates = {}
    for resource in resources:
        name = f"{resource['kind']} {resource['metadata']['name']}"
        if resource["kind"] in CLUSTERS:
            templates |= {f"{name} {g.get('groupName', 'head')}": g["template"] for g in groups(resource)}
        elif "template" in resource.get("spec", {}):
            templates[name] = resource["spec"]["template"]
    return templates


def closed(schema: Any) -> Any:
    """A definition in which what it does not name is an error: Kubernetes drops it without a word."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    return schema


@pytest.fixture(scope="module")
def definitions() -> dict[str, Any]:
    """KubeRay's schema of each of its kinds."""
    if not CRDS.exists():
        pytest.skip(f"no definitions of KubeRay's at {CRDS}")
    schemas = {}
    for path in CRDS.glob("*.yaml"):
        definition = yaml.load(path.read_text(), LOADER)["spec"]
        (version,) = (v for v in definition["versions"] if v["name"] == "v1")
        schemas[definition["names"]["kind"]] = closed(version["schema"]["openAPIV3Schema"])
    for schema in schemas.values():
        schema["properties"]["metadata"].pop("additionalProperties", None)  # Kubernetes' own
    return {kind: jsonschema_rs.validator_for(schema) for kind, schema in schemas.items()}


def test_an_overlay_has_each_part_once(overlay):
    names = [(r["kind"], r["metadata"]["name"]) for r in overlay]
    assert len(set(names)) == len(names)
    kinds = {kind for kind, _ in names}
    assert {"RayCluster", "RayJob", "NetworkPolicy", "PodMonitor", "PodDisruptionBudget", "ServiceAccount"} <= kinds
    assert {name for kind, name in names if kind == "RayJob"} == {"pipeline", "extract", "pair", "train", "evaluate"}


def test_kubernetes_knows_every_field(overlay):
    validated = 0
    for resource in overlay:
        if resource["kind"] not in CLUSTERS and resource["apiVersion"] not in UNKNOWN:
            validate(resource, KUBERNETES, strict=True)
            validated += 1
    assert validated > 8
    for template in pods(overlay).values():
        # Ray's definitions take any name for a probe or an affinity that an older Kubernetes had
        metadata = {"name": "pod", **template.get("metadata", {})}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        validate(pod, KUBERNETES, strict=True)


def test_kuberay_knows_every_field(overlay, definitions):
    resources = [r for r in overlay if r["kind"] in CLUSTERS]
    assert resources
    for resource in resources:
        definitions[resource["kind"]].validate(resource)


def test_a_field_that_kuberay_does_not_know_is_noticed(definitions):
    spec = {"headGroupSpec": {"rayStartParam": {}, "template": {}}}
    resource = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {}, "spec": spec}
    with pytest.raises(jsonschema_rs.ValidationError, match="rayStartParam"):
        definitions["RayCluster"].validate(resource)


def test_groups_are_consistent(overlay):
    for resource in (r for r in overlay if r["kind"] in CLUSTERS):
        cluster = ray_cluster(resource)
        assert cluster["rayVersion"] == ray.__version__
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["autoscalerOptions"]["version"] == "v2"
        workers = cluster["workerGroupSpecs"]
        assert len({group["groupName"] for group in workers}) == len(workers)
        for group in workers:
            assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        for group in groups(resource):
            assert all(
                isinstance(value, str) for value in group["rayStartParams"].values()
            )  # KubeRay takes strings only


def test_every_pod_is_locked_down_and_finds_its_volumes_and_secrets(overlay):
    known = {"poses"} | {s["metadata"]["name"] for s in yaml.safe_load_all(credentials.kubernetes())}
    keys = {
        s["metadata"]["name"]: set(s["stringData"])
        for s in yaml.safe_load_all(credentials.kubernetes())
        if s["kind"] == "Secret"
    }
    for name, template in pods(overlay).items():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        if not name.endswith(" head"):  # whose autoscaler asks Kubernetes for nodes, with an account of KubeRay's
            assert spec["serviceAccountName"] == "poses" and spec["automountServiceAccountToken"] is False, name
        volumes = {v["name"] for v in spec.get("volumes", [])}
        for resource in overlay:
            if f"{resource['kind']} {resource['metadata']['name']}" == name:
                volumes |= {c["metadata"]["name"] for c in resource["spec"].get("volumeClaimTemplates", [])}
        for container in spec["containers"]:
            locked = container["securityContext"]
            assert locked["readOnlyRootFilesystem"] and not locked["allowPrivilegeEscalation"], name
            assert locked["capabilities"] == {"drop": ["ALL"]}, name
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes, name
            assert {"limits", "requests"} <= set(container["resources"]), name
            for source in container.get("envFrom", []):
                assert source.get("configMapRef", source.get("secretRef"))["name"] in known, name
            for variable in container.get("env", []):
                assert not ("password" in variable["name"].lower() and "value" in variable), name
                if "valueFrom" in variable:
                    wanted = variable["valueFrom"]["secretKeyRef"]
                    assert wanted["key"] in keys[wanted["name"]], name


def test_nothing_in_a_pod_of_ours_calls_home(overlay):
    (environment,) = (r["data"] for r in overlay if r["kind"] == "ConfigMap")
    assert environment.items() >= OFF.items()
    for name, template in pods(overlay).items():
        for container in template["spec"]["containers"]:
            if container["image"].startswith("pose-depth-refiner"):
                assert {"configMapRef": {"name": "poses"}} in container["envFrom"], name


def test_our_image_has_one_name_and_the_version_of_this_package(overlay):
    images = {c["image"] for template in pods(overlay).values() for c in template["spec"]["containers"]}
    assert {i for i in images if "pose-depth-refiner" in i} == {f"pose-depth-refiner:{refiner.__version__}"}
    assert all(":" in image and not image.endswith(":latest") for image in images)


def test_every_selector_selects_something(overlay):
    """PDBs, policies, services and monitors by the labels of pods; KubeRay adds its own."""
    labels = []
    for name, template in pods(overlay).items():
        node = "head" if name.endswith(" head") else "worker"
        of_ray = {"ray.io/node-type": node} if name.split()[0] in CLUSTERS else {}
        labels.append(template.get("metadata", {}).get("labels", {}) | of_ray)
    assert labels
    for resource in overlay:
        selector = resource["spec"].get("selector") if "spec" in resource else None
        if resource["kind"] == "NetworkPolicy":
            selector = resource["spec"]["podSelector"]
        if selector is None or (resource["kind"] == "NetworkPolicy" and resource["metadata"]["name"] == "endpoint"):
            continue
        wanted = selector.get("matchLabels", {} if "matchExpressions" in selector else selector)
        exist = [e["key"] for e in selector.get("matchExpressions", [])]
        assert any(given.items() >= wanted.items() and given.keys() >= set(exist) for given in labels), resource


def entry_points(text: str) -> list[list[str]]:
    """`python -m module options…` of an entry point."""
    words = shlex.split(text)
    return [words[2:]] if words[:2] == ["python", "-m"] else []


def test_every_job_exists_and_takes_the_options_that_it_is_given(overlay, monkeypatch):
    jobs = [r for r in overlay if r["kind"] == "RayJob"]
    for job in jobs:
        spec = job["spec"]
        assert spec["shutdownAfterJobFinishes"] and spec["suspend"] and spec["backoffLimit"] > 0
        (module, *options) = entry_points(spec["entrypoint"])[0]
        loaded = importlib.import_module(module)
        parse(loaded.Options, args=options)
        with pytest.raises(SystemExit):
            parse(loaded.Options, args=[*options, "--no-such-option"])


def test_serve_configs_are_those_of_the_endpoint():
    """Word for word; but on Kubernetes it listens where the service finds it."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not here, which renders the overlays")
    for overlay, file in (("gpu", "config.gpu.yaml"), ("small", "config.yaml")):
        (service,) = (r for r in rendered(overlay) if r["kind"] == "RayService")
        config = yaml.safe_load((CHECKOUT / "serve" / file).read_text())
        config["proxy_location"] = "EveryNode"
        config["http_options"]["host"] = "0.0.0.0"
        assert yaml.safe_load(service["spec"]["serveConfigV2"]) == config


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_ray_knows_every_field_of_a_cloud_cluster(cloud):
    from ray.autoscaler._private.util import validate_config

    content = yaml.safe_load((CHECKOUT / f"cluster/ray-{cloud}.yaml").read_text())
    schema = closed(json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text()))
    # what a provider takes is its own business, and Ray's schema names a part of it only
    schema["properties"]["provider"]["additionalProperties"] = True
    jsonschema_rs.validator_for(schema).validate(content)
    validate_config({"cluster_synced_files": [], **content})
    assert content["head_node_type"] in content["available_node_types"]
    start = " ".join(content["head_start_ray_commands"])
    assert "--disable-usage-stats" in start and "--dashboard-host=127.0.0.1" in start
    assert content["docker"]["image"].endswith(f":{refiner.__version__}")


def test_secrets_are_never_the_same_twice():
    assert credentials.kubernetes() != credentials.kubernetes()
    values = [line.partition("=")[2] for line in credentials.compose().splitlines()]
    assert len(set(values)) == len(values) and min(map(len, values)) >= 20
    done = subprocess.run([sys.executable, "-m", "cluster.credentials", "compose"], cwd=CHECKOUT, capture_output=True)
    assert done.returncode == 0 and done.stdout.count(b"=") == len(values)
