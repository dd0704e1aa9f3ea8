"""The landmark network in ONNX Runtime: whole batches in one call, on a GPU where there is one.

On a CPU it is as fast as LiteRT and no faster (docs/benchmarks/extraction.md), so that stays the default.
"""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from refiner.errors import UserError

OPSET = 17
Node = tuple[str, list[str], str, dict[str, Any]]  # operator, inputs, output, attributes
_CHANNELS_FIRST, _CHANNELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
PICTURES = "pictures"


class OnnxRuntime:
    """A network of convolutions, converted from its `.tflite` file."""

    def __init__(self, model: bytes, device: Literal["cpu", "cuda"] = "cpu") -> None:
        """Args:
        model: content of a `.tflite` file.
        device: what it runs on; on a CPU one thread.

        Raises:
            UserError: there is no such device here, or the network holds what is not converted.
        """
        import onnxruntime

        providers = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
        if providers[device] not in onnxruntime.get_available_providers():
            raise UserError(
                "ONNX Runtime finds no NVIDIA GPU here: install onnxruntime-gpu where there is one, or take the CPU"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._converted = Conversion(model)
        self._session = onnxruntime.InferenceSession(
            self._converted.onnx(),
            options,
            providers=[providers[device]] + ["CPUExecutionProvider"] * (device != "cpu"),
        )

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        return self._converted.complete(map(np.asarray, self._session.run(None, {PICTURES: pictures})), len(pictures))


class Conversion:
    """A TFLite graph as an ONNX graph. Channels come first in all of it, as ONNX's convolutions want them."""

    def __init__(self, model: bytes) -> None:
        """
        Args:
            model: content of a `.tflite` file with one input, (1, H, W, 3).

        Raises:
            UserError: it holds an operator that is not converted.
        """
        from mediapipe.tasks.metadata import schema_py_generated as schema

        # the generated classes say None of everything
        self._model: Any = schema.ModelT.InitFromPackedBuf(model, 0)
        self._graph: Any = self._model.subgraphs[0]
        self._operators = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
        self._activations = {
            schema.ActivationFunctionType.RELU: ("Relu", []),
            schema.ActivationFunctionType.RELU6: ("Clip", [np.float32(0), np.float32(6)]),
        }
        self._same = schema.Padding.SAME
        self._numbers = {
            schema.TensorType.FLOAT32: np.float32,
            schema.TensorType.FLOAT16: np.float16,
            schema.TensorType.INT32: np.int32,
        }
        self._nodes: list[Node] = []
        self._weights: dict[str, np.ndarray] = {}
        self._constants = {
            number: array for number in range(len(self._graph.tensors)) if (array := self._stored(number)) is not None
        }
        for operator in self._graph.operators:
            self._convert(operator)
        # the constants among the outputs; None where the network computes one
        self.outputs = [self._constants.get(number) for number in self._graph.outputs]

    def onnx(self) -> bytes:
        """The model as the content of an `.onnx` file, for any number of pictures."""
        from onnx import TensorProto, checker, helper, numpy_helper

        nodes = [("Transpose", [PICTURES], _name(self._graph.inputs[0]), {"perm": _CHANNELS_FIRST}), *self._nodes]
        outputs = []
        for number in [n for n, constant in zip(self._graph.outputs, self.outputs, strict=True) if constant is None]:
            name, shape = _name(number), self._shape(number)
            if len(shape) == 4:
                nodes.append(("Transpose", [name], f"{name}_last", {"perm": _CHANNELS_LAST}))
                name = f"{name}_last"
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape[1:]]))
        pictures = helper.make_tensor_value_info(
            PICTURES, TensorProto.FLOAT, ["n", *self._shape(self._graph.inputs[0])[1:]]
        )
        graph = helper.make_graph(
            [helper.make_node(kind, inputs, [output], **attributes) for kind, inputs, output, attributes in nodes],
            "landmarks",
            [pictures],
            outputs,
            [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in self._weights.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        checker.check_model(made)
        return made.SerializeToString()

    def complete(self, computed: Iterable[np.ndarray], pictures: int) -> list[np.ndarray]:
        """All of the network's outputs for so many pictures: those that the ONNX graph computes, and the constants."""
        answers = iter(computed)
        return [
            np.broadcast_to(constant, (pictures, *constant.shape[1:])) if constant is not None else next(answers)
            for constant in self.outputs
        ]

    def _stored(self, number: int) -> np.ndarray | None:
        tensor = self._graph.tensors[number]
        content = self._model.buffers[tensor.buffer].data
        if content is None or tensor.sparsity is not None or tensor.type not in self._numbers:
            return None
        return np.frombuffer(bytes(content), self._numbers[tensor.type]).reshape(self._shape(number))

    def _shape(self, number: int) -> list[int]:
        return [int(size) for size in self._graph.tensors[number].shape]

    def _weight(self, name: str, array: np.ndarray) -> str:
        self._weights[name] = array
        return name

    def _convert(self, operator: Any) -> None:
        code = self._model.operatorCodes[operator.opcodeIndex]
        kind = self._operators[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if kind == "DEQUANTIZE":
            self._constants[operator.outputs[0]] = self._constants[operator.inputs[0]].astype(np.float32)
            return
        how, output = operator.builtinOptions, _name(operator.outputs[0])
        activation = self._activations.get(getattr(how, "fusedActivationFunction", 0))
        raw = f"{output}_raw" if activation else output
        convert = getattr(self, f"_{kind.lower()}", None)
        if convert is None:
            raise UserError(
                f"the pose model holds an operator that is not converted to ONNX ({kind}): run it by LiteRT"
            )
        self._nodes.append(convert(operator, how, raw))
        if activation:
            name, bounds = activation
            inputs = [self._weight(f"{output}_bound{place}", np.asarray(bound)) for place, bound in enumerate(bounds)]
            self._nodes.append((name, [raw, *inputs], output, {}))

    def _conv_2d(self, operator: Any, how: Any, output: str) -> Node:
        return self._convolution(operator, how, output, _CHANNELS_FIRST, 1)

    def _depthwise_conv_2d(self, operator: Any, how: Any, output: str) -> Node:
        return self._convolution(operator, how, output, [3, 0, 1, 2], self._shape(operator.inputs[0])[3])

    def _convolution(self, operator: Any, how: Any, output: str, order: list[int], groups: int) -> Node:
        picture, kernel, bias = operator.inputs
        weights = self._constants[kernel].transpose(order)
        attributes = self._windows(operator, how, weights.shape[2:]) | {"group": groups}
        names = [self._weight(f"{output}_kernel", weights), self._weight(f"{output}_bias", self._constants[bias])]
        return "Conv", [_name(picture), *names], output, attributes

    def _max_pool_2d(self, operator: Any, how: Any, output: str) -> Node:
        windows = self._windows(operator, how, (how.filterHeight, how.filterWidth))
        return "MaxPool", [_name(operator.inputs[0])], output, windows

    def _windows(self, operator: Any, how: Any, kernel: tuple[int, ...]) -> dict[str, Any]:
        """Kernel, strides and padding; TensorFlow's SAME puts the odd pixel behind."""
        strides, before, behind = (how.strideH, how.strideW), [0, 0], [0, 0]
        if how.padding == self._same:
            sides = self._shape(operator.inputs[0])[1:3]
            for axis, (side, stride, width) in enumerate(zip(sides, strides, kernel, strict=True)):
                missing = max((-(-side // stride) - 1) * stride + width - side, 0)
                before[axis], behind[axis] = missing // 2, missing - missing // 2
        return {"kernel_shape": list(kernel), "strides": list(strides), "pads": [*before, *behind]}

    def _add(self, operator: Any, how: Any, output: str) -> Node:
        return "Add", [_name(number) for number in operator.inputs], output, {}

    def _pad(self, operator: Any, how: Any, output: str) -> Node:
        before, behind = self._constants[operator.inputs[1]][_CHANNELS_FIRST].T
        pads = self._weight(f"{output}_pads", np.concatenate([before, behind]).astype(np.int64))
        return "Pad", [_name(operator.inputs[0]), pads], output, {}

    def _resize_bilinear(self, operator: Any, how: Any, output: str) -> Node:
        before, after = self._shape(operator.inputs[0]), self._shape(operator.outputs[0])
        scales = np.array([1, 1, after[1] / before[1], after[2] / before[2]], dtype=np.float32)
        corners = "align_corners" if how.alignCorners else "asymmetric"
        mode = "half_pixel" if how.halfPixelCenters else corners
        attributes = {"mode": "linear", "coordinate_transformation_mode": mode}
        return "Resize", [_name(operator.inputs[0]), "", self._weight(f"{output}_scales", scales)], output, attributes

    def _reshape(self, operator: Any, how: Any, output: str) -> Node:
        name = _name(operator.inputs[0])
        if len(self._shape(operator.inputs[0])) == 4:  # its numbers are counted with the channels last
            self._nodes.append(("Transpose", [name], f"{output}_last", {"perm": _CHANNELS_LAST}))
            name = f"{output}_last"
        shape = self._weight(f"{output}_shape", np.array([-1, *self._shape(operator.outputs[0])[1:]], dtype=np.int64))
        return "Reshape", [name, shape], output, {}

    def _logistic(self, operator: Any, how: Any, output: str) -> Node:
        return "Sigmoid", [_name(operator.inputs[0])], output, {}


def _name(number: int) -> str:
    return f"tensor_{number}"
