"""The verdict on numbers that are known to be right or wrong, and each check on a model that fails it and no other.

What is right or wrong is known from how a model was made: attacked in earnest or not at all, or spoiled by a wrapper.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import re
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import broken_models as broken
import pytest
import torch
import torch.nn.functional as F
from broken_defences import k_winners
from paths import NETS
from problems import SmallNet, unchanged
from scipy.stats import hypergeom
from torch import Tensor, nn

from toughen import load
from toughen.attacks import APGDT, FGSM, PGD, Square
from toughen.attacks.base import Attack
from toughen.core.gradients import mode
from toughen.core.objectives import margin_loss, misclassified
from toughen.core.rng import ImageNoise
from toughen.core.threat import Threat
from toughen.core.types import Images, Logits
from toughen.data import load as load_data
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation import verdict
from toughen.evaluation.checks import stronger
from toughen.evaluation.checks.base import Check, CheckContext, Claim
from toughen.evaluation.checks.chance import allowed, at_most
from toughen.evaluation.checks.data import agreement_by_chance, input_range, labels_fit
from toughen.evaluation.checks.gradients import gradient_correct
from toughen.evaluation.checks.probes import ProbeResults
from toughen.evaluation.examination import LIMIT, Examination
from toughen.evaluation.examination_state import ExaminationState
from toughen.evaluation.verdict import Verdict, verdict_of

THREAT = Threat("linf", 0.1)
MakeAttacks = Callable[[Threat], list[Attack]]


def in_earnest(threat: Threat) -> list[Attack]:
    """What a number should be made with."""
    pgd = PGD(eps=threat.eps, norm=threat.norm, steps=30, stop_early=True)
    return [pgd, replace(pgd, objective=margin_loss)]


def by_fgsm(threat: Threat) -> list[Attack]:
    return [FGSM(eps=threat.eps, norm=threat.norm)]


def not_at_all(threat: Threat) -> list[Attack]:
    return []


@cache
def _trained(hardened: bool) -> SmallNet:
    """Reads digits; hardened with one random start and two steps at each batch, it holds against eps 0.1."""
    train = load_data("mnist-5k").train
    model = SmallNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    attack = PGD(eps=THREAT.eps, steps=2, step_size=THREAT.eps)
    for _ in range(150 if hardened else 80):
        some = train.take(torch.randint(len(train), (128,)))
        x = some.images.float() / 255
        x = attack(model, x, some.labels) if hardened else x
        optimizer.zero_grad()
        F.cross_entropy(model(x), some.labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval()


def small_net(*, hardened: bool = True) -> SmallNet:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return copy.deepcopy(_trained(hardened))


def claim_of(
    net: nn.Module,
    attacks: MakeAttacks = in_earnest,
    *,
    threat: Threat = THREAT,
    n: int = 200,
    seed: int = 0,
    data: str = "mnist-5k",
    sample: int | None = None,
) -> tuple[Claim, FixedBatchModel]:
    """A number, made by hand out of attacks; on every fifth test image or so, or on a random sample of this number."""
    split = load_data(data).test
    rows = torch.arange(0, len(split), len(split) // n)[:n]
    if sample is not None:
        rows = torch.randperm(len(split), generator=torch.Generator().manual_seed(sample))[:n].sort().values
    images, y = split.images[rows], split.labels[rows]
    trained_mode, x = net.training, images.float() / 255
    with torch.random.fork_rng(), mode(net, "eval"):
        blocks = FixedBatchModel(net, 32)
        correct = ~misclassified(blocks.exact(x), y)
        robust = correct.clone()
        for i, attack in enumerate(attacks(threat)):
            x_adv = attack(blocks, x, y, ImageNoise(seed, str(i), rows.tolist()))
            robust = robust & ~blocks.misclassifies(x_adv, y)
    number = float(robust.double().mean())
    return Claim(net, images, y, rows, threat, seed, robust, correct, number, trained_mode), blocks


def checks(claim: Claim, model: FixedBatchModel, limit: int = LIMIT) -> list[Check]:
    """Every check that can be made, without a budget; the results of the others have the reason."""
    examination = Examination(claim, model, ExaminationState(), limit)
    examination.make()
    return examination.checks()


def judged(claim: Claim, blocks: FixedBatchModel, limit: int = 32) -> tuple[Verdict, dict[str, Check]]:
    found = checks(claim, blocks, limit)
    return verdict_of(found), {check.name: check for check in found}


def failed(found: dict[str, Check]) -> set[str]:
    return {name for name, check in found.items() if check.passed is False}


# ---- the word


def test_the_word_is_the_worst_that_a_check_says() -> None:
    fine, unknown = Check("a", True, 0.0, 1.0, "."), Check("b", None, None, None, "Not made: why.")
    rough, hidden = Check("c", False, 2.0, 1.0, "."), Check("d", False, 2.0, 1.0, ".", masking=True)
    assert verdict_of([]) == verdict_of([fine, unknown]) == "sound"
    assert verdict_of([fine, rough, unknown]) == "doubtful"
    assert verdict_of([hidden, rough, fine]) == "masked"


@pytest.mark.parametrize(("n", "share"), [(10, 0.1), (100, 0.03), (40, 0.5), (1, 0.03), (7, 0.0)])
def test_what_is_allowed_is_the_binomial_quantile(n: int, share: float) -> None:
    def at_most(count: int) -> float:
        return sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(count + 1))

    count = round(allowed(n, share) * n)
    assert at_most(count) >= 0.99 and (count == 0 or at_most(count - 1) < 0.99)


@pytest.mark.parametrize(
    ("broken", "n", "of"),
    [(0, 1, 10), (0, 12, 160), (3, 40, 160), (2, 100, 1000), (5, 50, 60), (1, 100, 100_000)],
)
def test_what_may_be_broken_at_most_is_the_hypergeometric_limit(broken: int, n: int, of: int) -> None:
    limit = at_most(broken, n, of)
    assert hypergeom.cdf(broken, of, limit, n) >= 0.05
    assert limit == of - n + broken or hypergeom.cdf(broken, of, limit + 1, n) < 0.05


def test_of_all_images_nothing_is_left_to_chance() -> None:
    """Of one of ten, 9 may break and yet none be seen in a tenth of all draws; of ten of ten none."""
    assert at_most(0, 1, 10) == 9 and at_most(0, 10, 10) == 0 and at_most(4, 10, 10) == 4


def test_all_is_allowed_where_nothing_is_asked() -> None:
    assert allowed(0, 0.03) == allowed(10, 1.0) == allowed(10, 3.0) == 1.0


# ---- numbers that are right, and numbers that are not


@pytest.mark.parametrize(
    ("threat", "hardened"),
    [
        pytest.param(THREAT, True, marks=pytest.mark.slow),
        pytest.param(Threat("linf", 0.03), True, marks=pytest.mark.slow),
        pytest.param(Threat("l2", 0.5), True, marks=pytest.mark.slow),
        pytest.param(Threat("linf", 0.02), False, marks=pytest.mark.slow),
    ],
)
def test_a_number_made_in_earnest_is_sound(threat: Threat, hardened: bool) -> None:
    claim, blocks = claim_of(small_net(hardened=hardened), threat=threat)
    assert claim.robust_accuracy > 0.3
    found, by_name = judged(claim, blocks)
    assert found == "sound", [by_name[name].sentence for name in failed(by_name)]
    assert {name for name, check in by_name.items() if check.passed is None} == {"white-box beats black-box"}


@pytest.mark.slow
@pytest.mark.parametrize("hardened", [True, False])
def test_a_number_that_no_attack_made_is_not_sound(hardened: bool) -> None:
    claim, blocks = claim_of(small_net(hardened=hardened), not_at_all)
    found, by_name = judged(claim, blocks)
    assert found == ("doubtful" if hardened else "masked")  # it is off by some 15 points, or by nearly all
    assert failed(by_name) >= {"no stronger attack is found", "more steps change little"}


@pytest.mark.slow
def test_one_image_says_nothing() -> None:
    """What a check allows for chance is all of one image; of a number of nearly 0 nothing can be too high."""
    claim, blocks = claim_of(small_net(), not_at_all)
    first, last = claim.robust.nonzero()[[0, -1], 0]
    for rows, said in ((first[None], {"enough images"}), (torch.stack([first, last]), set())):
        some = {name: getattr(claim, name)[rows] for name in ("images", "labels", "index", "robust", "correct")}
        assert failed(judged(replace(claim, **some), blocks)[1]) & {"enough images"} == said
    one = torch.zeros_like(claim.robust)
    one[first] = True
    assert judged(replace(claim, robust=one, robust_accuracy=1 / 200), blocks)[1]["enough images"].passed
    assert judged(replace(claim, robust=one, robust_accuracy=0.04), blocks)[1]["enough images"].passed is False


def test_nothing_standing_is_sound_and_says_what_was_not_made() -> None:
    claim, blocks = claim_of(small_net(hardened=False), threat=Threat("linf", 0.3))
    assert claim.robust_accuracy == 0
    found, by_name = judged(claim, blocks)
    assert found == "sound", failed(by_name)
    assert by_name["no stronger attack is found"].passed is None
    assert "no image is robust" in by_name["no stronger attack is found"].sentence
    assert by_name["gradients that are not zero"].passed


@pytest.mark.parametrize("threat", [Threat("linf", 1.0), Threat("l2", 20.0)])
def test_a_threat_as_large_as_the_unbounded_attack_is_attacked_without_bounds_too(threat: Threat) -> None:
    claim, blocks = claim_of(small_net(hardened=False), not_at_all, threat=threat, n=40)
    _, by_name = judged(claim, blocks, 8)
    check = by_name["an unbounded attack reaches 0 %"]
    assert check.passed and check.figure == 0


# ---- models that hide, or answer about something else

SPOILED: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "quantised": (broken.Quantised, "gradients that are not zero"),
    "finely quantised": (partial(broken.Quantised, levels=256), "gradients that are not zero"),
    "detached": (broken.Detached, "gradients that are not zero"),
    "no slope at black": (broken.NoSlopeAtBlack, "gradients that are not zero"),
    "wrong gradient": (broken.WrongGradient, "gradients of the function itself"),
    "tilted gradient": (broken.TiltedGradient, "gradients of the function itself"),
    "clipped": (broken.Clipped, "gradients in the pixels that matter"),
    "shattered": (broken.Shattered, "gradients that are not noise"),
    "scaled": (broken.Scaled, "logits of a usual size"),
    "noisy": (broken.Noisy, "the same answer each time"),
    "probabilities": (broken.Probabilities, "logits, not probabilities"),
    "noisy at a height": (broken.NoisyOnHeight, "the same answer each time"),
    "vote": (lambda net: broken.Vote(net, small_net()), "a margin without jumps"),
    "terraced": (broken.Terraced, "a step without jumps"),
    "k-winners-take-all": (lambda net: k_winners(), "a step without jumps"),
    "rounded to two levels": (partial(broken.Quantised, levels=2), "a margin without jumps"),
    "batch statistics": (broken.BatchStatistics, "the same answer alone"),
    "two-faced": (broken.TwoFaced, "the same answer alone"),
    "wants 0..255": (partial(broken.Wants, shift=0.0, scale=1 / 255), "images as the model wants them"),
    "wants -1..1": (partial(broken.Wants, shift=0.5, scale=0.5), "images as the model wants them"),
    "renumbered": (broken.Renumbered, "labels that fit"),
}


def looked_at(net: nn.Module) -> dict[str, Check]:
    """The checks that look at the model's answers and slopes, which take no attack."""
    claim, blocks = claim_of(net, not_at_all)
    context = CheckContext(claim, blocks, 40)
    selected = [each for each in verdict.MODEL_CHECKS.values() if context.differentiable or each.about != "gradients"]
    return {each.name: each.make(context, each.name) for each in selected}


