"""The endpoint by a standard client of the Open Inference Protocol, which Triton, KServe and others speak.

python open_inference.py docs/pose.json
"""

import argparse
import json

import numpy as np
import tritonclient.http as triton

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("poses", help='JSON with "poses": N×33×3 or N×17×3, metres')
parser.add_argument("--endpoint", default="127.0.0.1:8000", help="host:port")
arguments = parser.parse_args()

with open(arguments.poses) as file:
    poses = np.array(json.load(file)["poses"], np.float32)
tensor = triton.InferInput("poses", poses.shape, "FP32")
tensor.set_data_from_numpy(poses)
with triton.InferenceServerClient(arguments.endpoint) as client:
    answer = client.infer("pose-depth-refiner", [tensor])
refined, confidence = answer.as_numpy("refined"), answer.as_numpy("confidence")  # (N, 17, 3) metres, (N, 17) 0 … 1
for joint, (place, sure) in enumerate(zip(refined[0], confidence[0], strict=True)):
    print(f"joint {joint:2}  z {place[2]:+.3f} m  {sure:.0%} within 5 cm")
