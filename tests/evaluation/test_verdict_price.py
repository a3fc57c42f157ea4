"""The cheap verdict: it keeps to its price in passes, calls no masked model sound at any, and goes on where it stopped.

The clock is only asked for the price; here a pass takes what the tests say.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from broken_models import Detached
from commands import digits
from rich.console import Console
from scipy.stats import hypergeom
from test_verdict import HIDING, SOUND, SPOILED, by_fgsm, claim_of, digits_net, failed, not_at_all, small_net
from torch import nn

import toughen as package
from toughen.core.cost import PassCounter
from toughen.core.modules import mode
from toughen.core.threat import Threat
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation import checks as checks_folder
from toughen.evaluation import conclude, examination, verdict
from toughen.evaluation.budget import allowed_seconds, passes_within
from toughen.evaluation.checks import stronger
from toughen.evaluation.checks.base import Check, CheckContext, Claim
from toughen.evaluation.checks.chance import allowed
from toughen.evaluation.display import CheckProgress
from toughen.evaluation.examination import SMALL, Examination
from toughen.evaluation.examination_state import ExaminationState, restore
from toughen.evaluation.verdict import Verdict, verdict_of

BUDGETS = (500, 1500, 3000, 5000, 6000, 12_000)  # passes; the quick suite spends 3,000 on a dozen images that stand


def priced(
    claim: Claim, blocks: FixedBatchModel, budget: int, limit: int = 100
) -> tuple[Verdict, list[Check], Examination]:
    examination = Examination(claim, blocks, ExaminationState(budget=budget, size=SMALL), limit)
    examination.make()
    found = examination.checks()
    return verdict_of(found), found, examination


# ---- no masked model is sound, and no price is exceeded


def never_sound(net: nn.Module, budgets: tuple[int, ...] = BUDGETS, **how: Any) -> None:
    claim, blocks = claim_of(net, **how)
    for budget in budgets:
        found, checks, examination = priced(claim, blocks, budget)
        assert found != "sound", (budget, [check.sentence for check in checks])
        tied = "the same answer alone" in failed({check.name: check for check in checks})
        assert (
            examination.spent <= (1.1 if tied else 1) * budget
        )  # it takes back what attacks find: each is asked again


@pytest.mark.slow
@pytest.mark.parametrize("hardened", [True, False])
@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_model_is_never_sound_at_any_price(name: str, hardened: bool) -> None:
    never_sound(SPOILED[name][0](small_net(hardened=hardened)), attacks=not_at_all)


@pytest.mark.slow
@pytest.mark.parametrize("kind", HIDING)
@pytest.mark.parametrize("name", ["pgd-at", "standard"])
def test_a_trained_net_that_hides_is_never_sound_at_any_price(name: str, kind: str) -> None:
    never_sound(SPOILED[kind][0](digits_net(name)), threat=Threat("linf", 0.3), n=100)


@pytest.mark.slow
@pytest.mark.parametrize("attacks", [not_at_all, by_fgsm])
def test_so_is_not_the_number_of_a_net_that_fgsm_cannot_hurt(attacks: Callable[..., Any]) -> None:
    never_sound(digits_net("fgsm-at"), attacks=attacks, threat=Threat("linf", 0.3), n=100)


@pytest.mark.slow
def test_nor_is_one_that_stronger_attacks_halve() -> None:
    """PGD leaves 68 % of this net's images standing, AutoAttack 30 % (docs/results/evaluation.md)."""
    never_sound(digits_net("fbf"), threat=Threat("linf", 0.3), n=100)


@pytest.mark.parametrize("hardened", [True, False])
def test_a_number_made_in_earnest_is_sound_at_a_small_price(hardened: bool) -> None:
    claim, blocks = claim_of(small_net(hardened=hardened), threat=Threat("linf", 0.1 if hardened else 0.02))
    found, checks, examination = priced(claim, blocks, 8000)
    assert found == "sound", failed({check.name: check for check in checks})
    assert examination.spent <= 8000


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_and_so_is_a_trained_net(name: str) -> None:
    claim, blocks = claim_of(digits_net(name), threat=SOUND[name], n=300)
    found, checks, _ = priced(claim, blocks, 20_000)
    assert found == "sound", failed({check.name: check for check in checks})