@pytest.mark.parametrize("hardened", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_model_fails_the_check_that_is_made_for_it(name: str, hardened: bool) -> None:
    spoil, check = SPOILED[name]
    assert check in verdict.MODEL_CHECKS, "this table is for checks that run the model; test others by their function"
    found = failed(looked_at(spoil(small_net(hardened=hardened))))
    assert check in found, found


class ZeroWhereBright(broken.Wrapper):
    """Answers 0 for images that leave [-1, 1], as a net may that is given numbers unlike those it was trained on."""

    def forward(self, x: Images) -> Logits:
        zero = F.one_hot(torch.zeros(len(x), dtype=torch.int64), 10).float()
        return torch.where(x.amax((1, 2, 3))[:, None] > 1.01, zero, super().forward(x))


def test_with_a_budget_other_ranges_are_tried_on_images_of_all_classes() -> None:
    """The digits are sorted: on the first sixteen, zeros all, 0..255 would seem best and hide that -1..1 is."""
    claim, blocks = claim_of(ZeroWhereBright(broken.Wants(small_net(hardened=False), shift=0.5, scale=0.5)), not_at_all)
    context = CheckContext(claim, blocks, 100)
    context.unlimited = False
    check = input_range(context, "range")
    assert check.passed is False and "pixels of -1 to 1" in check.sentence


@pytest.mark.parametrize("name", ["shattered", "scaled"])
def test_what_is_steep_does_not_jump(name: str) -> None:
    assert looked_at(SPOILED[name][0](small_net()))["a step without jumps"].passed


@pytest.mark.parametrize("spoil", [nn.Identity, broken.InFloat64, broken.OnlyFloat32])
@pytest.mark.parametrize("hardened", [True, False])
def test_a_healthy_model_fails_none_of_them(hardened: bool, spoil: Callable[..., nn.Module]) -> None:
    net = small_net(hardened=hardened)
    found = looked_at(net if spoil is nn.Identity else spoil(net))
    assert not failed(found) and all(check.passed for check in found.values())


# ---- rounding with a gradient that is replaced on purpose, which attacks can follow


class Rounded(broken.Quantised):
    """Rounds the image to a few levels, with the gradient of the image itself (straight-through)."""

    def forward(self, x: Images) -> Logits:
        rounded = (x * (self.levels - 1)).round() / (self.levels - 1)
        out: Logits = self.net(x + (rounded - x).detach())
        return out


class EightBits:
    """A layer's output in eight bits, by PyTorch's own rounding; the first output that is seen sets the scale."""

    def __init__(self) -> None:
        self.largest = 0.0

    def __call__(self, layer: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> Tensor:
        self.largest = self.largest or float(out.abs().max())
        return torch.fake_quantize_per_tensor_affine(out.float(), self.largest / 127, 0, -127, 127).to(out)


def eight_bit(net: nn.Module, images: Images) -> nn.Module:
    """The net with weights and activations in eight bits, as in quantisation-aware training."""
    for layer in [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]:
        layer.register_forward_hook(EightBits())
        with torch.no_grad():
            layer.weight.copy_(EightBits()(layer, (), layer.weight))
    with torch.no_grad():
        net(images)
    return net


ROUNDED: dict[str, Callable[[nn.Module, Images], nn.Module]] = {
    "image in 256 levels": lambda net, images: Rounded(net, 256),
    "image in 16 levels": lambda net, images: Rounded(net, 16),
    "weights and activations in 8 bits": eight_bit,
}


NARROW = [name for name in ROUNDED if "16" not in name]  # levels that are narrower than the smaller eps


@pytest.mark.parametrize(
    ("name", "hardened"),
    [*((name, True) for name in ROUNDED), *(pytest.param(name, False, marks=pytest.mark.slow) for name in NARROW)],
)
def test_rounding_with_a_straight_through_gradient_is_sound(name: str, hardened: bool) -> None:
    plain, threat = small_net(hardened=hardened), THREAT if hardened else Threat("linf", 0.03)
    net = ROUNDED[name](copy.deepcopy(plain), load_data("mnist-5k").test.images[:100].float() / 255)
    claim, blocks = claim_of(net, threat=threat)
    assert abs(claim.robust_accuracy - claim_of(plain, threat=threat)[0].robust_accuracy) < 0.05
    found, by_name = judged(claim, blocks)
    assert found == "sound", [by_name[each].sentence for each in failed(by_name)]
    assert "attacks can follow the gradient" in by_name["gradients of the function itself"].sentence


@pytest.mark.slow
@pytest.mark.parametrize("name", ["image in 256 levels", "weights and activations in 8 bits"])
def test_and_so_it_is_on_colour_images(name: str, data_root: Path) -> None:
    images = load_data(str(data_root / "cifar10")).test.images[:100].float() / 255
    net = ROUNDED[name](digits_net("cifar-pgd-at"), images)
    claim, blocks = claim_of(net, threat=Threat("linf", 8 / 255), n=300, data=str(data_root / "cifar10"))
    found, by_name = judged(claim, blocks, 60)
    assert found == "sound", [by_name[each].sentence for each in failed(by_name)]


class TimesGradient(nn.Linear):
    """A linear model whose gradient is multiplied by a factor."""

    def __init__(self, factor: float) -> None:
        torch.manual_seed(0)
        super().__init__(784, 10)
        self.factor = factor

    def forward(self, x: Images) -> Logits:
        out = super().forward(x.flatten(1))
        return self.factor * out + ((1 - self.factor) * out).detach()


@pytest.mark.parametrize(("factor", "passes"), [(1.0, True), (2.4, True), (2.6, False), (0.6, False), (-1.0, False)])
def test_a_step_may_change_the_margin_by_two_fifths_to_one_and_a_half_of_the_prediction(
    factor: float, passes: bool
) -> None:
    """The margin of a linear model changes by the prediction divided by the factor, while its two best classes stay."""
    claim, blocks = claim_of(TimesGradient(factor), not_at_all, threat=Threat("linf", 1e-4))
    check = gradient_correct(CheckContext(claim, blocks, 40), "gradients of the function itself")
    assert check.passed == passes and check.masking != passes
    assert check.figure == pytest.approx(0.0 if passes else 1.0, abs=0.05)


@pytest.mark.parametrize("name", ["quantised", "scaled", "noisy", "probabilities"])
def test_a_spoiled_model_is_never_sound_even_where_nothing_stands(name: str) -> None:
    claim, blocks = claim_of(SPOILED[name][0](small_net()), not_at_all)
    claim = replace(claim, robust=torch.zeros_like(claim.robust), robust_accuracy=0.0)
    assert judged(claim, blocks)[0] != "sound"


def test_shuffled_labels_are_doubtful() -> None:
    claim, blocks = claim_of(small_net(), not_at_all)
    y = claim.labels[torch.randperm(len(claim.labels))]
    correct = claim.correct & (y == claim.labels)
    found, by_name = judged(
        replace(claim, labels=y, correct=correct, robust=correct & False, robust_accuracy=0.0), blocks
    )
    assert found == "doubtful"
    assert failed(by_name) == {"labels that fit"}


@pytest.mark.slow
def test_floats_are_judged_as_bytes_are() -> None:
    claim, blocks = claim_of(small_net())
    floats = replace(claim, images=claim.images.float() / 255)
    assert checks(floats, blocks, 32) == checks(claim, blocks, 32)


def test_a_few_images_that_fit_some_numbering_are_chance() -> None:
    """An untrained net of few answers, read in the kindest way, seems to know a third of 50 images."""
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)).eval()
    claim, blocks = claim_of(net, not_at_all, n=50)
    sentence = judged(claim, blocks)[1]["labels that fit"].sentence
    assert "chance" in sentence and "numbered" not in sentence


