"""MLflow (mlflow.org)."""

from __future__ import annotations

import os

from toughen.training.tracking import Tracker

LONGEST = 500  # characters of a parameter's value, which older servers take


class MLflow(Tracker):
    """Sends each epoch's figures to MLflow; its own variables apply, such as MLFLOW_TRACKING_URI."""

    package = "mlflow"

    def begin(self, name: str, settings: dict[str, str]) -> str:
        self.client = self.tracker.MlflowClient()
        if self.run_id:
            self.client.set_terminated(self.run_id, status="RUNNING")
            return self.run_id
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "toughen")
        known = self.client.get_experiment_by_name(title)
        experiment = known.experiment_id if known else self.client.create_experiment(title)
        run = self.client.create_run(experiment, run_name=name)
        for key, value in settings.items():
            self.client.log_param(run.info.run_id, key, value[:LONGEST])
        return str(run.info.run_id)

    def log(self, figures: dict[str, float], step: int) -> None:
        for key, value in figures.items():
            self.client.log_metric(self.run_id, key, value, step=step)

    def end(self) -> None:
        status = "FAILED" if self.failed else "KILLED" if self.stopped else "FINISHED"
        self.client.set_terminated(self.run_id, status=status)

    def advice(self) -> str:
        if os.environ.get("MLFLOW_TRACKING_URI"):
            return ""
        return (
            "MLFLOW_TRACKING_URI is not set: set it to the address of a tracking server, or use `pip install mlflow`, "
            "which keeps the figures in a database of its own"
        )
