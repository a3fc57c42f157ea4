"""Published defences that adaptive attacks broke, small, for digits.

Six are those on which Pintor et al. (2022, "Indicators of Attack Failure") try their checks, or their kin. One, at
inference, is of the kind that Croce et al. (2022, "Evaluating the adversarial robustness of adaptive test-time
defenses") evaluate. The last hides gradients in pixels that are black or white.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toughen.attacks.fgsm import FGSM
from toughen.attacks.pgd import PGD
from toughen.core.types import Images, Labels, Logits
from toughen.data import load

STEPS, BATCH = 150, 128


class KWTA(nn.Module):
    """k-winners-take-all (Xiao et al. 2020): keeps the largest activations of each image, and sets the others to 0.

    Args:
        share: of the activations that are kept.
    """

    def __init__(self, share: float = 0.1) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        least = flat.topk(max(1, round(self.share * flat.shape[1])), dim=1).values[:, -1:]
        return torch.where(flat >= least, flat, 0).view_as(x)


def net(activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Two convolutions and two linear layers for 28 x 28 images in [0, 1]."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2), activation(), nn.Conv2d(16, 32, 5, stride=2, padding=2), activation(),
        nn.Flatten(), nn.Linear(32 * 49, 64), activation(), nn.Linear(64, 10),
    )  # fmt: skip


def batches(seed: int) -> list[tuple[Images, Labels]]:
    """The training batches, drawn at random."""
    train, generator = load("mnist-5k").train, torch.Generator().manual_seed(seed)
    some = [train.take(torch.randint(len(train), (BATCH,), generator=generator)) for _ in range(STEPS)]
    return [(each.images.float() / 255, each.labels) for each in some]


def fit(model: nn.Module, seed: int, temperature: float = 1.0, teacher: nn.Module | None = None) -> nn.Module:
    """Train on clean images: cross-entropy at a temperature, to the labels or to a teacher's probabilities."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for x, y in batches(seed):
        target: Tensor = y
        if teacher is not None:
            with torch.no_grad():
                target = (teacher(x) / temperature).softmax(1)
        optimizer.zero_grad()
        F.cross_entropy(model(x) / temperature, target).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


@cache
def standard(seed: int = 0) -> nn.Module:
    """A net that withstands nothing."""
    torch.manual_seed(seed)
    return fit(net(), seed)


def hardened(activation: type[nn.Module], eps: float, method: str) -> nn.Module:
    """A sound net, trained for a few seconds: on two steps of PGD, on FGSM from a random start, or with TRADES."""
    torch.manual_seed(7)
    model = net(activation)
    pgd, single = PGD(eps=eps, steps=2, step_size=eps), FGSM(eps=eps, start="uniform", step_size=1.25 * eps)
    attack = single if method == "R-FGSM" else pgd
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for x, y in [*batches(7), *batches(57)]:
        x_adv = attack(model, x, y)
        out, clean = model(x_adv), model(x)
        loss = F.cross_entropy(out, y)
        if method == "TRADES":
            apart = F.kl_div(out.log_softmax(1), clean.softmax(1), reduction="batchmean")
            loss = F.cross_entropy(clean, y) + 6 * apart
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def k_winners() -> nn.Module:
    torch.manual_seed(0)
    return fit(net(KWTA), 0)


def distilled(temperature: float = 100.0) -> nn.Module:
    """Defensive distillation (Papernot et al. 2016): a student at a high temperature, asked at temperature 1."""
    torch.manual_seed(0)
    teacher = fit(net(), 0, temperature)
    return fit(net(), 1, temperature, teacher)


