"""MLflow's server on a SQLite database, for `cluster.local`.

    python cluster/tracking_server.py DATABASE server --host 127.0.0.1 …

The database is there whole or not at all: MLflow makes it in dozens of steps, and one that was killed between two (a start
that is given up, a machine without memory) would refuse ever after to go on.
"""

import os
import sys
from pathlib import Path


def create(database: Path) -> None:
    """Makes an empty database, if there is none."""
    if database.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    part = database.with_suffix(".part")
    for left_over in database.parent.glob(f"{part.name}*"):  # SQLite keeps a journal beside it
        left_over.unlink()
    SqlAlchemyStore(f"sqlite:///{part}", "mlflow-artifacts:/").engine.dispose()
    os.replace(part, database)


def main() -> None:
    """The command: the database, and what `mlflow` is to be told."""
    database, *arguments = sys.argv[1:]
    create(Path(database))
    from mlflow.cli import cli  # what the command `mlflow` is

    cli([*arguments, "--backend-store-uri", f"sqlite:///{database}"], prog_name="mlflow")


if __name__ == "__main__":
    main()
