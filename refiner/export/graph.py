"""A TFLite graph that operators are appended to, in the flatbuffer classes that MediaPipe carries.

TFLite's own converters want TensorFlow or JAX beside PyTorch; the handful of operators here does not. Used by `lowering`,
which knows what is to be computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TFLITE_VERSION = 3  # of the file format
_LARGE = 1024  # numbers from which on half precision is worth an operator that widens it
_WIDENS_HALF = 3  # version of DEQUANTIZE that takes float16


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph."""

    number: int
    shape: tuple[int, ...]


class Graph:
    """The one subgraph of a TFLite model."""

    def __init__(self, content: Any = None) -> None:
        """
        Args:
            content: a model as `mediapipe_assets.edited` hands it out; by default a new one.
        """
        from mediapipe.tasks.metadata import schema_py_generated

        self._schema: Any = schema_py_generated  # its classes say None of everything
        self.content = _empty(self._schema) if content is None else content
        self._graph = self.content.subgraphs[0]
        self._constants: dict[tuple, Value] = {}

    def outputs(self) -> list[Value]:
        return [self._value(number) for number in self._graph.outputs]

    def input(self, name: str, shape: Sequence[int]) -> Value:
        """A new input."""
        value = self._tensor(shape, self._schema.TensorType.FLOAT32, name)
        self._graph.inputs = [*self._graph.inputs, value.number]
        return value

    def rename(self, value: Value, name: str) -> None:
        self._graph.tensors[value.number].name = name.encode()

    def name(self, value: Value) -> str:
        return self._graph.tensors[value.number].name.decode()

    def output(self, value: Value, position: int | None = None) -> None:
        """Makes a value a new output, or the one at that position."""
        numbers = list(self._graph.outputs)
        if position is None:
            numbers.append(value.number)
        else:
            numbers[position] = value.number
        self._graph.outputs = numbers

    def constant(self, array: np.ndarray) -> Value:
        """A constant. Large ones that lose nothing by it are kept in half precision, as checkpoints keep their weights."""
        array = np.ascontiguousarray(array, dtype=np.int32 if array.dtype.kind in "iu" else np.float32)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._stored(array)
        return self._constants[key]

    def append(
        self,
        kind: str,
        inputs: Sequence[Value],
        shape: Sequence[int],
        options: tuple[str, Mapping[str, Any]] | None = None,
        version: int = 1,
    ) -> Value:
        """An operator at the end of the graph.

        Args:
            kind: a name of `BuiltinOperator`.
            inputs: in TFLite's order.
            shape: of its one output.
            options: the class of its options and their fields, where it has any.
            version: of the operator.

        Returns:
            The output.
        """
        value = self._tensor(shape, self._schema.TensorType.FLOAT32)
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._code(kind, version)
        operator.inputs, operator.outputs = [v.number for v in inputs], [value.number]
        if options is not None:
            name, fields = options
            operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, name)
            operator.builtinOptions = getattr(self._schema, f"{name}T")()
            for field, content in fields.items():
                setattr(operator.builtinOptions, field, content)
        self._graph.operators.append(operator)
        return value

    def sign(self, inputs: Mapping[str, Value], outputs: Mapping[str, Value]) -> None:
        """Gives inputs and outputs the names by which LiteRT's signature runner takes and returns them."""

        def named(values: Mapping[str, Value]) -> list[Any]:
            entries = []
            for name, value in values.items():
                entry = self._schema.TensorMapT()
                entry.name, entry.tensorIndex = name, value.number
                entries.append(entry)
            return entries

        signature = self._schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs, signature.outputs = named(inputs), named(outputs)
        self.content.signatureDefs = [signature]

    def packed(self) -> bytes:
        import flatbuffers

        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.content.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _value(self, number: int) -> Value:
        return Value(int(number), tuple(int(size) for size in self._graph.tensors[number].shape))

    def _tensor(self, shape: Sequence[int], kind: int, name: str = "", buffer: int = 0) -> Value:
        tensor = self._schema.TensorT()
        number = len(self._graph.tensors)
        tensor.shape, tensor.type, tensor.buffer = list(shape), kind, buffer
        tensor.name = (name or f"refiner_{number}").encode()
        self._graph.tensors.append(tensor)
        return Value(number, tuple(shape))

    def _stored(self, array: np.ndarray) -> Value:
        kinds = self._schema.TensorType
        if array.dtype == np.int32:
            return self._tensor(array.shape, kinds.INT32, buffer=self._buffer(array))
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if array.size < _LARGE or not np.array_equal(half.astype(np.float32), array):
            return self._tensor(array.shape, kinds.FLOAT32, buffer=self._buffer(array))
        narrow = self._tensor(array.shape, kinds.FLOAT16, buffer=self._buffer(half))
        return self.append("DEQUANTIZE", [narrow], array.shape, ("DequantizeOptions", {}), _WIDENS_HALF)

    def _buffer(self, array: np.ndarray) -> int:
        buffer = self._schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), dtype=np.uint8)
        self.content.buffers.append(buffer)
        return len(self.content.buffers) - 1

    def _code(self, kind: str, version: int) -> int:
        number = getattr(self._schema.BuiltinOperator, kind)
        for index, code in enumerate(self.content.operatorCodes):
            if code.builtinCode == number and code.version == version:
                return index
        code = self._schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
        self.content.operatorCodes.append(code)
        return len(self.content.operatorCodes) - 1


def _empty(schema: Any) -> Any:
    content, graph, nothing = schema.ModelT(), schema.SubGraphT(), schema.BufferT()
    content.version, content.description = TFLITE_VERSION, b"pose-depth-refiner"
    content.subgraphs, content.operatorCodes = [graph], []
    content.buffers = [nothing]  # the first stands for "no content"
    graph.name, graph.tensors, graph.operators, graph.inputs, graph.outputs = b"main", [], [], [], []
    return content
