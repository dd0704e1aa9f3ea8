"""MediaPipe's own pose networks without MediaPipe's graph: detector, crop, landmark network, decoding, filters."""
