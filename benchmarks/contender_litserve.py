"""LitServe's part of benchmarks/contenders.py: it starts its workers by pickling this class, which wants a module."""

import litserve as ls  # pyright: ignore[reportMissingImports] (in an environment of its own)

from benchmarks.contenders import answer, load


class Api(ls.LitAPI):
    def __init__(self, checkpoint: str) -> None:
        super().__init__(api_path="/v1/refine")
        self.checkpoint = checkpoint

    def setup(self, device: str) -> None:
        self.refiner = load(self.checkpoint)

    def decode_request(self, request: dict) -> dict:
        return request

    def predict(self, content: dict) -> dict:
        return answer(self.refiner, content)

    def encode_response(self, output: dict) -> dict:
        return output


def run(port: int, checkpoint: str) -> None:
    server = ls.LitServer(Api(checkpoint), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")
