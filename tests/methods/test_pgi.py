"""PGI against numbers worked out by hand and against the released algorithm written out."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from literal import Given, Pixels, Written, clip, close, pair, same_step, two_pixels
from torch import Tensor, nn

from toughen.core.rng import StepNoise
from toughen.core.types import Batch, Crafted, Images, Labels
from toughen.data import Augment
from toughen.methods.pgi import PGI

Prior = Literal["momentum", "epoch", "batch"]
E = 8 / 255


def made(model: nn.Module, shape: tuple[int, int, int] = (1, 28, 28), images: int | None = 64, **settings: Any) -> PGI:
    method = PGI(**settings)
    method.prepare(model, shape, 10, images)
    return method


def of(rows: Tensor | list[int], noise: Tensor | None = None, **moved: Any) -> Batch:
    given = None if noise is None else Given(noise.double())
    return Batch(index=torch.as_tensor(rows), noise=given, **moved)


# ---- By hand: the logits are the two pixels.


def test_three_visits_by_hand() -> None:
    # x = (1/2, 1/2), eps 1/4. The first start is x + (1/4, 1/4): logits (3/4, 3/4), gradient of label 0 along (-, +),
    # share (-1/2, 1/2): x_adv = x + (0, 1/4), and so the next start. Logits (1/2, 3/4) then.
    model, x, y = Pixels(), two_pixels((0.5, 0.5)), torch.tensor([0])
    method = made(model, (1, 1, 2), eps=0.25, lam=3)
    step = method(model, x, y, of([7], two_pixels((1, 1))))
    assert close(step.terms["robust"], math.log(1 + math.exp(0.25)))
    assert close(step.terms["distance"], 0.25**2 / 2)  # logits (3/4, 3/4) and (1/2, 3/4): the mean over two classes
    assert close(step.loss.detach(), math.log(1 + math.exp(0.25)) + 3 * 0.25**2 / 2)
    assert close(method.start_at[7:8], two_pixels((0, 0.25))) and close(method.momentum[7:8], two_pixels((-0.5, 0.5)))
    # Label 1 turns the gradient to (1/2, -1/2), the sum to (1/2 - 0.3/2, -1/2 + 0.3/2), still along (+, -).
    crafted = method.craft(model, x, torch.tensor([1]), of([7], two_pixels((1, 1))))
    assert close(crafted.extra["start"], two_pixels((0.5, 0.75))) and close(crafted.x_adv, two_pixels((0.75, 0.5)))
    assert close(method.momentum[7:8], two_pixels((0.35, -0.35))) and close(method.start_at[7:8], two_pixels((0.25, 0)))
    assert not method.seen[:7].any() and not method.start_at[:7].any()


def test_the_sum_of_gradients_decides_the_next_start_and_the_last_one_the_image() -> None:
    # Two images of which one is all but fitted: its share of the L1 norm is small, and its old direction wins.
    model, x, y = Pixels(), two_pixels((0.5, 0.5), (0.5, 0.5)), torch.tensor([0, 1])
    method = made(model, (1, 1, 2), eps=0.25)
    method.seen[:2] = True
    method.momentum[:2] = two_pixels((-0.5, 0.5), (-0.5, 0.5))
    crafted = method.craft(model, x, y, of([0, 1]))
    # each gradient is (-+1/2, +-1/2), half of the norm: shares (-+1/4, +-1/4), sums (-0.4, 0.4) and (0.1, -0.1)
    assert close(method.momentum[:2], two_pixels((-0.4, 0.4), (0.1, -0.1)))
    method.momentum[:2] = two_pixels((-0.5, 0.5), (-1.0, 1.0))
    method.start_at.zero_()
    crafted = method.craft(model, x, y, of([0, 1]))
    assert close(method.momentum[:2], two_pixels((-0.4, 0.4), (-0.05, 0.05)))
    assert close(crafted.x_adv, two_pixels((0.25, 0.75), (0.75, 0.25)))
    assert close(method.start_at[:2], two_pixels((-0.25, 0.25), (-0.25, 0.25)))


# ---- The released algorithm written out.


def smoothed(z: Tensor, y: Tensor, share: float) -> Tensor:
    """Against labels with 1 - share + share / k for the true class and share / k for the others."""
    log_p = z - z.exp().sum(1, keepdim=True).log()
    target = share / z.shape[1] + (1 - share) * F.one_hot(y, z.shape[1]).double()
    return -(target * log_p).sum(1).mean()


class Released:
    """All images' perturbations and sums of gradients, in the order of the released script."""

    def __init__(self, first: Tensor, *, prior: Prior, lam: float, decay: float, step: float, share: float) -> None:
        self.delta, self.momentum = E * first.sign(), torch.zeros_like(first)
        self.prior, self.lam, self.decay, self.step, self.share = prior, lam, decay, step, share

    def loss(self, written: Written, x: Tensor, y: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        delta = self.delta[rows].clone().requires_grad_()
        before = written.training(x + delta)
        (slope,) = torch.autograd.grad(smoothed(before, y, self.share), delta, retain_graph=True)
        delta = delta.detach()
        x_adv = clip(x + (delta + self.step * slope.sign()).clamp(-E, E), x, E)
        self.delta[rows] = x_adv - x
        if self.prior == "momentum":
            self.momentum[rows] = slope / slope.abs().sum() + self.decay * self.momentum[rows]
            along = (delta + self.step * self.momentum[rows].sign()).clamp(-E, E)
            self.delta[rows] = (x + along).clamp(0, 1) - x
        after = written.training(x_adv)
        return x_adv, smoothed(after, y, self.share) + self.lam * ((after - before) ** 2).mean()


@pytest.mark.parametrize("prior", ["momentum", "epoch", "batch"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"lam": 2, "step_size": 0.5 * E, "smoothing": 4 / 9}, {"decay": 0.9, "lam": 0}],
    ids=["released", "others", "heavy"],
)
def test_two_epochs_equal_the_released_algorithm(
    prior: Prior, settings: dict[str, Any], mnist: tuple[Images, Labels]
) -> None:
    """Two epochs of two batches, the second of each short, with optimizer steps between them."""
    net, written = pair()
    images, labels = mnist[0][:26].double(), mnist[1][:26]
    first = torch.randn_like(images).sign()
    method = made(net, images=26, eps=E, prior=prior, **settings)
    assert method.reset == 40
    told = {"lam": 10, "decay": 0.3, "step": settings.get("step_size", E), "share": settings.get("smoothing", 0)}
    told |= {key: value for key, value in settings.items() if key in told}
    released = Released(first, prior=prior, **told)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(2):
        for rows in torch.randperm(26).split(16):
            x, y = images[rows], labels[rows]
            places = torch.arange(len(rows)) if prior == "batch" else rows
            x_adv, loss = released.loss(written, x, y, places)
            optimizer.zero_grad()
            crafted = method.craft(net, x, y, of(rows, first[places]))
            assert close(crafted.x_adv, x_adv)
            same_step(net, method.loss(net, x, y, crafted).loss, written, loss)
            optimizer.step()
            with torch.no_grad():
                for ours, theirs in zip(net.parameters(), written.weights.values(), strict=True):
                    theirs.copy_(ours)
    known = len(method.seen)
    assert known == (16 if prior == "batch" else 26) and method.seen.all()
    assert close(method.start_at, released.delta[:known])
    assert len(method.momentum) == (26 if prior == "momentum" else 0)


