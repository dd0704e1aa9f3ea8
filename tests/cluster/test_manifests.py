"""The Kubernetes manifests against Kubernetes' own schema, strictly: a field that it does not know would be ignored there."""

from pathlib import Path

import pytest
import yaml
from kubernetes_validate import validate

from cluster.running import CHECKOUT

KUBERNETES = "1.34"
# Of ray.io/v1, whose schema is in no package: the fields that are used here, as KubeRay 1.5.1's reference has them.
RAY_CLUSTER = {"rayVersion", "enableInTreeAutoscaling", "authOptions", "headGroupSpec", "workerGroupSpecs"}
HEAD = {"rayStartParams", "template"}
WORKERS = HEAD | {"groupName", "replicas", "minReplicas", "maxReplicas"}


def manifests() -> dict[str, dict]:
    return {
        f"{path.name}: {content['kind']}": content
        for path in sorted(Path(CHECKOUT, "cluster/kuberay").glob("*.yaml"))
        for content in yaml.safe_load_all(path.read_text())
    }


@pytest.mark.parametrize("name", manifests())
def test_a_manifest_fits_the_schema(name):
    manifest = manifests()[name]
    if manifest["apiVersion"] != "ray.io/v1":
        validate(manifest, KUBERNETES, strict=True)
        return
    assert manifest["kind"] in ("RayCluster", "RayService")
    spec = manifest["spec"]
    if manifest["kind"] == "RayService":
        assert set(spec) == {"serveConfigV2", "rayClusterConfig"}
        spec = spec["rayClusterConfig"]
    assert set(spec) <= RAY_CLUSTER
    groups = spec["workerGroupSpecs"]
    assert set(spec["headGroupSpec"]) <= HEAD and all(set(group) <= WORKERS for group in groups)
    assert len({group["groupName"] for group in groups}) == len(groups)
    for group in groups:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for part in [spec["headGroupSpec"], *groups]:
        assert all(isinstance(value, str) for value in part["rayStartParams"].values())  # KubeRay takes strings only
        template = part["template"]
        assert set(template) <= {"metadata", "spec"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **template}
        validate(pod, KUBERNETES, strict=True)
        (container,) = template["spec"]["containers"]
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted <= {volume["name"] for volume in template["spec"].get("volumes", [])}
