"""A model in blocks: what an image gets does not depend on its company, and the exact model has the last word."""

from __future__ import annotations

import math

import pytest
import torch
from paths import NETS
from torch import Tensor, nn

import toughen
from toughen.core.gradients import fooled, input_gradient, logits, mode
from toughen.core.objectives import cross_entropy
from toughen.core.types import Images, Labels, Logits
from toughen.engine.batch_size import batch_size_for, block_size, size_that_fits
from toughen.engine.device import Precision
from toughen.engine.fixed_batch import FixedBatchModel


def with_batch_norm() -> nn.Module:
    """A residual net whose running statistics are those of real images."""
    torch.manual_seed(0)
    return toughen.models.create("wrn-10-1", 10, (1, 28, 28))


@pytest.mark.parametrize("precision", ["bf16", "fp32", "fp64"])
@pytest.mark.parametrize("net", ["trained", "batch norm"])
def test_an_image_gets_the_same_whoever_is_with_it(
    net: str, precision: Precision, mnist: tuple[Images, Labels]
) -> None:
    x, y = mnist
    x = x.double() if precision == "fp64" else x
    blocks = FixedBatchModel(toughen.load(NETS / "pgd-at") if net == "trained" else with_batch_norm(), 16, precision)
    with mode(blocks, "eval"):
        together, exact = logits(blocks, x), blocks.exact(x)
        slope = input_gradient(blocks, x, y, cross_entropy)
        assert torch.equal(slope.logits, together)
        for rows in (torch.tensor([5]), torch.tensor([40, 3, 63, 17, 5]), torch.randperm(64)):
            assert torch.equal(logits(blocks, x[rows]), together[rows])
            assert torch.equal(blocks.exact(x[rows]), exact[rows])
            assert torch.equal(input_gradient(blocks, x[rows], y[rows], cross_entropy).gradient, slope.gradient[rows])


