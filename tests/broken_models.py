"""Ways in which a model makes attacks look weak or answers about something else: each wraps a net and spoils it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toughen.core.types import Images, Logits


class Wrapper(nn.Module):
    """A net, asked in another way; the base of all of these."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Images) -> Logits:
        out: Tensor = self.net(x)
        return out


class Quantised(Wrapper):
    """Rounds the image to a few levels, which has no slope anywhere."""

    def __init__(self, net: nn.Module, levels: int = 16) -> None:
        super().__init__(net)
        self.levels = levels

    def forward(self, x: Images) -> Logits:
        return super().forward((x * (self.levels - 1)).round() / (self.levels - 1))


class Detached(Wrapper):
    """Cuts the logits off from the image."""

    def forward(self, x: Images) -> Logits:
        return super().forward(x.detach())


class Clipped(Wrapper):
    """Stretches the contrast and clips: pixels that are nearly black or white have no slope."""

    def __init__(self, net: nn.Module, low: float = 0.45, high: float = 0.55) -> None:
        super().__init__(net)
        self.low, self.high = low, high

    def forward(self, x: Images) -> Logits:
        return super().forward(((x - self.low) / (self.high - self.low)).clamp(0, 1))


class WrongGradient(Wrapper):
    """Answers like the net, with the slope of another function: x plus a ripple that the answer does not have."""

    def forward(self, x: Images) -> Logits:
        ripple = 0.05 * torch.sin(997 * x)
        return super().forward(x + ripple - ripple.detach())


class TiltedGradient(Wrapper):
    """Answers like the net, with a slope that has a fixed pattern added, twice as long as the true slope."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.pattern: Tensor
        signs = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0)).sign()
        self.register_buffer("pattern", signs / 28)

    def forward(self, x: Images) -> Logits:
        if not x.requires_grad:
            return super().forward(x)
        x = x.clone()
        x.register_hook(lambda slope: slope + 2 * slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * self.pattern.to(x))
        return super().forward(x)


class NoSlopeAtBlack(Wrapper):
    """Brings the image from linear light to sRGB and back, by the standard's formulas, which have none at 0."""

    def forward(self, x: Images) -> Logits:
        coded = torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
        return super().forward(torch.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4))


class Shattered(Wrapper):
    """Adds a fine ripple to the image, whose slope drowns that of everything else."""

    def forward(self, x: Images) -> Logits:
        return super().forward(x + 0.01 * torch.sin(1e4 * x))


class Scaled(Wrapper):
    """Multiplies the logits, so that a softmax in float32 is 0 or 1."""

    def __init__(self, net: nn.Module, factor: float = 1000.0) -> None:
        super().__init__(net)
        self.factor = factor

    def forward(self, x: Images) -> Logits:
        return self.factor * super().forward(x)


class Noisy(Wrapper):
    """Adds Gaussian noise to the image, other noise each time."""

    def __init__(self, net: nn.Module, deviation: float = 0.1) -> None:
        super().__init__(net)
        self.deviation = deviation

    def forward(self, x: Images) -> Logits:
        return super().forward(x + self.deviation * torch.randn_like(x))


class NoisyOnHeight(Noisy):
    """The same with logits that share a large number, beside which their noise is small."""

    def forward(self, x: Images) -> Logits:
        return super().forward(x) + 1e5


class InFloat64(Wrapper):
    """Computes in float64 whatever it is given, which spoils nothing."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net.double())

    def forward(self, x: Images) -> Logits:
        return super().forward(x.double())


class OnlyFloat32(Wrapper):
    """Refuses float64, which spoils nothing."""

    def forward(self, x: Images) -> Logits:
        assert x.dtype == torch.float32
        return super().forward(x)


class Vote(Wrapper):
    """Decides hard, and shows attacks the slope of another net, whose say is small."""

    def __init__(self, net: nn.Module, decoy: nn.Module, weight: float = 20.0) -> None:
        super().__init__(net)
        self.decoy, self.weight = decoy, weight

    def forward(self, x: Images) -> Logits:
        decided = super().forward(x)
        hard = torch.nn.functional.one_hot(decided.argmax(1), decided.shape[1]).to(x)
        out: Logits = self.weight * hard + self.decoy(x)
        return out


class Terraced(Wrapper):
    """Adds to each logit a step after every unit of a random projection of the image; steps have no slope."""

    def __init__(self, net: nn.Module, height: float = 2.0) -> None:
        super().__init__(net)
        self.height, generator = height, torch.Generator().manual_seed(0)
        self.directions: Tensor
        self.register_buffer("directions", torch.randn(784, 10, generator=generator))

    def forward(self, x: Images) -> Logits:
        odd = (x.flatten(1) @ self.directions.to(x)).floor().remainder(2)
        return super().forward(x) + self.height * odd


class TwoFaced(Wrapper):
    """Answers as another net in batches larger than those that judge."""

    def forward(self, x: Images) -> Logits:
        out = super().forward(x)
        return out.roll(1, 1) if len(x) > 8 else out


class Probabilities(Wrapper):
    """Ends with a softmax."""

    def forward(self, x: Images) -> Logits:
        return super().forward(x).softmax(1)


class BatchStatistics(Wrapper):
    """Subtracts the batch's mean image, so that an image's answer depends on its company."""

    def forward(self, x: Images) -> Logits:
        return super().forward(x - x.mean(0, keepdim=True) + 0.13)


class Wants(Wrapper):
    """A net that was trained on images of another range: it takes (x - shift) / scale back."""

    def __init__(self, net: nn.Module, shift: float, scale: float) -> None:
        super().__init__(net)
        self.shift, self.scale = shift, scale

    def forward(self, x: Images) -> Logits:
        return super().forward(x * self.scale + self.shift)


class Renumbered(Wrapper):
    """Numbers the classes otherwise than the data do: one further each."""

    def forward(self, x: Images) -> Logits:
        return super().forward(x).roll(1, dims=1)


class Constant(Wrapper):
    """Says the same of every image."""

    def forward(self, x: Images) -> Logits:
        out = super().forward(x)
        return torch.zeros_like(out) + torch.arange(out.shape[1], 0, -1).to(out)
