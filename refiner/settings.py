"""Where things are, said once: the storage's root, MLflow's address, the registered model's name.

In `poses.toml` in the current folder, which a submitted job gets with the upload of that folder,

    storage = "s3://poses/aistpp"
    mlflow = "http://mlflow:5000"
    model = "pose-depth-refiner"

or in the environment, which comes before the file; a command's own option comes before both.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from refiner.errors import UserError

FILE = "poses.toml"
# In the file -> in the environment.
NAMES = {"storage": "POSE_STORAGE", "mlflow": "MLFLOW_TRACKING_URI", "model": "POSE_MODEL_NAME"}


def setting(name: str, environ: Mapping[str, str] = os.environ, folder: str | Path = ".") -> str:
    """One of `NAMES`; empty where nothing says it.

    Raises:
        UserError: the file cannot be read, or says something else than these names.
    """
    return environ.get(NAMES[name], "").strip() or _in_file(Path(folder, FILE)).get(name, "")


def _in_file(path: Path) -> dict[str, str]:
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f'{path.absolute()} cannot be read ({error}): it must hold lines like storage = "s3://poses"'
        ) from None
    for name, value in content.items():
        if name not in NAMES:
            raise UserError(f"{path.absolute()} has '{name}', which is unknown: it may have {', '.join(NAMES)}")
        if not isinstance(value, str):
            raise UserError(f"'{name}' in {path.absolute()} is {value!r}: write it as text, in quotation marks")
    return content
