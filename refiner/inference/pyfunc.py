"""What MLflow runs when it loads a registered version with `mlflow.pyfunc.load_model` ("models from code": MLflow keeps
this file beside the checkpoint instead of a pickle). Wants the package `refiner` installed.
"""

from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from refiner.inference.depth_refiner import DepthRefiner


class RefinerModel(PythonModel):
    """{"poses": (N, 17, 3), "visibility": (N, 17)} -> {"refined", "confidence", "view_angle"}."""

    def load_context(self, context) -> None:
        self.refiner = DepthRefiner(context.artifacts["checkpoint"])

    # no type hints: MLflow would take them for a schema and overrule the version's own signature
    def predict(self, context, model_input, params=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        refined = self.refiner.predict(
            model_input["poses"],
            model_input["visibility"],
            sequence=bool((params or {}).get("sequence", False)),
        )
        return {"refined": refined.poses, "confidence": refined.confidence, "view_angle": refined.view_angle}


set_model(RefinerModel())
