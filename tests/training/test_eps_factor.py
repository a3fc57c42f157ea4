"""A method that trains on larger attacks than the model is to withstand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from commands import digits, small, toughen

from toughen import runs
from toughen.config.train import parse_train
from toughen.core.types import Batch
from toughen.methods.awp import AWP
from toughen.methods.fast import FBF
from toughen.training import Recipe, default_recipe
from toughen.training.build import build


def words(text: str) -> Recipe:
    return parse_train(f"--data {digits()} {text}".split())[0]


def radii(recipe: Recipe) -> list[float]:
    """Of all parts of the method."""
    found = (getattr(each, "eps", None) for each in (recipe.method, *recipe.method.inner()))
    return [float(eps) for eps in found if eps is not None]


def test_all_parts_of_a_method_get_the_larger_radius_and_the_run_keeps_its_own() -> None:
    recipe = words("--eps 8/255 --eps-factor 1.25 --method Hybrid --method.cheap NuAT --method.strong PGDAT")
    assert radii(recipe) == pytest.approx([10 / 255] * 2) and str(recipe.eps) == "8/255"
    assert recipe.threat is not None and float(recipe.threat.eps) == 8 / 255 and recipe.threat.norm == "linf"


def test_a_factor_of_1_leaves_a_radius_as_it_was_written() -> None:
    recipe = words("--eps 8/255 --method FBF")
    assert str(recipe.method.eps) == "8/255" and recipe.threat == recipe.method.threat


def test_attacks_in_training_are_larger_and_those_of_validation_are_not(tmp_path: Path) -> None:
    recipe = Recipe(
        data=str(digits()), model="fbf-mnist-cnn", validation=10, device="cpu", eps=0.2, eps_factor=1.5,
        method=FBF(eps=0.3),
    )  # fmt: skip
    trainer, *_ = build(recipe, tmp_path)
    x, y = trainer.image.repeat(8, 1, 1, 1) + 0.5, torch.arange(8)
    crafted = trainer.method.craft(trainer.model, x, y, Batch(index=torch.arange(8)))
    assert float((crafted.x_adv - x).abs().max()) == pytest.approx(0.3, abs=1e-6)
    assert {attack.eps for attack in trainer.state.validation.attacks.values()} == {0.2}
    assert trainer.detector.threat is not None and trainer.detector.threat.eps == 0.2


def test_a_run_is_evaluated_at_its_own_radius_and_goes_on_with_both(tmp_path: Path) -> None:
    ended = toughen(*small("--method", "FBF", "--eps", "0.2", "--eps-factor", "1.1", "--out", tmp_path / "run"))
    assert ended.status == 0 and "linf eps 0.2 (times 1.1 in training)" in " ".join(ended.err.split())
    assert runs.read_record(tmp_path / "run").eps == 0.2
    config = tmp_path / "run" / "config.yaml"
    assert re.search(r"^eps: 0.2$", config.read_text(), re.M) and "    eps: 0.22\n" in config.read_text()
    again = parse_train([str(config)])[0]
    assert radii(again) == [0.22] and again.eps_factor == 1.1
    assert radii(parse_train([str(config), "--eps", "0.1"])[0]) == [0.11]
    assert radii(parse_train([str(config), "--eps-factor", "1.0"])[0]) == [0.2]


def test_a_radius_may_be_calculated_in_another_way() -> None:
    """8/255 x 1.25 is 10/255, but neither as a rounded product nor to the last bit."""
    recipe = Recipe(eps=8 / 255, eps_factor=1.25, method=FBF(eps=10 / 255))
    assert recipe.threat is not None and recipe.threat.eps == 8 / 255
    assert radii(words("--eps 8/255 --eps-factor 1.25 --method FBF --method.eps 10/255")) == [10 / 255]
    with pytest.raises(ValueError, match="give both the same"):
        Recipe(eps=8 / 255, eps_factor=1.25, method=FBF(eps=10.001 / 255))


def test_in_python_a_recipe_s_parts_must_agree() -> None:
    with pytest.raises(ValueError, match=r"linf eps 0.2 \(times eps_factor 1.5: 0.3\), that of FBF linf eps 0.2: give"):
        Recipe(eps=0.2, eps_factor=1.5, method=FBF(eps=0.2))
    recipe = default_recipe("mnist-5k", eps=0.2, eps_factor=1.5)
    assert set(radii(recipe)) == {0.3} and recipe.threat is not None and recipe.threat.eps == 0.2
    assert default_recipe("mnist-5k", eps=0.2, eps_factor=1.5, method=AWP(inner=FBF(eps=0.3))).eps == 0.2
