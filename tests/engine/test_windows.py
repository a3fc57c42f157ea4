"""Window by window a net says what it says itself; whether it does is the whole net's own forward pass to judge."""

from __future__ import annotations

from typing import Any

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from paths import NETS as TRAINED
from torch import Tensor, nn

import toughen
from toughen.attacks import Square
from toughen.core.queries import FullQuery
from toughen.core.rng import ImageNoise
from toughen.core.types import Images, Labels
from toughen.core.window import Window
from toughen.engine.device import Precision
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.engine.windows.graph import Graph, Split
from toughen.engine.windows.query import IncrementalQuery, MismatchError, images_at_once, query
from toughen.engine.windows.receptive_field import ReceptiveField
from toughen.models.registry import NETS

DEEP = ("resnet34", "resnet50", "resnet56", "preact-resnet18", "vgg16", "vgg19")


def walk(net: nn.Module, x: Images, sides: list[int], changes: int, size: int = 3) -> float:
    """Change two windows at a time, let half of the images have them, and again; the largest difference of logits."""
    blocks, random = FixedBatchModel(net, size, "fp64"), torch.Generator().manual_seed(0)
    asking, difference = query(blocks, x), 0.0
    assert isinstance(asking, IncrementalQuery), "nothing can be computed in windows"
    h, w = x.shape[2:]
    for side in sides:
        asking.resize(x, side)
        assert asking.batches, "nothing is computed window by window"
        for number in range(changes):
            windows, changed = [], x.clone()
            for corner in ((0, 0), (h - side, w - side)):  # the first time, so that maps' edges are met
                top, left = (int(torch.randint(0, n - side + 1, (), generator=random)) for n in (h, w))
                top, left = (top, left) if number else corner
                windows.append(Window(top, top + side, left, left + side))
                new = torch.rand((len(x), x.shape[1], side, side), generator=random)
                windows[-1].of(changed).copy_(new)
            difference = max(difference, float((asking.logits(changed, windows) - blocks.net(changed)).abs().max()))
            stay = torch.rand(len(x), generator=random) < 0.5
            asking.accept(stay)
            x = torch.where(stay.view(-1, 1, 1, 1), changed, x)
    asking.finish(x)
    return difference


@pytest.fixture
def read_as_released(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checks of shapes that tests add to every call: torch.fx hands over what has none yet."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@torch.no_grad()
@pytest.mark.usefixtures("read_as_released")
@pytest.mark.parametrize(
    "name",
    [
        *(name for name in NETS if not name.startswith("wrn") and name not in DEEP),
        "wrn-10-2",
        *(pytest.param(name, marks=pytest.mark.slow) for name in DEEP),
    ],
)
def test_every_net_of_ours(name: str) -> None:
    shape = NETS[name][1] if name in NETS else (3, 32, 32)
    net = toughen.models.create(name, 10, shape, mean=[0.4] * shape[0], std=[0.2] * shape[0])
    for part in net.modules():
        if isinstance(part, nn.Linear):  # some start at zero
            nn.init.normal_(part.weight)
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.3, 0.3)  # type: ignore[union-attr]
    x = torch.rand(2, *shape, dtype=torch.float64)
    assert walk(net.eval(), x, [4, 2], 3, size=2) < 1e-9 * float(net.double()(x).abs().max())


class Mixed(nn.Module):
    """Layers of every kind that can be computed in part, written as strangers write them, and ones that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, (3, 2), padding=(2, 1), dilation=(2, 1))
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.narrow = nn.Conv2d(6, 6, 1, stride=(1, 2))
        self.wide = nn.Conv2d(6, 6, 5, stride=(1, 2), padding=2, groups=3, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        self.mean = nn.AvgPool2d(2, 2, padding=1)
        self.last = nn.Conv2d(6, 4, 3, padding=1, padding_mode="circular")
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.first(x))
        beside = self.wide(x)
        x = self.norm(self.relu(self.narrow(x)))
        x += beside
        x = self.mean(F.relu(x, inplace=True))
        out: Tensor = self.head(self.last(x).mean((2, 3)))
        return out


@torch.no_grad()
def test_layers_of_every_kind() -> None:
    net = Mixed().eval()
    net.norm.running_mean.uniform_(-0.3, 0.3)  # type: ignore[union-attr]
    x = torch.rand(7, 2, 37, 30, dtype=torch.float64)
    graph = Graph(Mixed().eval().double())
    assert [str(layer.node) for layer in Split(graph, graph.layers(x[:1]), 2).layers][-1] == "mean"
    assert walk(net, x, [5, 2, 1], 40) < 1e-12


def test_how_far_a_layer_looks() -> None:
    """Every window of a small map, under kernels, strides, paddings, dilations: what changes is what torch changes."""
    for kernel, stride, padding, dilation in [
        (1, 1, 0, 1),
        (3, 1, 1, 1),
        (2, 2, 0, 1),
        (3, 2, 1, 1),
        (3, 3, 2, 2),
        (1, 2, 0, 1),
    ]:
        layer = nn.Conv2d(1, 1, kernel, stride, padding, dilation)
        reach = ReceptiveField((kernel,) * 2, (stride,) * 2, (padding,) * 2, (dilation,) * 2)
        image = torch.rand(1, 1, 9, 8)
        before = layer(image)
        for top in range(8):
            for bottom in range(top + 1, 10):
                window = Window(top, bottom, 2, 5)
                changed = image.clone()
                window.of(changed).add_(1 + torch.rand(1, 1, bottom - top, 3))
                after = layer(changed)
                found = reach.affected_outputs(window, after.shape[2:])
                outside = before != after
                found.of(outside).fill_(False)
                assert not outside.any()
                if found.empty:
                    continue
                cut = reach.crop_inputs(changed, found)
                torch.testing.assert_close(
                    F.conv2d(cut, layer.weight, layer.bias, stride, 0, dilation), found.of(after), rtol=0, atol=1e-5
                )
                down, across = reach.max_outputs((bottom - top, 3))
                assert found.bottom - found.top <= down and found.right - found.left <= across


every_norm = pytest.mark.parametrize("norm", ["linf", "l2"])


@pytest.mark.slow
class Full(FixedBatchModel):
    """Asked in full."""

    graph = None


@torch.no_grad()
@pytest.mark.parametrize("norm", ["linf", pytest.param("l2", marks=pytest.mark.slow)])
def test_square_finds_the_same(norm: Any, mnist: tuple[Images, Labels]) -> None:
    net, x, y = toughen.load(TRAINED / "pgd-at").double(), mnist[0].double(), mnist[1]
    attack = Square(eps=0.3 if norm == "linf" else 2.5, norm=norm, queries=500, rescale_schedule=True)
    found, counts = [], []
    for kind in (FixedBatchModel, Full):
        blocks = kind(net, 16, "fp64")
        assert (blocks.graph is None) == (kind is Full)
        found.append(attack(blocks, x, y, ImageNoise(0, "Square", list(range(len(x))))))
        counts.append(blocks.counts)
    assert 0 < (net(found[0]).argmax(1) != y).sum() < len(x)
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)
    assert counts[0].forward == counts[1].forward and counts[0].gradient == counts[1].gradient == 0
    assert counts[0].confirmation > counts[1].confirmation  # to see that both say the same


@every_norm
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_rounding_does_not_look_like_another_net(norm: Any, precision: Precision, mnist: tuple[Images, Labels]) -> None:
    """Where nothing falls, every image is asked for once a query: no search began again."""
    net = toughen.load(TRAINED / "pgd-at")
    x, y = (each[net(mnist[0]).argmax(1) == mnist[1]] for each in mnist)
    blocks = FixedBatchModel(net, 16, precision)
    Square(eps=0.01, norm=norm, queries=500, rescale_schedule=True)(blocks, x, y)
    assert blocks.counts.forward == 501 * len(x) and blocks.counts.confirmation > 2 * len(x)


class Moody(nn.Module):
    """A little surer each time it is asked, which a graph of it does not show."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.mood = net, torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        if torch.fx._symbolic_trace.is_fx_symbolic_tracing():
            return out
        self.mood += 0.02
        return out * (1 + self.mood)


