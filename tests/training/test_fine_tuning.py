"""Frozen layers and rates that fall from layer to layer, for every method and in every kind of run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from commands import digits, refused, small, state_of, toughen
from contract import build as built
from kills import Killed, kill_at_step, same_end
from many import toughen_in
from safetensors.torch import load_file, save_file
from timm_nets import NETS as TIMM
from timm_nets import needs_timm
from torch import Tensor, nn

from toughen import models
from toughen.core.cost import PassCounter, trained_share
from toughen.methods import REGISTRY
from toughen.methods.standard import Standard
from toughen.training import SGD, Constant, Recipe, fine_tuning
from toughen.training.build import build
from toughen.training.trainer import Trainer

LAYERS = [["0", "1"], ["4"], ["6", "7"], ["10"]]  # of ``net``, from the images to the logits


def net(num_classes: int = 10) -> nn.Sequential:
    """Three convolutions, two of them with a batch norm, one of these without weights, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2),
        nn.Conv2d(4, 6, 3), nn.ReLU(),
        nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, num_classes),
    )  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    torch.manual_seed(3)
    save_file(net().state_dict(), path)
    return path


def trainer(weights: Path, **settings: Any) -> Trainer:
    base: dict[str, Any] = {"data": str(digits()), "model": "test_fine_tuning:net", "init": str(weights), "epochs": 1}
    base |= {"method": Standard(), "batch_size": 16, "validation": 10, "precision": "fp32", "device": "cpu"}
    return build(Recipe(**{**base, **settings}), weights.parent / "run")[0]


def steps(trained: Trainer, count: int) -> None:
    trained.train_mode()
    trained.state.distributed_step.begin(trained.image)
    for _, (x, y, batch) in zip(range(count), trained.epoch_batches(0), strict=False):
        trained.counted_step(x, y, batch)


def words(weights: Path, *more: object) -> list[object]:
    return small("--model", "test_fine_tuning:net", "--init", weights, "--layer_decay", 0.5, "--frozen", 1, *more)


def layer_of(name: str) -> int:
    """The layer of ``net`` that a tensor belongs to."""
    module = name.removeprefix("net.").partition(".")[0]
    return next(number for number, modules in enumerate(LAYERS) if module in modules)


@pytest.mark.parametrize(
    ("name", "frozen"),
    [*(("Standard", frozen) for frozen in (0, 2, 3)), *((name, each) for name in REGISTRY for each in (1, "backbone"))],
)
def test_frozen_layers_stay_what_they_are_and_all_others_move(name: str, frozen: Any, weights: Path) -> None:
    trained = trainer(weights, method=built(name), frozen=frozen, averaging=0.5)
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    steps(trained, 3)
    first_trained = 3 if frozen == "backbone" else frozen
    assert trained.state.average is not None
    for net_now in (trained.model, trained.state.average.module):
        for key, value in net_now.state_dict().items():
            if not key.startswith("normalize"):
                assert torch.equal(value, before[key]) == (layer_of(key) < first_trained), key
    for key, weight in trained.model.named_parameters():
        assert (weight.grad is None) == (layer_of(key) < first_trained)


def test_rates_by_hand(weights: Path) -> None:
    """Half the rate for each layer away from the logits; the schedule multiplies all of them."""
    trained = trainer(weights, layer_decay=0.5, optimizer=SGD(lr=0.8))
    trained.recipe.schedule.set(trained.optimizer, 0.8, 0.25)  # a triangle, half-way to its peak
    names = {id(weight): name for name, weight in trained.model.named_parameters()}
    rates = {
        layer_of(names[id(weight)]): group["lr"]
        for group in trained.optimizer.param_groups
        for weight in group["params"]
    }
    assert rates == {0: 0.05, 1: 0.1, 2: 0.2, 3: 0.4}
    assert trained.state.optimizer.param_groups[0]["lr"] == 0.4  # which metrics call the run's


def test_a_step_of_each_layer_by_hand(weights: Path) -> None:
    """Without momentum a step is rate times gradient."""
    plain = SGD(lr=0.8, momentum=0.0, weight_decay=0.0)
    trained = trainer(weights, layer_decay=0.5, frozen=1, optimizer=plain, schedule=Constant())
    before = {name: value.detach().clone() for name, value in trained.model.named_parameters()}
    steps(trained, 1)
    for name, weight in trained.model.named_parameters():
        rate = [0.0, 0.2, 0.4, 0.8][layer_of(name)]
        slope = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.testing.assert_close(weight.detach(), before[name] - rate * slope)


