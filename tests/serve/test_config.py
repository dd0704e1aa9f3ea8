"""The configs that ship fit Serve's schema and this application, and the manifests carry the same."""

import inspect
from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serve import app
from serve.schemas import AppArgs

CHECKOUT = Path(app.__file__).resolve().parents[1]


def kuberay() -> str:
    service, *_ = yaml.safe_load_all((CHECKOUT / "cluster/kuberay/base/service.yaml").read_text())
    return service["spec"]["serveConfigV2"]


CONFIGS = {
    "config.yaml": lambda: (CHECKOUT / "serve/config.yaml").read_text(),
    "config.gpu.yaml": lambda: (CHECKOUT / "serve/config.gpu.yaml").read_text(),
    "kuberay": kuberay,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_fits_serve_and_the_application(name):
    config = ServeDeploySchema.model_validate(yaml.safe_load(CONFIGS[name]()))
    (application,) = config.applications
    assert application.import_path == "serve.app:app"
    AppArgs.model_validate(application.args)  # refuses what it does not know
    deployments = {deployment.name: deployment for deployment in application.deployments}
    assert set(deployments) == {"RefineEndpoint", "VideoPoses"}
    assert all(inspect.isclass(getattr(app, name)) for name in deployments)
    endpoint = deployments["RefineEndpoint"]
    assert endpoint.backpressure_config.status_code == 429
    # or the longest video is cut off by the proxy before its own limit says why
    assert config.http_options.request_timeout_s > AppArgs().video_timeout_s
    uses_gpu = bool(endpoint.ray_actor_options.num_gpus)
    assert uses_gpu == (application.args.get("device") == "cuda")
