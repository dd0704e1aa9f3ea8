"""The endpoint: the registry's champion behind HTTP on Ray Serve."""
