"""What runs a network: pictures in, its outputs out. LiteRT, one thread, as MediaPipe runs it.

In single precision OpenVINO and ONNX Runtime (`onnx`, for GPUs) are no faster on a CPU; in bfloat16 OpenVINO is (`openvino`).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from refiner.errors import UserError
from refiner.extras import require


class Engine(Protocol):
    """A network, ready to run."""

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        """(N, H, W, 3) float32 -> each of the network's outputs, (N, …) float32, in the order of the file."""
        ...


MakeEngine = Callable[[bytes], Engine]  # from a `.tflite` file's content


def joined(answers: Sequence[list[np.ndarray]]) -> list[np.ndarray]:
    """The outputs for all pictures, from those of one call after the other."""
    return [np.concatenate(parts) if len(answers) > 1 else parts[0] for parts in zip(*answers, strict=True)]


class LiteRT:
    """Google's runtime of `.tflite` files, which MediaPipe carries inside, with the same kernels (XNNPACK).

    A batch goes through one by one: on a CPU the network's tensors then stay in the cache, and a larger batch gains nothing.
    """

    def __init__(self, model: bytes) -> None:
        """
        Raises:
            UserError: LiteRT is not installed, or the file is not a model.
        """
        require("the estimator 'blazepose'", "ai_edge_litert")
        from ai_edge_litert.interpreter import Interpreter

        try:
            self._interpreter = Interpreter(model_content=model, num_threads=1)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UserError(f"the pose model holds a network that LiteRT cannot load ({error})") from None
        self._model = model  # LiteRT reads the weights from here for as long as it lives
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        answers = []
        for number in range(len(pictures)):
            self._interpreter.set_tensor(self._input, pictures[number : number + 1])
            self._interpreter.invoke()
            answers.append([self._interpreter.get_tensor(output) for output in self._outputs])
        return joined(answers)
