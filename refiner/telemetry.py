"""Nothing calls home: what turns off the usage reports of the libraries that send some by default. And who wants traces.

Used before Ray or MLflow is imported, and by whoever starts a process that imports them. `cluster/Dockerfile`, the manifests
and `compose.yaml` say the same, which tests/cluster/test_calling_home.py holds.
"""

import os
from collections.abc import Mapping, MutableMapping

OFF = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # looked at when MLflow is imported
    "RAY_USAGE_STATS_ENABLED": "0",
    # Where reports are off Ray reports just that; nobody listens there.
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
    "DO_NOT_TRACK": "true",  # what others have agreed on
}

# Whoever sets one of these has a collector of OpenTelemetry's.
COLLECTORS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
STARTED = "x-request-start"  # header in which HAProxy then says when a request's head was there: t= and microseconds


def traced(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether requests are to be traced."""
    return any(environ.get(name) for name in COLLECTORS)


def turn_off(environ: MutableMapping[str, str] = os.environ) -> None:
    """Sets what is not set: whoever wants to report says so in the environment."""
    for name, value in OFF.items():
        environ.setdefault(name, value)
