"""Evaluation: per image, worst case over attacks and restarts, judged by the harness alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from commands import digits, refused, small, toughen
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from toughen import data, runs
from toughen.attacks import FGSM, PGD, Attack
from toughen.core.rng import Noise
from toughen.core.threat import Threat
from toughen.core.types import Eps, Images, Labels, Logits, Norm
from toughen.data import Split
from toughen.evaluation import evaluate_run, job, measure, parse_attack
from toughen.evaluation.harness import as_floats, predict, run_attack
from toughen.evaluation.images import load_test, refuse_seen, sample
from toughen.utils.statistics import interval


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose net is right on most of the 40 test images, and breaks on some of them at eps 0.1."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    words = ("--method", "FBF", "--eps", 0.1, "--epochs", 15, "--optimizer", "Adam", "--optimizer.lr", 0.004)
    assert toughen(*small(*words, "--validation", 0, "--out", folder)).status == 0
    return folder


@dataclass(frozen=True, kw_only=True)
class Scripted(Attack):
    """Returns what a function makes of the images."""

    make: Callable[[Images, Noise | None], Images]
    eps: Eps | None = 0.1
    norm: Norm = "linf"
    restarts: int = 1

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        return self.make(x, noise)


class Brightness(nn.Module):
    """Two classes: the second one where the first pixel exceeds a half."""

    def forward(self, x: Tensor) -> Tensor:
        pixel = x[:, 0, 0, 0]
        return torch.stack([0.5 - pixel, pixel - 0.5], 1)


def pixels(*values: int) -> Split:
    """Images of one pixel, of the class that Brightness sees, except for values above 255, which are mislabelled."""
    images = torch.tensor([value % 256 for value in values], dtype=torch.uint8).view(-1, 1, 1, 1)
    labels = (images[:, 0, 0, 0] > 127).long()
    wrong = torch.tensor([value > 255 for value in values])
    return Split(images, torch.where(wrong, 1 - labels, labels))


def up(amount: float) -> Scripted:
    return Scripted(make=lambda x, noise: (x + amount).clamp(0, 1))


def down(amount: float) -> Scripted:
    return Scripted(make=lambda x, noise: (x - amount).clamp(0, 1))


def test_worst_case_per_image() -> None:
    # 110 falls to brightening by 0.1, 140 to darkening, 20 and 240 to neither; 300 is 44 with a wrong label
    split = pixels(110, 140, 20, 240, 300)
    found = measure(Brightness(), split, {"up": up(0.1), "down": down(0.1)})
    summary = found.summary()
    assert summary["clean_accuracy"] == 4 / 5 and summary["robust_accuracy"] == 2 / 5 and summary["images"] == 5
    assert [summary["attacks"][name]["robust_accuracy"] for name in ("up", "down")] == [3 / 5, 3 / 5]
    rows = found.ledger().to_pylist()
    assert [row["broken_by"] for row in rows] == ["up", "down", None, None, None]
    assert [row["distance"] for row in rows[:2]] == pytest.approx([0.1, 0.1]) and rows[2]["distance"] is None
    assert [(row["stands_up"], row["stands_down"]) for row in rows] == [
        (False, True), (True, False), (True, True), (True, True), (False, False),
    ]  # fmt: skip


def test_worst_case_over_restarts() -> None:
    """A restart that fails on an image does not heal what an earlier one broke, and broken images are left alone."""
    attacked: list[list[float]] = []

    def make(x: Images, noise: Noise | None) -> Images:
        number = len(attacked)
        attacked.append(sorted(set((x[:, 0, 0, 0] * 255).round().tolist())))
        return (x + (0.1 if number == 0 else -0.1)).clamp(0, 1)

    split = pixels(110, 140, 20)
    result = run_attack(
        Brightness(), split.images, split.labels, torch.ones(3, dtype=torch.bool), Scripted(make=make, restarts=3),
        name="scripted", seed=0,
    )  # fmt: skip
    assert result.broken.tolist() == [True, True, False]
    assert attacked == [[20, 110, 140], [20, 140], [20]]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda x, noise: (x + 0.101).clamp(0, 1), "beyond eps"),
        (lambda x, noise: x + 0.05, "outside"),
        (lambda x, noise: x - 0.05, "outside"),
        (lambda x, noise: x * torch.nan, "beyond eps"),
    ],
)
def test_an_attack_that_cheats_is_at_fault(make: Any, said: str) -> None:
    with pytest.raises(RuntimeError, match=f"attack cheat .*{said}.*: fix it"):
        measure(Brightness(), pixels(0, 100, 255), {"cheat": Scripted(make=make)})


def test_an_attack_at_the_edge_is_none(mnist: tuple[Images, Labels]) -> None:
    measure(Brightness(), pixels(100), {"edge": up(0.1)})


def test_nan_logits_are_wrong() -> None:
    class Undefined(Brightness):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            return torch.where(x[:, 0, 0, :1] > 0.35, out, torch.nan)

    split = pixels(20, 100, 200)  # 0.08 has no logits, 0.39 loses them when darkened, 0.78 keeps them
    found = measure(Undefined(), split, {"down": down(0.1)})
    assert found.correct.tolist() == [False, True, True] and found.robust.tolist() == [False, False, True]


def test_all_logits_are_looked_at() -> None:
    class Infinite(Brightness):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([super().forward(x), torch.full((len(x), 1), -torch.inf)], 1)

    assert predict(Infinite(), pixels(20).images).tolist() == [-1]


def test_verdicts_do_not_depend_on_what_else_is_attacked(trained: Path) -> None:
    """Random starts are each image's own: a sample's verdicts are those of the whole set, to the bit."""
    net, test = runs.load(trained), data.load(str(digits())).test
    attack = {"pgd": PGD(eps=0.15, steps=2, step_size=0.08, restarts=2)}
    whole = measure(net, test, attack)
    fallen = whole.results["pgd"].broken & whole.correct
    assert 0 < int(fallen.sum()) < int(whole.correct.sum())  # else there is nothing to compare
    rows = torch.tensor([33, 2, 17, 8, 25, 39, 11])
    part = measure(net, test.take(rows), attack, index=rows)
    assert torch.equal(part.predictions, whole.predictions[rows])
    assert torch.equal(part.results["pgd"].broken, whole.results["pgd"].broken[rows])
    assert torch.equal(part.results["pgd"].distance, whole.results["pgd"].distance[rows])


def test_noise_belongs_to_seed_attack_restart_and_image() -> None:
    drawn: list[Tensor] = []

    def make(x: Images, noise: Noise | None) -> Images:
        assert noise is not None
        drawn.append(noise.uniform(x))
        return x

    split = pixels(*range(20, 120))
    rows = torch.tensor([70, 3, 99])

    def draws(split: Split, **settings: Any) -> list[Tensor]:
        drawn.clear()
        attack = {settings.pop("name", "one"): Scripted(make=make, restarts=2)}
        measure(Brightness(), split, attack, batch_size=100, **settings)  # all at once
        return [draw[: len(split)] for draw in drawn]

    first, second = draws(split)
    again = draws(split.take(rows), index=rows)
    assert torch.equal(again[0], first[rows]) and torch.equal(again[1], second[rows])
    for other in (second, draws(split, seed=1)[0], draws(split, name="two")[0], first.roll(1, 0)):
        assert not (other == first).any()


def test_fgsm_by_hand(trained: Path) -> None:
    net, test = runs.load(trained), data.load(str(digits())).test
    x = as_floats(test.images).requires_grad_()
    nn.functional.cross_entropy(net(x), test.labels, reduction="sum").backward()
    assert x.grad is not None
    x_adv = (x + 0.05 * x.grad.sign()).clamp(0, 1)
    right = (net(x).argmax(1) == test.labels) & (net(x_adv).argmax(1) == test.labels)
    assert measure(net, test, {"fgsm": FGSM(eps=0.05)}).robust.tolist() == right.tolist()


def test_files_agree(trained: Path, tmp_path: Path) -> None:
    words = ("--verdict", "false", "--attacks", "fgsm", "pgd-2", "pgd-3x2@0.02", "--eps", "20/255", "--out", tmp_path)
    assert toughen("evaluate", trained, *words).status == 0
    result = json.loads((tmp_path / "evaluation.json").read_text())
    rows = pq.read_table(tmp_path / "examples.parquet").to_pylist()
    test = data.load(str(digits())).test
    assert result["images"] == len(rows) == 40 and [row["index"] for row in rows] == list(range(40))
    assert [row["label"] for row in rows] == test.labels.tolist()
    right = [row["prediction"] == row["label"] for row in rows]
    assert result["clean_accuracy"] == sum(right) / 40
    assert (
        result["robust_accuracy"]
        == sum(r and row["broken_by"] is None for r, row in zip(right, rows, strict=True)) / 40
    )
    assert list(result["attacks"]) == ["fgsm", "pgd-2", "pgd-3x2@0.02"]
    for name, found in result["attacks"].items():
        assert found["robust_accuracy"] == sum(row[f"stands_{name}"] for row in rows) / 40
        assert result["robust_accuracy"] <= found["robust_accuracy"] <= result["clean_accuracy"]
        assert found["seconds"] >= 0
    for row, fine in zip(rows, right, strict=True):
        standing = [row[f"stands_{name}"] for name in result["attacks"]]
        first = next((name for name in result["attacks"] if not row[f"stands_{name}"]), None) if fine else None
        assert row["broken_by"] == first and (fine or not any(standing))
        assert (row["distance"] is None) is (first is None)
        assert first is None or 0 < row["distance"] <= 20 / 255 + 1e-6
    assert result["threat"] == {"norm": "linf", "eps": 20 / 255} and result["seed"] == 0
    assert {"torch", "toughen", "processor", "python"} <= result["provenance"].keys()
    assert (result["method"], result["weights"], result["data"]) == ("FBF", "live", str(digits()))
    # a forward and an input gradient a step, of each image that was right; judging is not counted
    passes = {name: found["passes"] for name, found in result["attacks"].items()}
    assert passes["fgsm"] == 2 * sum(right) and 2 * sum(right) <= passes["pgd-2"] <= 4 * sum(right)


def test_an_earlier_evaluation_is_kept(trained: Path, tmp_path: Path) -> None:
    for number, attack in enumerate(("fgsm", "pgd-1", "pgd-2")):
        evaluate_run(trained, verdict=False, attacks=[attack], limit=10, seed=number, out=tmp_path)
    found = {path.name: json.loads(path.read_text())["seed"] for path in tmp_path.glob("evaluation*.json")}
    assert found == {"evaluation.1.json": 0, "evaluation.2.json": 1, "evaluation.json": 2}
    ledgers = {path.name: pq.read_table(path).column_names[-1] for path in tmp_path.glob("examples*.parquet")}
    assert ledgers == {
        "examples.1.parquet": "stands_fgsm", "examples.2.parquet": "stands_pgd-1", "examples.parquet": "stands_pgd-2",
    }  # fmt: skip


def test_a_run_s_own_figures_are_not_replaced_by_those_of_fewer_attacks(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    small = ("--verdict", "false", "--details", "false", "--limit", 10)
    assert toughen("evaluate", run, *small, "--attacks", "fgsm", "pgd-2").status == 0
    before = (run / "evaluation.json").read_bytes()
    for words in (("--attacks", "pgd@1/255"), ("--attacks", "fgsm", "pgd-3")):
        refused(toughen("evaluate", run, *small, *words), "fgsm, pgd-2, and this leaves out", "pgd-2", f"--out {run}/")
    refused(toughen("evaluate", run, *small, "--attacks", "fgsm", "--out", ""), "out is empty")
    assert (run / "evaluation.json").read_bytes() == before
    assert toughen("evaluate", run, *small, "--attacks", "fgsm", "--out", run / "fgsm").status == 0
    assert toughen("evaluate", run, *small, "--attacks", "pgd-2", "fgsm", "pgd-3").status == 0
    refused(toughen("evaluate", run, *small, "--attacks", "fgsm"), "pgd-2, fgsm, pgd-3, and this leaves out pgd-2")
    assert json.loads((run / "evaluation.1.json").read_text())["attacks"].keys() == {"fgsm", "pgd-2"}
    assert toughen("evaluate", run, *small, "--suite", "quick").status == 0  # as many as the list before
    found = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(json.dumps({**found, "epoch": found["epoch"] - 1}))  # of other weights
    assert toughen("evaluate", run, *small, "--attacks", "fgsm").status == 0


@pytest.mark.slow
def test_a_run_s_own_figures_are_not_replaced_by_those_of_fewer_images_or_without_a_verdict(
    trained: Path, tmp_path: Path
) -> None:
    run, words = shutil.copytree(trained, tmp_path / "run"), ("--attacks", "fgsm", "--details", "false", "--limit")
    assert toughen("evaluate", run, *words, 20).status == 0
    before = (run / "evaluation.json").read_bytes()
    refused(toughen("evaluate", run, *words, 10), "was evaluated on 20 images, and this takes 10", f"--out {run}/fgsm")
    refused(toughen("evaluate", run, *words, 20, "--verdict", "false"), "with a verdict, and this leaves it out")
    assert (run / "evaluation.json").read_bytes() == before and not (run / "evaluation.1.json").exists()
    assert toughen("evaluate", run, *words, 10, "--verdict", "false", "--out", run / "fgsm").status == 0
    assert toughen("evaluate", run, *words, 20, "--seed", 1).status == 0
    more = ("--attacks", "fgsm", "pgd-1", "--details", "false", "--verdict", "false", "--limit", 10)
    assert toughen("evaluate", run, *more).status == 0  # a larger suite may look at fewer


def test_a_damaged_file_of_diagnostics_is_said_before_anything_is_attacked(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "diagnostics.json").write_text("[1]")
    words = ("--verdict", "false", "--limit", 10, "--attacks", "fgsm", "--out", tmp_path)
    refused(toughen("evaluate", trained, *words), "diagnostics.json is damaged: move it elsewhere")
    assert [path.name for path in tmp_path.iterdir()] == ["diagnostics.json"]


@pytest.mark.slow
def test_a_sample_is_balanced_and_comes_with_intervals(trained: Path, tmp_path: Path) -> None:
    result = evaluate_run(trained, verdict=False, attacks=["fgsm"], limit=20, out=tmp_path)
    rows = pq.read_table(tmp_path / "examples.parquet").to_pylist()
    assert torch.tensor([row["label"] for row in rows]).bincount().tolist() == [2] * 10
    test = data.load(str(digits())).test
    assert [row["label"] for row in rows] == test.labels[[row["index"] for row in rows]].tolist()
    low, high = result["interval"]["clean_accuracy"]
    assert low < result["clean_accuracy"] < high
    assert "interval" not in evaluate_run(trained, verdict=False, attacks=["fgsm"], out=tmp_path)
    assert sample(data.load(str(digits())).test, 1000, 0)[1].tolist() == list(range(40))


def test_wilson_s_interval_by_hand() -> None:
    # 8 of 10: Newcombe (1998) and every table of it give 0.4902 to 0.9433; 0 of 10 ends at z^2 / (10 + z^2)
    assert interval(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert interval(0.0, 10) == pytest.approx((0, 1.959964**2 / (10 + 1.959964**2)), abs=1e-6)
    assert interval(1.0, 10) == pytest.approx((10 / (10 + 1.959964**2), 1), abs=1e-6)


def test_short_names() -> None:
    attack = parse_attack("PGD-40x3@2/255", Threat("linf", 8 / 255))
    assert isinstance(attack, PGD) and (attack.steps, attack.restarts, float(attack.step_size or 0)) == (40, 3, 2 / 255)
    assert parse_attack("fgsm", Threat("l2", 0.5)) == FGSM(eps=0.5, norm="l2")
    assert parse_attack("pgd-20", Threat("linf", 0.1)) == PGD(eps=0.1, steps=20)


def test_the_threat_is_the_run_s_unless_another_is_given(trained: Path, tmp_path: Path) -> None:
    result = evaluate_run(trained, verdict=False, attacks=["fgsm"], limit=10, out=tmp_path)
    assert result["threat"] == {"norm": "linf", "eps": 0.1}
    result = evaluate_run(trained, verdict=False, attacks=["fgsm"], limit=10, out=tmp_path, eps=1.5, norm="l2")
    assert result["threat"] == {"norm": "l2", "eps": 1.5}


def test_training_without_a_threat_needs_one_here(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert toughen(*small("--method", "Standard", "--out", run)).status == 0
    ended = toughen("evaluate", run, "--verdict", "false", "--attacks", "fgsm")
    assert ended.status == 2 and "--eps 8/255" in ended.err
    assert toughen("evaluate", run, "--verdict", "false", "--attacks", "fgsm", "--eps", 0.1).status == 0


def test_evaluating_leaves_the_model_as_it_was() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(2 * 26 * 26, 10)
    )
    net[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    measure(net, data.load(str(digits())).test, {"pgd": PGD(eps=0.1, steps=2, step_size=0.05)})
    assert [module.training for module in net.modules()] == [True, True, False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_model_of_two_classes(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("7\n1\n")
    run = tmp_path / "run"
    words = ("--classes", tmp_path / "classes.txt", "--method", "FBF", "--eps", 0.1, "--validation", 2, "--epochs", 8)
    assert toughen(*small(*words, "--optimizer", "Adam", "--out", run)).status == 0
    (tmp_path / "classes.txt").unlink()  # the run knows its classes
    ended = toughen("evaluate", run, "--verdict", "false", "--attacks", "fgsm", "pgd-3")
    assert ended.status == 0, ended.err
    result = json.loads((run / "evaluation.json").read_text())
    assert result["images"] == 8 and runs.read_record(run).classes == ["7", "1"]
    assert result["clean_accuracy"] > 0.8  # numbered as the file has them, or most would be wrong
    assert runs.load(run)(torch.rand(1, 1, 28, 28)).shape == (1, 2)


def test_images_are_resized_as_for_training(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("--image_size", 20, "--method", "FBF", "--eps", 0.1, "--epochs", 1)
    assert toughen(*small(*words, "--out", run)).status == 0
    assert toughen("evaluate", run, "--verdict", "false", "--attacks", "fgsm").status == 0
    assert load_test(run, runs.read_record(run), None).shape == (1, 20, 20)


def test_classes_are_matched_by_name(trained: Path, tmp_path: Path) -> None:
    """The same classes in another order, as a folder of parquet shards may have them, keep their meaning."""
    record = runs.read_record(trained)
    turned = runs.Record(**{**vars(record), "classes": record.classes[::-1]})
    test = load_test(trained, turned, None)
    assert test.classes == tuple(record.classes[::-1])
    assert sorted((9 - test.test.labels).tolist()) == sorted(data.load(str(digits())).test.labels.tolist())


def test_classes_are_matched_whatever_their_case(trained: Path, tmp_path: Path) -> None:
    """Capitals sort before small letters, so that Dog is the eighth folder here and dog was the seventh class."""
    for split in ("train", "test"):
        shutil.copytree(digits() / split, tmp_path / "set" / split)
        (tmp_path / "set" / split / "3").rename(tmp_path / "set" / split / "cat")
        (tmp_path / "set" / split / "7").rename(tmp_path / "set" / split / "Dog")
    own = ["0", "1", "2", "Cat", "4", "5", "6", "dog", "8", "9"]
    record = runs.Record(**{**vars(runs.read_record(trained)), "classes": own})
    test = load_test(trained, record, str(tmp_path / "set"))
    assert test.classes == ("0", "1", "2", "cat", "4", "5", "6", "Dog", "8", "9")
    assert sorted(test.test.labels.tolist()) == sorted(data.load(str(digits())).test.labels.tolist())


def test_other_classes_are_not_taken_by_position_where_one_of_them_moved(trained: Path) -> None:
    record = runs.Record(**{**vars(runs.read_record(trained)), "classes": ["ten", *"012345678"]})
    with pytest.raises(ValueError, match="other classes than .* and 0 is at another place"):
        load_test(trained, record, None)
    named = runs.Record(**{**vars(record), "classes": [f"digit {number}" for number in range(10)]})
    assert load_test(trained, named, None).classes == tuple("0123456789")  # other names of the same classes


@pytest.mark.slow
def test_a_few_seen_images_are_no_reason_to_refuse(trained: Path, tmp_path: Path) -> None:
    """Real sets hold duplicates: up to one image in a hundred may be a training image."""
    fresh, seen = data.load("mnist-5k").test, data.load(str(digits())).train
    for split in ("train", "test"):
        for label in range(10):
            (tmp_path / "data" / split / str(label)).mkdir(parents=True)
    rows = [row * 10 // 3 for row in range(300)]
    for row in rows:
        label = int(fresh.labels[row])
        Image.fromarray(fresh.images[row, 0].numpy()).save(tmp_path / f"data/test/{label}/{row}.png")
        Image.fromarray(fresh.images[row, 0].numpy()).save(tmp_path / f"data/train/{label}/{row}.png")

    def add_seen(row: int) -> None:
        name = tmp_path / f"data/test/{int(seen.labels[row])}/seen{row}.png"
        Image.fromarray(seen.images[row, 0].numpy()).save(name)

    own = len({image.numpy().tobytes() for image in fresh.images[rows]} & {i.numpy().tobytes() for i in seen.images})
    assert own == 0
    for row in (0, 20, 40):
        add_seen(row)
    words = ("--verdict", "false", "--data", tmp_path / "data", "--attacks", "fgsm", "--out", tmp_path / "out")
    ended = toughen("evaluate", trained, *words)
    assert ended.status == 0 and "used for training: 3 of 303" in ended.out + ended.err
    for row in (60, 79):
        add_seen(row)
    ended = toughen("evaluate", trained, *words)
    assert ended.status == 2 and "was trained on 2 % of these images (5 of 305)" in ended.err


@pytest.mark.parametrize("copies", [0, 1, 4])
def test_a_sample_with_a_duplicate_by_chance_is_evaluated(copies: int, tmp_path: Path) -> None:
    """Of 300 test images 1 or 4 are training images; the sample of 20 images has one, and no other."""
    test = data.load("mnist-5k")
    whole = replace(test, test=test.test.take(torch.arange(300)))
    hashes = whole.hashes(whole.test)
    runs.write_seen(tmp_path, {"hashes": hashes[torch.tensor([7, 100, 101, 102])[:copies]]})
    split = whole.test.take(torch.arange(20))
    if copies == 4:
        with pytest.raises(ValueError, match=r"was trained on 1 % of these images \(4 of 300\)"):
            refuse_seen(tmp_path, whole, split)
    else:
        assert refuse_seen(tmp_path, whole, split) == ({"seen_images": "1 of 20"} if copies else {})


def test_batches_are_smaller_where_more_images_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, trained: Path, tmp_path: Path
) -> None:
    console = Console(record=True, width=80)
    monkeypatch.setattr(job, "batch_size_for", lambda net, images, given=None: 4)
    result = evaluate_run(
        trained, verdict=False, attacks=["fgsm"], limit=20, details=False, out=tmp_path, console=console
    )
    assert result["batch_size"] == 4
    assert "4 images per pass, because more do not fit into the memory" in console.export_text()
