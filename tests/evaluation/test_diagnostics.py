"""Diagnostics against closed forms on linear models, figures worked out by hand, and numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from problems import Whole, linear_problem, trained_net, unchanged
from torch import Tensor, nn

from toughen.attacks import FGSM, PGD, Attack
from toughen.attacks.fab import FAB
from toughen.attacks.logit_matrix import LogitMatrix
from toughen.core.rng import ImageNoise, Noise
from toughen.core.threat import Threat
from toughen.core.types import Eps, Images, Labels, Logits, Norm
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.diagnostics import (
    accuracy_by_eps,
    accuracy_by_restarts,
    accuracy_by_steps,
    attack_entropy,
    boundary_distance,
    common,
    confusion,
    loss_by_eps,
    loss_surface,
    mean_logit_distance,
    nuclear_norms,
    transfer_matrix,
)
from toughen.evaluation.diagnostics.confusion import class_accuracy, matrix
from toughen.evaluation.diagnostics.curves import radii
from toughen.evaluation.diagnostics.entropy import entropy
from toughen.evaluation.diagnostics.surface import axis, directions
from toughen.evaluation.logit_distance import logit_distance

SLOPE = 8.0


def two_classes(x: Tensor) -> Tensor:
    """Class 1 where the first pixel exceeds a half, by a linear function of it."""
    score = SLOPE * (x[:, 0, 0, 0] - 0.5)
    return torch.stack([-score, score], 1)


def pixels(*values: float) -> tuple[Images, Labels]:
    """Images of one pixel, all of class 0: they hold by 0.5 less their value."""
    return torch.tensor(values).view(-1, 1, 1, 1), torch.zeros(len(values), dtype=torch.int64)


def disturbed(size: float) -> nn.Module:
    """The trained net with its weights multiplied by random factors around 1."""
    net, generator = trained_net(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(1 + size * torch.randn(weight.shape, generator=generator))
    return net


@dataclass(frozen=True, kw_only=True)
class Scripted(Attack):
    """Returns what a function makes of the images."""

    make: Callable[[Images, Labels, Any], Images]
    eps: Eps | None = 1.0
    norm: Norm = "linf"
    restarts: int = 1
    minimise: bool = True

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        return self.make(x, target, noise)


still = Scripted(make=lambda x, y, noise: x)


def test_accuracy_by_eps_is_the_share_of_margins_above_it() -> None:
    x, y = pixels(0.05, 0.15, 0.35, 0.45, 0.6)  # margins 0.45, 0.35, 0.15, 0.05, and one that is wrong
    found = accuracy_by_eps(Whole(two_classes), x, y, FGSM(eps=0.1), [0, 0.04, 0.1, 0.2, 0.4, 0.5])
    assert found["accuracy"] == [0.8, 0.8, 0.6, 0.4, 0.2, 0.0]
    assert found["attack"]["attack"] == "FGSM" and found["attack"]["objective"] == "CrossEntropy"


def test_a_masked_gradient_shows_as_accuracy_that_rises_with_eps() -> None:
    x, y = pixels(0.45)

    def bent(x: Tensor) -> Tensor:  # beyond 0.7 it comes back
        pixel = x[:, 0, 0, 0]
        score = torch.where(pixel < 0.7, pixel - 0.5, 0.5 - pixel)
        return torch.stack([-score, score], 1)

    assert accuracy_by_eps(Whole(bent), x, y, FGSM(eps=0.1), [0.1, 0.3])["accuracy"] == [0, 1]


def test_accuracy_by_steps_of_a_stated_size() -> None:
    x, y = pixels(0.05, 0.15, 0.35, 0.45)
    attack = PGD(eps=0.4, step_size=0.06, start="none")
    found = accuracy_by_steps(Whole(two_classes), x, y, attack, [1, 2, 3, 5, 6, 20])  # reach 0.06 n, at most 0.4
    assert found["accuracy"] == [0.75, 0.75, 0.5, 0.5, 0.25, 0.25] and found["clean_accuracy"] == 1
    with pytest.raises(ValueError, match="FGSM has no steps"):
        accuracy_by_steps(Whole(two_classes), x, y, FGSM(eps=0.1))


def test_restarts_add_up_and_leave_broken_images_alone() -> None:
    x, y = pixels(0.1, 0.2, 0.3, 0.4, 0.6)
    attacked = []

    def make(x: Images, target: Labels, noise: ImageNoise) -> Images:
        attacked.append(noise.index)
        broken = torch.tensor([index == noise.number or index == 3 for index in noise.index])
        return torch.where(broken.view(-1, 1, 1, 1), 0.9, x)

    found = accuracy_by_restarts(Whole(two_classes), x, y, Scripted(make=make, restarts=7), 3)
    assert found["restarts"] == [1, 2, 3] and found["accuracy"] == [0.4, 0.2, 0.0]
    assert attacked == [[0, 1, 2, 3], [1, 2], [2]]


def test_losses_by_eps_have_a_closed_form_on_a_linear_model() -> None:
    x, y = pixels(0.1, 0.3)
    found = loss_by_eps(Whole(two_classes), x, y, Threat("linf", 0.1), [0, 0.05, 0.2])
    for place, eps in enumerate(found["eps"]):
        wanted = np.log1p(np.exp(2 * SLOPE * (np.array([0.1, 0.3]) + eps - 0.5))).mean()
        assert found["loss"]["fgsm"][place] == pytest.approx(wanted, rel=1e-5)
        assert found["loss"]["pgd-20"][place] == pytest.approx(wanted, rel=1e-5)
        random = wanted if eps == 0 else found["loss"]["r-fgsm"][place]  # its random half goes either way
        assert random <= wanted * (1 + 1e-6)


def test_radii_end_within_the_norm() -> None:
    assert radii(Threat("linf", 0.3), (1, 28, 28)) == pytest.approx([0, 0.075, 0.15, 0.225, 0.3, 0.375, 0.45, 0.6, 0.9])
    assert radii(Threat("l2", 0.5), (1, 2, 2))[-1] == 2


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("clip", [False, True])
def test_the_surface_of_a_linear_model(norm: Norm, clip: bool) -> None:
    """Weights of one size lie along their own sign, so nothing changes across; along, the score falls evenly."""
    signs = torch.tensor([1.0, -1, -1, 1, 1, -1, 1, -1], dtype=torch.float64).view(1, 2, 2, 2)
    x = torch.full((3, 2, 2, 2), 0.5, dtype=torch.float64) + torch.tensor([0.0, 0.1, -0.2]).view(-1, 1, 1, 1) * signs

    def model(x: Tensor) -> Tensor:
        score = ((x - 0.4) * signs).flatten(1).sum(1)
        return torch.stack([score, -score], 1)

    y, threat = torch.zeros(3, dtype=torch.int64), Threat(norm, 0.2)
    far = 1.1 if norm == "linf" else 1.1 * math.sqrt(8)  # beyond the box along every pixel
    found = loss_surface(Whole(model), x, y, threat, along=[0, 0.1, far], across=[-0.1, 0, 0.1], clip=clip)
    pixel = torch.tensor([0.0, 0.1, -0.2])  # each pixel's part of the score, before it moves by d1 (L2: / sqrt 8)
    for place, d1 in enumerate([0, 0.1, far]):
        moved = pixel - (d1 if norm == "linf" else d1 / math.sqrt(8))
        score = 8 * (moved.clamp(-0.5, 0.5) if clip else moved)
        wanted = torch.log1p(torch.exp(-2 * score.double()))
        middle = torch.tensor([image[place][1] for image in found["images"]])
        torch.testing.assert_close(middle.double(), wanted, rtol=1e-5, atol=1e-6)
        if not clip:
            sides = torch.tensor([[image[place][0], image[place][2]] for image in found["images"]])
            torch.testing.assert_close(sides.double(), wanted[:, None].expand(3, 2), rtol=1e-5, atol=1e-6)
        assert found["mean"][place][1] == pytest.approx(float(wanted.mean()), rel=1e-5)
        assert found["median"][place][1] == pytest.approx(float(wanted.median()), rel=1e-5)


def test_directions_are_orthogonal_as_long_and_drawn_once_for_all_models(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    nets = [trained_net(), disturbed(0.3)]
    pairs = []
    for net in nets:
        first, second = directions(net, x, y, Threat("linf", 0.3), seed=3)
        assert set(first.unique().tolist()) <= {-1, 0, 1}
        assert float((first * second).sum((1, 2, 3)).abs().max()) < 1e-3
        torch.testing.assert_close(first.flatten(1).norm(dim=1), second.flatten(1).norm(dim=1))
        pairs += [first[0].flatten(), second[0].flatten()]
    sizes = np.linalg.svd(torch.stack(pairs).double().numpy(), compute_uv=False)
    assert sizes[2] > 1 and sizes[3] < 1e-4  # four vectors out of three: two gradients and one draw
    other = directions(nets[0], x, y, Threat("linf", 0.3), seed=4)[1]
    assert not torch.equal(other[0].flatten(), pairs[1])


def test_a_surface_without_a_gradient_is_flat() -> None:
    x = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    found = loss_surface(
        Whole(lambda x: torch.zeros(len(x), 5) + 0 * x.sum()), x, torch.tensor([0, 1]), Threat("linf", 1)
    )
    assert np.ptp(found["mean"]) == 0 and found["mean"][0][0] == pytest.approx(math.log(5))
    assert found["along"] == axis(Threat("linf", 1)) and found["along"][10] == 0
    with pytest.raises(ValueError, match="use an odd number"):
        axis(Threat("linf", 1), 4)


def test_the_surface_s_middle_is_the_clean_loss_and_few_may_be_kept(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist[0][:5], mnist[1][:5]
    net = trained_net()
    found = loss_surface(net, x, y, Threat("linf", 0.3), along=axis(Threat("linf", 0.3), 3), keep=2)
    wanted = F.cross_entropy(net.eval()(x), y, reduction="none")
    assert len(found["images"]) == 2 and found["count"] == 5
    assert [image[1][10] for image in found["images"]] == pytest.approx(wanted[:2].tolist(), rel=1e-4)
    steepest = x + 0.3 * directions(net, x, y, Threat("linf", 0.3))[0]
    assert found["mean"][2][10] == pytest.approx(F.cross_entropy(net(steepest), y).item(), rel=1e-4)


def test_confusion_by_hand() -> None:
    y, predictions = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 1, -1, 0])
    assert matrix(y, predictions, 4) == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert class_accuracy(y, predictions, 4) == [0.5, 1, 0, None]


def test_confusion_under_attack_by_hand() -> None:
    def model(x: Tensor) -> Tensor:  # thirds; NaN at 1
        pixel = x[:, 0, 0, 0]
        places = torch.tensor([1 / 6, 1 / 2, 5 / 6])
        return torch.where(pixel[:, None] < 1, -(pixel[:, None] - places).abs(), torch.nan)

    x, _ = pixels(0.1, 0.2, 0.5, 0.9, 0.8, 0.1)
    y = torch.tensor([0, 0, 1, 2, 2, 1])  # the last one is wrong while clean, and attacked it would be right
    found = confusion(Whole(model), x, y, Scripted(make=lambda x, y, noise: (x + 0.35).clamp(max=1)))
    assert found["clean"]["matrix"] == [[2, 0, 0], [1, 1, 0], [0, 0, 2]] and found["clean"]["accuracy"] == 5 / 6
    assert found["attacked"]["matrix"] == [[0, 2, 0], [1, 0, 1], [0, 0, 0]] and found["attacked"]["invalid"] == 2
    assert found["attacked"]["class_accuracy"] == [0, 0, 0] and found["attacked"]["accuracy"] == 0


def test_robust_accuracy_is_one_figure(mnist: tuple[Images, Labels]) -> None:
    net, attack = trained_net(), PGD(eps=0.05, steps=5)
    made = {
        "confusion": confusion(net, *mnist, attack),
        "eps": accuracy_by_eps(net, *mnist, attack, [0.05]),
        "steps": accuracy_by_steps(net, *mnist, attack, [5]),
        "restarts": accuracy_by_restarts(net, *mnist, attack, 1),
    }
    table, curves = made["confusion"]["attacked"], [made[name]["accuracy"][0] for name in ("eps", "steps", "restarts")]
    diagonal = sum(row[label] for label, row in enumerate(table["matrix"]))
    assert [diagonal / 64, *curves] == [table["accuracy"]] * 4
    assert {name: each["attack"]["stop_early"] for name, each in made.items()} == dict.fromkeys(made, True)
    assert 0.1 < table["accuracy"] < 0.95


def test_entropy_by_hand() -> None:
    assert entropy(torch.tensor([0.5, 0.5, 0])).item() == pytest.approx(math.log(2))
    shares = torch.tensor([[0.9, 0.1, 0], [0.1, 0.9, 0], [0.25, 0.75, 0], [0.25, 0.75, 0]])
    model = Whole(lambda x: shares.clamp(min=1e-30).log()[(x[:, 0, 0, 0] * 10).round().long()])
    x, _ = pixels(0.0, 0.2, 0.1, 0.3)
    found = attack_entropy(model, x, torch.tensor([0, 1, 0, 1]), {"none": still})["none"]
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert found["class_entropy"] == [pytest.approx(math.log(2)), pytest.approx(quarter), None]
    assert found["entropy"] == pytest.approx((math.log(2) + quarter) / 2)
    assert found["normalised"] == pytest.approx(found["entropy"] / math.log(3))
    assert found["confusion"] == [[1, 1, 0], [0, 2, 0], [0, 0, 0]] and found["accuracy"] == 0.75


def test_entropy_attacks_one_class_at_a_time(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    batches = []

    def make(x: Images, target: Labels, noise: ImageNoise) -> Images:
        batches.append((set(target.tolist()), len(x)))
        return x

    attack_entropy(trained_net(), x, y, {"seen": Scripted(make=make)}, batch=4)
    assert all(len(labels) == 1 and 0 < size <= 4 for labels, size in batches)
    assert sum(size for _, size in batches) == 64


@pytest.mark.parametrize("kind", ["nuclear", "frobenius"])
def test_an_attack_on_the_logit_matrix_spreads_a_class(mnist: tuple[Images, Labels], kind: Any) -> None:
    found = attack_entropy(
        trained_net(), *mnist, {"none": still, kind: LogitMatrix(eps=0.2, kind=kind, steps=5)}, batch=10
    )
    assert found[kind]["accuracy"] < found["none"]["accuracy"] - 0.3
    assert found[kind]["entropy"] > found["none"]["entropy"] + 0.3


def test_nuclear_norms_are_numpy_s(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    net = trained_net().eval()
    shift = 0.45 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).sign()

    def make(x: Images, target: Labels, noise: ImageNoise) -> Images:
        return (x + shift[noise.index]).clamp(0, 1)

    found = nuclear_norms(net, x, y, Scripted(make=make), batch=64)
    with torch.no_grad():
        clean, attacked = net(x), net((x + shift).clamp(0, 1))
    right, holds = clean.argmax(1) == y, attacked.argmax(1) == y
    groups = {"robust": right & holds, "broken": right & ~holds}
    sizes = {name: int(mask.sum()) for name, mask in groups.items()}
    smaller = min(sizes, key=lambda name: sizes[name])
    assert 1 < sizes[smaller] and found["batch"] == sizes[smaller]
    assert {name: found[name]["images"] for name in groups} == sizes
    moved = (attacked - clean)[groups[smaller]].double().numpy()
    wanted = np.linalg.svd(moved, compute_uv=False).sum()
    assert found[smaller]["norms"] == [pytest.approx(wanted, rel=1e-4)]
    assert found[smaller]["per_image"] == pytest.approx(wanted / len(moved), rel=1e-4)
    other = "robust" if smaller == "broken" else "broken"
    assert len(found[other]["norms"]) == sizes[other] // sizes[smaller]
    one = nuclear_norms(net, x, y, Scripted(make=make), batch=1)  # of one image it is the vector's length
    lengths = (attacked - clean)[groups["broken"]].norm(dim=1)
    assert sorted(one["broken"]["norms"]) == pytest.approx(sorted(lengths.tolist()), rel=1e-4)


def test_a_group_without_images_has_no_norm(mnist: tuple[Images, Labels]) -> None:
    found = nuclear_norms(trained_net(), *mnist, still)
    assert found["broken"] == {"images": 0, "norms": [], "mean": None, "per_image": None}
    assert found["robust"]["mean"] == 0 and found["batch"] == 32


def test_logit_distance_is_the_signal_s(mnist: tuple[Images, Labels], monkeypatch: pytest.MonkeyPatch) -> None:
    net, threat = trained_net(), Threat("linf", 0.2)
    wanted = logit_distance(net, *mnist, threat, ImageNoise(5, "diagnostics", list(range(64))))
    monkeypatch.setattr(common, "NUMBERS", 1)
    found = mean_logit_distance(net, *mnist, threat, seed=5)["distance"]
    assert found == pytest.approx(float(wanted), rel=1e-5) and found > 0.1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_boundary_of_a_linear_model(norm: Norm) -> None:
    model, x, y, distance = linear_problem(norm)
    attacks = {"fab": FAB(eps=distance / 10, norm=norm, steps=20, minimise=True)}
    for factor, accuracy in [(0.99, 1), (1.02, 0)]:
        found = boundary_distance(model, x, y, attacks, Threat(norm, factor * distance))
        assert found["distance"] == [pytest.approx(distance, rel=1e-2)] and found["quantiles"]["0.5"] >= distance
        assert found["accuracy_at_eps"] == accuracy and found["found"] == found["right"] == 1


def test_distances_quantiles_and_counts_by_hand() -> None:
    x, y = pixels(0.1, 0.2, 0.3, 0.4, 0.6)
    farther = Scripted(make=lambda x, y, noise: torch.where(x < 0.25, x, 0.55))  # finds the last two right ones
    nearer = Scripted(make=lambda x, y, noise: torch.where(x < 0.15, x, torch.where(x < 0.25, 0.7, 0.51)))
    found = boundary_distance(
        Whole(two_classes),
        x,
        y,
        {"farther": farther, "nearer": nearer},
        Threat("linf", 0.3),
        quantiles=[0.25, 0.5, 0.75, 1],
    )
    assert found["distance"] == [None, pytest.approx(0.5), pytest.approx(0.21), pytest.approx(0.11), 0]
    expected = {"0.25": 0.11, "0.5": 0.21, "0.75": 0.5}
    assert {name: found["quantiles"][name] for name in expected} == pytest.approx(expected)
    assert found["quantiles"]["1"] is None and found["mean"] == pytest.approx(0.82 / 3)
    assert found["right"] == 4 and found["found"] == 3
    assert found["found_by"] == {"farther": 2, "nearer": 3} and found["closest_by"] == {"farther": 0, "nearer": 3}
    assert found["accuracy_at_eps"] == 0.4
    with pytest.raises(ValueError, match="use one norm"):
        boundary_distance(Whole(two_classes), x, y, {"far": farther}, Threat("l2", 0.3))


def test_transfer_is_what_it_says(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    nets = {"first": trained_net().eval(), "second": disturbed(0.7).eval()}
    found = transfer_matrix(nets, x, y, FGSM(eps=0.1))
    for row, source in enumerate(nets.values()):
        moving = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(source(moving), y, reduction="sum"), moving)
        x_adv = (x + 0.1 * gradient.sign()).clamp(0, 1)
        for column, target in enumerate(nets.values()):
            after, before = target(x_adv).argmax(1) == y, target(x).argmax(1) == y
            assert found["accuracy"][row][column] == pytest.approx(float(after.float().mean()), abs=1 / 128)
            fell = (before & ~after).sum() / before.sum()
            assert found["transfer_rate"][row][column] == pytest.approx(float(fell), abs=1 / 64)
    assert found["accuracy"][0][0] != found["accuracy"][0][1]


def test_transfer_to_itself_is_the_white_box_attack(mnist: tuple[Images, Labels]) -> None:
    net, attack = trained_net(), PGD(eps=0.1, steps=5)
    found = transfer_matrix({"a": net, "b": net}, *mnist, attack, seed=2)
    x_adv = attack(net, *mnist, ImageNoise(2, "diagnostics", list(range(64))))
    wanted = float((net.eval()(x_adv).argmax(1) == mnist[1]).float().mean())
    assert found["accuracy"] == [[wanted, wanted], [wanted, wanted]] and found["models"] == ["a", "b"]
    assert found["clean_accuracy"][0] > wanted


def everything(model: nn.Module, x: Images, y: Labels) -> list[Any]:
    """Each diagnostic once, small, with random starts."""
    pgd, threat = PGD(eps=0.1, steps=2), Threat("linf", 0.1)
    return [
        accuracy_by_eps(model, x, y, pgd, [0, 0.05, 0.1]),
        accuracy_by_steps(model, x, y, pgd, [1, 3]),
        accuracy_by_restarts(model, x, y, pgd, 3),
        loss_by_eps(model, x, y, threat, [0.1], steps=2),
        loss_surface(model, x, y, threat, along=[0, 0.1], across=[0, 0.1]),
        confusion(model, x, y, pgd),
        nuclear_norms(model, x, y, pgd, batch=4),
        mean_logit_distance(model, x, y, threat),
        boundary_distance(model, x, y, {"pgd": pgd}, threat),
        attack_entropy(model, x, y, {"nuclear": LogitMatrix(eps=0.1, steps=2)}, batch=40),
        transfer_matrix({"one": model}, x, y, pgd),
    ]


def test_nothing_depends_on_how_much_is_done_at_a_time(
    mnist: tuple[Images, Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FixedBatchModel(trained_net(), 16)
    at_once = everything(model, *mnist)
    monkeypatch.setattr(common, "NUMBERS", 1)
    monkeypatch.setattr(common, "block_size", lambda device, n: 13)
    assert common.chunk_size(mnist[0]) == 13
    for one, other in zip(at_once, everything(model, *mnist), strict=True):
        assert one == other


def test_models_are_left_as_they_were(mnist: tuple[Images, Labels]) -> None:
    net = trained_net()
    with unchanged(net):
        everything(net, mnist[0][:20], mnist[1][:20])


def test_an_attack_that_cheats_is_at_fault() -> None:
    x, y = pixels(0.1)
    for make, said in [(lambda x, y, n: x + 0.2, "beyond eps"), (lambda x, y, n: x - 0.2, "outside")]:
        with pytest.raises(RuntimeError, match=said):
            confusion(Whole(two_classes), x, y, Scripted(make=make, eps=0.1, minimise=False))


def test_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="no images"):
        accuracy_by_eps(
            Whole(two_classes), torch.empty(0, 1, 1, 1), torch.empty(0, dtype=torch.int64), FGSM(eps=1), [1]
        )
