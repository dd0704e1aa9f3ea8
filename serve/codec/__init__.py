"""Poses over HTTP: bodies into arrays and back, a class for each form. Used by the endpoint and by its client.

Here only the form is decided; whether the poses make sense is `depth_refiner.validate_poses`' business. No pickle
anywhere: every form can carry data only.
"""

from serve.codec.arrow import ArrowCodec
from serve.codec.inference import InferenceCodec
from serve.codec.json import JsonCodec
from serve.codec.messages import ARROW, BINARY, COORDINATES, JSON, Codec, RefineRequest, RefineResponse

__all__ = [
    "ARROW",
    "BINARY",
    "COORDINATES",
    "JSON",
    "ArrowCodec",
    "Codec",
    "InferenceCodec",
    "JsonCodec",
    "RefineRequest",
    "RefineResponse",
]