def test_the_copy_s_gradient_is_the_model_s(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    net = with_batch_norm().eval()
    wanted = input_gradient(net, x, y, cross_entropy)
    for precision, off in (("fp32", 1e-5), ("bf16", 0.2)):  # 8 bits of mantissa through ten layers
        blocks = FixedBatchModel(net, 16, "bf16" if precision == "bf16" else "fp32")
        with mode(blocks, "eval"):
            found = input_gradient(blocks, x, y, cross_entropy)
        assert (found.gradient - wanted.gradient).norm() < off * wanted.gradient.norm()
        assert found.logits.dtype == torch.float32
    assert all(weight.dtype == torch.float32 and weight.requires_grad for weight in net.parameters())
    assert net.training is False and all(weight.grad is None for weight in net.parameters())


class Near(nn.Module):
    """Two classes whose logits differ by less than bf16 can tell from 1: class 0 wins by 2^-10 where the pixel is 1.

    A third one lies far below, so that on the whole bf16 answers alike, and is kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(1, 2, 1, bias=False)
        self.last.weight.data = torch.tensor([1 + 2.0**-10, 1.0]).view(2, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(x).flatten(1).float()
        far = torch.full_like(out[:, 0], -10)
        return torch.stack([out[:, 0], out[:, 1] + 2.0**-11, far], 1)  # a rounded weight loses to this


def test_what_only_bf16_breaks_stands() -> None:
    x, y = torch.ones(3, 1, 1, 1), torch.tensor([0, 0, 1])
    blocks = FixedBatchModel(Near(), 4, "bf16")
    out = logits(blocks, x)
    assert out.argmax(1).tolist() == [1, 1, 1] and Near()(x).argmax(1).tolist() == [0, 0, 0]
    assert fooled(blocks, x, y, out).tolist() == [False, False, False]
    assert blocks.precision == "bf16" and blocks.counts.confirmation == 2  # the third one was right for the search
    assert fooled(Near(), x, y, Near()(x)).tolist() == [False, False, True]


def test_passes_are_counted_in_images(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    blocks = FixedBatchModel(toughen.load(NETS / "pgd-at"), 48, "fp32")
    logits(blocks, x)
    input_gradient(blocks, x[:50], y[:50], cross_entropy)
    counts = blocks.counts
    assert (counts.forward, counts.gradient, counts.confirmation, counts.total) == (64 + 50, 50, 0, 164)
    assert counts.padding == (96 - 64) + (96 - 50)


def test_few_images_are_taken_in_small_blocks() -> None:
    """On a CPU at least four blocks, of a power of two between 8 and 64; a GPU takes up to 512 at once."""
    sizes = {n: block_size(torch.device("cpu"), n) for n in (1, 24, 63, 64, 100, 136, 255, 256, 1000, 10000)}
    assert sizes == {1: 8, 24: 8, 63: 8, 64: 16, 100: 16, 136: 32, 255: 32, 256: 64, 1000: 64, 10000: 64}
    assert [block_size(torch.device("cuda"), n) for n in (1, 100, 512, 513, 10000)] == [64, 128, 512, 512, 512]


def test_a_net_of_little_work_takes_more_images_at_once() -> None:
    """At least 64 million operations, unless there are not so many images; by hand."""
    works = {(n, work): block_size(torch.device("cpu"), n, work=work) for n in (50, 1000) for work in (1e6, 4e6, 64e6)}
    assert works == {(50, 1e6): 56, (50, 4e6): 16, (50, 64e6): 8} | {(1000, work): 64 for work in (1e6, 4e6, 64e6)}
    small, large = (toughen.models.create(name, 10, (1, 28, 28)) for name in ("fbf-mnist-cnn", "madry-cnn"))
    images = torch.zeros(50, 1, 28, 28, dtype=torch.uint8)  # 1.2 and 28 million operations for an image
    assert [batch_size_for(net, images) for net in (small, large, small.double())] == [56, 8, 56]
    assert batch_size_for(small, images, 20) == 20
    assert batch_size_for(Uncounted(), images) == 8


class Limited(nn.Linear):
    """A net whose memory is exhausted by more than some number of images."""

    def __init__(self, most: int, error: type[Exception] = torch.OutOfMemoryError) -> None:
        super().__init__(784, 10)
        self.most, self.error, self.sizes = most, error, list[int]()

    def forward(self, x: Images) -> Logits:
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(x.flatten(1))


def test_a_batch_is_halved_until_it_fits_into_the_memory() -> None:
    images = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
    net = Limited(100).train()
    assert size_that_fits(net, images, 512) == 64
    assert net.sizes == [512, 256, 128, 64] and net.training and net.weight.grad is None
    assert size_that_fits(Limited(512), images, 512) == 512
    assert size_that_fits(Limited(1).double(), images.double(), 64) == 1
    with pytest.raises(torch.OutOfMemoryError):
        size_that_fits(Limited(0), images, 64)
    assert size_that_fits(Limited(0, ValueError), images, 64) == 64  # a fault of another kind has its own message


class Uncounted(nn.Module):
    """A net that fails for a single image."""

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) > 1
        return x.flatten(1)


def test_a_block_of_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="block size 0 is too small"):
        FixedBatchModel(nn.Identity(), 0)


# ---- models that draw their answers


class Scripted(nn.Module):
    """Answers to each image in turn as a list says: 1 for right (class 0), 0 for wrong; a hair differs each time."""

    def __init__(self, *answers: str) -> None:
        super().__init__()
        self.answers, self.asked, self.images = answers, [0] * len(answers), 0

    def forward(self, x: Images) -> Tensor:
        self.images += len(x)
        out = torch.zeros(len(x), 2)
        for row, image in enumerate(x[:, 0, 0, 0].round().long().tolist()):
            right = self.answers[image][self.asked[image] % len(self.answers[image])] == "1"
            self.asked[image] += 1
            out[row, 0 if right else 1] = 1.0 + 0.01 * self.asked[image]
        return out


def numbered(count: int) -> Images:
    return torch.arange(float(count)).view(-1, 1, 1, 1)


def test_a_break_of_a_model_that_draws_is_16_wrong_of_20() -> None:
    """Blocks of one image, so that each is asked as often as it is judged; the draws lie in any order."""
    few, enough, late = "0" * 15 + "1" * 5, "1" * 4 + "0" * 16, "01" * 4 + "0" * 12
    net = Scripted(few, enough, late, "0", "1")
    blocks = FixedBatchModel(net, 1, copied=False)
    blocks.random = True
    found = blocks.misclassifies(numbered(5), torch.zeros(5, dtype=torch.int64))
    assert found.tolist() == [False, True, True, True, False]
    assert net.asked == [20, 20, 20, 20, 5]  # five right answers of the first five settle it


def test_why_16_of_20() -> None:
    """The binomial's tail at a half is below 1 % from 16 on: how often one is broken that is wrong half the time."""
    tail = {least: sum(math.comb(20, k) for k in range(least, 21)) / 2**20 for least in (15, 16)}
    assert tail[16] < 0.01 < tail[15]

    class Half(nn.Module):
        def forward(self, x: Images) -> Tensor:
            return torch.rand(len(x), 2)

    blocks = FixedBatchModel(Half(), 1000, copied=False)
    broken = blocks.misclassifies(torch.zeros(20_000, 1, 1, 1), torch.zeros(20_000, dtype=torch.int64))
    assert float(broken.double().mean()) == pytest.approx(tail[16], abs=4 * (tail[16] / 20_000) ** 0.5)


def test_luck_is_not_confirmed_to_an_attack_either() -> None:
    """One wrong answer is what the search saw; of the two images one is wrong nine times in ten."""
    net = Scripted("0" + "1" * 9, "1" + "0" * 9)
    blocks = FixedBatchModel(net, 1, copied=False)
    y = torch.zeros(2, dtype=torch.int64)
    assert fooled(blocks, numbered(2), y, torch.tensor([[0.0, 1.0], [0.0, 1.0]])).tolist() == [False, True]
    assert blocks.random is True


def test_one_that_does_not_draw_is_asked_two_blocks_more_in_all(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist

    class Counting(nn.Module):
        images = 0

        def forward(self, x: Images) -> Tensor:
            self.images += len(x)
            return torch.stack([x.mean((1, 2, 3)), x.std((1, 2, 3))], 1)

    net = Counting()
    blocks = FixedBatchModel(net, 16, copied=False)
    before = torch.get_rng_state()
    for _ in range(5):
        found = blocks.misclassifies(x, y)
        assert torch.equal(blocks.confirm(x, y, found), found)
    assert net.images == 5 * 64 + 2 * 8 and blocks.counts.confirmation == 5 * 64 and blocks.random is False
    assert torch.equal(torch.get_rng_state(), before)
