"""Training whose numbers stop being numbers ends at that step, and names the step, the layer and the images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from commands import digits, small, toughen
from safetensors.torch import load_file
from torch import Tensor, nn

from toughen.core.types import Batch, Step, check_returned
from toughen.methods import NuAT
from toughen.training import Recipe
from toughen.training.build import build
from toughen.training.divergence import Diverged, check_step
from toughen.training.schedules import Schedule


@pytest.fixture
def net() -> Iterator[nn.Sequential]:
    yield nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def stepped(net: nn.Module, x: Tensor, factor: float = 1.0) -> None:
    """A step on these images, looked at."""
    out = net(x)
    loss = factor * out.sum()
    loss.backward()
    check_step(net, x, Step(loss, out, {}), Batch(index=torch.arange(7, 7 + len(x))), 12)


def test_what_is_finite_passes(net: nn.Sequential) -> None:
    stepped(net, torch.rand(2, 1, 2, 2))


def test_an_output_is_named(net: nn.Sequential) -> None:
    with torch.no_grad():
        net.get_parameter("1.weight").fill_(2e38)
        net.get_parameter("1.bias").fill_(2e38)
    with pytest.raises(Diverged, match=r"the loss became (nan|-?inf) in step 12: the output of 1 is the first"):
        stepped(net, torch.ones(2, 1, 2, 2))


def test_a_weight_is_named(net: nn.Sequential) -> None:
    with torch.no_grad():
        net.get_parameter("3.weight")[0, 0] = torch.nan
    with pytest.raises(
        Diverged, match=r"the weight 3.weight has been NaN .* on a batch of 7, the training images 7, 8, 9, 10, 11 and"
    ):
        stepped(net, torch.ones(7, 1, 2, 2))


def test_a_gradient_is_named(net: nn.Sequential) -> None:
    net.get_parameter("1.weight").register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(Diverged, match=r"a gradient is no longer finite in step 12: .* the gradient of 1.weight is"):
        stepped(net, torch.ones(2, 1, 2, 2))


def test_finite_gradients_with_an_infinite_sum_pass(net: nn.Sequential) -> None:
    """Their sum overflows float32 (largest finite value 3.4e38); no gradient does."""
    net.get_parameter("1.weight").register_hook(lambda gradient: torch.full_like(gradient, 1e38))
    stepped(net, torch.ones(2, 1, 2, 2))


def test_gradients_of_opposite_infinities_are_found(net: nn.Sequential) -> None:
    infinities = torch.tensor([[torch.inf, -torch.inf, 0, 0]] * 3)
    net.get_parameter("1.weight").register_hook(lambda _: infinities)
    with pytest.raises(Diverged, match=r"a gradient is no longer finite in step 12: .* the gradient of 1.weight is"):
        stepped(net, torch.ones(2, 1, 2, 2))


def test_a_loss_is_named(net: nn.Sequential) -> None:
    with pytest.raises(
        Diverged, match=r"logits are finite, and the loss is not, on a batch of 2, the training images 7, 8$"
    ):
        stepped(net, torch.ones(2, 1, 2, 2), factor=float("inf"))


def test_a_real_divergence_of_train(tmp_path: Path) -> None:
    """A huge rate: the step after the first one has no numbers any more, and the one before is kept."""
    words = small("--method", "FBF", "--eps", 0.2, "--device", "cpu", "--watch", "off", "--out", tmp_path / "run")
    ended = toughen(*words, "--optimizer.lr", 1e20)
    assert ended.status == 1, ended.err
    said = re.search(
        r"training failed: .* in step (\d+): .*net\.\d.* on a batch of 16, the training images \d", ended.err
    )
    assert said, ended.err
    kept = [path.stem for path in (tmp_path / "run/kept").iterdir()]
    assert kept == [f"step-{int(said[1]) - 1}"]
    assert all(
        bool(each.isfinite().all()) for each in load_file(tmp_path / "run/kept" / f"{kept[0]}.safetensors").values()
    )


def test_a_real_divergence_of_reproduce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same through a schedule that gives a huge rate, since a table's recipe has one that is sound."""

    def huge(self: Schedule, optimizer: torch.optim.Optimizer, lr: float, progress: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 1e20

    for kind in [Schedule, *Schedule.__subclasses__()]:
        monkeypatch.setattr(kind, "set", huge)
    words = ["reproduce", "pap-table7", "--scale", "smoke", "--data", digits(), "--rows", "FGSM-AT", "--out", tmp_path]
    ended = toughen(*words, "--device", "cpu")
    assert ended.status == 1 and re.search(
        r"FGSM-AT .*could not be trained: .* in step \d+: ", " ".join(ended.out.split())
    )


def test_a_matrix_of_logits_with_nan_names_the_layer_too(tmp_path: Path) -> None:
    """NuAT, whose loss needs singular values: one image of the second batch is NaN."""
    given = {"data": str(digits()), "model": "fbf-mnist-cnn", "validation": 10, "batch_size": 16, "device": "cpu"}
    trainer = build(Recipe(method=NuAT(eps=0.1), eps=0.1, **given), tmp_path)[0]  # type: ignore[arg-type]
    (x, y, batch), (bad, labels, others) = islice(trainer.epoch_batches(0), 2)
    trainer.counted_step(x, y, batch)
    bad[3] = torch.nan
    assert others.index is not None
    said = rf"not finite in step 2 .*: the output of \S+ is the first .* images {int(others.index[0])}, "
    with pytest.raises(Diverged, match=said):
        trainer.counted_step(bad, labels, others)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"loss": torch.ones(())}, "toughen.core.types.Step whose loss is a scalar with a gradient"),
        ({"logits": torch.ones(3)}, "Step whose logits are a tensor"),
        ({"terms": {"clean": 1.0}}, "Step whose terms are scalar tensors: clean is not one"),
        ({"terms": {"clean": torch.ones(3)}}, "Step whose terms are scalar tensors: clean is not one"),
    ],
)
def test_what_a_method_may_not_return(changed: dict[str, object], message: str) -> None:
    step = Step(torch.ones((), requires_grad=True), torch.zeros(3, 2), {"clean": torch.ones(())})
    check_returned(step, "Mine")
    for name, value in changed.items():
        object.__setattr__(step, name, value)  # past the type checks of tests
    with pytest.raises(ValueError, match=f"Mine.loss must return a {message}"):
        check_returned(step, "Mine")
    with pytest.raises(ValueError, match=r"Mine.loss returned dict: it must return a toughen.core.types.Step"):
        check_returned({}, "Mine")