# ---- What is kept follows the image.


def test_the_prior_follows_an_image_through_crop_and_mirroring(mnist: tuple[Images, Labels]) -> None:
    (net, _), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    augment = Augment(pad=3, flip=True)
    method = made(net, eps=E)
    before = torch.zeros_like(x)
    for visit in range(3):
        view, shift, flip = augment(x, StepNoise(seed=0, step=visit))
        noise = torch.randn_like(x).sign()
        crafted = method.craft(net, view, y, of(list(range(16)), noise, shift=shift, flip=flip))
        start = (crafted.extra["start"] - view).numpy()
        for image in range(16):
            (down, right), mirrored = shift[image].tolist(), bool(flip[image])
            for row, column in ((5, 9), (14, 14), (20, 6), (0, 0)):  # the last one leaves the frame at times
                to_row, to_column = row + down, column + right
                if not (0 <= to_row < 28 and 0 <= to_column < 28):
                    continue
                to_column = 27 - to_column if mirrored else to_column
                expected = (
                    float(before[image, 0, row, column]) if visit else E * float(noise[image, 0, to_row, to_column])
                )
                assert abs(start[image, 0, to_row, to_column] - expected) < 1e-9
        before = method.start_at[:16].clone()
    assert before.any()


def test_what_a_crop_leaves_out_of_sight_stays_as_it_was(mnist: tuple[Images, Labels]) -> None:
    (net, _), x, y = pair(), mnist[0][:8].double(), mnist[1][:8]
    method = made(net, eps=E)
    rows = list(range(8))
    method.craft(net, x, y, of(rows))
    start_at, momentum = method.start_at.clone(), method.momentum.clone()
    down = torch.tensor([[5, 0]] * 8)
    view = F.pad(x, [0, 0, 5, 0])[:, :, :28]
    crafted = method.craft(net, view, y, of(rows, shift=down))
    for kept, old in ((method.start_at, start_at), (method.momentum, momentum)):
        assert torch.equal(kept[:8, :, 23:], old[:8, :, 23:]) and not torch.equal(kept[:8, :, :23], old[:8, :, :23])
    assert torch.equal(crafted.extra["start"][:, :, :5], view[:, :, :5])  # padding starts at zero
    assert (crafted.x_adv[:, :, :5] != view[:, :, :5]).any()


