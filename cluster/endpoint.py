"""The endpoint on this machine, with its page: `make endpoint`.

    python -m cluster.endpoint                          # until Ctrl-C
    python -m cluster.endpoint --model data/checkpoint --port 8001
    make endpoint ARGS="--port 8001"                    # the same options

Serves the champion of the registry in `--state` and follows it; before there is one, the model in the box. Everything
listens on loopback only.
"""

import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from cluster.local import STATE, local_cluster
from cluster.running import CHECKOUT, Cluster
from refiner import UserError, registry
from refiner.command import EXIT_USER_ERROR, log, parse
from refiner.inference.depth_refiner import SHIPPED
from refiner.model.checkpoint import load_checkpoint

MOST_PORT = 65_535
ORIGIN = re.compile(r"https?://[^\s/?#]+")  # as browsers send it: nothing behind host and port


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    model: str = ""
    """What is served: models:/NAME@ALIAS, models:/NAME/VERSION or a checkpoint's folder; by default the champion, or the
    model in the box where there is none yet."""
    port: int = 8000
    """Port of the endpoint; another one is taken where somebody has it."""
    state: str = STATE
    """Folder of the registry, the artifacts and the logs."""
    token_file: str = ""
    """File with the tokens of those who may call, one a line (docs/endpoint.md); without it, whoever reaches the port."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call, such as https://studio.example."""


def check(options: Options) -> None:
    """What can be told before anything starts, which takes half a minute.

    Raises:
        UserError: a number that is no port, a file without tokens, or a folder without a checkpoint.
    """
    if not 0 <= options.port <= MOST_PORT:
        raise UserError(f"--port is {options.port}: it must be from 0 (any) to {MOST_PORT}")
    if options.token_file:
        try:
            tokens = Path(options.token_file).read_bytes()
        except OSError as error:
            why = str(error.strerror).lower()
            raise UserError(f"{options.token_file} cannot be read ({why}): it must hold one token a line") from None
        if not tokens.split():
            raise UserError(f"{options.token_file} holds no token: write one into it, or leave out --token-file")
    if wrong := [origin for origin in options.cors_origins if origin != "*" and not ORIGIN.fullmatch(origin)]:
        raise UserError(f"--cors-origins has {wrong[0]}, which is no origin: give https://studio.example, say, or *")
    if options.model and registry.ModelSource.parse(options.model) is None:
        load_checkpoint(options.model)


def run(cluster: Cluster, options: Options) -> str:
    """Deploys what is to be served.

    Returns:
        The endpoint's URL.

    Raises:
        UserError: there is no such model, or it does not start.
    """
    model = options.model
    if not model:
        champion = registry.get_alias(registry.NAME, registry.CHAMPION)
        model = f"models:/{registry.NAME}@{registry.CHAMPION}" if champion else str(SHIPPED)
    elif registry.ModelSource.parse(model) is None:
        model = str(Path(model).absolute())
    log(f"deploying {'the model in the box' if model == str(SHIPPED) else model}")
    args = {"model": model, "cors_origins": list(options.cors_origins)}
    if options.token_file:
        args["token_file"] = str(Path(options.token_file).absolute())
    return cluster.deploy(CHECKOUT / "serve" / "config.yaml", port=options.port, args=args)


def main() -> int:
    """The command: serves until Ctrl-C or SIGTERM, and hands back the exit status."""
    options = parse(Options)
    # as Ctrl-C does, also where a script started this with Ctrl-C ignored
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    try:
        check(options)
        with local_cluster(options.state) as cluster:
            os.environ.update(cluster.env)
            url = run(cluster, options)
            log(f"The page: {url}/   its routes: {url}/docs   MLflow: {cluster.mlflow_uri}   Ctrl-C ends it")
            while True:
                signal.pause()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return 0


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
