"""A recipe in a run's config.yaml: what jsonargparse writes, whichever way the run was started."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import pytest
import torch
import yaml
from commands import digits, refused, small, toughen

from toughen.attacks.base import Attack
from toughen.attacks.pgd import PGD
from toughen.config import settings
from toughen.config.settings import recipes
from toughen.config.train import parse_train, train_parser
from toughen.core.types import Eps
from toughen.methods import GAT, PGDAT, Delayed, NuAT, Standard
from toughen.methods.fast import FBF
from toughen.training import SGD, Adam, Piecewise, Recipe, train
from toughen.training.optimizers import Optimizer, Parameters
from toughen.training.recipe_yaml import changes, recipe_yaml, settings_of
from toughen.training.schedules import Schedule
from toughen.utils.configurable import init_args
from toughen.utils.units import Fraction


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[jsonargparse.Namespace]:
    """What jsonargparse has parsed, with eps and norm in every part of the method."""
    seen: list[jsonargparse.Namespace] = []
    monkeypatch.setattr(settings, "refuse_nulls", lambda given: seen.append(given.clone()))
    return seen


@pytest.mark.parametrize("name", sorted(recipes()))
def test_a_recipe_is_written_as_jsonargparse_writes_it(name: str, parsed: list[jsonargparse.Namespace]) -> None:
    recipe = parse_train([name])[0]
    [tree] = parsed
    theirs = yaml.safe_load(train_parser().dump(tree, skip_validation=True))
    ours = yaml.safe_load(recipe_yaml(recipe))
    assert ours == {name: value for name, value in theirs.items() if name in Recipe.__dataclass_fields__}


def test_a_recipe_made_in_python_is_read_back_by_the_command_line(tmp_path: Path) -> None:
    method = Delayed(before=Standard(), after=PGDAT(eps=8 / 255, steps=3), switch_epoch=2)
    schedule = Piecewise(milestones=(0.25, 0.5))
    recipe = Recipe(method=method, eps=8 / 255, optimizer=Adam(lr=1e-5), schedule=schedule, device="1e3", keep_at=[1])
    (tmp_path / "mine.yaml").write_text(recipe_yaml(recipe), encoding="utf-8")
    again = parse_train([str(tmp_path / "mine.yaml")])[0]
    assert isinstance(again.method, Delayed) and init_args(again.method).keys() == init_args(method).keys()
    assert (again.method.switch_epoch, again.method.threat) == (2, method.threat)
    assert init_args(again.method.after) == init_args(method.after)
    assert (again.optimizer, again.schedule) == (recipe.optimizer, schedule)
    plain = [each.name for each in fields(Recipe) if each.name not in ("method", "optimizer", "schedule")]
    assert [getattr(again, each) for each in plain] == [getattr(recipe, each) for each in plain]


def test_a_none_that_is_no_default_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(recipe_yaml(Recipe(method=GAT(eps=0.3, jump_at=None))), encoding="utf-8")
    again = parse_train([str(tmp_path / "mine.yaml")])[0].method
    assert isinstance(again, GAT) and again.jump_at is None


def test_a_norm_that_the_method_alone_says_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(recipe_yaml(Recipe(method=PGDAT(eps=1.0, norm="l2"))), encoding="utf-8")
    again = parse_train([str(tmp_path / "mine.yaml")])[0]
    assert again.threat is not None and (again.threat.norm, again.threat.eps) == ("l2", 1.0)


class Halved(FBF):
    """A method of a user's own that hands settings on."""

    def __init__(self, share: float = 0.5, **given: Any) -> None:
        super().__init__(**given)
        self.share = share


def test_settings_that_are_handed_on_are_written(tmp_path: Path) -> None:
    written = yaml.safe_load(recipe_yaml(Recipe(method=Halved(eps=0.3, start="none"))))["method"]
    assert written["class_path"].endswith("test_recipe_yaml.Halved")
    assert written["init_args"] == {"share": 0.5, "eps": 0.3, "start": "none"}


class Plain(FBF):
    """A method of a user's own that takes plain floats."""

    def __init__(self, *, eps: float) -> None:
        super().__init__(eps=eps)


def test_a_plain_float_is_written_as_a_number() -> None:
    written = yaml.safe_load(recipe_yaml(Recipe(method=Plain(eps=Fraction("8/255")))))["method"]["init_args"]
    assert written == {"eps": 8 / 255}