# ---- Memory.


def test_all_is_forgotten_after_so_many_epochs(mnist: tuple[Images, Labels]) -> None:
    (net, _), x, y = pair(), mnist[0][:8].double(), mnist[1][:8]
    noise = torch.randn_like(x).sign()
    for reset, forgotten in ((2, [False, True, False, True]), (0, [False] * 4), (40, [False] * 4)):
        method = made(net, eps=E, reset=reset)
        found = []
        for _ in range(4):
            method.craft(net, x, y, of(list(range(8))))
            method.after_epoch({})
            twin = copy.deepcopy(method)
            start = twin.craft(net, x, y, of(list(range(8)), noise)).extra["start"]
            found.append(close(start, x + E * noise))
            assert bool(method.momentum.any()) is not found[-1]
        assert found == forgotten
    restored = made(net, eps=E)
    restored.load_state_dict(method.state_dict())
    assert restored.epoch == 4


def test_epochs_of_another_method_count_for_the_next_reset(mnist: tuple[Images, Labels]) -> None:
    """The released script forgets where ``epoch % 40 == 0``, whatever trained in between; here every third epoch.

    Epochs 0 and 1, then back to the state after epoch 0, another method in 2, and 3 to 8. The reset after epoch 2 falls
    into the other method's turn, so that it comes after epoch 3; the next ones come after epochs 5 and 8.
    """
    (net, _), x, y = pair(), mnist[0][:8].double(), mnist[1][:8]
    method, forgotten, healthy = made(net, eps=E, reset=3), list[int](), dict[str, Any]()
    for epoch in (0, 1, 3, 4, 5, 6, 7, 8):
        if epoch == 3:
            method.load_state_dict(healthy)
        method.craft(net, x, y, of(list(range(8))))
        method.after_epoch({"epoch": epoch})
        if epoch == 0:
            healthy = copy.deepcopy(method.state_dict())
        if not method.seen.any():
            forgotten.append(epoch)
    assert forgotten == [3, 5, 8]


def test_a_set_of_unknown_size_grows_and_is_restored(mnist: tuple[Images, Labels]) -> None:
    (net, _), x, y = pair(), mnist[0][:8].double(), mnist[1][:8]
    growing, sized = made(net, images=None, eps=E), made(net, images=40, eps=E)
    for rows in ([3, 1, 0, 2], [30, 4, 5, 6], [0, 30, 1, 9]):
        noise = torch.randn_like(x[:4]).sign()
        crafted = [each.craft(copy.deepcopy(net), x[:4], y[:4], of(rows, noise)).x_adv for each in (growing, sized)]
        assert torch.equal(*crafted)
    assert len(growing.seen) == len(growing.momentum) == 31
    restored = made(net, images=None, eps=E)
    restored.load_state_dict(growing.state_dict())
    assert torch.equal(restored.momentum, growing.momentum) and torch.equal(restored.seen, growing.seen)


def test_at_other_weights_both_sides_are_taken_anew(mnist: tuple[Images, Labels]) -> None:
    (net, _), x, y = pair(), mnist[0][:8].double(), mnist[1][:8]
    net.eval()
    method = made(net, eps=E)
    crafted = method.craft(net, x, y, of(list(range(8))))
    alone = Crafted(x_adv=crafted.x_adv, extra=crafted.extra)
    steps = [method.loss(net, x, y, each) for each in (crafted, alone)]
    assert close(steps[0].loss.detach(), steps[1].loss.detach())
    slopes = [torch.autograd.grad(step.loss, net.linear.weight)[0] for step in steps]
    assert close(slopes[0], slopes[1]) and crafted.clean is not None and crafted.clean.requires_grad


# ---- Bad input.


def test_a_batch_that_does_not_say_which_images_it_holds_is_refused(mnist: tuple[Images, Labels]) -> None:
    (net, _), x, y = pair(), mnist[0][:8].double(), mnist[1][:8]
    priors: list[Prior] = ["momentum", "epoch"]
    for prior in priors:
        for batch in (None, Batch()):
            with pytest.raises(ValueError, match=r'give Batch\(index=...\).* or use prior="batch"'):
                made(net, eps=E, prior=prior).craft(net, x, y, batch)
    assert made(net, eps=E, prior="batch").craft(net, x, y).x_adv.shape == x.shape


@pytest.mark.parametrize(
    "settings",
    [{"lam": -1}, {"lam": math.nan}, {"decay": -0.1}, {"reset": -1}, {"step_size": -1}, {"smoothing": 1}],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=rf"{name} \("):
        PGI(eps=E, **settings)
