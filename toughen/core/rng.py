"""Random numbers, keyed so that they do not depend on batch size, order or the number of processes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


def derive_seed(*parts: object) -> int:
    """A 63-bit seed derived from any values, the same on every machine and in every process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's own generators, from which a model on this device draws, for example for dropout.

    Where there is no GPU, ``torch.manual_seed`` formats a stack trace for each kind of GPU: 3 % of a small net's step.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


class Noise:
    """A source of random tensors shaped like an image batch; this one, for ``noise=None``, uses torch's generator."""

    def random(self, like: Tensor, kind: str) -> Tensor:
        """``kind`` "rand": [0, 1) uniform; "randn": standard normal; floats of ``like``'s shape, type and device."""
        drawn: Tensor = getattr(torch, kind + "_like")(like)
        return drawn

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform in [-1, 1)."""
        return self.random(like, "rand").mul_(2).sub_(1)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal."""
        return self.random(like, "randn")

    def sign(self, like: Tensor) -> Tensor:
        """-1 or 1, each with probability one half."""
        return self.random(like, "rand").lt(0.5).to(like.dtype).mul_(2).sub_(1)

    def restart(self, number: int) -> Noise:
        """The noise of a restart, whose number is added to this one's; 0 starts this one again from its first draw."""
        return self

    def take(self, rows: Tensor) -> Noise:
        """The noise of some images of the batch; it continues with this one's next draw."""
        return self

    def shared(self) -> torch.Generator:
        """A generator on the CPU for draws that all images share; it does not depend on which are attacked together."""
        return torch.Generator().manual_seed(int(torch.randint(2**62, ())))


@dataclass
class StepNoise(Noise):
    """A training step's noise, keyed by (seed, step) and drawn for the global batch.

    Attributes:
        total, first: the global batch's size and where this process's slice of it starts; 0 means the slice is all.
    """

    seed: int
    step: int
    total: int = 0
    first: int = 0
    generator: torch.Generator | None = field(default=None, repr=False)

    @property
    def generator_seed(self) -> int:
        """The seed of the generator."""
        return derive_seed("step", self.seed, self.step)

    def random(self, like: Tensor, kind: str) -> Tensor:
        if self.generator is None:
            self.generator = torch.Generator(like.device).manual_seed(self.generator_seed)
        shape = (max(self.total, self.first + len(like)), *like.shape[1:])
        drawn: Tensor = getattr(torch, kind)(shape, generator=self.generator, device=like.device, dtype=like.dtype)
        return drawn[self.first : self.first + len(like)]

    def shared(self) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed("shared", self.seed, self.step))


@dataclass
class ImageNoise(Noise):
    """An evaluation's noise, keyed by (seed, attack, restart, image index): an image's draws are its own.

    Attributes:
        index: the images' places in the evaluated set, one per row of what is drawn for.
        number: which restart this is.
        draws: how often this restart has drawn.
    """

    seed: int
    attack: str
    index: list[int]
    number: int = 0
    draws: int = 0

    def random(self, like: Tensor, kind: str) -> Tensor:
        if len(like) != len(self.index):
            raise ValueError(f"noise for {len(self.index)} images was requested for {len(like)}")
        generator = torch.Generator()
        rows = []
        for image in self.index:
            generator.manual_seed(derive_seed("image", self.seed, self.attack, self.number, image, self.draws))
            rows.append(getattr(torch, kind)(like.shape[1:], generator=generator, dtype=like.dtype))
        self.draws += 1
        return torch.stack(rows).to(like.device)

    def restart(self, number: int) -> ImageNoise:
        return replace(self, number=self.number + number, draws=0)

    def take(self, rows: Tensor) -> ImageNoise:
        return replace(self, index=[self.index[row] for row in rows.tolist()])

    def shared(self) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed("shared", self.seed, self.attack, self.number))
