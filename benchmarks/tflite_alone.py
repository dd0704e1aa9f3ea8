"""The two models of a pose landmarker without MediaPipe around them, the floor of a frame's time: for benchmarks/extract.py.

    python benchmarks/tflite_alone.py pose_landmarker.task    # wherever ai-edge-litert is installed

Prints milliseconds per call by model, as JSON: the median of many calls, one thread, with XNNPACK as MediaPipe uses it.
"""

import json
import sys
import time
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter

CALLS = 200


def milliseconds(model: bytes) -> float:
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    picture = np.random.default_rng(0).random(given["shape"], dtype=np.float32)
    times = []
    for _ in range(CALLS):
        interpreter.set_tensor(given["index"], picture)
        started = time.perf_counter()
        interpreter.invoke()
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times))


if __name__ == "__main__":
    with zipfile.ZipFile(sys.argv[1]) as bundle:
        print(json.dumps({name: milliseconds(bundle.read(name)) for name in bundle.namelist()}))
