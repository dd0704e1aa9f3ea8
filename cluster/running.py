"""A running cluster: its addresses, and what one does with it – submit a job, deploy an endpoint.

`cluster.local` starts one on this machine; of any other the environment says where it is.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster import haproxy
from refiner import UserError, telemetry
from refiner.command import log

CHECKOUT = Path(__file__).resolve().parents[1]
HOST = haproxy.HOST
ANY_PORTS = 100  # that are tried before there is none
# Below those that the kernel hands out, or Ray's workers would have them before the server that they are for listens.
ANY = range(10_000, 20_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Addresses of a running cluster, and what one does with it."""

    ray_address: str
    """Of Ray's head, `host:port`."""
    dashboard_url: str
    """Dashboard, Jobs API and Serve API."""
    mlflow_uri: str
    token_path: Path
    """File with the token that Ray wants from everybody."""

    @property
    def env(self) -> dict[str, str]:
        """What a process must find in its environment to use this cluster (and this interpreter as `python`)."""
        return {
            "RAY_ADDRESS": self.ray_address,
            "RAY_API_SERVER_ADDRESS": self.dashboard_url,  # ray job …
            "RAY_DASHBOARD_ADDRESS": self.dashboard_url,  # serve …
            "MLFLOW_TRACKING_URI": self.mlflow_uri,
            **ray_env(self.token_path),
        }

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Cluster":
        """The cluster that `env` describes.

        Raises:
            UserError: the environment names none.
        """
        try:
            return cls(
                ray_address=environ["RAY_ADDRESS"],
                dashboard_url=environ["RAY_API_SERVER_ADDRESS"],
                mlflow_uri=environ["MLFLOW_TRACKING_URI"],
                token_path=Path(environ["RAY_AUTH_TOKEN_PATH"]),
            )
        except KeyError as missing:
            raise UserError(
                f"{missing.args[0]} is not set, so there is no cluster to use: "
                "start the command with 'python -m cluster.local -- COMMAND'"
            ) from None

    def nodes_alive(self) -> list[str]:
        """Addresses of the nodes that live, as the head has it; none while it does not answer."""
        import httpx

        try:
            # Reading certificates, which plain HTTP has no use for, would take 50 ms of a core.
            answer = httpx.get(f"{self.dashboard_url}/api/v0/nodes", headers=self.headers(), timeout=60, verify=False)
            nodes = answer.raise_for_status().json()["data"]["result"]["result"]
        except (httpx.HTTPError, KeyError, FileNotFoundError):  # who ended it took the token with it
            return []
        return [node["node_ip"] for node in nodes if node["state"] == "ALIVE"]

    def submit(self, entrypoint: str, *, env: Mapping[str, str] | None = None) -> dict[str, Any] | None:
        """Runs one job through Ray's Jobs API, as `ray job submit --working-dir . -- ENTRYPOINT` does.

        The checkout without what .gitignore and .rayignore name is uploaded and is the job's working folder, so data wants
        absolute paths. How large it is and the job's output go to stderr while they come.

        Returns:
            The last line of its output that is a JSON object: its summary.

        Raises:
            UserError: it failed; the message carries its own line of error.
        """
        from ray.job_submission import JobStatus, JobSubmissionClient

        class Client(JobSubmissionClient):
            """Says how much it uploads: data that slipped in is noticed. What the cluster has already is not sent again."""

            def _do_request(self, method: str, endpoint: str, *, data: bytes | None = None, **options: Any) -> Any:
                if data is not None:
                    log(f"uploading {CHECKOUT}: {len(data) / 1e6:.1f} MB")
                return super()._do_request(method, endpoint, data=data, **options)

        client = Client(self.dashboard_url, headers=self.headers())
        # which files an upload leaves out is nobody's news; the second logger has a level of its own
        for name in ("ray", "ray.dashboard.modules.dashboard_sdk"):
            logging.getLogger(name).setLevel(logging.ERROR)
        job = client.submit_job(
            entrypoint=entrypoint,
            runtime_env={
                "working_dir": str(CHECKOUT),
                "env_vars": {**telemetry.OFF, "MLFLOW_TRACKING_URI": self.mlflow_uri, **(env or {})},
            },
        )
        try:
            asyncio.run(_follow(client, job))
        except BaseException:
            client.stop_job(job)
            raise
        info = client.get_job_info(job)
        lines = client.get_job_logs(job).splitlines()
        if info.status != JobStatus.SUCCEEDED:
            errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            reason = (errors or [line for line in lines if line.strip()] or [info.message or info.status.value])[-1]
            raise UserError(f"the job '{entrypoint}' failed ({info.status.value}): {reason}")
        return _last_json_object(lines)

    def deploy(
        self,
        config: str | Path,
        *,
        port: int | None = None,
        args: Mapping[str, Any] | None = None,
        deadline_s: float = 600,
    ) -> str:
        """Hands a Serve config to the cluster, as `serve deploy CONFIG` does, and waits until it serves.

        Args:
            config: the file.
            port: instead of the config's; 0 is any. If it is taken, another one is used; a cluster that serves already
                keeps its port.
            args: of its applications, instead of the config's.
            deadline_s: for all applications to come up.

        Returns:
            The endpoint's URL.

        Raises:
            UserError: the config is unusable, or an application in it does not come up.
        """
        import httpx
        import yaml

        content = yaml.safe_load(Path(config).read_text())
        for application in content["applications"]:
            application["args"] = {**application.get("args", {}), **(args or {})}
        host = urlsplit(self.dashboard_url).hostname
        with (
            contextlib.ExitStack() as stack,
            httpx.Client(base_url=self.dashboard_url, headers=self.headers(), timeout=60) as client,
        ):
            running = client.get("/api/serve/applications/").raise_for_status().json()
            options = content.setdefault("http_options", {})
            options["host"] = host
            if running.get("controller_info", {}).get("node_id"):
                options["port"] = running["http_options"]["port"]
            else:
                usual = options.get("port", 8000) if port is None else port
                options["port"] = free_ports([usual], claims := [])[0]
                stack.enter_context(claims[0])  # until HAProxy listens on it
            answer = client.put("/api/serve/applications/", json=content)
            if answer.status_code != 200:
                raise UserError(f"Ray Serve refuses {config}: {answer.text.strip().splitlines()[-1]}")
            wanted = {application.get("name", "default") for application in content["applications"]}
            deadline = time.monotonic() + deadline_s
            while True:
                applications = client.get("/api/serve/applications/").raise_for_status().json()["applications"]
                states = {name: applications.get(name, {}) for name in wanted}
                if all(state.get("status") == "RUNNING" for state in states.values()):
                    return f"http://{host}:{options['port']}"
                for name, state in states.items():
                    # UNHEALTHY passes: a replica that died in mid-deployment is replaced
                    if state.get("status") == "DEPLOY_FAILED" or time.monotonic() > deadline:
                        raise UserError(f"the application '{name}' of {config} does not start: {_failure(state)}")
                time.sleep(0.25)

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token_path.read_text().strip()}"}