class Named(FBF):
    """A method of a user's own with a setting that is called settings."""

    def __init__(self, *, settings: list[int], eps: float) -> None:
        super().__init__(eps=eps)
        self.settings = settings


def test_a_setting_may_be_called_settings() -> None:
    method = Named(settings=[1], eps=0.3)
    assert yaml.safe_load(recipe_yaml(Recipe(method=method)))["method"]["init_args"] == {"settings": [1], "eps": 0.3}
    assert repr(method).startswith("Named(settings=[1], eps=0.3")


class Bare(FBF):
    """A method of a user's own that hands everything on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


def test_no_places_are_written_where_none_were_given() -> None:
    written = yaml.safe_load(recipe_yaml(Recipe(method=Bare(eps=0.3))))["method"]
    assert written["init_args"] == {"eps": 0.3}


def test_eps_and_norm_reach_a_method_that_hands_them_on() -> None:
    words = ["--data", "mnist-5k", "--model", "small-cnn", "--eps", "0.5", "--norm", "l2"]
    method = parse_train([*words, "--method", f"{Bare.__module__}.Bare"])[0].method
    assert isinstance(method, Bare) and (method.eps, method.norm) == (0.5, "l2")


class Attacked(FBF):
    """A method of a user's own that takes an attack."""

    def __init__(self, *, attack: Attack, eps: Eps | None = None) -> None:
        super().__init__(eps=eps)
        self.own = attack


def attacked(steps: int) -> Recipe:
    return Recipe(method=Attacked(attack=PGD(eps=0.3, steps=steps, start="none"), eps=0.3))


def test_the_settings_of_an_attack_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(recipe_yaml(attacked(3)), encoding="utf-8")
    method = parse_train([str(tmp_path / "mine.yaml")])[0].method
    assert isinstance(method, Attacked)
    again = method.own
    assert isinstance(again, PGD) and (again.eps, again.norm, again.steps, again.start) == (0.3, "linf", 3, "none")


def test_another_setting_of_an_attack_is_a_change() -> None:
    assert changes(settings_of(attacked(3)), attacked(3)) == {}
    assert changes(settings_of(attacked(3)), attacked(5)) == {"method.init_args.attack.init_args.steps": ("3", "5")}


def test_a_setting_of_an_attack_that_is_not_written_has_its_default() -> None:
    before = {name: value for name, value in settings_of(attacked(10)).items() if not name.endswith(".steps")}
    assert changes(before, attacked(10)) == {}


class Warm(Schedule):
    """A schedule of a user's own that keeps its setting under another name."""

    def __init__(self, share: float = 0.5) -> None:
        self._share = share

    def factor(self, progress: float) -> float:
        return min(1.0, progress / self._share)


@dataclass(frozen=True, slots=True)
class Slotted(Optimizer):
    """An optimizer of a user's own whose settings are in slots."""

    lr: float = 0.1

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.lr)


def test_settings_of_own_optimizers_and_schedules_are_those_of_their_constructors(tmp_path: Path) -> None:
    recipe = Recipe(method=Standard(), optimizer=Slotted(lr=0.2), schedule=Warm(0.25))
    (tmp_path / "mine.yaml").write_text(recipe_yaml(recipe), encoding="utf-8")
    again = parse_train([str(tmp_path / "mine.yaml")])[0]
    assert again.optimizer == Slotted(lr=0.2) and again.schedule.factor(0.125) == 0.5


class Stepped(Schedule):
    """A schedule of a user's own that takes any number."""

    def __init__(self, height: Any, steps: Any) -> None:
        self.height, self.steps = height, steps

    def factor(self, progress: float) -> Any:
        return self.height


def test_numbers_of_numpy_are_written_as_numbers() -> None:
    schedule = Stepped(np.float32(0.5), np.int64(3))
    recipe = Recipe(method=PGDAT(eps=np.float64(0.25)), schedule=schedule, averaging=np.float64(0.75))
    written = yaml.safe_load(recipe_yaml(recipe))
    assert written["schedule"]["init_args"] == {"height": 0.5, "steps": 3}
    assert (written["method"]["init_args"]["eps"], written["averaging"]) == (0.25, 0.75)


def test_a_rate_of_numpy_is_a_number_in_an_epochs_line(tmp_path: Path) -> None:
    train(mine(method=FBF(eps=0.2), epochs=1, schedule=Stepped(np.float32(0.5), 1)), tmp_path)
    assert '"lr": 0.05' in (tmp_path / "metrics.jsonl").read_text()