class DiverseEnsemble(nn.Module):
    """Three nets trained to differ on the classes that are not the label's (ADP, Pang et al. 2019); mean probabilities.

    The loss is the sum of the nets' cross-entropies - 2 H(mean) - 0.5 log of the volume that their other classes span.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.nets = nn.ModuleList(net() for _ in range(3))
        optimizer = torch.optim.Adam(self.parameters(), lr=2e-3)
        for x, y in batches(0):
            logits = torch.stack([each(x) for each in self.nets])
            probabilities = logits.softmax(2)
            mean = probabilities.mean(0)
            entropy = -(mean * mean.clamp(min=1e-20).log()).sum(1)
            others = probabilities.transpose(0, 1)[~F.one_hot(y, 10).bool()[:, None].expand(-1, 3, -1)]
            others = F.normalize(others.view(len(x), 3, 9), dim=2)
            volume = torch.logdet(others @ others.mT + 1e-6 * torch.eye(3))
            loss = sum(F.cross_entropy(each, y) for each in logits) - 2 * entropy.mean() - 0.5 * volume.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.eval().requires_grad_(False)

    def forward(self, x: Images) -> Logits:
        out: Tensor = torch.stack([each(x).softmax(1) for each in self.nets]).mean(0).clamp(min=1e-20).log()
        return out


class Smoothed(nn.Module):
    """Votes among noisy copies of the image (as Cohen et al. 2019 predict), drawn anew each time; no certificate."""

    def __init__(self, noise: float = 0.25, copies: int = 16) -> None:
        super().__init__()
        self.net, self.noise, self.copies = standard(), noise, copies

    def forward(self, x: Images) -> Logits:
        noisy = x.repeat(self.copies, 1, 1, 1)
        noisy = noisy + self.noise * torch.randn_like(noisy)
        out: Tensor = self.net(noisy).softmax(1).view(self.copies, len(x), -1).mean(0).clamp(min=1e-20).log()
        return out


class JPEG(nn.Module):
    """Compresses the image (Das et al. 2018): rounded cosine coefficients of blocks of 8 x 8, which have no slope."""

    def __init__(self, step: float = 0.15) -> None:
        super().__init__()
        self.net, self.step = standard(), step
        rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
        basis = torch.cos(math.pi * (2 * columns + 1) * rows / 16) / 2
        basis[0] /= math.sqrt(2)
        self.basis: Tensor
        self.register_buffer("basis", basis)  # orthonormal

    def forward(self, x: Images) -> Logits:
        padded = F.pad(x, (2, 2, 2, 2))
        blocks = padded.unfold(2, 8, 8).unfold(3, 8, 8)
        basis = self.basis.to(x)
        coefficients = basis @ blocks @ basis.T
        back = basis.T @ (self.step * (coefficients / self.step).round()) @ basis
        whole = back.permute(0, 1, 2, 4, 3, 5).reshape(padded.shape)
        out: Tensor = self.net(whole[:, :, 2:-2, 2:-2])
        return out


class Rejection(nn.Module):
    """Deep neural rejection (Sotgiu et al. 2020) without its reject class: radial basis functions on a net's features.

    Their slope vanishes away from the centres, which are the training images' features.
    """

    def __init__(self, gamma: float = 4.0) -> None:
        super().__init__()
        self.features, self.gamma = nn.Sequential(*list(standard().children())[:-1]), gamma
        x, y = batches(2)[0]
        self.centres: Tensor
        self.labels: Tensor
        self.register_buffer("centres", self.features(x))
        self.register_buffer("labels", F.one_hot(y, 10).float())

    def forward(self, x: Images) -> Logits:
        features = self.features(x)
        squared = (features[:, None] - self.centres.to(features)).square().sum(2)
        return torch.exp(-self.gamma * squared / 64) @ self.labels.to(features)


class AntiAdversary(nn.Module):
    """Moves the image towards its predicted class before it is classified (Alfarra et al. 2022), outside the graph."""

    def __init__(self, steps: int = 4, size: float = 0.05) -> None:
        super().__init__()
        self.net, self.steps, self.size = standard(), steps, size

    def forward(self, x: Images) -> Logits:
        with torch.enable_grad():
            label, moved = self.net(x.detach()).argmax(1), x.detach()
            for _ in range(self.steps):
                moved = moved.detach().requires_grad_()
                (slope,) = torch.autograd.grad(F.cross_entropy(self.net(moved), label, reduction="sum"), moved)
                moved = moved - self.size * slope.sign()
        out: Tensor = self.net(x + (moved - x).detach())
        return out


class Squeezed(nn.Module):
    """Nearly one bit per pixel (feature squeezing, Xu et al. 2018), with a slope between black and white.

    An attack gets no gradient in pixels that are black or white, and does not bring them to where the slope is. The net
    is trained on clean images.
    """

    def __init__(self, low: float = 0.45, high: float = 0.55) -> None:
        super().__init__()
        self.net, self.low, self.high = standard(), low, high

    def squeeze(self, x: Images) -> Images:
        return ((x - self.low) / (self.high - self.low)).clamp(0, 1)

    def forward(self, x: Images) -> Logits:
        out: Tensor = self.net(self.squeeze(x))
        return out


def squeezed_and_hardened() -> Squeezed:
    """Trained for eps 0.3 on two steps of PGD, which follow the gradients that are left."""
    torch.manual_seed(7)
    model, attack = Squeezed(0.3, 0.7), PGD(eps=0.3, steps=2, step_size=0.3)
    model.net = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for x, y in [*batches(7), *batches(57), *batches(107)]:
        x_adv = attack(model, x, y)
        optimizer.zero_grad()
        F.cross_entropy(model(x_adv), y).backward()
        optimizer.step()
    model.eval().requires_grad_(False)
    return model


DEFENCES = {
    "k-WTA": k_winners,
    "defensive distillation": distilled,
    "ensemble diversity": DiverseEnsemble,
    "smoothing at inference": Smoothed,
    "JPEG compression": JPEG,
    "deep neural rejection": Rejection,
    "optimisation at inference": AntiAdversary,
    "feature squeezing": Squeezed,
}
