"""Black-box attacks by transfer: what is made on the source alone, judged by torchattacks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchattacks
from problems import Whole, linear_problem, trained_net, unchanged
from torch import nn

from toughen.attacks import FGSM, MIFGSM, PGD, PGDLL, Transfer
from toughen.core.cost import PassCounter
from toughen.core.rng import ImageNoise, StepNoise
from toughen.core.types import Images, Labels
from toughen.engine.fixed_batch import FixedBatchModel


@pytest.fixture
def digits(mnist: tuple[Images, Labels]) -> tuple[nn.Module, nn.Module, Images, Labels]:
    """The attacked net, a source (a copy of it with other weights), images and labels."""
    source = trained_net(torch.float64)
    with torch.no_grad():
        for weight in source.parameters():
            weight.add_(0.2 * weight.std() * torch.randn_like(weight))
    return trained_net(torch.float64), source, mnist[0][::2].double(), mnist[1][::2]


def test_by_default_it_is_mi_fgsm_on_the_source(digits: Any) -> None:
    model, source, x, y = digits
    expected = torchattacks.MIFGSM(source.eval(), eps=0.1, alpha=0.01, steps=10, decay=1.0)(x, y)
    with unchanged(model), unchanged(source), PassCounter(model) as asked, PassCounter(source) as used:
        found = Transfer(eps=0.1, source=source)(model, x, y)
    assert (found - expected).abs().max() < 1e-9
    assert asked.total == 0 and (used.forward, used.input_gradient) == (320, 320)


@pytest.mark.parametrize(
    "attack",
    [PGD(eps=0.1, steps=5), FGSM(eps=0.1), PGDLL(eps=0.1, steps=5, stop_early=False)],
    ids=lambda made: type(made).__name__,
)
def test_any_attack_makes_the_images(attack: Any, digits: Any) -> None:
    model, source, x, y = digits
    expected = attack(source, x, y, StepNoise(0, 0))
    assert torch.equal(Transfer(eps=0.1, source=source, attack=attack)(model, x, y, StepNoise(0, 0)), expected)


def test_the_sources_own_prediction_as_label(digits: Any) -> None:
    """As in the challenge that MI-FGSM won, where no label was known."""
    model, source, x, y = digits
    source.eval()
    predicted = source(x).argmax(1)
    wrong = (predicted + 1) % 10
    expected = MIFGSM(eps=0.1)(source, x, predicted)
    assert torch.equal(Transfer(eps=0.1, source=source, labels="source")(model, x, wrong), expected)
    assert not torch.equal(Transfer(eps=0.1, source=source)(model, x, wrong), expected)


def test_full_strength_where_the_source_falls_at_once() -> None:
    source, x, y, distance = linear_problem("linf")
    model = Whole(lambda x: x.flatten(1)[:, :4])
    x_adv = Transfer(eps=3 * distance, source=source)(model, x, y)
    assert float((x_adv - x).abs().min()) == pytest.approx(3 * distance)


@pytest.mark.parametrize("wrapped", [False, True])
def test_in_blocks(wrapped: bool, digits: Any) -> None:
    """The source runs in blocks like those of the attacked model, whether the caller or the attack made them."""
    model, source, x, y = digits
    attack, noise = PGD(eps=0.1, steps=5), ImageNoise(0, "T", list(range(32)))
    expected = attack(source.eval(), x, y, noise)
    sizes: list[int] = []
    given = FixedBatchModel(source, 7, "fp64") if wrapped else source
    (given.net if wrapped else source).register_forward_hook(lambda net, args, out: sizes.append(len(out)))
    found = Transfer(eps=0.1, source=given, attack=attack)(FixedBatchModel(model.eval(), 7, "fp64"), x, y, noise)
    assert (found - expected).abs().max() < 1e-9
    assert set(sizes) <= {7}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "Transfer needs source, the model to make images on"),
        ({"attack": PGD(eps=0.2)}, "give both the same eps and norm"),
        ({"attack": PGD(eps=0.1, norm="l2")}, "give both the same eps and norm"),
        ({"attack": PGD(eps=0.1, stop_early=True)}, "full strength: give it stop_early=False"),
        ({"attack": PGDLL(eps=0.1)}, "full strength: give it stop_early=False"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    source = nn.Identity() if settings else None
    with pytest.raises(ValueError, match=message):
        Transfer(eps=0.1, source=source, **settings)


def test_unknown_labels_are_refused() -> None:
    attack = Transfer(eps=0.1, source=nn.Identity())
    object.__setattr__(attack, "labels", "predicted")  # past the types that are checked while tests run
    with pytest.raises(ValueError, match="labels 'predicted' is unknown"):
        attack.__post_init__()
