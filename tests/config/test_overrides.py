"""Step sizes and starts of a recipe, where a command line names another eps or norm."""

from __future__ import annotations

from typing import Any

import pytest

from toughen.config.overrides import kept_lengths
from toughen.config.train import note_on_lengths, parse_train

LENGTHS = ("step_size", "start_size")


def lengths(recipe: str, *words: str) -> dict[str, float]:
    """What the method's parts have, in 1/255: by the name of the setting."""
    method: Any = parse_train([recipe, "--data", "mnist-5k", *words])[0].method
    found = dict[str, float]()
    for part in method.modules():
        for each in (part, getattr(part, "attack", None)):
            found |= {name: 255 * float(value) for name in LENGTHS if (value := getattr(each, name, None)) is not None}
    return found


@pytest.mark.parametrize(
    ("recipe", "words", "expected"),
    [
        ("pgd-cifar10", "", {"step_size": 2}),
        ("pgd-cifar10", "--eps 4/255", {"step_size": 2}),
        ("pgd-cifar10", "--eps 4/255 --method.step_size 2/255", {"step_size": 2}),
        ("pgd-cifar10", "--norm l2 --eps 0.5", {}),  # the method's own: 2.5 eps / steps
        ("pgd-cifar10", "--norm linf --eps 4/255", {"step_size": 2}),
        ("pgd-cifar10", "--norm l2 --eps 0.5 --method.step_size 0.1", {"step_size": 25.5}),
        ("awp-cifar10", "", {"step_size": 2}),
        ("awp-cifar10", "--norm l2 --eps 0.5", {}),  # of the method within
        ("fbf-mnist", "--norm l2 --eps 2", {"step_size": 1.25 * 2 * 255}),
    ],
)
def test_they_stay_at_another_eps_and_not_in_another_norm(recipe: str, words: str, expected: dict[str, float]) -> None:
    assert lengths(recipe, *words.split()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "nuat-cifar10 --eps 16/255",
            "start_size 4/255: as in the recipe for eps 8/255, also at eps 16/255 (--method.start_size)",
        ),
        (
            "awp-cifar10 --eps=4/255",
            "step_size 2/255: as in the recipe for eps 8/255, also at eps 4/255 (--method.inner.step_size)",
        ),
        (
            "nuat-h-cifar10 --eps 4/255",
            "start_size 4/255: as in the recipe for eps 8/255, also at eps 4/255 "
            "(--method.cheap.start_size and --method.strong.start_size)",
        ),
        ("nuat-h-cifar10 --eps 4/255 --method.cheap.start_size 0.01 --method.strong.start_size 0.01", ""),
        ("pgd-cifar10", ""),
        ("pgd-cifar10 --eps 0.03137254901960784", ""),  # the recipe's
        ("pgd-cifar10 --eps 4/255 --method.step_size 1/255", ""),
        ("pgd-cifar10 --eps 4/255 --method NFGSM", ""),
        ("pgd-cifar10 --eps 0.5 --norm l2", ""),  # left out
        ("--data mnist-5k --eps 0.1", ""),
    ],
)
def test_lengths_that_stay_are_named(words: str, expected: str) -> None:
    assert note_on_lengths(words.split()) == expected


def test_a_recipe_without_a_radius_has_no_lengths_for_one() -> None:
    """As the config.yaml of a run of normal training."""
    recipe = {"eps": None, "method": {"class_path": "Standard", "init_args": {}}}
    assert kept_lengths(recipe, [("eps", "8/255"), ("method", "NuAT")]) == ""
