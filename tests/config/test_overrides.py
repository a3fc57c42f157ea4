"""Lengths that a recipe writes for its eps, where a command line names another eps or norm."""

from __future__ import annotations

from typing import Any

import pytest

from toughen.config.train import parse_train

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
        ("pgd-cifar10", "--eps 4/255", {"step_size": 1}),
        ("pgd-cifar10", "--eps 16/255 --eps_factor 0.5", {"step_size": 2}),
        ("pgd-cifar10", "--eps 4/255 --method.step_size 2/255", {"step_size": 2}),
        ("pgd-cifar10", "--norm l2 --eps 0.5", {}),  # the method's own: 2.5 eps / steps
        ("pgd-cifar10", "--norm linf --eps 4/255", {"step_size": 1}),
        ("awp-cifar10", "--eps 12/255", {"step_size": 3}),  # of the method within
        ("dat-cifar10", "--norm l2 --eps 0.5", {}),
        ("toughen-cifar10", "--eps 16/255", {"start_size": 16, "step_size": 16}),
        ("fbf-mnist", "--norm l2 --eps 2", {"step_size": 1.25 * 2 * 255}),
    ],
)
def test_they_follow_the_eps_and_not_into_another_norm(recipe: str, words: str, expected: dict[str, float]) -> None:
    assert lengths(recipe, *words.split()) == pytest.approx(expected)