def test_every_check_has_a_price_and_every_probe_a_check() -> None:
    assert all((each.cost != 0) == each.runs_model for each in verdict.MODEL_CHECKS.values())
    own = {check.name for module in verdict.OWN for check in module.CHECKS}
    assert [name for name, each in verdict.MODEL_CHECKS.items() if name in own and not each.cost] == ["enough images"]
    assert all(each.probes for each in verdict.ATTACK_CHECKS.values())
    made = Examination(*claim_of(small_net(), not_at_all), ExaminationState(), 8)
    made.make()
    assert {probe.check for probe in made.applicable.probes} <= set(verdict.ATTACK_CHECKS)
    names = {probe.name for probe in made.applicable.probes}
    needs = [
        each.probes(made.context) if callable(each.probes) else each.probes for each in verdict.ATTACK_CHECKS.values()
    ]
    assert {name for each in needs for name in each} - names == {"transfer"}
    assert {*examination.CORE, stronger.TARGETS[0]} <= names == set(made.state.probes)


@pytest.mark.parametrize("name", [name for name, each in verdict.MODEL_CHECKS.items() if each.runs_model])
def test_a_check_of_the_model_costs_no_more_than_it_says(name: str) -> None:
    """Passes of a copy in float64 are not counted. A net that was in evaluation mode needs none to say so."""
    net, check = small_net(), verdict.MODEL_CHECKS[name]
    context = CheckContext(*claim_of(net, not_at_all), 32)  # a whole batch: padding would count
    with mode(net, "eval"), PassCounter(net) as counted:
        check.make(context, name)
    rows = context.all if check.about == "data" else context.correct
    cost = check.cost(context) if callable(check.cost) else check.cost * len(rows)
    assert counted.total <= cost and (counted.total > 0 or name == "evaluation mode")


NEW = """
from toughen.attacks.fgsm import FGSM
from toughen.core.types import Labels, Mask
from toughen.evaluation.checks.base import Check, CheckContext, ModelCheck, judge
from toughen.evaluation.checks.probes import AttackCheck, HasRoom, Probe, ProbeResults

def bright(context: CheckContext, name: str) -> Check:
    \"\"\"The images are dark.

    Fails if the mean pixel is above 0.2.
    \"\"\"
    figure = float(context.x(context.correct).mean())
    return judge(name, figure, 0.2, "dark", "bright")

def probes(context: CheckContext) -> list[Probe]:
    attack = FGSM(eps=context.threat.eps, norm=context.threat.norm, start="uniform")

    def run(rows: Labels, has_room: HasRoom) -> Mask:
        return context.broken(attack, "new", rows)

    return [Probe("R-FGSM", "a random start", "robust", context.price(attack), run)]

def start(results: ProbeResults, name: str) -> Check:
    \"\"\"FGSM from a random start breaks few images.

    Fails if it breaks more than half.
    \"\"\"
    return judge(name, float(results.broken("R-FGSM").double().mean()), 0.5, "few", "many")

CHECKS = (
    ModelCheck(name="dark images", about="model", make=bright, cost=2.0),
    ModelCheck(name="dark data", about="data", make=bright, cost=3.0),
    AttackCheck(name="a random start", judge=start, probes=("R-FGSM",)),
)
"""


@pytest.mark.slow
def test_a_new_file_in_the_folder_is_a_new_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zz_brightness.py").write_text(NEW)  # the last by name
    monkeypatch.setattr(checks_folder, "__path__", [*checks_folder.__path__, str(tmp_path)])
    monkeypatch.setattr(verdict, "MODEL_CHECKS", verdict.model_checks())
    monkeypatch.setattr(verdict, "ATTACK_CHECKS", verdict.attack_checks())
    claim, blocks = claim_of(small_net(), not_at_all)
    made = Examination(claim, blocks, ExaminationState(), 8)
    made.make()
    found = {check.name: check for check in made.checks()}
    rows = made.context.sampled_rows(claim.correct, 8)
    mean = float(claim.images[rows].double().mean()) / 255
    asked, attacked = found["dark images"], found["a random start"]
    assert asked.figure == pytest.approx(mean, abs=1e-6) and asked.threshold == 0.2 and asked.images == 8
    assert attacked.threshold == 0.5 and attacked.images == 8 and attacked.figure is not None
    assert made._cost("dark images") == 2.0 * len(made.context.correct)
    assert made._cost("dark data") == 3.0 * len(made.context.all) != 3.0 * len(made.context.correct)
    assert list(found) == [*verdict.MODEL_CHECKS, *verdict.ATTACK_CHECKS]
    assert list(found)[-1] == "a random start"
    for net, has_gradient in ((small_net(), True), (Detached(small_net()), False)):
        applicable = verdict.Applicable(CheckContext(*claim_of(net, not_at_all), 8))
        assert ("R-FGSM" in [probe.name for probe in applicable.probes]) == has_gradient


