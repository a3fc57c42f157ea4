"""Weights & Biases (wandb.ai)."""

from __future__ import annotations

import os

from toughen.training.tracking import Tracker


class WandB(Tracker):
    """Sends each epoch's figures to Weights & Biases; its own variables apply, such as WANDB_PROJECT and WANDB_MODE."""

    package = "wandb"

    def begin(self, name: str, settings: dict[str, str]) -> str:
        self.run = self.tracker.init(
            project=os.environ.get("WANDB_PROJECT", "toughen"),
            name=name,
            id=self.run_id or None,
            resume="allow" if self.run_id else None,
            config=settings,
            settings=self.tracker.Settings(console="off", silent=True),
        )
        return str(self.run.id)

    def log(self, figures: dict[str, float], step: int) -> None:
        self.run.log(figures, step=step)

    def end(self) -> None:
        self.run.finish(exit_code=int(self.failed))
