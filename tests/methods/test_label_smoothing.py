"""Label smoothing of a recipe reaches every method's loss, and no attack."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from commands import small, toughen
from contract import batch, every_method, net, prepared
from torch import Tensor

from toughen.core.types import Images, Labels
from toughen.methods import Method
from toughen.methods.awp import AWP
from toughen.methods.efgsm import EFGSM
from toughen.methods.hybrid import Hybrid
from toughen.methods.nuat import NuAT
from toughen.methods.pgd_at import PGDAT
from toughen.methods.reconstruct import Reconstruct
from toughen.methods.trades import TRADES
from toughen.training import Recipe
from toughen.training.build import build

SHARE = 0.3
OWN = ("PGI", "EFGSM", "Reconstruct")  # have a smoothing of their own


def smoothed(out: Tensor, y: Labels) -> Tensor:
    """Cross-entropy against SHARE / k on every class and 1 - SHARE more on the label (Szegedy et al. 2016, Sec. 7)."""
    target = torch.full_like(out, SHARE / out.shape[1])
    target[torch.arange(len(y)), y] += 1 - SHARE
    return -(target * (out - out.exp().sum(1, keepdim=True).log())).sum(1).mean()


def plain(out: Tensor, y: Labels) -> Tensor:
    return -(out - out.exp().sum(1, keepdim=True).log())[torch.arange(len(y)), y].mean()


@every_method
def test_the_loss_has_the_smoothed_cross_entropy_in_place_of_the_plain_one(
    name: str, mnist: tuple[Images, Labels]
) -> None:
    if name in OWN:
        return
    x, y = mnist[0].double(), mnist[1]
    model = net().double()
    with torch.no_grad():
        model.linear.weight.mul_(8)  # logits far enough apart for smoothing to matter
    method = prepared(name, model).double()
    crafted = method.craft(model, x, y, batch(len(x)))
    before = method.loss(model, x, y, crafted)
    for each in method.modules():
        if isinstance(each, Method):
            each.label_smoothing = SHARE
    after = method.loss(model, x, y, crafted)
    judged = [before.logits.detach()]
    if name == "Ensemble":  # the mean of two cross-entropies
        judged.append(model(crafted.x_adv).detach())
    expected = torch.stack([smoothed(out, y) - plain(out, y) for out in judged]).mean()
    near = expected.abs() / 2 if name == "AWP" else 1e-9  # which moves the weights first
    assert (after.loss - before.loss - expected).abs() < near and expected.abs() > 1e-3


def test_a_recipe_s_smoothing_is_the_method_s_and_that_of_those_in_it(tmp_path: Path) -> None:
    method = AWP(inner=TRADES(eps=0.1, steps=1))
    recipe = Recipe(data="mnist-5k", method=method, model="fbf-mnist-cnn", eps=0.1, label_smoothing=0.2, device="cpu")
    trainer, _, _ = build(recipe, tmp_path / "run")
    assert [each.label_smoothing for each in (trainer.method, *trainer.method.inner())] == [0.2, 0.2]


@pytest.mark.parametrize("method", [EFGSM(eps=0.1), Reconstruct(inner=PGDAT(eps=0.1, steps=1))], ids=repr)
def test_methods_with_a_smoothing_of_their_own_say_so(method: Method) -> None:
    with pytest.raises(ValueError, match="has its own smoothing"):
        Recipe(method=method, label_smoothing=0.2)


def test_hybrid_cannot_see_a_smoothed_loss_fall() -> None:
    """As the right one of ten classes goes from 60 to 95 %, the loss falls by 90 %; smoothed by 0.3 it rises."""
    for method in (Hybrid(cheap=NuAT(eps=0.1)), AWP(inner=Hybrid(cheap=NuAT(eps=0.1)))):
        with pytest.raises(ValueError, match="Hybrid waits for .* label_smoothing"):
            Recipe(method=method, label_smoothing=0.3)


def test_what_only_crafts_is_no_hindrance() -> None:
    Recipe(method=TRADES(eps=0.1, crafter=EFGSM(eps=0.1)), label_smoothing=0.2)


def test_a_share_of_1_is_refused() -> None:
    ended = toughen(*small("--label_smoothing", 1))
    assert ended.status == 2 and "label_smoothing is 1" in ended.err