def test_without_room_for_what_matters_no_number_is_sound() -> None:
    claim, blocks = claim_of(small_net())
    found, checks, _ = priced(claim, blocks, 0)
    by_name = {check.name: check for check in checks}
    assert found == "doubtful" and failed(by_name) == {"enough images"}
    assert "--suite standard sets no time limit" in by_name["enough images"].sentence
    unmade = [check for check in checks if check.passed is None and check.name != "white-box beats black-box"]
    own = {check.name for module in verdict.OWN for check in module.CHECKS}
    unmade_own = [check for check in unmade if check.name in own]
    assert len(unmade_own) == len(own) - 2, [check.name for check in checks if check.passed]
    assert all("the checks' time limit leaves no time" in check.sentence and check.images is None for check in unmade)


# ---- what is spent, and what is said of it


class Counted(nn.Module):
    """A net that counts the images that go through it, and those whose gradient is taken, as forwards."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.seen = net, [0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net(x)
        self.seen[0] += len(x)
        if out.requires_grad:
            out.register_hook(lambda gradient: self.seen.__setitem__(0, self.seen[0] + len(gradient)))
        return out

    def __deepcopy__(self, memo: dict[int, Any]) -> Counted:
        import copy

        made = Counted(copy.deepcopy(self.net, memo))
        made.seen = self.seen  # of all copies together
        memo[id(self)] = made
        return made


@pytest.mark.parametrize("budget", [1500, 4000, pytest.param(12000, marks=pytest.mark.slow)])
def test_the_passes_that_the_model_sees_are_within_the_budget(budget: int) -> None:
    net = Counted(small_net())
    claim, _ = claim_of(net)
    blocks = FixedBatchModel(net, 32)
    examination = Examination(claim, blocks, ExaminationState(budget=budget, size=SMALL))
    net.seen[0] = 0
    examination.make()
    assert 0.5 * budget < net.seen[0] <= budget


@pytest.mark.slow
def test_a_larger_price_looks_at_more_images_of_all_that_there_are() -> None:
    claim, blocks = claim_of(small_net())
    few, more = ({c.name: c for c in priced(claim, blocks, budget)[1]} for budget in (5000, 20_000))
    name = "no stronger attack is found"
    assert (few[name].images, few[name].of) != (more[name].images, more[name].of)
    assert few[name].of == more[name].of == 100 and (few[name].images or 0) < (more[name].images or 0)
    threshold = claim.robust_accuracy * allowed(few[name].images or 0, 0.03 / claim.robust_accuracy)
    assert few[name].threshold == pytest.approx(threshold)


def test_what_was_cut_is_told() -> None:
    some = Check("a", True, 0.0, 1.0, ".", images=8, of=100), Check("b", True, 0.0, 1.0, ".", images=16, of=100)
    whole = Check("c", True, 0.0, 1.0, ".", images=30, of=30)
    left = Check("d", None, None, None, f"Not made: {examination.PRICE}.")
    strong = Check("no stronger attack is found", True, 0.0, 0.3, ".", images=8, of=100)
    assert conclude.omissions([whole]) == ""
    assert conclude.omissions([*some, whole, left, strong], 0.25) == (
        "To take no longer than the attacks or 20 s, 3 of 5 checks used 8 to 16 images instead of 100 or all and "
        "1 was left out. The number may still be up to 25 points too high. --suite standard leaves nothing out."
    )


def test_how_much_too_high_a_number_may_be_is_a_hypergeometric_limit() -> None:
    """Of 200 images 160 stand; the attacks broke one of 40: the largest count of which 5 % of samples show so few."""
    claim, _ = claim_of(small_net(), not_at_all)
    robust = torch.arange(200) < 160
    claim = replace(claim, robust=robust, robust_accuracy=0.8)
    strong = Check("no stronger attack is found", True, 0.8 * 1 / 40, 0.1, ".", images=40, of=100)
    seen = [hypergeom.cdf(1, 160, count, 40) for count in range(160)]
    wanted = max(count for count, chance in enumerate(seen) if chance >= 0.05)
    assert conclude.unseen([strong], claim) == wanted / 200
    assert conclude.unseen([replace(strong, passed=False)], claim) is None and conclude.unseen([], claim) is None


# ---- the clock is asked once


@pytest.mark.parametrize(("attacks", "seconds"), [(5.0, 20.0), (19.9, 20.0), (90.0, 90.0)])
def test_the_price_is_that_of_the_attacks_or_20_s(attacks: float, seconds: float) -> None:
    assert allowed_seconds(attacks) == seconds


def test_a_time_is_as_many_passes_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of 8, forward and backward, takes 4 s on this clock: a quarter of a second for each of 16 passes."""
    ticks = iter([0.0, 100.0, 100.0, 104.0])
    monkeypatch.setattr("toughen.evaluation.budget.time.perf_counter", lambda: next(ticks))
    claim, _ = claim_of(small_net(), not_at_all, n=20)
    found = passes_within(
        FixedBatchModel(small_net(), 8), claim.images.float()[:20] / 255, claim.labels[:20], seconds=100.0
    )
    assert found == int(0.9 * 100 / 0.25) == 360