def mine(**other: Any) -> Recipe:
    """A run of two epochs on the first digits."""
    given: dict[str, Any] = {
        "data": str(digits()),
        "model": "fbf-mnist-cnn",
        "epochs": 2,
        "validation": 20,
        "device": "cpu",
    }
    return Recipe(**{**given, "method": NuAT(eps=0.2), "eps": 0.2, **other})


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"method": NuAT(eps=0.2, lam=2.0)}, r"method.lam: 4.0, now 2.0"),
        ({"method": FBF(eps=0.2)}, r"method: toughen.methods.NuAT, now toughen.methods.FBF"),
        ({"schedule": Piecewise()}, r"schedule: toughen.training.Cyclic, now toughen.training.Piecewise"),
        ({"seed": 1}, r"seed: 0, now 1"),
    ],
)
def test_a_run_from_python_is_not_continued_with_other_settings(
    other: dict[str, Any], said: str, tmp_path: Path
) -> None:
    train(mine(), tmp_path, callbacks=[])
    with pytest.raises(ValueError, match=f"was started with other settings .*{said}"):
        train(mine(**other), tmp_path, resume=True)
    assert train(mine(checkpoint_seconds=7), tmp_path, resume=True) == tmp_path  # no result depends on that


def test_a_run_is_continued_by_the_other_way_in(tmp_path: Path) -> None:
    """One that Python began goes on from the command line and the other way round, whichever way eps is written."""
    words = ["--data", digits(), "--eps", "8/255", "--model", "fbf-mnist-cnn", "--epochs", 2, "--out", tmp_path / "one"]
    words += ["--method", "FBF", "--validation", 20, "--device", "cpu"]
    assert toughen("train", *words).status == 0
    recipe = parse_train([str(word) for word in words])[0]
    changed = replace(recipe, eps=8 / 255, method=FBF(**{**init_args(recipe.method), "eps": 8 / 255}))
    assert train(changed, tmp_path / "one", resume=True) == tmp_path / "one"
    train(changed, tmp_path / "two")
    ended = toughen("train", tmp_path / "two/config.yaml", "--out", tmp_path / "two", "--resume")
    assert ended.status == 0 and "finished already" in ended.err


def test_a_config_that_was_emptied_is_damaged(tmp_path: Path) -> None:
    words = [*small(), "--out", tmp_path]
    assert toughen(*words).status == 0
    (tmp_path / "config.yaml").write_text("")
    refused(toughen(*words, "--resume"), "config.yaml is damaged")


def test_changes_know_numbers() -> None:
    recipe = Recipe(method=FBF(eps=8 / 255), batch_size=50, epochs=4)
    before = {**settings_of(recipe), "method.init_args.eps": "8/255", "batch_size": "50.0"}
    before |= {"epochs": "5", "gone": "3", "never": "None"}
    assert changes(before, recipe) == {"epochs": ("5", "4"), "gone": ("3", "None")}


def test_a_setting_that_is_missing_has_its_default() -> None:
    recipe = Recipe(method=Halved(eps=0.3), optimizer=SGD(lr=0.1, momentum=0.8))
    before = settings_of(recipe)
    assert "method.init_args.start" not in before
    for name in ("seed", "optimizer.init_args.nesterov", "method.init_args.share"):
        assert changes({other: value for other, value in before.items() if other != name}, recipe) == {}
    assert changes({**before, "method.init_args.start": "uniform"}, recipe) == {}
    missing = {name: value for name, value in before.items() if name != "optimizer.init_args.momentum"}
    assert changes(missing, recipe) == {"optimizer.init_args.momentum": ("0.9", "0.8")}


def test_a_run_of_a_method_that_hands_settings_on_is_continued_by_the_command_line(tmp_path: Path) -> None:
    shared: dict[str, Any] = {"data": str(digits()), "epochs": 1, "model": "fbf-mnist-cnn", "validation": 20}
    train(Recipe(method=Halved(eps=0.3), eps=0.3, **shared), tmp_path / "a")
    given = ["train", tmp_path / "a/config.yaml", "--out", tmp_path / "a", "--resume"]
    assert toughen(*given).status == 0
    refused(toughen(*given, "--method.share", "0.25"), "method.share: 0.5, now 0.25")
    refused(toughen(*given, "--method.start", "none"), "method.start: uniform, now none")
