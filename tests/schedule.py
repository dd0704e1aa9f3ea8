"""Which process runs which test files, where several do (pytest-xdist): files that share what takes long to make stay together,
and those that take long come first, so that no process is left alone with them at the end.
"""

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

# What a process makes once for all of its tests, and where the files are that ask for it.
SHARED = {
    "endpoint": (
        "tests/serve/",
        "tests/test_readme.py",
        "tests/test_examples.py",
        "tests/cluster/test_listening.py",
        "tests/cluster/test_observability.py",
    ),
    "rendered dancers": (
        "tests/rayjobs/test_pair.py",
        "tests/rayjobs/test_pipeline.py",
        "tests/rayjobs/test_object_store.py",
        "tests/rayjobs/test_estimators.py",
    ),
    "jobs": ("tests/rayjobs/",),
}
# Of the other files, those that take a minute or more.
LONG = (
    "tests/cluster/test_calling_home.py",
    "tests/refiner/export/test_export.py",
    "tests/test_wheel.py",
    "tests/cluster/test_local.py",
    "tests/cluster/test_gpu_config.py",
    "tests/cluster/test_mlflow_server.py",
)


def shared(file: str) -> str | None:
    """What a file shares with others."""
    return next((name for name, files in SHARED.items() if file.startswith(files)), None)


class Together(LoadFileScheduling):
    """Hands each process a file that needs what it has already; else one that needs what nobody has; else any."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        ours = {shared(file) for file in self.assigned_work.get(node, ())}
        theirs = {shared(file) for other, work in self.assigned_work.items() if other is not node for file in work}

        def rank(file: str) -> tuple[int, bool]:
            name = shared(file)
            if name is None:
                return 2, file not in LONG
            return (0 if name in ours else 3 if name in theirs else 1), False

        self.workqueue.move_to_end(min(self.workqueue, key=rank), last=False)
        super()._assign_work_unit(node)
