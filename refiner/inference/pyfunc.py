"""What MLflow runs when it loads a registered version with `mlflow.pyfunc.load_model` ("models from code": MLflow keeps
this file beside the checkpoint instead of a pickle). Wants the package `refiner` installed."""

import mlflow
import numpy as np

from refiner.inference.depth_refiner import DepthRefiner


class RefinerModel(mlflow.pyfunc.PythonModel):
    """{"poses": (N, 17, 3), "visibility": (N, 17)} -> {"refined", "confidence", "view_angle"}."""

    def load_context(self, context) -> None:
        self.refiner = DepthRefiner(context.artifacts["checkpoint"])

    # no type hints: MLflow would take them for a schema and overrule the version's own signature
    def predict(self, context, model_input, params=None):
        result = self.refiner.predict(
            np.asarray(model_input["poses"]),
            np.asarray(model_input["visibility"]),
            sequence=bool((params or {}).get("sequence", False)),
        )
        return {"refined": result.poses, "confidence": result.confidence, "view_angle": result.view_angle}


mlflow.models.set_model(RefinerModel())