def test_a_decay_of_one_and_nothing_frozen_is_the_training_that_it_was(weights: Path) -> None:
    groups = trainer(weights, layer_decay=1, frozen=0).optimizer.param_groups
    assert len(groups) == 1 and "lr_scale" not in groups[0]


@needs_timm
@pytest.mark.parametrize("name", TIMM)
def test_rates_are_those_of_timms_layer_decay(name: str) -> None:
    from timm.optim import param_groups_layer_decay

    model: Any = models.create(name, 10, (1, 28, 28), (0.5,), (0.25,), **TIMM[name])
    ours = fine_tuning.prepare(model, [], 0, 0.7, 10).parameters
    theirs = param_groups_layer_decay(model.net, layer_decay=0.7)
    for each in (ours, theirs):
        assert all(isinstance(group, dict) for group in each)
    assert scales(ours) == pytest.approx(scales(theirs), rel=1e-12)


def scales(groups: Any) -> dict[int, float]:
    return {id(weight): group["lr_scale"] for group in groups for weight in group["params"]}


@needs_timm
@pytest.mark.parametrize("name", TIMM)
def test_all_but_the_classifier_of_a_net_of_timms_is_frozen(name: str) -> None:
    model: Any = models.create(name, 10, (1, 28, 28), (0.5,), (0.25,), **TIMM[name])
    fine_tuning.prepare(model, [], "backbone", 1.0, 10)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert {id(weight) for weight in trained} == {id(weight) for weight in model.net.get_classifier().parameters()}


def test_parts_of_a_frozen_block_rest_with_it_and_dropout_before_a_trained_layer_does_not(weights: Path) -> None:
    for frozen, resting in ((3, ["0", "1", "2", "3", "4", "5", "6", "7"]), (1, ["0", "1"])):
        trained = trainer(weights, frozen=frozen)
        trained.train_mode()
        assert [name for name, module in trained.model.net.named_modules() if not module.training] == resting


class Backwards(nn.Sequential):
    """Parts in another order than they are called in."""

    def forward(self, x: Tensor) -> Tensor:
        for part in reversed(self):
            x = part(x)
        return x


def test_frozen_layers_of_a_sequence_answer_as_in_evaluation_mode() -> None:
    """Torch's evaluation mode says what frozen layers give the first trained one, whose own dropout stays on."""
    first = [nn.Conv2d(1, 4, 5, stride=3), nn.ReLU(), nn.Dropout(0.5)]
    second = [nn.Conv2d(4, 6, 3, stride=3), nn.ReLU()]
    last = [nn.Dropout(0.5), nn.Flatten(), nn.Linear(24, 10)]
    body = nn.Sequential(nn.Sequential(*first), *second)
    flat = nn.Sequential(*first, *second, *last)
    x = torch.rand(64, 1, 28, 28)
    for model, convolved in ((flat, flat[:5]), (nn.Sequential(body, *last), body)):
        resting = fine_tuning.prepare(model, [], "backbone", 1.0, 10).frozen_modules
        model.train()
        for module in resting:
            module.eval()
        found = convolved(x)
        assert not torch.equal(model(x), model(x))
        assert torch.equal(found, convolved.eval()(x))
    backwards = Backwards(*reversed(flat))
    resting = fine_tuning.prepare(backwards, [], "backbone", 1.0, 10).frozen_modules
    assert {type(module) for module in resting} == {nn.Conv2d}


