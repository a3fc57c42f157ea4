"""The base of callbacks that send a run's figures to an experiment tracker."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from toughen.core.distributed import world
from toughen.training.callbacks.base import Callback
from toughen.training.display import flat
from toughen.training.folder import CONFIG
from toughen.training.recipe_yaml import settings_in
from toughen.training.training_state import TrainingState
from toughen.utils.signals import Stopped, stop_at_once


class Tracker(Callback):
    """Sends each epoch's figures; a resumed run continues in the tracker, too.

    Attributes:
        package: the tracker's, which is not among toughen's own requirements.
        run_id: the run's name there; "" before it was begun.
    """

    package = ""
    run_id = ""
    begun, failed, stopped = False, False, False

    def __init__(self) -> None:
        try:
            self.tracker: Any = import_module(self.package)
        except ImportError:
            name = type(self).__name__
            raise ValueError(
                f"{name} needs the package {self.package}: pip install 'toughen[{self.package}]'"
            ) from None

    def begin(self, name: str, settings: dict[str, str]) -> str:
        """Begin the run, or go on with ``run_id``, and return its id.

        Args:
            name: the run directory's.
            settings: the recipe's, by names such as "optimizer.init_args.lr".
        """
        raise NotImplementedError

    def log(self, figures: dict[str, float], step: int) -> None:
        """Send figures by names such as "validation/pgd"."""
        raise NotImplementedError

    def end(self) -> None:
        """The session is over; ``failed`` and ``stopped`` (by a signal) say how it ended."""
        raise NotImplementedError

    def advice(self) -> str:
        """What to do where the tracker cannot begin a run; "" where its own message is enough."""
        return ""

    def on_fit_start(self, state: TrainingState) -> None:
        world().on_main(self._begin, state)
        self.run_id = world().broadcast(self.run_id)

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        world().on_main(self._call, self.log, flat(metrics), state.step)

    def on_exception(self, state: TrainingState, error: BaseException) -> None:
        self.stopped = isinstance(error, Stopped)
        self.failed = not self.stopped

    def on_fit_end(self, state: TrainingState) -> None:
        if self.begun:
            world().on_main(self._call, self.end)

    def state_dict(self) -> dict[str, Any]:
        return {"run_id": self.run_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not isinstance(state.get("run_id"), str):
            raise ValueError("run_id is not a string")
        self.run_id = state["run_id"]

    def _begin(self, state: TrainingState) -> None:
        path = state.folder / CONFIG
        settings = settings_in(path) if path.exists() else {}
        try:
            with stop_at_once():  # a server that does not answer is tried for minutes
                self.run_id, self.begun = self.begin(state.folder.name, settings), True
        except Exception as error:  # the tracker's own, its transport's and the file system's
            said = f"{type(self).__name__} cannot start the run: {first_line(error)}"
            raise ValueError("\n".join(filter(None, (said, self.advice())))) from error

    def _call(self, call: Callable[..., None], *given: Any) -> None:
        """Call the tracker; a failure is printed and does not end the run."""
        try:
            call(*given)
        except Exception as error:
            said = f"{type(self).__name__} did not accept the figures (metrics.jsonl has them): {first_line(error)}"
            world().console().print(said, highlight=False, markup=False, soft_wrap=True)


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    # pydantic, which wandb's settings use, names the setting and what is wrong with it in the next two lines
    return ": ".join(lines[:3]) if "validation error" in lines[0] else lines[0]
