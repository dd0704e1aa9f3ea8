"""The refiner as files for other programs: inside MediaPipe's own model bundle, as TFLite and as ONNX."""
