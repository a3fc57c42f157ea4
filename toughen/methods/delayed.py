"""Delayed adversarial training."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

from torch import nn

from toughen.core.types import Batch, Crafted, Images, Labels, Plan, Step
from toughen.methods.base import Method
from toughen.methods.standard import Standard
from toughen.methods.wrappers import same_replays


class Delayed(Method):
    """Natural training first, any other method after a switch (Gupta, Dube & Verma, arXiv:2002.04237; DAT).

    Passes: +0, those of ``before`` until the switch and of ``after`` from then on.

    The automatic switch comes at the end of the epoch in which the natural loss has settled, at the latest where the
    learning rate first drops. The slides give no rule for that. Ours is the knee of the curve of mean losses by epoch
    that Kneedle finds (Satopaa et al., "Finding a 'Kneedle' in a Haystack", ICDCS Workshops 2011), taken anew after
    each epoch: both axes go from 0 to 1, and a knee is where the curve is farthest ahead of the straight line, once it
    has lost ``sensitivity`` epochs of that lead. It knows no unit: a loss that falls by the same share in each epoch
    has a knee too, one that falls by the same amount has none. Kneedle's smoothing is left out.

    A ramp of ``after`` follows the whole run's progress, so that it is part-way up at the switch.

    Args:
        after: the method that training ends with.
        before: the method until the switch; None means training on clean images.
        switch_epoch: the epoch, from 0, that first trains ``after``, or "auto".
        sensitivity: Kneedle's S, above 0: the epochs without progress that make a knee. Of its authors' 1 and more, 5
            comes nearest to the switch after a seventh of 85 epochs that the slides' hours on MNIST mean.
        latest: share of the run at which "auto" switches in any case; None means the first drop of the learning rate,
            half of the run where there is none. A run that is stopped before, by ``stop_epoch``, switches after half of
            the epochs that it has.

    Raises:
        ValueError: the two methods repeat batches differently, a setting is out of its range, or ``before`` reports no
            clean loss for "auto" to judge by.
    """

    def __init__(
        self,
        *,
        after: Method,
        before: Method | None = None,
        switch_epoch: int | Literal["auto"] = "auto",
        sensitivity: float | int = 5,
        latest: float | int | None = None,
    ) -> None:
        super().__init__()
        self.before = Standard() if before is None else before
        self.after = after  # last, so that the threat is this one's
        self.replays = same_replays("Delayed", self.before, after)
        self.reports_clean = self.before.reports_clean and after.reports_clean
        if switch_epoch == "auto" and not self.before.reports_clean:
            name = type(self.before).__name__
            raise ValueError(f"{name} reports no clean loss, which auto needs: give switch_epoch a number")
        if switch_epoch != "auto" and switch_epoch < 0:
            raise ValueError(f"switch_epoch {switch_epoch} must be 0 or more, or auto")
        if not sensitivity > 0 or not 0 <= (latest or 0) <= 1:
            raise ValueError(f"sensitivity ({sensitivity}) must be above 0, latest ({latest}) a share of the run, 0..1")
        self.switch_epoch, self.sensitivity, self.latest = switch_epoch, sensitivity, latest
        self.switched, self.losses = switch_epoch == 0, list[float]()
        self.epochs: int | None = None  # of the run, once a plan says so
        self.until, self.why = 0.5 if latest is None else latest, "the learning rate is about to drop"

    @property
    def now(self) -> Method:
        """The method that trains: ``after`` too where nobody sets ``progress``."""
        return self.after if self.switched or self.progress >= 1 else self.before

    @property
    def graph_key(self) -> Hashable:
        return None if self.now.graph_key is None else (self.now, self.now.graph_key)

    @property
    def is_adversarial(self) -> bool:
        return self.now.is_adversarial

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        return self.now.craft(model, x, y, batch)

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        return self.now.loss(model, x, y, crafted)

    def forget(self) -> None:
        super().forget()
        self.switched, self.losses = self.switch_epoch == 0, []

    def check(self, epochs: int) -> None:
        super().check(epochs)
        if self.switch_epoch != "auto" and self.switch_epoch >= epochs:
            raise ValueError(
                f"switch_epoch {self.switch_epoch} is never reached by {type(self).__name__}: the run ends after "
                f"{epochs} epoch{'s' * (epochs > 1)}, all of {type(self.before).__name__}; give a smaller one, or auto"
            )

    def start(self, plan: Plan) -> None:
        super().start(plan)
        self.epochs = plan.epochs
        if self.latest is None:
            self.until = 0.5 if plan.first_drop is None else plan.first_drop
        if plan.trained is not None and plan.trained <= self.until * plan.epochs:
            self.until, self.why = plan.trained / plan.epochs / 2, "the run will be stopped before the rate drops"
        if self.switch_epoch == "auto" and 1 / plan.epochs > self.until:  # an epoch is too long to wait
            self.switched = True

    def after_epoch(self, metrics: dict[str, Any]) -> None:
        super().after_epoch(metrics)
        if self.now is self.after:
            return
        loss = metrics.get("terms", {}).get("clean")
        if self.switch_epoch == "auto":
            if loss is None:
                raise ValueError("Delayed got no clean loss, which auto needs: give switch_epoch a number")
            self.losses.append(loss)
            settled = lead_lost(self.losses) >= self.sensitivity
            if self.epochs is None and not settled:
                raise ValueError(
                    "Delayed was not told the length of the run, which auto needs: call its start with a plan, or give "
                    "switch_epoch a number"
                )
            reason = f"the clean loss settled at {loss:.4f}" if settled else self.why
            if settled or self._too_late(metrics):
                self._switch(metrics, "from now on", reason)
        elif metrics["epoch"] + 1 >= self.switch_epoch:
            self._switch(metrics, "from now on", "as told")

    def missed_epoch(self, metrics: dict[str, Any]) -> None:
        super().missed_epoch(metrics)
        if self.now is self.after:
            return
        if self.switch_epoch == "auto":
            if self._too_late(metrics):
                self._switch(metrics, "after the rescue", self.why)
        elif metrics["epoch"] + 1 >= self.switch_epoch:
            self._switch(metrics, "after the rescue", "as told")

    def _too_late(self, metrics: dict[str, Any]) -> bool:
        """Whether the next epoch would end after the latest switch."""
        return self.epochs is not None and (metrics["epoch"] + 2) / self.epochs > self.until + 1e-9

    def _switch(self, metrics: dict[str, Any], when: str, reason: str) -> None:
        self.switched = True
        name, done = type(self.after).__name__, metrics["epoch"] + 1
        metrics.setdefault("events", []).append(
            {"event": "switch", "to": name, "epoch": done, "why": reason, "text": f"{name} {when}: {reason}"}
        )

    def get_extra_state(self) -> dict[str, Any]:
        return {"switched": self.switched, "losses": list(self.losses)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        # a rescue goes back to an earlier state, but not behind a switch that was made
        self.switched, self.losses = self.switched or state["switched"], list(state["losses"])


def lead_lost(losses: Sequence[float]) -> float:
    """The epochs by which a falling curve leads the straight line at its knee, less those at its end.

    0 where there is no knee: before the third epoch, on a straight line, for a loss that ends where it began or above.
    """
    lowest, highest, last = min(losses), max(losses), len(losses) - 1
    if last < 2 or losses[-1] >= losses[0]:
        return 0.0
    ahead = [last * (highest - loss) / (highest - lowest) - epoch for epoch, loss in enumerate(losses)]
    return max(0.0, max(ahead[1:-1]) - ahead[-1])
