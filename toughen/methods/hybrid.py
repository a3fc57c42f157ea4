"""Switching between a cheap and a strong method."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from toughen.core.types import Batch, Crafted, Images, Labels, Step
from toughen.methods.base import Method
from toughen.methods.wrappers import batch_mean, same_replays


class Hybrid(Method):
    """A cheap method that is replaced by a strong one while the clean loss has dropped suddenly (NuAT, section 5.5).

    Passes: +0, those of whichever method a batch is trained with.

    A net that begins to overfit to single-step attacks shows it first by a clean loss far below the last epoch's mean.
    Every ``window`` batches their mean clean loss is compared with the previous epoch's; below 1 - ``threshold`` of
    it, the next window is trained with the strong method, until the loss is back. With NuAT and NuAT2 this is NuAT-H;
    with weight averaging in the trainer NuAT-WA-H. The paper gives neither threshold nor window; the defaults are ours
    (docs/results/methods.md).

    Args:
        cheap: trains as long as nothing happens; must report the clean loss.
        strong: takes over after a drop; None means the cheap method's ``rescue()``, NuAT2 for NuAT.
        threshold: the drop that calls the strong method, as a share of the previous epoch's mean clean loss.
        window: batches between two checks of the clean loss.

    Raises:
        ValueError: the cheap method reports no clean loss, the two repeat batches differently or train against
            different threats, or a setting is out of its range.
    """

    window_sum: Tensor
    epoch_sum: Tensor

    def __init__(
        self, *, cheap: Method, strong: Method | None = None, threshold: float | int = 0.3, window: int = 20
    ) -> None:
        super().__init__()
        strong = cheap.rescue() if strong is None else strong
        if strong is None:
            raise ValueError(f"{type(cheap).__name__} trains against no threat, so Hybrid needs strong to be given")
        if not cheap.reports_clean:
            raise ValueError(
                f"Hybrid watches the clean loss, which {type(cheap).__name__} does not report: take one that does, "
                "such as NuAT, GAT, or FGSMAT with clean_weight"
            )
        if not 0 < threshold < 1 or window < 1:
            raise ValueError(f"threshold ({threshold}) must lie between 0 and 1, window ({window}) be at least 1 batch")
        if None not in (cheap.threat, strong.threat) and cheap.threat != strong.threat:
            raise ValueError(
                f"cheap and strong train against different threats, {cheap.threat} and {strong.threat}: "
                "give both the same eps and norm"
            )
        self.cheap, self.strong = cheap, strong
        self.replays = same_replays("Hybrid", cheap, strong)
        self.reports_clean = strong.reports_clean
        self.threshold, self.window = threshold, window
        self.register_buffer("window_sum", torch.zeros((), dtype=torch.float64))
        self.register_buffer("epoch_sum", torch.zeros((), dtype=torch.float64))
        self.latest: Tensor | None = None  # the last loss's clean term, until the step is done
        self.use_strong = False
        self.last_mean = math.nan
        self.counted = self.seen = 0  # batches in the window's sum, in the epoch's
        self.strong_steps = self.epoch_steps = self.epoch_strong = 0

    @property
    def now(self) -> Method:
        """The method that trains the next batch."""
        return self.strong if self.use_strong else self.cheap

    @property
    def is_adversarial(self) -> bool:
        return self.now.is_adversarial

    def forget(self) -> None:
        super().forget()
        self.use_strong, self.last_mean = False, math.nan
        self.counted = self.seen = self.strong_steps = self.epoch_steps = self.epoch_strong = 0
        self.window_sum.zero_()
        self.epoch_sum.zero_()

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        return self.now.craft(model, x, y, batch)

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        step = self.now.loss(model, x, y, crafted)
        self.latest = step.terms.get("clean")
        return step

    def after_step(self, model: nn.Module) -> None:
        super().after_step(model)
        self.epoch_steps += 1
        if self.use_strong:
            self.strong_steps, self.epoch_strong = self.strong_steps + 1, self.epoch_strong + 1
        if self.latest is not None:
            latest = batch_mean(self, self.latest)
            self.window_sum += latest
            self.epoch_sum += latest
            self.seen += 1
        self.counted, self.latest = self.counted + 1, None
        if self.counted >= self.window:
            self._decide()

    def _decide(self) -> None:
        """At the end of a window: the strong method while the loss is down; one window of it where it reports none."""
        unseen = self.use_strong and not self.strong.reports_clean
        mean = float(self.window_sum) / self.counted
        self.use_strong = not unseen and mean < (1 - self.threshold) * self.last_mean  # False in the first epoch: NaN
        self.window_sum.zero_()
        self.counted = 0

    def after_epoch(self, metrics: dict[str, Any]) -> None:
        super().after_epoch(metrics)
        if self.seen:
            self.last_mean = float(self.epoch_sum) / self.seen
        if self.epoch_steps:
            metrics["strong_share"] = self.epoch_strong / self.epoch_steps
            strong = self.strong_steps / self.epoch_steps
            metrics["effective_epochs"] = f"{metrics['epoch'] + 1}+{strong:.3g}"
        self.epoch_sum.zero_()
        self.seen = self.epoch_steps = self.epoch_strong = 0

    def missed_epoch(self, metrics: dict[str, Any]) -> None:
        super().missed_epoch(metrics)
        self.last_mean = math.nan  # too old to compare with: as in the first epoch

    def get_extra_state(self) -> dict[str, Any]:
        names = ("use_strong", "counted", "seen", "strong_steps", "epoch_steps", "epoch_strong")
        mean = None if math.isnan(self.last_mean) else self.last_mean
        return {"last_mean": mean, **{name: getattr(self, name) for name in names}}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self.last_mean = math.nan if state["last_mean"] is None else state["last_mean"]