def test_a_killed_run_goes_on_bit_for_bit(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ("--averaging", 0.9, "--method", "FGSMAT", "--eps", 0.1, "--checkpoint_seconds", 0, "--optimizer", "AdamW")
    run = words(weights, *more)
    ended = toughen(*run, "--out", tmp_path / "whole")
    assert ended.status == 0, ended.err
    assert "frozen: 112 of 2,064 parameters; learning rates 0.001 (last layer) to 0.00025" in ended.err
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at_step(patched, 7)
        toughen(*run, "--out", tmp_path / "cut")
    assert toughen(*run, "--out", tmp_path / "cut", "--resume").status == 0
    same_end(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_processes_train_what_one_does(tmp_path: Path) -> None:
    """A net without batch norm, which sees each process's images alone."""
    save_file(models.create("fbf-mnist-cnn", 10, (1, 28, 28)).state_dict(), tmp_path / "net.safetensors")
    tuned = ("--init", tmp_path / "net.safetensors", "--frozen", 1, "--layer_decay", 0.5)
    run = small(*tuned, "--precision", "fp64", "--validation", 0, "--batch_size", 20)
    assert toughen(*run, "--out", tmp_path / "one").status == 0
    ended = toughen_in(2, *run, "--out", tmp_path / "two")
    assert ended.status == 0, ended.err
    one, two = state_of(tmp_path / "one"), state_of(tmp_path / "two")
    for name, value in load_file(tmp_path / "net.safetensors").items():
        key = f"model.net.{name}"
        torch.testing.assert_close(one[key], two[key], rtol=1e-9, atol=1e-12)
        assert torch.equal(one[key], value.double()) == name.startswith("0.")


@pytest.mark.slow
def test_a_time_budget_and_compiled_steps_leave_frozen_layers_alone(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda forward, **_: lambda *images: forward(*images))
    run = [word for word in words(weights, "--compile", "default", "--time-budget", "5s")]
    assert toughen(*run, "--out", tmp_path / "run").status == 0
    after, before = state_of(tmp_path / "run"), load_file(weights)
    same = [name for name, value in before.items() if torch.equal(after[f"model.net.{name}"], value)]
    assert same == [name for name in before if layer_of(name) == 0]


def test_wrong_values_are_refused_in_one_line(weights: Path, tmp_path: Path) -> None:
    start = small("--out", tmp_path / "run")
    own = ("--model", "test_fine_tuning:net", "--init", weights)
    for more, said in (
        ((*own, "--frozen", "stem"), "--frozen must be backbone or a whole number, not stem"),
        ((*own, "--frozen", "true"), "frozen"),
        ((*own, "--frozen", -1), "frozen is -1: give a number of layers"),
        ((*own, "--frozen", 4), "frozen is 4, and the net has 4 layers"),
        (("--frozen", 1), "would stay random: give their weights with --init"),
        ((*own, "--layer_decay", 0), "layer_decay is 0"),
        ((*own, "--layer_decay", 1.5), "layer_decay is 1.5"),
        ((*own, "--layer_decay", "fast"), "--layer-decay must be a number"),
    ):
        refused(toughen(*start, *more), said, lines=1)
    assert not (tmp_path / "run").exists()


class TwoHeads(nn.Module):
    """A net that names two layers as its classifier, as timm's distilled ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.one, self.two = nn.Linear(784, 8), nn.Linear(8, 10), nn.Linear(8, 10)

    def get_classifier(self) -> tuple[nn.Module, nn.Module]:
        return self.one, self.two

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x.flatten(1))
        return self.one(features) + self.two(features)  # type: ignore[no-any-return]


def test_a_net_of_two_heads_has_no_backbone_to_freeze() -> None:
    with pytest.raises(ValueError, match="no single layer of the net gives the 10 logits: give a number of layers"):
        fine_tuning.prepare(TwoHeads(), [], "backbone", 1.0, 10)


def test_passes_by_hand() -> None:
    """4 inputs, 6 hidden units, 3 logits: weight gradients of 24 and 18 products, and 18 more to go back in between."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False))
    x = torch.rand(5, 1, 2, 2)
    assert trained_share(model, x[:1]) == 1
    model[1].requires_grad_(False)
    share = trained_share(model, x[:1])
    assert share == 18 / (24 + 18 + 18) and not model[1].weight.requires_grad
    with PassCounter(model, share=share) as passes:
        model(x).sum().backward()
    assert passes.total == pytest.approx(5 * (1 + 2 * 0.3))
    with PassCounter(model, share=share) as passes:  # to the images, too, as Free does: through both layers
        model(x.requires_grad_()).sum().backward()
    assert passes.total == pytest.approx(5 * (1 + 2 * 0.3 + 0.7))


def test_a_run_counts_what_its_steps_take(weights: Path) -> None:
    whole, tuned = trainer(weights), trainer(weights, frozen="backbone")
    for trained in (whole, tuned):
        steps(trained, 2)
    passes = [each.state.totals.passes / each.state.totals.images for each in (whole, tuned)]
    assert passes[0] == 3 and 1 < passes[1] < 1.5
