"""Shows how far a run is: a progress line with the time left, a line per epoch, TensorBoard."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console

from toughen.core.distributed import world
from toughen.core.types import Step
from toughen.engine.other_programs import OtherPrograms
from toughen.training.callbacks.base import Callback
from toughen.training.callbacks.stopping import EVERY
from toughen.training.training_state import TrainingState
from toughen.utils.progress import progress_bar

BOARD = "tensorboard"  # the folder of its files


def flat(metrics: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested figures under names with slashes; what is no number is left out."""
    figures: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            figures |= flat(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            figures[prefix + name] = float(value)
    return figures


class Display:
    """Shows a run.

    Args:
        console: where to.
        folder: the run directory, for TensorBoard's files.
        epochs, steps: of the whole run.
        done: steps that an earlier session did.
    """

    def __init__(self, console: Console, folder: Path, epochs: int, steps: int, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.console, self.epochs, self.latest = console, epochs, ""
        self.hook, threading.excepthook = threading.excepthook, self.uncaught
        self.board = SummaryWriter(str(folder / BOARD), purge_step=done)
        self.bar = progress_bar(console)
        self.task = self.bar.add_task("training", total=steps, completed=done)
        self.bar.start()

    def length(self, epochs: int, steps: int) -> None:
        """Set the length of the run, which a time budget may change."""
        self.epochs = epochs
        self.bar.update(self.task, total=steps)

    def step(self, done: int, epoch: int) -> None:
        self.bar.update(self.task, completed=done, description=f"epoch {epoch + 1}/{self.epochs}{self.latest}")

    def loss(self, done: int, value: float) -> None:
        """A step's loss, shown beside the bar and kept for TensorBoard."""
        self.board.add_scalar("step_loss", value, done)
        self.latest = f"  loss {value:.4f}"

    def epoch(self, metrics: dict[str, Any]) -> None:
        """One line for an epoch, and its figures for TensorBoard."""
        width = len(str(self.epochs))
        parts = [f"epoch {metrics['epoch'] + 1:{width}d}/{self.epochs}", f"loss {metrics['loss']:.4f}"]
        parts += [f"{name} {100 * value:4.1f} %" for name, value in metrics["validation"].items()]
        parts += [f"{metrics['seconds']:.1f} s", *(["kept"] if metrics["kept"] else [])]
        effective = metrics.get("effective_epochs", "")
        self.console.print(
            "  ".join(parts)
            + (f"\n  effective epochs {effective} (epochs so far + those of the strong method)" if effective else ""),
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        for name, value in flat(metrics).items():
            self.board.add_scalar(name, value, metrics["step"])
        for event in metrics["events"]:
            self.note(event["text"])
            self.board.add_text("events", event["text"], metrics["step"])
        self.board.flush()

    def note(self, text: str) -> None:
        """Something that the user should know."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True, style="bold")

    def signal(self, done: int, distance: float) -> None:
        """The watch's signal, kept for TensorBoard."""
        self.board.add_scalar("logit_distance", distance, done)

    def close(self) -> None:
        self.bar.stop()
        try:
            self.board.close()
        finally:
            threading.excepthook = self.hook

    def uncaught(self, failed: threading.ExceptHookArgs) -> None:
        """Ignore an error in TensorBoard's thread, such as a full disk: its next call raises it again."""
        if not type(failed.thread).__module__.startswith("tensorboard."):
            self.hook(failed)


class Silent(Display):
    """Shows nothing: the base of displays that report progress elsewhere."""

    def __init__(self, console: Console, folder: Path, epochs: int, steps: int, done: int) -> None:
        """Open nothing."""

    def length(self, epochs: int, steps: int) -> None: ...

    def step(self, done: int, epoch: int) -> None: ...

    def loss(self, done: int, value: float) -> None: ...

    def epoch(self, metrics: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None: ...

    def signal(self, done: int, distance: float) -> None: ...

    def close(self) -> None: ...


Show: TypeAlias = Callable[[Console, Path, int, int, int], Display]
"""What makes a display out of a ``Display``'s arguments."""


class ShowProgress(Callback):
    """Tells a display what happens; the main process alone has one.

    Args:
        console: where to show it.
        show: makes the display; None means ``Display``.
    """

    def __init__(self, console: Console, show: Show | None = None) -> None:
        self.console, self.show = console, show or Display
        self.display: Display | None = None
        self.others: OtherPrograms | None = None

    def on_fit_start(self, state: TrainingState) -> None:
        place = (state.folder, state.epochs, state.last_step, state.step)
        self.display = world().on_main(self.show, self.console, *place)
        self.others = OtherPrograms() if state.device.type == "cpu" else None

    def on_step_end(self, state: TrainingState, step: Step) -> None:
        if self.display is None:
            return
        self.display.step(state.step, (state.step - 1) // state.steps_per_epoch)
        if state.step % EVERY == 0:
            self.display.loss(state.step, float(step.loss.detach()))
        if "logit_distance" in state.scalars:
            self.display.signal(state.step, state.scalars["logit_distance"])

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        if self.display is not None:
            self.display.epoch(metrics)
            self.display.length(state.epochs, state.last_step)
            if self.others is not None and (advice := self.others.advice()):
                self.display.note(advice)
                self.others = None  # once is enough

    def on_fit_end(self, state: TrainingState) -> None:
        if self.display is not None:
            self.display.close()
