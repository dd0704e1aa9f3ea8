"""The same model behind other servers, as somebody would write it who does not know this project: for benchmarks/serve.py.

    python -m benchmarks.contenders uvicorn PORT CHECKPOINT

All use the same weights, the same `DepthRefiner` with the same ONNX file and one thread; only the server differs. (MLflow's
scoring server loads the registered model, as `mlflow models serve` does, and so runs PyTorch.)
"""

import sys
from pathlib import Path

import numpy as np

from refiner.inference.depth_refiner import DepthRefiner
from refiner.inference.onnx import OnnxNetwork, export


def load(checkpoint: str) -> DepthRefiner:
    import torch

    torch.set_num_threads(1)
    refiner = DepthRefiner(checkpoint, device="cpu")
    refiner.network = OnnxNetwork(export(checkpoint))
    return refiner


def answer(refiner: DepthRefiner, content: dict) -> dict:
    refined = refiner.predict(np.asarray(content["poses"], np.float32), sequence=bool(content.get("sequence")))
    return {
        "refined": refined.poses.tolist(),
        "confidence": refined.confidence.tolist(),
        "view_angle": refined.view_angle.tolist(),
    }


def uvicorn(port: int, checkpoint: str) -> None:
    """The bare control: the project's own codecs without anything around them."""
    import uvicorn as server
    from fastapi import FastAPI, Request, Response

    from serve import codec

    api, refiner = FastAPI(), load(checkpoint)
    model = {"name": refiner.name, "version": "0"}

    @api.post("/v1/refine")
    async def refine(request: Request) -> Response:
        body, kind = await request.body(), request.headers["content-type"]
        form = codec.ArrowCodec() if kind == codec.ARROW else codec.JsonCodec()
        content = form.decode(body)
        refined = refiner.predict(content.poses, content.visibility, sequence=content.sequence)
        response = codec.RefineResponse(
            poses=refined.poses, confidence=refined.confidence, view_angle=refined.view_angle, model=model
        )
        return Response(form.encode(response)[0], media_type=kind)

    server.run(api, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def litserve(port: int, checkpoint: str) -> None:
    from benchmarks.contender_litserve import run

    run(port, checkpoint)


def bentoml(port: int, checkpoint: str) -> None:
    import bentoml as bento  # pyright: ignore[reportMissingImports] (in an environment of its own)

    # BentoML imports its service by name, in a process of its own
    folder = Path(checkpoint, "bento")
    folder.mkdir(exist_ok=True)
    (folder / "service.py").write_text(
        "import bentoml\n"
        "from benchmarks.contenders import answer, load\n\n\n"
        "@bentoml.service(workers=1)\n"
        "class Refiner:\n"
        "    def __init__(self) -> None:\n"
        f"        self.refiner = load({checkpoint!r})\n\n"
        "    @bentoml.api(route='/v1/refine')\n"
        "    def refine(self, poses: list, sequence: bool = False) -> dict:\n"
        "        return answer(self.refiner, {'poses': poses, 'sequence': sequence})\n"
    )
    bento.serve("service:Refiner", working_dir=str(folder), host="127.0.0.1", port=port, blocking=True)


if __name__ == "__main__":
    {"uvicorn": uvicorn, "litserve": litserve, "bentoml": bentoml}[sys.argv[1]](int(sys.argv[2]), sys.argv[3])
