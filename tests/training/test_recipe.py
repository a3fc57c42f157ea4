"""A recipe made in Python takes what the command line would take."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest

from toughen.methods import FGSMAT, PGDAT, Delayed
from toughen.methods.standard import Standard
from toughen.training import Recipe

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"weights": "lst"}, "weights is 'lst': it must be 'best' or 'last'"),
    ({"crop": "resize"}, "crop is 'resize': it must be int or 'resized' or None"),
    ({"watch": "none"}, "watch is 'none': it must be 'off' or 'warn' or 'rescue'"),
    ({"frozen": "backbones"}, "frozen is 'backbones': it must be int or 'backbone'"),
    ({"precision": "fp16"}, "precision is 'fp16': it must be 'auto' or 'fp32' or 'bf16' or 'fp64'"),
    ({"flip": "no"}, "flip is 'no': it must be bool or None"),
    ({"epochs": 2.5}, "epochs is 2.5: it must be int"),
    ({"epochs": True}, "epochs is True: it must be int"),
    ({"time_budget": 30}, "time_budget is 30: it must be str or None"),
    ({"compile": "on"}, "compile is 'on': it must be 'off' or 'default'"),
    ({"method": "NuAT"}, "method is 'NuAT': it must be Method"),
    ({"optimizer": "SGD"}, "optimizer is 'SGD': it must be Optimizer"),
    ({"seed": None}, "seed is None: it must be int"),
    ({"keep_at": [1.5]}, "keep_at is [1.5]: it must be list[int | str]"),
]
# in a process of its own, as in this one the types are checked already
CODE = """
from toughen.methods import Standard
from toughen.training import Recipe
for given in {given!r}:
    try:
        Recipe(**{{"method": Standard()}} | given)
        print("taken")
    except ValueError as error:
        print(error)
"""


def test_a_setting_of_another_type_or_choice_is_refused() -> None:
    code = CODE.format(given=[given for given, _ in WRONG])
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ended.stdout.splitlines() == [said for _, said in WRONG]


@pytest.mark.parametrize(
    "given",
    [{"checkpoint_seconds": 7}, {"frozen": 1, "init": "a"}, {"crop": 4}, {"eps": 0.3, "method": PGDAT(eps=0.3)}],
)
def test_a_whole_number_is_a_number(given: dict[str, Any]) -> None:
    recipe = Recipe(**{"method": Standard(), **given})
    assert all(getattr(recipe, name) == value for name, value in given.items())


class Forgetful(Standard):
    """A method of a user's own."""

    def __init__(self) -> None:
        self.share = 0.5


def test_a_method_that_is_not_set_up_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Forgetful.__init__ does not call super\(\).__init__\(\)"):
        Recipe(method=Forgetful())


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="checkpoint_seconds is inf: give a finite number"):
        Recipe(method=Standard(), checkpoint_seconds=math.inf)


def test_each_part_of_a_method_has_the_recipe_s_threat() -> None:
    """As on the command line; without a threat of the recipe's each part may have its own."""
    mixed = Delayed(before=FGSMAT(eps=0.1), after=PGDAT(eps=0.3), switch_epoch=1)
    with pytest.raises(ValueError, match=r"that of FGSMAT linf eps 0.1: give both the same, or leave"):
        Recipe(method=mixed, eps=0.3)
    assert Recipe(method=mixed).threat == mixed.threat
