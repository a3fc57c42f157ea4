"""Ensemble adversarial training."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from toughen import models, runs
from toughen.attacks.base import threat_of
from toughen.attacks.fgsm import FGSM
from toughen.core.gradients import logits
from toughen.core.modules import frozen_copy
from toughen.core.objectives import predicted_cross_entropy
from toughen.core.types import Batch, Crafted, Eps, Images, Labels, Mode, Norm, Step
from toughen.methods.base import Method, noise_of
from toughen.utils import hashing


class Ensemble(Method):
    """Training on clean and on FGSM images of pretrained nets or of the model itself (EAT, arXiv:1705.07204).

    Passes: 8, an attack of one step (2), a clean and an adversarial pass (3 each), where the source is the model or as
    large; the attack on another source costs that net's passes.

    For each batch one source is drawn uniformly out of the pretrained nets and the model as it is now. FGSM raises the
    cross-entropy of the class that the source itself predicts, so that no label leaks. The loss is the mean of the
    clean and the adversarial cross-entropy. Sources never change and run in evaluation mode; the released code leaves
    dropout on while it attacks, in the sources too.

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        sources: run directories of pretrained nets, one or more, with the data's classes and image shape; or names of
            nets (``toughen list models``), which the trainer trains normally first, for half as many epochs as the
            run (6 of 12 in the released code), and keeps in ``sources`` of the run directory.
        mode: the model's mode while it is the source, "eval" or "train" (as released).

    Raises:
        ValueError: eps is missing or none that the norm admits, or ``sources`` is empty or no list of names.
    """

    reports_clean = True

    def __init__(self, *, eps: Eps | None = None, norm: Norm = "linf", sources: list[str], mode: Mode = "eval") -> None:
        super().__init__()
        self.eps, self.norm, self.sources = eps, norm, sources
        self.attack = FGSM(eps=threat_of(self).eps, norm=norm, objective=predicted_cross_entropy, mode=mode)
        if not isinstance(sources, list | tuple) or not all(isinstance(each, str) for each in sources):
            raise ValueError("sources must be a list of names: run directories of trained nets, or names of nets")
        if not sources:
            raise ValueError("Ensemble needs at least one source: name run directories of trained nets")
        self.trained: dict[str, Path] = {}  # run directories of the sources that are named as nets
        self.nets = nn.ModuleList()
        self.digests: list[str] = []  # of the sources, so that a run does not go on with others

    def prepare(self, model: nn.Module, shape: tuple[int, int, int], classes: int, images: int | None = None) -> None:
        """Load the sources beside the model.

        Raises:
            ValueError: a source is missing, is no run, has other classes or another image shape, or is named as a net
                and not trained yet.
        """
        if self.untrained():
            raise ValueError(
                f"the source {self.untrained()[0]} is not trained yet: name the run directory of one, or let "
                "`toughen train` train it"
            )
        super().prepare(model, shape, classes, images)
        weight = next(model.parameters())  # whose device and type the sources take
        loaded = [source(str(self.trained.get(each, each)), shape, classes) for each in self.sources]
        self.digests = [hashing.of_weights(net) for net in loaded]
        self.nets = nn.ModuleList(frozen_copy(net, persistent=False).to(weight) for net in loaded)

    def untrained(self) -> list[str]:
        """The sources that are names of nets, and have no run directory yet."""
        named = models.names()
        return [each for each in self.sources if each in named and not Path(each).exists() and each not in self.trained]

    def companions(self) -> list[nn.Module]:
        return [*super().companions(), *self.nets]

    def get_extra_state(self) -> dict[str, list[str]]:
        return {"sources": self.digests}

    def set_extra_state(self, state: dict[str, list[str]]) -> None:
        """See that the sources are those that the run was begun with.

        Raises:
            ValueError: one has other weights.
        """
        for path, before, now in zip(self.sources, state["sources"], self.digests, strict=True):
            if before != now:
                raise ValueError(f"the weights of source {path} have changed since the run was started: restore them")

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        noise = noise_of(batch)
        sources = [*self.nets, model]
        drawn = float(torch.rand((), generator=noise.shared()))  # the same source in every process
        return Crafted(x_adv=self.attack(sources[int(drawn * len(sources))], x, y, noise))

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        out, out_adv = logits(model, x), logits(model, crafted.x_adv)
        clean, robust = self.cross_entropy(out, y), self.cross_entropy(out_adv, y)
        return Step((clean + robust) / 2, out, {"clean": clean.detach(), "robust": robust.detach()})


def source(path: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A run's net, to make images for a model of such images and so many classes.

    Raises:
        ValueError: there is no such run, its net cannot be made, or it is for other images.
    """
    record = runs.read_record(Path(path))
    if len(record.classes) != classes or tuple(record.shape) != shape:
        sizes = [" x ".join(map(str, each)) for each in (record.shape, shape)]
        raise ValueError(
            f"source {path} has images of {sizes[0]} in {len(record.classes)} classes, this run of {sizes[1]} in "
            f"{classes}: name runs on the same data"
        )
    try:
        return runs.load(path)
    except ValueError as error:
        raise ValueError(f"source {path} cannot be used: {error}") from None