def free_ports(usual: list[int], claims: list[socket.socket] | None = None) -> list[int]:
    """A free port for each: the usual one if nobody has it, else any.

    Servers listen on theirs seconds later, and two clusters that start at once would both find the usual ones free: one
    would be answered by the other's registry. So a port is claimed, by a name that the kernel gives to one process at a time.

    Args:
        usual: 0 is any.
        claims: gets what keeps others who ask here from these ports, until it is closed; none is kept by default.
    """
    with contextlib.ExitStack() as stack:
        ports = []
        for port in usual:
            bound, claim = _claimed(port, stack) or next(filter(None, (_claimed(0, stack) for _ in range(ANY_PORTS))))
            ports.append(bound)
            if claims is None:
                stack.enter_context(claim)
            else:
                claims.append(claim)
        return ports


def _claimed(port: int, taken: contextlib.ExitStack) -> tuple[int, socket.socket] | None:
    """A port (0 is any) that nobody has or claims, and its claim; it stays taken as long as the stack is open."""
    bound, claim = taken.enter_context(socket.socket()), socket.socket(socket.AF_UNIX)
    try:
        bound.bind((HOST, port or random.choice(ANY)))
        number = bound.getsockname()[1]
        claim.bind(f"\0pose-depth-refiner/port/{number}")  # an abstract name: no file, gone with its last holder
    except OSError:
        claim.close()
        return None
    return number, claim


def ray_env(token_path: Path) -> dict[str, str]:
    """The environment in which Ray is started and reached: on loopback only, with the token in that file."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        **telemetry.OFF,
        # "no cluster of several machines", whatever the system: without it Ray puts the machine's outer address in the
        # place of 127.0.0.1 and listens on every interface
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


async def _follow(client: Any, job: str) -> None:
    """Puts a job's output onto stderr while it comes, but for its summary, which the caller gets; until the job ends."""
    seen, rest = 0, ""

    def show(text: str) -> None:
        nonlocal seen, rest
        seen += len(text)
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            if not line.startswith("{"):
                print(line, file=sys.stderr, flush=True)

    async def tail() -> None:
        async for text in client.tail_job_logs(job):
            show(text)

    tailing = asyncio.create_task(tail())
    while not (await asyncio.to_thread(client.get_job_status, job)).is_terminal():
        await asyncio.sleep(0.2)
    # the tail learns of the end 5 s late: what it has not shown yet is fetched instead
    tailing.cancel()
    with contextlib.suppress(asyncio.CancelledError, RuntimeError):
        await tailing
    show(client.get_job_logs(job)[seen:])
    if rest:
        show("\n")


def _last_json_object(lines: list[str]) -> dict[str, Any] | None:
    for line in reversed(lines):
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                return json.loads(line)
    return None


def _failure(state: Mapping[str, Any]) -> str:
    messages = [state.get("message", "")]
    messages += [deployment.get("message", "") for deployment in state.get("deployments", {}).values()]
    return " ".join(" ".join(messages).split()) or "no answer in time"
