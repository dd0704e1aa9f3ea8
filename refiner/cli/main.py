"""Which subcommand runs, and how it ends: 0 for all is well, 1 where some videos failed, 2 for a mistake of the user's."""

import importlib
import sys
from collections.abc import Sequence

import tyro

from refiner import telemetry
from refiner.command import ending

# Name -> the module whose `Options` (their docstring is the help) it takes and whose `run` it calls. Only the one that is
# named is imported: some need PyTorch, which takes seconds, and the first frame should not wait for it.
COMMANDS = {name: f"refiner.cli.{name}" for name in ("video", "view", "export", "page", "info", "compare")}


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line and exits."""
    telemetry.turn_off()
    args = sys.argv[1:] if args is None else list(args)
    with ending("what is finished stays; --resume goes on from there"):
        if args and args[0] in COMMANDS:
            name, module = args[0], importlib.import_module(COMMANDS[args[0]])
            status = module.run(tyro.cli(module.Options, prog=f"refiner {name}", args=args[1:]))
            sys.stdout.flush()
            sys.exit(status)
        tyro.extras.subcommand_cli_from_dict(  # says which there are
            {name: importlib.import_module(module).Options for name, module in COMMANDS.items()},
            prog="refiner",
            description="Puts the depth of MediaPipe's 3D poses right, in one's own videos.",
            args=args,
        )
