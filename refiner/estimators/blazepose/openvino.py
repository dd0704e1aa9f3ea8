"""The landmark network in OpenVINO, in bfloat16: two thirds of LiteRT's time on a CPU that multiplies such numbers itself.

Only the last layers, which give numbers and not maps, stay in single precision. They are a thousandth of the work, and left to
OpenVINO's bfloat16 they alone move landmarks by a decimetre; the others together do by a centimetre, to all sides, which the
error against truth hardly shows (docs/benchmarks/extraction.md).
"""

import functools
import itertools
import sys
from typing import Any

import numpy as np

from refiner.errors import UserError
from refiner.estimators.blazepose.engine import joined
from refiner.estimators.blazepose.onnx import Conversion
from refiner.extras import require

TOGETHER = 2  # pictures in a call: a tenth less for each than alone, and more gain little


def runtime() -> Any:
    """The package OpenVINO, without its telemetry.

    As it comes, it tells Google Analytics of every import, from a fork of the process that may wait for ever for a lock. It can
    do without the package that it imports for that.
    """
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)  # which makes its import fail
    import openvino

    return openvino


class OpenVino:
    """A network of convolutions, converted from its `.tflite` file. On one thread.

    What a picture gives depends in its last digits on how many are in the call: kernels add up in another order, and bfloat16
    rounds otherwise.
    """

    def __init__(self, model: bytes) -> None:
        """
        Args:
            model: content of a `.tflite` file.

        Raises:
            UserError: OpenVINO is not installed, the CPU has no bfloat16, or the network holds what is not converted.
        """
        require("the estimator 'blazepose-bf16'", "openvino")
        _check_cpu()
        self._model = model
        self._networks = {1: _Network(_halves(model, 1))}

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        answers = []
        for start in range(0, len(pictures), TOGETHER):
            part = pictures[start : start + TOGETHER]
            if len(part) not in self._networks:
                self._networks[len(part)] = _Network(_halves(self._model, len(part)))
            answers.append(self._networks[len(part)](part))
        return joined(answers)


class _Halves:
    """The network, compiled: its body in bfloat16, and its heads in float32, which see what comes out of the body."""

    def __init__(self, model: bytes, pictures: int) -> None:
        ov = runtime()
        core = ov.Core()
        self.converted = Conversion(model)
        network = core.read_model(self.converted.onnx())
        network.reshape({network.input(): [pictures, *network.input().partial_shape[1:]]})
        ends = network.get_results()
        last = [_last_convolution(end) for end in ends]
        self.is_head = [convolution.get_output_shape(0)[2:] == [1, 1] for convolution in last]  # numbers, not a map
        heads = list(itertools.compress(last, self.is_head))
        (features,) = {head.input_value(0) for head in heads}
        maps = [end.input_value(0) for end, is_head in zip(ends, self.is_head, strict=True) if not is_head]
        self.body = _compiled(core, ov.Model([features, *maps], network.get_parameters()), "bf16")
        seen = ov.opset13.parameter(features.shape, np.float32)
        for head in heads:
            head.input(0).replace_source_output(seen.output(0))
        self.heads = _compiled(core, ov.Model(list(itertools.compress(ends, self.is_head)), [seen]), "f32")


# An estimator is made for every video, and compiling takes half a second.
_halves = functools.lru_cache(maxsize=4)(_Halves)


class _Network:
    """What runs it, for one thread at a time."""

    def __init__(self, halves: _Halves) -> None:
        self._halves = halves
        self._body, self._heads = halves.body.create_infer_request(), halves.heads.create_infer_request()

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        features, *maps = self._body.infer([pictures], share_inputs=True).values()
        numbers, others = iter(self._heads.infer([features], share_inputs=True).values()), iter(maps)
        answers = (next(numbers if is_head else others) for is_head in self._halves.is_head)
        return self._halves.converted.complete(answers, len(pictures))


def _check_cpu() -> None:
    """
    Raises:
        UserError: it would compute in bfloat16 by detours, slower than in float32.
    """
    ov = runtime()
    # what OpenVINO computes in where nobody says anything: bfloat16 where the CPU has instructions for it
    if ov.Core().get_property("CPU", "INFERENCE_PRECISION_HINT") != ov.Type.bf16:
        raise UserError(
            "the estimator 'blazepose-bf16' needs a CPU with bfloat16 (AVX512_BF16 or AMX), and this one has none: "
            "take 'blazepose'"
        )


def _compiled(core: Any, network: Any, precision: str) -> Any:
    given = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    # each of several processes would pin its thread to the same core
    return core.compile_model(network, "CPU", given | {"ENABLE_CPU_PINNING": False})


def _last_convolution(end: Any) -> Any:
    """That before an output of the network."""
    node = end
    while node.get_type_name() != "Convolution":
        node = node.input_value(0).get_node()
    return node