def test_a_quick_block_among_slow_ones_is_not_taken_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where other programs take turns on the cores: blocks of 0.125, 0.125 and 1.25 s, half a second each, or 1/32 of
    it for each of 16 passes."""
    ticks = iter([0.0, 9.0, 9.0, 9.125, 9.125, 9.25, 9.25, 10.5])
    monkeypatch.setattr("toughen.evaluation.budget.time.perf_counter", lambda: next(ticks))
    claim, _ = claim_of(small_net(), not_at_all, n=20)
    found = passes_within(
        FixedBatchModel(small_net(), 8), claim.images.float()[:20] / 255, claim.labels[:20], seconds=100.0
    )
    assert found == int(0.9 * 100 * 32) == 2880


QUICK: dict[str, Any] = {"eps": 0.1, "limit": 40, "details": False, "batch_size": 8}


def slow(monkeypatch: pytest.MonkeyPatch, passes: int) -> list[float]:
    """A machine on which the price is so many passes; the times that it is asked for."""
    asked: list[float] = []

    def passes_within(blocks: FixedBatchModel, x: Any, y: Any, seconds: float) -> int:
        asked.append(seconds)
        return passes

    monkeypatch.setattr(conclude, "passes_within", passes_within)
    return asked


@pytest.mark.slow
def test_the_quick_suite_is_cheap_and_all_else_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, net = slow(monkeypatch, 3000), small_net()
    found = package.evaluate(net, str(digits()), **QUICK)
    assert asked == [20.0, 20.0] and found["price"]["passes"] == 3000 and found["price"]["spent"] <= 3000
    assert "--suite standard leaves nothing out" in found["price"]["note"]
    assert any((check["images"] or 0) < (check["of"] or 0) for check in found["checks"])
    whole = package.evaluate(net, str(digits()), attacks=["fgsm"], **QUICK | {"limit": 8})
    assert "price" not in whole and len(asked) == 2 and "draws" not in whole
    assert all(check["images"] == check["of"] for check in whole["checks"])


# ---- models that draw their answers


class Sometimes(nn.Module):
    """Right about black images, and about lighter ones wrong so often."""

    def __init__(self, often: float) -> None:
        super().__init__()
        self.often = often

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        light = x.mean((1, 2, 3))
        out = torch.stack([1 - light, light], 1) + 0.01 * torch.rand(len(x), 2)
        wrong = (light > 0.05) & (torch.rand(len(x)) < self.often)
        return torch.where(wrong[:, None], out.flip(1), out)


@pytest.mark.parametrize(("often", "robust"), [(0.95, (0.0, 0.02)), (0.4, (0.98, 1.0))])
def test_a_break_that_is_luck_does_not_count(often: float, robust: tuple[float, float]) -> None:
    """Of images that an attack moves to where 40 % of the answers are wrong, none is broken: 40 tries find no more."""
    images = (torch.zeros(100, 1, 4, 4), torch.zeros(100, dtype=torch.int64))
    found = package.evaluate(Sometimes(often), images, eps=0.1, attacks=["pgd-10"], verdict=False, details=False)
    assert robust[0] <= found["robust_accuracy"] <= robust[1] and found["clean_accuracy"] == 1
    assert found["draws"] == {"total": 20, "wrong": 16}


# ---- stopped, and gone on with


@pytest.mark.slow
def test_a_stopped_examination_goes_on_to_the_same_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stopped before each of its steps in turn: the price is that of the first call, and every step is made once."""
    slow(monkeypatch, 6000)
    net, steps = small_net(), [0]
    whole = package.evaluate(net, str(digits()), **QUICK, out=tmp_path / "whole")
    save = ExaminationState.save

    def stopping(self: ExaminationState) -> None:
        save(self)
        steps[0] += 1
        if self.spent:
            raise KeyboardInterrupt

    monkeypatch.setattr(ExaminationState, "save", stopping)
    asked = slow(monkeypatch, 6000)
    words: list[str] = []
    for _ in range(100):
        try:
            found = package.evaluate(net, str(digits()), **QUICK, out=tmp_path / "cut")
            break
        except conclude.Unfinished as stopped:
            words.append(stopped.result["verdict"])
            written = json.loads((tmp_path / "cut" / "evaluation.json").read_text())
            assert written["verdict"] == words[-1] and written["attacks"] == stopped.result["attacks"]
            assert any("stopped before" in check["sentence"] for check in written["checks"]) or len(words) > 5
            slow(monkeypatch, 10**9)  # the clock says otherwise now, and is not asked
    assert len(words) > 10 and set(words) == {"unfinished"} and len(asked) == 2
    for result in (whole, found):
        result.pop("provenance")
        result["price"].pop("seconds")
        for attack in result["attacks"].values():
            attack.pop("seconds")
    assert found == whole and whole["verdict"] == "sound"
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["evaluation.json", "examples.parquet"]


