"""How the commands' options look in `--help`: what one puts in their place, and the default where the text does not say it."""

from typing import Annotated, Any

import tyro


def takes(what: str, default: str = "") -> Any:
    """For `Annotated`: an option's value is called so, such as FOLDER, and this is its default, in words."""
    return tyro.conf.arg(metavar=what, help_behavior_hint=f"(default: {default})" if default else "")


# On or off, by one flag that turns it on.
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]
Model = Annotated[str, takes("MODEL")]
PoseModel = Annotated[str, takes("MODEL", "full")]
