"""A user's own attack, by its import path and as an object, and what is said of one that cannot be used."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jaxtyping
import pytest
import torch
from commands import digits, refused, toughen
from paths import NETS, ROOT
from torch import nn

from toughen import evaluate, runs
from toughen.attacks import PGD
from toughen.core.objectives import CrossEntropy
from toughen.core.threat import Threat
from toughen.data import Split
from toughen.data import load as load_data
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.fingerprint import fingerprint
from toughen.evaluation.harness import Harness
from toughen.evaluation.suite import parse_attack, suite
from toughen.utils.units import Fraction

RUN = NETS / "fgsm-at"
EPS = 0.2
OWN = '''
import torch
from dataclasses import dataclass
from toughen.attacks import PGD, Attack

@dataclass(frozen=True)
class Mine(Attack):
    """Without a random start."""
    eps: float | None = None
    norm: str = "linf"
    steps: int = 1
    stop_early: bool = False

    def __call__(self, model, x, target, noise=None):
        pgd = PGD(eps=self.eps, norm=self.norm, steps=self.steps, stop_early=self.stop_early, start="none")
        return pgd(model, x, target, noise)

class InGraph(Mine):
    def __call__(self, model, x, target, noise=None):
        return super().__call__(model, x, target, noise) + 0 * x.requires_grad_()

class InTorch(Mine):
    """As Mine, by autograd."""
    def __call__(self, model, x, target, noise=None):
        x_adv = x.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(x_adv), target, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x_adv)
        return (x + self.eps * gradient.sign()).clamp(0, 1)

class Wide(Mine):
    def __call__(self, model, x, target, noise=None):
        return PGD(eps=2 * self.eps, norm=self.norm, steps=1, start="none")(model, x, target, noise)

class InPlace(Wide):
    def __call__(self, model, x, target, noise=None):
        return x.copy_(super().__call__(model, x, target, noise))

@dataclass(frozen=True)
class Liar(Mine):
    def __post_init__(self):
        object.__setattr__(self, "eps", 2 * self.eps)

@dataclass(frozen=True)
class Demanding(Mine):
    depth: int = 0

    def __init__(self, eps, norm, depth): ...

@dataclass(frozen=True)
class Boundless(Attack):
    steps: int = 1

class Plain: ...

class Minex2(Mine): ...

class Bare(Mine):
    steps: int = 7

@dataclass(frozen=True)
class Restarted(Mine):
    restarts: int = 1

@dataclass(frozen=True)
class Failing(Mine):
    def __call__(self, model, x, target):
        return x

@dataclass(frozen=True)
class Short(Mine):
    def __call__(self, model, x, target, noise=None):
        return x[:, :, 1:]

@dataclass(frozen=True)
class Refusing(Mine):
    def __post_init__(self):
        {}["here"]
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a module `own_attacks`, where the command is started."""
    (tmp_path / "own_attacks.py").write_text(OWN)
    (tmp_path / "broken_attacks.py").write_text("import torch\ntorch.nn.no_such_thing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("own_attacks", "broken_attacks"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def some() -> Split:
    """Forty real digits."""
    return load_data(str(digits())).test.take(torch.arange(40))


def shown(*words: object) -> tuple[object, ...]:
    return ("evaluate", RUN, "--data", digits(), "--verdict", "false", "--details", "false", *words)


def test_a_path_is_as_good_as_a_name(own: Path) -> None:
    """A class that only calls PGD is judged as PGD is, to the last pass; settings come after the path."""
    ended = toughen(*shown("--attacks", "own_attacks.Mine-3", "--out", own / "out"))
    assert ended.status == 0, ended.err
    found = json.loads((own / "out/evaluation.json").read_text())
    same = PGD(eps=found["threat"]["eps"], steps=3, start="none")
    split = load_data(str(digits())).test
    expected = evaluate(
        runs.load(RUN), split, eps=found["threat"]["eps"], attacks={"the same": same}, verdict=False, seed=0
    )
    mine, theirs = found["attacks"]["own_attacks.Mine-3"], expected["attacks"]["the same"]
    assert (mine["robust_accuracy"], mine["passes"]) == (theirs["robust_accuracy"], theirs["passes"])
    assert 0 < mine["robust_accuracy"] < found["clean_accuracy"]


def test_one_in_plain_pytorch_is_judged_as_toughen_s_own(own: Path) -> None:
    """It differentiates the model's output itself: the same images, accuracy and passes as FGSM."""
    ended = toughen(*shown("--attacks", "fgsm", "own_attacks.InTorch", "--out", own / "out"))
    assert ended.status == 0, ended.err
    found = json.loads((own / "out/evaluation.json").read_text())
    mine, theirs = (found["attacks"][name] for name in ("own_attacks.InTorch", "fgsm"))
    assert (mine["robust_accuracy"], mine["passes"]) == (theirs["robust_accuracy"], theirs["passes"])
    assert mine["robust_accuracy"] < found["clean_accuracy"]


@pytest.mark.parametrize("name", ["own_attacks.Mine-3", "own_attacks.InGraph-3"])
def test_its_images_are_written(name: str, own: Path) -> None:
    ended = toughen("attack", RUN, "--attack", name, "--data", digits(), "--limit", "20", "--out", own / "x.parquet")
    assert ended.status == 0 and f"20 images under {name}" in ended.out, ended.err


def test_it_is_held_to_the_threat(own: Path) -> None:
    for name in ("Wide", "InPlace"):  # one that writes into the clean images cannot hide how far it went
        refused(
            toughen(*shown("--attacks", f"own_attacks.{name}", "--out", own / "a")), "beyond eps", "fix it", status=1
        )
    refused(
        toughen(*shown("--attacks", "own_attacks.Liar", "--out", own / "b")),
        "the threat linf eps 0.6",
        "give both the same",
    )
    written = ("--data", digits(), "--limit", "20", "--out", own / "x.parquet")
    refused(
        toughen("attack", RUN, "--attack", "own_attacks.Liar", *written),
        "the threat linf eps 0.6",
        "give both the same",
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such.Thing", ["'no_such.Thing' cannot be imported", "PYTHONPATH"]),
        ("broken_attacks.Thing", ["cannot be imported: at ", "broken_attacks.py, line 2: AttributeError"]),
        ("own_attacks.Nothing", ["own_attacks has no Nothing"]),
        ("own_attacks.Plain", ["'own_attacks.Plain' is not an attack", "toughen.attacks.Attack"]),
        ("own_attacks.Bare", ["'own_attacks.Bare' is not a frozen dataclass", "@dataclass"]),
        ("own_attacks.Refusing", ["'own_attacks.Refusing' failed at ", "KeyError: 'here'"]),
        ("own_attacks.Demanding", ["'own_attacks.Demanding' needs depth", "default"]),
        ("own_attacks.Boundless", ["'own_attacks.Boundless' has no eps"]),
        ("own_attacks.Minex3", ["own_attacks has no Minex3: did you mean Mine"]),
        ("own_attacks.Mine-1x3", ["Mine has no restarts"]),
        ("own_attacks:Mine", ["'own_attacks:Mine' is unknown", "package.module.Class"]),
        ("own_attacks.Mine@0.1", ["Mine has no step_size"]),
    ],
)
def test_what_cannot_be_used(own: Path, name: str, said: list[str]) -> None:
    refused(toughen(*shown("--attacks", name, "--out", own / "out")), *said)
    assert not (own / "out").exists()


