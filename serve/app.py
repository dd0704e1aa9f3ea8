"""The endpoint: the registry's champion behind HTTP, on Ray Serve.

serve run serve.app:app                      # defaults
serve run serve/config.yaml                  # or: serve deploy serve/config.yaml
"""

from ray import serve
from ray.serve import Application

from serve.deployments import RefineEndpoint
from serve.schemas import AppArgs
from serve.video_replica import VideoPoses


def app(args: AppArgs) -> Application:
    """Builds the application from a config's `args`."""
    videos, endpoint = serve.deployment(VideoPoses), serve.deployment(serve.ingress()(RefineEndpoint))
    assert isinstance(videos, serve.Deployment) and isinstance(endpoint, serve.Deployment)
    return endpoint.bind(args, videos.bind(args))
