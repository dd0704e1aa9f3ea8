"""The trials of `rayjobs.tune` as runs in MLflow."""

from ray import tune

from refiner import registry
from refiner.command import log


class ChildRuns(tune.Callback):
    """Each trial as a run of its own in MLflow, under the search's. In the driver, so that trials need not reach MLflow."""

    def __init__(self, name: str, parent: str, metric: str) -> None:
        self._name, self._parent, self._metric = name, parent, metric
        self._runs: dict[str, tuple[str, registry.MetricLog]] = {}

    def on_trial_start(self, iteration, trials, trial, **info) -> None:
        if trial.trial_id not in self._runs:
            run_id = registry.start_run(f"{self._name}-{len(self._runs) + 1}", trial.config, parent=self._parent)
            self._runs[trial.trial_id] = run_id, registry.MetricLog(run_id)

    def on_trial_result(self, iteration, trials, trial, result, **info) -> None:
        _, metrics = self._runs[trial.trial_id]
        numbers = {k: v for k, v in result.items() if k == self._metric or k.startswith(("train/", "val/"))}
        metrics.log(numbers, step=result["training_iteration"] - 1)
        log(f"trial {trial.trial_id} · epoch {result['training_iteration']} · val {result['val/depth_cm']:.2f} cm")

    def on_trial_complete(self, iteration, trials, trial, **info) -> None:
        self._end(trial, failed=False)

    def on_trial_error(self, iteration, trials, trial, **info) -> None:
        self._end(trial, failed=True)

    def _end(self, trial, failed: bool) -> None:
        run_id, metrics = self._runs[trial.trial_id]
        metrics.close()
        registry.finish_run(run_id, failed=failed)
