"""A server refines: poses go to an endpoint (`serve/`), what concerns whole clips is done here, as the endpoint's model says.

Each pose is refined by itself over HTTP, so a clip may be as long and its frames as uneven as they are; smoothing and bones
then follow by the same functions as with a model on this machine.
"""

from typing import Any

import numpy as np

from refiner import geometry
from refiner.errors import UserError
from refiner.inference.depth_refiner import Refinement, along_clips
from refiner.skeleton import root_centred, to_coco
from serve.client import Client


class RemoteRefiner:
    """What `refined_observations` asks of a `DepthRefiner`, by an endpoint."""

    def __init__(self, url: str, token: str = "") -> None:
        """Args:
        url: of the endpoint.
        token: where it wants one.

        Raises:
            UserError: it does not answer, refuses the token, or is something else.
        """
        self._client = Client(url, token=token or None)
        try:
            about: dict[str, Any] = self._client.info()
            model, sequence = about["model"], about["sequence"]
            self.name, self.version = str(model["name"]), str(model["version"])
            self._smoothing_s, self._constant_bones = float(sequence["smoothing_s"]), bool(sequence["constant_bones"])
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{url} is not an endpoint of this version: its /info does not say how clips are refined"
            ) from None
        self._url = url

    def predict(
        self,
        poses: np.ndarray,
        visibility: np.ndarray,
        *,
        image_points: np.ndarray,
        timestamps_us: np.ndarray,
        clip: np.ndarray,
        sequence: bool = True,
        recognise: bool = False,
    ) -> Refinement:
        """As `DepthRefiner.predict` of a sequence.

        Raises:
            UserError: the endpoint refuses the poses, gives no answer, or has changed its model meanwhile.
        """
        answer = self._client.refine(poses, visibility, image_points=image_points)
        if answer.model["version"] != self.version:
            raise UserError(
                f"{self._url} changed its model from version {self.version} to {answer.model['version']} meanwhile: "
                "run the same command again"
            )
        azimuth = geometry.azimuth(root_centred(to_coco(np.asarray(poses, dtype=np.float32))))
        alone = Refinement(
            poses=answer.poses, confidence=answer.confidence, view_angle=geometry.view_angle(azimuth), azimuth=azimuth
        )
        moments = np.asarray(timestamps_us) * 1e-6, np.asarray(clip)
        return along_clips(alone, *moments, self._smoothing_s, self._constant_bones)
