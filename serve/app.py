"""The endpoint: the registry's champion behind HTTP, on Ray Serve.

serve run serve.app:app                      # defaults
serve run serve/config.yaml                  # or: serve deploy serve/config.yaml
"""

from ray import serve
from ray.serve import Application

from serve.deployments import RefineEndpoint, VideoPoses
from serve.schemas import AppArgs


def app(args: AppArgs) -> Application:
    """Builds the application from a config's `args`."""
    videos = serve.deployment(VideoPoses).bind(args)
    return serve.deployment(serve.ingress()(RefineEndpoint)).bind(args, videos)