@pytest.mark.parametrize(("name", "said"), [("Failing", "TypeError"), ("Short", "images of the shape")])
def test_one_that_fails_is_named(own: Path, name: str, said: str) -> None:
    words = ("--data", digits(), "--limit", "20", "--out")
    refused(toughen(*shown("--attacks", f"own_attacks.{name}", "--out", own / "out")), name, said, status=1)
    refused(toughen("attack", RUN, "--attack", f"own_attacks.{name}", *words, own / "x.parquet"), name, said, status=1)
    other = Path(shutil.copytree(RUN, own / "other"))
    transfer = ("--which", "transfer", "--transfer_attacks", f"own_attacks.{name}", *words, own / "closer")
    refused(toughen("diagnose", RUN, other, *transfer), f"attack {name}", said, status=1)


def test_a_class_may_end_in_a_number(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(own))
    threat = Threat("linf", Fraction(EPS))
    assert type(parse_attack("own_attacks.Minex2", threat)).__name__ == "Minex2"
    assert vars(parse_attack("own_attacks.Restarted-4x3", threat)).items() >= {("steps", 4), ("restarts", 3)}


def test_it_is_sent_to_other_processes(own: Path) -> None:
    words = ("--attacks", "own_attacks.Restarted-2x2", "--out")
    assert toughen(*shown(*words, own / "one")).status == 0
    ended = toughen(*shown("--processes", "2", *words, own / "two"))
    assert ended.status == 0, ended.err
    one, two = (json.loads((own / name / "evaluation.json").read_text())["attacks"] for name in ("one", "two"))
    times = {"seconds": 0}
    assert {name: found | times for name, found in one.items()} == {name: found | times for name, found in two.items()}