@pytest.mark.parametrize(("classes", "n"), [(100, 100), (100, 150), (200, 200), (100, 200)])
def test_of_many_classes_a_third_right_is_no_other_numbering(classes: int, n: int) -> None:
    """A third right and the rest at random, of one or two images per class, as of CIFAR-100 within a budget."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        y = torch.arange(n) % classes
        right = torch.rand(n, generator=generator) < 1 / 3
        predicted = torch.where(right, y, torch.randint(classes, (n,), generator=generator))
        images = torch.nn.functional.one_hot(predicted, classes).view(n, 1, 1, classes).mul(255).to(torch.uint8)
        correct = predicted == y
        share = float(correct.double().mean())
        claim = Claim(
            nn.Flatten().eval(), images, y, torch.arange(n), THREAT, 0, correct, correct, share
        )  # fmt: skip
        context = CheckContext(claim, FixedBatchModel(claim.net, 32), n, None)
        assert labels_fit(context, "labels that fit").passed


@pytest.mark.parametrize(
    ("predicted", "labels", "classes"),
    [
        ([0, 0, 1, 2, 0, 1], [0, 1, 1, 2, 2, 0], 3),
        ([0] * 6, [0, 0, 0, 0, 1, 1], 2),
        ([1, 1, 0, 0, 0], [1, 0, 0, 0, 1], 4),
    ],
)
def test_agreement_by_chance_is_that_of_all_orders(predicted: list[int], labels: list[int], classes: int) -> None:
    shares = [
        sum(a == b for a, b in zip(predicted, order, strict=True)) / len(labels)
        for order in itertools.permutations(labels)
    ]
    mean, deviation = agreement_by_chance(torch.tensor(predicted), torch.tensor(labels), classes)
    assert mean == pytest.approx(statistics.mean(shares)) and deviation == pytest.approx(statistics.pstdev(shares))


def test_a_model_that_nearly_always_answers_the_frequent_class_has_learnt_nothing() -> None:
    """Nine of ten images are zeros: a bias makes an untrained net right on most of them; a trained one is better."""
    split = load_data("mnist-5k").test
    frequent, others = (split.labels == 0).nonzero()[:90, 0], (split.labels > 0).nonzero()[:10, 0]
    rows = torch.cat([frequent, others])
    torch.manual_seed(0)
    linear = nn.Linear(784, 10)
    biased = nn.Sequential(nn.Flatten(), linear).eval()
    with torch.no_grad():
        linear.bias[0] = 1.0
    for net, passes in ((biased, False), (small_net(), True)):
        images, y = split.images[rows], split.labels[rows]
        blocks = FixedBatchModel(net, 32)
        correct = ~blocks.misclassifies(images.float() / 255, y)
        share = float(correct.double().mean())
        claim = Claim(net, images, y, rows, THREAT, 0, correct, correct, share)
        check = labels_fit(CheckContext(claim, blocks, len(y), None), "labels that fit")
        assert share > 0.5 and check.passed is passes, check
        assert passes or "learnt only how frequent the classes are" in check.sentence


def test_a_few_images_are_not_called_chance_where_they_are_too_few_to_tell() -> None:
    """Two of eight right, of ten classes: above chance, 10 %, but 34.7 % is what one set in a hundred reaches."""
    claim, blocks = claim_of(small_net(), not_at_all, n=8)
    correct = torch.tensor([True, True] + 6 * [False])
    few = replace(claim, correct=correct, robust=correct & False, robust_accuracy=0.0)
    check = judged(few, blocks)[1]["labels that fit"]
    assert check.passed is False and check.sentence == (
        "The model classifies 25.0 % of the clean images correctly. Chance is 10.0 %, and 8 images are too few to "
        "show a difference: evaluate more."
    )


@pytest.mark.slow
def test_of_a_run_the_range_of_its_images_is_known() -> None:
    claim, blocks = claim_of(small_net(), not_at_all)
    check = judged(replace(claim, own=True), blocks)[1]["images as the model wants them"]
    assert check.passed is None and "a run is trained on images in [0, 1]" in check.sentence


# ---- what it needs, and what it leaves


@pytest.mark.slow
def test_without_a_source_the_black_box_is_not_made_and_with_one_it_is() -> None:
    claim, blocks = claim_of(small_net(), not_at_all)
    alone = judged(claim, blocks)[1]["white-box beats black-box"]
    assert alone.passed is None and alone.figure is None and alone.sentence.startswith("Not made")
    with_source = replace(claim, source=small_net(hardened=False))
    assert judged(with_source, blocks)[1]["white-box beats black-box"].passed is True


@pytest.mark.slow
def test_a_model_in_training_mode_is_judged_in_evaluation_mode_and_told_so() -> None:
    net = small_net().train()
    claim, blocks = claim_of(net)
    with unchanged(net):
        found, by_name = judged(claim, blocks)
    assert found == "sound"
    check = by_name["evaluation mode"]
    assert check.passed and check.figure is not None and check.figure > 0 and "training mode" in check.sentence


@pytest.mark.slow
def test_the_same_twice_whatever_was_drawn_before_and_no_trace_left() -> None:
    net = broken.Noisy(small_net())
    claim, _ = claim_of(net, not_at_all)
    blocks = FixedBatchModel(net, 8)
    with unchanged(net):
        first = checks(claim, blocks, 8)
        before = torch.random.get_rng_state()
        torch.rand(3)
        state = torch.random.get_rng_state()
        assert checks(claim, blocks, 8) == first
        assert torch.equal(torch.random.get_rng_state(), state) and not torch.equal(before, state)


def test_every_check_says_what_it_found_beside_what_it_wants() -> None:
    found = checks(*claim_of(small_net(), not_at_all), 32)
    assert len({check.name for check in found}) == len(found)
    for check in found:
        assert check.sentence.endswith(".") and len(check.sentence) < 400
        assert (check.figure is None) == (check.passed is None)
        assert check.figure is None or math.isfinite(check.figure)


# ---- trained nets, each held against what it was trained for

SOUND = {  # run, threat
    "pgd-at": Threat("linf", 0.3),
    "trades": Threat("linf", 0.3),
    "nuat": Threat("linf", 0.3),
    "fbf": Threat("linf", 0.1),  # at 0.3 PGD's number is 25 points above APGD-T's, so it is not sound there
    "pgd-at at a small eps": Threat("linf", 0.05),
    "pgd-at within an L2 ball": Threat("l2", 1.0),
}
HIDING = ["quantised", "scaled", "noisy", "probabilities"]


def digits_net(name: str) -> nn.Module:
    return load(NETS / name.split(" ")[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_a_trained_net_attacked_in_earnest_is_sound(name: str) -> None:
    claim, blocks = claim_of(digits_net(name), threat=SOUND[name], n=300)
    found, by_name = judged(claim, blocks, 60)
    assert found == "sound", [by_name[name].sentence for name in failed(by_name)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "threat"), [("cifar-pgd-at", Threat("linf", 8 / 255)), ("cifar-pgd-at-l2", Threat("l2", 0.5))]
)
def test_and_so_is_one_of_colour_images(name: str, threat: Threat, data_root: Path) -> None:
    claim, blocks = claim_of(load(NETS / name), threat=threat, n=300, data=str(data_root / "cifar10"))
    assert 0.2 < claim.robust_accuracy < 0.6
    found, by_name = judged(claim, blocks, 60)
    assert found == "sound", [by_name[name].sentence for name in failed(by_name)]


def by_apgd_t(threat: Threat) -> list[Attack]:
    """What a net takes that PGD does not get at: the larger part of AutoAttack."""
    return [APGDT(eps=threat.eps, norm=threat.norm), Square(eps=threat.eps, norm=threat.norm, queries=1500)]


@pytest.mark.slow
def test_a_net_that_pgd_overestimates_is_sound_by_autoattack_alone() -> None:
    net, threat = digits_net("fbf"), Threat("linf", 0.3)
    claim, blocks = claim_of(net, threat=threat, n=100)
    assert judged(claim, blocks, 60)[0] != "sound"
    claim, blocks = claim_of(net, by_apgd_t, threat=threat, n=100)
    found, by_name = judged(claim, blocks, 60)
    assert found == "sound", [by_name[name].sentence for name in failed(by_name)]


@pytest.mark.slow
def test_a_collapsed_net_is_not_sound_by_fgsm_and_sound_at_its_true_number() -> None:
    net, threat = digits_net("fgsm-at"), Threat("linf", 0.3)
    claim, blocks = claim_of(net, by_fgsm, threat=threat, n=300)
    assert claim.robust_accuracy > 0.7
    assert judged(claim, blocks)[0] == "masked"
    claim, blocks = claim_of(net, threat=threat, n=300)
    assert claim.robust_accuracy < 0.1
    assert judged(claim, blocks)[0] == "sound"


@pytest.mark.slow
@pytest.mark.parametrize("kind", HIDING)
@pytest.mark.parametrize("name", ["pgd-at", "standard"])
def test_a_trained_net_that_hides_is_never_sound(name: str, kind: str) -> None:
    claim, blocks = claim_of(SPOILED[kind][0](digits_net(name)), threat=Threat("linf", 0.3), n=100)
    assert judged(claim, blocks)[0] != "sound"


def test_an_attack_on_few_images_is_not_diluted_by_others_on_many() -> None:
    """Square breaks 10 of 20 images, FGSM's kin none of 100: a tenth of all images, and half of those it was run on."""
    claim, blocks = claim_of(small_net(), not_at_all, n=200)
    broken = {stronger.TARGETS[0]: [False] * 100, stronger.SQUARE: [True, False] * 10}
    results = ProbeResults(CheckContext(claim, blocks, 100), 100, broken)
    check = stronger.stronger(results, "no stronger attack is found")
    assert check.masking and check.images == 20
    assert check.figure == pytest.approx(0.5 * claim.robust_accuracy)
    assert "10 of 20 robust images" in check.sentence
    few = ProbeResults(CheckContext(claim, blocks, 100), 100, broken | {stronger.SQUARE: [False] * 20})
    check = stronger.stronger(few, "no stronger attack is found")
    assert check.passed and check.figure == 0.0 and check.images == 100


@pytest.mark.parametrize("name", verdict.check_functions())
def test_a_check_says_when_it_fails(name: str) -> None:
    passes, _, fails = (inspect.getdoc(verdict.check_functions()[name]) or "").partition("\n\n")
    assert passes.endswith(".") and re.search(r"^(Fails if|Never fails)", fails, re.M)
