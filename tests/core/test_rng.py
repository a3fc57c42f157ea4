"""Random numbers depend on their keys alone: not on batch size, order, or who asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from toughen.core.rng import ImageNoise, Noise, StepNoise, derive_seed, seed_generators

Draw = Callable[[Noise, Tensor], Tensor]
DRAWS: list[Draw] = [Noise.uniform, Noise.normal, Noise.sign]
X = torch.zeros(6, 1, 2, 3)


def by_draw(draw: Draw) -> str:
    return draw.__name__


# ---- keys


def test_keys_are_stable() -> None:
    """As coreutils says: printf "('step', 7, 11)" | b2sum -l 64, read from the last byte to the first, halved.

    In every process and on every machine, unlike hash(), which is salted for text.
    """
    assert derive_seed("step", 7, 11) == 0x8E7380E5E44201EB >> 1
    assert derive_seed("image", 0, "PGD", 0, 3, 0) == 0x316D9D8B96CDDF2D >> 1


def test_keys_tell_their_parts_apart() -> None:
    keys = {derive_seed(seed, step) for seed in range(30) for step in range(30)} | {
        derive_seed("1", 2),
        derive_seed(1, "2"),
        derive_seed(12),
    }
    assert len(keys) == 903
    assert all(0 <= each < 2**63 for each in keys)


# ---- what is drawn


@pytest.mark.parametrize("noise", [Noise(), StepNoise(0, 0), ImageNoise(0, "PGD", list(range(6)))])
def test_distributions(noise: Noise) -> None:
    like = torch.zeros(6, 1, 30, 30, dtype=torch.float64)
    uniform, normal, sign = noise.uniform(like), noise.normal(like), noise.sign(like)
    assert {uniform.dtype, normal.dtype, sign.dtype} == {torch.float64}
    assert uniform.shape == normal.shape == sign.shape == like.shape
    assert stats.kstest((uniform.flatten() + 1).numpy() / 2, "uniform").pvalue > 0.01
    assert stats.kstest(normal.flatten().numpy(), "norm").pvalue > 0.01
    assert sign.unique().tolist() == [-1, 1]
    assert abs(sign.mean()) < 0.05


@pytest.mark.parametrize("draw", DRAWS, ids=by_draw)
def test_the_default_is_the_global_generator(draw: Draw) -> None:
    state = torch.get_rng_state()
    one, other = draw(Noise(), X), draw(Noise(), X)
    torch.set_rng_state(state)
    again = draw(Noise().restart(3), X)
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize("noise", [StepNoise(0, 0), ImageNoise(0, "PGD", list(range(6)))])
def test_keyed_noise_leaves_the_global_generator_alone(noise: Noise) -> None:
    state = torch.get_rng_state()
    for draw in DRAWS:
        draw(noise, X)
    assert torch.equal(torch.get_rng_state(), state)


# ---- a training step's


@pytest.mark.parametrize("draw", DRAWS, ids=by_draw)
def test_slices_make_up_the_global_batch(draw: Draw) -> None:
    whole = StepNoise(0, 5)
    slices = [StepNoise(0, 5, total=6, first=0), StepNoise(0, 5, total=6, first=4)]
    for _ in range(2):  # also for the second draw of a step
        parts = [draw(slices[0], X[:4]), draw(slices[1], X[4:])]
        assert torch.equal(torch.cat(parts), draw(whole, X))


def test_a_slice_is_never_short() -> None:
    assert StepNoise(0, 5, first=4).uniform(X).shape == X.shape
    assert StepNoise(0, 5, total=8, first=4).uniform(X).shape == X.shape


def test_steps_and_seeds_differ() -> None:
    drawn = [StepNoise(seed, step).uniform(X) for seed, step in [(0, 0), (0, 1), (1, 0)]]
    assert not any(torch.equal(drawn[i], drawn[j]) for i, j in [(0, 1), (0, 2), (1, 2)])
    noise = StepNoise(0, 0)
    assert torch.equal(noise.uniform(X), drawn[0]) and not torch.equal(noise.uniform(X), drawn[0])


# ---- an evaluation's


@pytest.mark.parametrize("draw", DRAWS, ids=by_draw)
def test_an_images_draws_are_its_own(draw: Draw) -> None:
    many, few = ImageNoise(0, "PGD", [3, 1, 4, 0, 5, 9]), ImageNoise(0, "PGD", [9, 3])
    for _ in range(2):
        whole, part = draw(many, X), draw(few, X[:2])
        assert torch.equal(part, whole[[5, 0]])


def test_every_part_of_the_key_counts() -> None:
    noise = ImageNoise(0, "PGD", [0])
    others = [replace(noise, **change) for change in ({"seed": 1}, {"attack": "FGSM"}, {"index": [1]}, {"number": 1})]
    x = X[:1]
    first = noise.normal(x)
    assert not torch.equal(first, noise.normal(x))  # the second draw
    assert not any(torch.equal(first, other.normal(x)) for other in others)


def test_restarts_count_from_this_one() -> None:
    """So that restarts one by one, as the evaluation runs them, are those of an attack that runs them itself."""
    noise = ImageNoise(0, "PGD", [0, 1])
    x = X[:2]
    noise.normal(x)
    fresh = [ImageNoise(0, "PGD", [0, 1], number).normal(x) for number in range(4)]
    assert torch.equal(noise.restart(0).normal(x), fresh[0])
    assert torch.equal(noise.restart(2).normal(x), fresh[2])
    assert torch.equal(noise.restart(2).restart(0).normal(x), fresh[2])
    assert torch.equal(noise.restart(2).restart(1).normal(x), fresh[3])


def test_the_number_of_images_must_fit() -> None:
    with pytest.raises(ValueError, match="noise for 1 images was requested for 6"):
        ImageNoise(0, "PGD", [0]).normal(X)


def test_a_models_own_draws_are_seeded_as_pytorch_seeds_them() -> None:
    torch.manual_seed(5)
    expected = torch.randn(4)
    seed_generators(5, torch.device("cpu"))
    assert torch.equal(torch.randn(4), expected)
