"""Which subcommand runs, and how it ends: 0 for all is well, 1 where some videos failed, 2 for a mistake of the user's."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from refiner import telemetry
from refiner.cli import compare, export, info, page, video, view
from refiner.command import EXIT_USER_ERROR
from refiner.errors import UserError

INTERRUPTED = 130
# Name -> options and what runs with them; the docstring of the options is the help.
COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "video": (video.Options, video.run),
    "view": (view.Options, view.run),
    "export": (export.Options, export.run),
    "page": (page.Options, page.run),
    "info": (info.Options, info.run),
    "compare": (compare.Options, compare.run),
}


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line and exits."""
    telemetry.turn_off()
    try:
        options = tyro.extras.subcommand_cli_from_dict(
            {name: kind for name, (kind, _) in COMMANDS.items()},
            prog="refiner",
            description="Puts the depth of MediaPipe's 3D poses right, in one's own videos.",
            args=args,
        )
        (run,) = (run for kind, run in COMMANDS.values() if type(options) is kind)
        sys.exit(run(options))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        print("interrupted: what is finished stays; --resume goes on from there", file=sys.stderr, flush=True)
        sys.exit(INTERRUPTED)
