"""The endpoint with a model that returns its input: what is left is the cost of HTTP, decoding, checking and encoding."""

import numpy as np
from ray import serve
from ray.serve import Application

from refiner.inference.depth_refiner import Refinement
from refiner.inference.validation import validate_poses
from serve import codec
from serve.deployments import RefineEndpoint
from serve.live import Served
from serve.schemas import AppArgs


class EchoEndpoint(RefineEndpoint):
    async def refine(self, served: Served, request: codec.RefineRequest) -> Refinement:
        poses, visibility = validate_poses(request.poses, request.visibility)
        angles = np.zeros(len(poses), np.float32)
        return Refinement(poses=poses, confidence=visibility, view_angle=angles, azimuth=angles)


def app(args: AppArgs) -> Application:
    return serve.deployment(serve.ingress()(EchoEndpoint)).bind(args)  # pyright: ignore[reportFunctionMemberAccess] (Ray's stubs)