def test_a_net_that_is_not_its_graph_is_asked_in_full(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist[0][:8], mnist[1][:8]
    blocks = FixedBatchModel(Moody(toughen.load(TRAINED / "pgd-at")).eval(), 8)
    assert blocks.graph is not None
    asking = query(blocks, x)
    asking.logits(x, [])
    with pytest.raises(MismatchError):
        asking.resize(x, 3)
    blocks.counts.forward = 0
    Square(eps=0.01, queries=60)(blocks, x, y, ImageNoise(0, "Square", list(range(8))))
    assert blocks.counts.forward == 8 * (52 + 61)  # 51 queries until windows are small enough, and again


class Overwriting(nn.Module):
    """Writes to its first map in a way that a graph does not tell of."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.first(x)
        out: Tensor = self.head(torch.mul(maps, 2, out=maps).mean((2, 3)))
        return out


@torch.no_grad()
def test_a_net_that_writes_to_its_maps_is_asked_in_full(mnist: tuple[Images, Labels]) -> None:
    x = mnist[0][:8]
    asking = query(FixedBatchModel(Overwriting().eval(), 8), x)
    assert isinstance(asking, IncrementalQuery)
    with pytest.raises(MismatchError):
        asking.resize(x, 3)


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 26 * 26, 10))


class Branching(Layers):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out if out.sum() > 0 else -out


class Drawing(Layers):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x + 0.1 * torch.rand(1, 1, 28, 28))
        return out


class Writing(Layers):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x.clone().mul_(2))
        return out


@pytest.mark.parametrize("kind", [Branching, Drawing, Writing])
def test_nets_that_are_no_graph_of_layers(kind: type[Layers], mnist: tuple[Images, Labels]) -> None:
    net = kind().eval()
    with pytest.raises(ValueError, match="cannot be"):
        Graph(net)
    blocks = FixedBatchModel(net, 8)
    assert blocks.graph is None and type(query(blocks, mnist[0])) is FullQuery


def test_a_model_on_its_own_is_asked_in_full(mnist: tuple[Images, Labels]) -> None:
    net = toughen.load(TRAINED / "pgd-at")
    assert type(query(net, mnist[0])) is FullQuery and images_at_once(net, mnist[0], 2) == len(mnist[0])
    assert FixedBatchModel(net, 8, copied=False).graph is None  # reading it may change its layers


@pytest.mark.slow
def test_maps_take_no_more_memory_than_they_may(mnist: tuple[Images, Labels], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels, 16 maps of 14 x 14, 32 of 7 x 7, in float32: where eleven images fit, two blocks of five do."""
    x, y = mnist
    blocks = FixedBatchModel(toughen.load(TRAINED / "pgd-at"), 5)
    each = 4 * (28 * 28 + 16 * 14 * 14 + 32 * 7 * 7)
    attack = Square(eps=0.3, queries=300, rescale_schedule=True)
    whole = attack(blocks, x, y, ImageNoise(0, "Square", list(range(len(x)))))
    for images, wanted in ((11, 10), (10, 10), (4, 5)):
        monkeypatch.setattr("toughen.engine.windows.query.MEMORY", each * images)
        assert images_at_once(blocks, x, 2) == wanted
    assert torch.equal(attack(blocks, x, y, ImageNoise(0, "Square", list(range(len(x))))), whole)