def test_a_check_that_failed_is_known_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    claim, blocks = claim_of(SPOILED["scaled"][0](small_net()), not_at_all)
    examination = Examination(claim, blocks, ExaminationState(budget=3000, size=SMALL))

    def stop(self: Examination, *asked: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(Examination, "_run", stop)
    with pytest.raises(KeyboardInterrupt):
        examination.make()
    found = examination.checks(stopped=True)
    assert verdict_of(found, complete=False) == "masked"
    assert verdict_of([replace(check, passed=True) for check in found], complete=False) == "unfinished"


@pytest.mark.parametrize("harm", ["{", "[]", '{"settings": {}}'])
def test_what_is_kept_of_others_or_damaged_is_not_gone_on_with(harm: str, tmp_path: Path) -> None:
    path = tmp_path / "evaluation-1.json"
    kept = ExaminationState(path, {"cheap": True}, budget=10, size=4, spent=2.5, probes={"steps": [True, False]})
    kept.checks["a"] = Check("a", True, 0.5, 1.0, "Fine.", images=4, of=8)
    kept.save()
    assert restore(path, {"cheap": True}) == kept
    assert restore(path, {"cheap": False}) is None
    path.write_text(harm)
    assert restore(path, {"cheap": True}) is None


@pytest.mark.slow
def test_a_bar_and_lines_for_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal a line at most every ten seconds: none while the clock stands, many where it jumps."""
    slow(monkeypatch, 3000)
    clock = {"now": 0.0, "jump": 0.0}

    def tick() -> float:
        clock["now"] += clock["jump"]
        return clock["now"]

    monkeypatch.setattr("toughen.evaluation.display.time.perf_counter", tick)
    said: list[str] = []
    for jump in (0.0, 6.0):
        assert not said
        clock["jump"], file = jump, io.StringIO()
        package.evaluate(small_net(), str(digits()), **QUICK, console=Console(file=file, width=200))
        said = [line for line in file.getvalue().splitlines() if "s left" in line and "images;" in line]
    assert len(said) >= 10
    assert all("; at most about " in line for line in said) and len({line.split(":")[0] for line in said}) > 5
    monkeypatch.undo()
    monkeypatch.setenv("TERM", "xterm-256color")  # a "dumb" one shows no bar
    terminal = Console(file=io.StringIO(), width=200, force_terminal=True)
    package.evaluate(small_net(), str(digits()), attacks=["fgsm"], **QUICK | {"limit": 8}, console=terminal)
    assert "left" in terminal.file.getvalue()  # type: ignore[attr-defined]


def test_the_time_left_is_whole_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The description yields, not the numbers."""
    monkeypatch.setenv("TERM", "xterm-256color")  # a "dumb" one shows no bar
    monkeypatch.setattr(Examination, "total_cost", lambda self: 1000)
    monkeypatch.setattr(Examination, "spent", 310)
    under_way: Any = object.__new__(Examination)
    under_way.state = SimpleNamespace(budget=1000)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, color_system=None)
    with CheckProgress(under_way, console) as steps:
        steps.show("no stronger attack is found", "target 1, 24 of 100 images")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    drawn = [line.rstrip() for line in re.split(r"[\r\n]", shown) if line.strip()]
    assert re.search(r"31% \d:\d\d:\d\d left (\d:\d\d:\d\d|-:--:--)$", drawn[-1]), drawn[-1]
    assert max(map(len, drawn)) <= 80 and drawn[-1].startswith("no stronger attack is found: target 1")