@pytest.mark.parametrize("given", [{"mine": "pgd-20"}, {"mine": PGD}, [PGD(eps=EPS)], {"mine": lambda *_: None}])
def test_what_is_no_attack(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as where a user calls it
    said = "attack 'mine' is not an attack: write a frozen|attacks holds a PGD: give a list of"
    with pytest.raises(ValueError, match=said):
        evaluate(runs.load(RUN), some(), eps=EPS, attacks=given)


def test_an_object_is_held_to_the_threat_too() -> None:
    for attack in (PGD(eps=EPS / 2), PGD(eps=EPS, norm="l2")):
        with pytest.raises(ValueError, match="attack mine has the threat .* give both the same"):
            evaluate(runs.load(RUN), some(), eps=EPS, attacks={"mine": attack})


def test_a_changed_class_is_another_attack(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a stopped evaluation would go on with what the former one had found."""
    split, threat = some(), Threat("linf", Fraction(EPS))
    harness = Harness(FixedBatchModel(runs.load(RUN), 20, "fp32"), split.images, split.labels, torch.arange(40), 0)
    monkeypatch.syspath_prepend(str(own))
    before = [fingerprint(harness, {"a": parse_attack("own_attacks.Mine", threat)}) for _ in range(2)]
    assert before[0] == before[1]
    (own / "own_attacks.py").write_text(OWN.replace('start="none"', 'start="uniform"'))
    monkeypatch.delitem(sys.modules, "own_attacks")
    assert fingerprint(harness, {"a": parse_attack("own_attacks.Mine", threat)}) != before[0]


def test_a_changed_cell_of_a_notebook_is_another_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a class that is in no file, what it does counts, and what its bases do."""
    split = some()
    harness = Harness(FixedBatchModel(runs.load(RUN), 20, "fp32"), split.images, split.labels, torch.arange(40), 0)

    def typed(text: str, name: str) -> Any:
        cell = ModuleType("cell")
        monkeypatch.setitem(sys.modules, "cell", cell)
        exec(text, vars(cell))  # what a notebook does
        return fingerprint(harness, {"a": vars(cell)[name](eps=EPS)})

    changed = OWN.replace("steps=self.steps", "steps=2 * self.steps")
    for name in ("Mine", "Minex2"):  # the second through its base alone
        assert typed(OWN, name) == typed(OWN, name) != typed(changed, name)
    assert typed(OWN, "Wide") != typed(OWN.replace("eps=2 *", "eps=3 *"), "Wide")


def test_an_objective_s_function_counts_too() -> None:
    split = some()
    harness = Harness(FixedBatchModel(runs.load(RUN), 20, "fp32"), split.images, split.labels, torch.arange(40), 0)

    class Mine(CrossEntropy): ...

    kept = fingerprint(harness, {"a": PGD(eps=EPS, objective=Mine())})
    assert kept == fingerprint(harness, {"a": PGD(eps=EPS, objective=Mine())})
    assert kept != fingerprint(harness, {"a": PGD(eps=EPS, objective=CrossEntropy())})


class Weighted(CrossEntropy):
    """What it is made with is no plain number."""

    def __init__(self, weights: Any) -> None:
        self.weights = weights


def test_an_objective_s_lists_and_tensors_count_too() -> None:
    """Or a stopped evaluation would go on with other weights than it began with."""
    split = some()
    harness = Harness(FixedBatchModel(runs.load(RUN), 20, "fp32"), split.images, split.labels, torch.arange(40), 0)

    def of(weights: Any) -> object:
        return fingerprint(harness, {"a": PGD(eps=EPS, objective=Weighted(weights))})

    for one, other in (([1, 2], [1, 3]), (torch.ones(2), torch.zeros(2)), ({"a": 1.0}, {"a": 2.0})):
        assert of(one) == of(copy.deepcopy(one)) != of(other)


def test_an_attack_reads_the_same_in_every_process() -> None:
    """`--time-budget` knows by it whether it is the evaluation that was begun."""
    assert " at 0x" not in "".join(map(repr, suite("standard", Threat("linf", Fraction(EPS))).values()))


@pytest.mark.parametrize(
    ("page", "heading", "name"),
    [
        ("CONTRIBUTING.md", "## Add an attack", "TwoSteps"),
        ("docs/how-to/use-the-attacks.md", "your own attack", "OneStep"),
    ],
)
def test_the_examples_work(page: str, heading: str, name: str) -> None:
    """On a linear net whose margin grows with the first and third pixel and falls with the second."""
    section = (ROOT / page).read_text(encoding="utf-8").split(heading)[1]
    names: dict[str, Any] = {"__name__": "example"}
    code = section.split("```python\n")[1].split("```")[0]
    exec(compile(code, "example.py", "exec", dont_inherit=True), names)  # without this file's annotations as text
    if name == "TwoSteps":
        with pytest.raises(ValueError, match="TwoSteps needs eps"):
            names["TwoSteps"]()
    linear = nn.Linear(3, 2, bias=False)
    linear.weight.data = torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 3.0]])
    x = torch.tensor([0.5, 0.1, 0.75]).view(1, 1, 1, 3)
    x_adv = names[name](eps=0.2)(nn.Sequential(nn.Flatten(), linear), x, torch.tensor([0]))
    assert x_adv.flatten().tolist() == pytest.approx([0.7, 0.0, 0.95])
