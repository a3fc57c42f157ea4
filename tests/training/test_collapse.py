"""The watch: what counts as a collapse, a run that collapses on purpose, and one that is rescued."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import digits, refused, small, state_of, timeless, toughen
from contract import EPS
from kills import Killed, kill_at_step, same_end
from paths import TESTS

from toughen import data, runs
from toughen.core.threat import Threat
from toughen.data import Split
from toughen.methods.delayed import Delayed
from toughen.methods.fast import FGSMAT
from toughen.methods.nuat import NuAT
from toughen.methods.pgd_at import PGDAT
from toughen.methods.standard import Standard
from toughen.runs.files import read_tensors
from toughen.training import checkpoint
from toughen.training.callbacks.collapse import CollapseWatch
from toughen.training.collapse import CollapseCriterion, CollapseDetector, CollapseMemory, rescuers
from toughen.training.trainer import Trainer
from toughen.training.training_state import TrainingState

COLLAPSING = (  # robust under PGD's steps, until FGSM's take over
    "train --data mnist-5k --model fbf-mnist-cnn --normalize false --method Delayed --method.before PGDAT"
    " --method.before.steps 2 --method.before.step_size 0.25 --method.after FGSMAT --method.switch_epoch 4 --eps 0.3"
    " --optimizer Adam --optimizer.lr 2e-3 --schedule Constant --eps_warmup 0.2 --batch_size 50 --epochs 10"
    " --averaging null --precision fp32 --seed 2"
)
CURVES = json.loads((TESTS / "curves.json").read_text(encoding="utf-8"))

THREAT = Threat("linf", EPS)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def events(run: Path) -> list[dict[str, Any]]:
    return [event for line in lines(run) for event in line["events"]]


def collapses(run: Path) -> list[dict[str, Any]]:
    return [event for event in events(run) if event["event"] == "collapse"]


def watch(mode: Any = "rescue", threat: Threat | None = THREAT, images: int = 8) -> CollapseDetector:
    split = Split(torch.zeros(images, 1, 28, 28, dtype=torch.uint8), torch.zeros(images, dtype=torch.int64))
    return CollapseDetector(split, threat, mode, seed=0)


def looks(*found: tuple[float, ...], labels: tuple[int, ...] = (100,) * 10) -> list[bool]:
    """What the watch says of accuracies under FGSM and PGD, and clean ones (0.9 unless given), epoch after epoch.

    Measured on so many images of each class.
    """
    state, criterion = (
        CollapseMemory(),
        CollapseCriterion.of(torch.arange(len(labels)).repeat_interleave(torch.tensor(labels))),
    )
    looked = [dict(zip(("fgsm", "pgd", "clean"), (*each, 0.9), strict=False)) for each in found]
    return [criterion.collapsed(state, each) for each in looked]


@pytest.mark.parametrize("name", CURVES)
def test_a_recorded_run_is_judged_as_it_went(name: str) -> None:
    """Validation accuracies of real runs without a watch; "falls" is the epoch from 0, read off by us, or null."""
    curve, state = CURVES[name], CollapseMemory()
    criterion = CollapseCriterion.of(torch.arange(10).repeat_interleave(curve["images"] // 10))
    fallen, never = [], []
    for each in curve["found"]:
        found = dict(zip(("clean", "fgsm", "pgd"), each, strict=True))
        fallen.append(criterion.collapsed(state, found))
        never.append(criterion.never_robust(state, found))
    assert (fallen.index(True) if any(fallen) else None) == curve["falls"]
    assert any(never[curve["epochs"] // 2 - 1 :]) is name.startswith("never stood")


def test_a_fall_from_a_height_is_a_collapse() -> None:
    assert looks((0.5, 0.4), (0.6, 0.45), (0.9, 0.1)) == [False, False, True]
    assert looks((0.5, 0.4), (0.9, 0.25)) == [False, False]  # above half of the best
    assert looks((0.5, 0.4), (0.28, 0.15)) == [False, False]  # FGSM fell along: worse, but not blind


def test_a_fall_from_a_low_height_is_one_too() -> None:
    """FGSM-AT and PAP's ablation on CIFAR-10 at eps 16/255 (results/), and falls that are none."""
    assert looks((0.22, 0.205), (0.108, 0.03)) == [False, True]
    assert looks((0.211, 0.174), (0.252, 0.081)) == [False, True]
    assert looks((0.22, 0.205), (0.15, 0.09)) == [False, False]  # FGSM fell along
    assert looks((0.22, 0.205), (0.07, 0.03)) == [False, False]  # as few images as chance decides
    assert looks((0.22, 0.14), (0.108, 0.03)) == [False, False]  # never stood


def test_a_fall_to_chance_is_one_though_fgsm_falls_along() -> None:
    assert looks((0.9, 0.85, 0.98), (0.1, 0.1, 0.1), (0.1, 0.1, 0.1)) == [False, True, True]
    assert looks((0.5, 0.4, 0.8), (0.2, 0.1, 0.5)) == [False, False]  # worse, but clean accuracy stands
    assert looks((0.9, 0.85, 0.98), (0.5, 0.5, 0.5)) == [False, False]  # PGD stands
    assert looks((0.1, 0.0, 0.98), (0.1, 0.0, 0.1)) == [False, False]  # never stood
    assert looks((0.9, 0.85, 0.98), (0.5, 0.5, 0.5), labels=(500, 500)) == [False, True]  # two classes


def test_what_never_stood_cannot_fall() -> None:
    """FGSM far above PGD is how many runs begin, some end, and none falls."""
    assert looks((0.305, 0.03), (0.6, 0.0), (0.7, 0.0), (0.9, 0.0)) == [False] * 4
    assert looks((0.1, 0.1), (0.6, 0.0), (0.7, 0.0)) == [False] * 3  # an untrained net: one class for every image
    assert looks((0.5, 0.5), (0.6, 0.0), labels=(500, 500)) == [False, False]
    assert looks((0.6, 0.6), (0.6, 0.1), labels=(500, 500)) == [False, True]
    assert looks((0.8, 0.8), (0.9, 0.1), labels=(800, 100, 100)) == [False, False]  # nearly all are of one class


@pytest.mark.parametrize(("images", "clear"), [(1000, 0.15), (250, 0.1 + 0.9 / 250**0.5), (40, 0.1 + 0.9 / 40**0.5)])
def test_where_few_images_are_held_out_standing_takes_more(images: int, clear: float) -> None:
    """Three standard deviations of a share of 0.1, each sqrt(0.1 * 0.9 / images), or 5 points."""
    assert CollapseCriterion.of(torch.arange(10).repeat_interleave(images // 10)).robust_threshold == pytest.approx(
        clear
    )


def test_what_a_constant_answer_would_beat_does_not_stand() -> None:
    state, criterion = CollapseMemory(best_pgd=0.14), CollapseCriterion(chance=0.1, images=1000)
    assert criterion.never_robust(state, {"fgsm": 0.4, "pgd": 0.02})
    assert not criterion.never_robust(state, {"fgsm": 0.4, "pgd": 0.11})  # on its way
    assert not criterion.never_robust(
        state, {"fgsm": 0.04, "pgd": 0.0}
    )  # nothing is masked: it has only learnt nothing
    assert not criterion.never_robust(
        CollapseMemory(best_pgd=0.16), {"fgsm": 0.4, "pgd": 0.02}
    )  # stood: that is a collapse


def test_a_rescue_that_collapses_is_followed_by_a_stronger_one() -> None:
    chains = {NuAT(eps=EPS): "NuAT2 PGDAT2 PGDAT10", FGSMAT(eps=EPS): "PGDAT2 PGDAT10", Standard(): ""}
    chains |= {PGDAT(eps=EPS, steps=20): "PGDAT20", Delayed(after=FGSMAT(eps=EPS)): "PGDAT2 PGDAT10"}
    for method, names in chains.items():
        found = rescuers(method)
        assert names.split() == [
            type(each).__name__ + (str(each.attack.steps) if isinstance(each, PGDAT) else "") for each in found
        ]
        assert all(each.threat == Threat("linf", EPS) for each in found)


def test_a_state_to_go_back_to_is_near_the_best() -> None:
    state, criterion = CollapseMemory(best_pgd=0.5), CollapseCriterion(chance=0.1, images=1000)
    assert criterion.is_restorable(state, {"pgd": 0.46}) and not criterion.is_restorable(state, {"pgd": 0.44})
    assert not criterion.is_restorable(
        CollapseMemory(best_pgd=0.14), {"pgd": 0.14}
    )  # nothing stood yet: the beginning is better


def test_a_jump_of_the_signal_calls_for_a_look() -> None:
    state = CollapseMemory()
    one = watch()
    assert not any(one.jumped(state, distance) for distance in (1.0, 9.0, 1.2, 0.9, 1.1))  # too few to compare with
    assert not one.jumped(state, 3.2) and one.jumped(state, 3.5)  # the medians are 1.1 and 1.15
    assert len(state.signals) == 7
    for _ in range(40):
        one.jumped(state, 5.0)
    assert len(state.signals) == 21 and not one.jumped(state, 14.0) and one.jumped(state, 16.0)


@pytest.mark.parametrize(("mode", "threat", "images"), [("off", Threat("linf", EPS), 8), ("rescue", None, 8),
                                                       ("rescue", Threat("linf", EPS), 0)])  # fmt: skip
def test_without_threat_images_or_wish_nothing_is_watched(mode: Any, threat: Threat | None, images: int) -> None:
    assert not watch(mode, threat, images).on and watch().on and watch("warn").on


def test_it_looks_at_all_classes() -> None:
    labels = torch.arange(10).repeat_interleave(100)  # as held-out images lie
    one = CollapseDetector(Split(torch.zeros(1000, 1, 2, 2, dtype=torch.uint8), labels), THREAT, "rescue", seed=0)
    assert len(one.split) == 64
    assert set(torch.bincount(one.split.labels, minlength=10).tolist()) == {6, 7}


@pytest.mark.slow
def test_a_run_that_is_not_watched_collapses(tmp_path: Path) -> None:
    ended = toughen(*COLLAPSING.split(), "--watch", "off", "--out", tmp_path / "run")
    found = [line["validation"] for line in lines(tmp_path / "run")]
    assert ended.status == 0 and "collapse" not in ended.err and not collapses(tmp_path / "run")
    assert max(each["pgd"] for each in found[:4]) > 0.3 and all(each["pgd"] < 0.2 for each in found[5:])
    assert found[-1]["fgsm"] > 0.5 and found[-1]["clean"] > 0.8
    assert not (tmp_path / "run" / checkpoint.HEALTHY).exists()


@pytest.mark.slow
def test_a_run_that_is_watched_is_told_of_its_collapse(tmp_path: Path) -> None:
    ended = toughen(*COLLAPSING.split(), "--watch", "warn", "--stop_epoch", 5, "--out", tmp_path / "run")
    assert "collapse: accuracy" in ended.err and "back to" not in ended.err
    assert [event["step"] for event in collapses(tmp_path / "run")] == [360]
    assert lines(tmp_path / "run")[-1]["validation"]["pgd"] < 0.2


@pytest.mark.slow
def test_a_run_that_is_rescued_stands(tmp_path: Path) -> None:
    """And says so in metrics.jsonl, on the terminal and in TensorBoard; each rescue is twice as long as the last."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    ended = toughen(*COLLAPSING.split(), "--watch", "rescue", "--log_every", 24, "--out", run)
    assert ended.status == 0
    found, all_lines = collapses(run), lines(run)
    assert len(found) >= 2 and "back to step" in ended.err and "then PGDAT for 1 epoch\n" in ended.err
    for number, event in enumerate(found):
        steps = 72 * 2**number
        ends_at = -(-event["step"] // 72) * 72 + steps
        assert event["until"] == ends_at and event["back_to"] < event["step"]
        assert {line["method"] for line in all_lines if event["step"] < line["step"] <= ends_at} <= {"PGDAT"}
    assert json.loads((run / "model.json").read_text())["validation"]["pgd"] > 0.5
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    assert len(board.Scalars("logit_distance")) == 10 * 3
    assert sum("collapse" in str(e.tensor_proto) for e in board.Tensors("events/text_summary")) == len(found)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["best", "last"])
def test_a_collapse_in_the_last_epoch_leaves_the_healthy_weights(tmp_path: Path, weights: str) -> None:
    run = tmp_path / "run"
    toughen(*COLLAPSING.split(), "--watch", "rescue", "--stop_epoch", 5, "--weights", weights, "--out", run)
    (event,) = collapses(run)
    assert event["step"] == 360 and event["back_to"] == 288 and "where the run ends" in event["text"]
    healthy = read_tensors(run / checkpoint.HEALTHY)[0]
    last = state_of(run)
    names = [name for name in last if name.startswith(("model.", "optimizer."))]
    assert names and all(torch.equal(last[name], healthy[name]) for name in names)
    if weights == "last":
        written = runs.load(run).state_dict()
        assert written and all(torch.equal(written[name], healthy[f"model.{name}"]) for name in written)


@pytest.fixture
def nervous(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that takes the looks after the fourth and fifth epoch, and one in the second, for a collapse."""

    judged_at(monkeypatch, collapses=(8, 20, 25), jumps=(8,))
    monkeypatch.setattr(CollapseCriterion, "is_restorable", always)


def judged_at(monkeypatch: pytest.MonkeyPatch, collapses: tuple[int, ...], jumps: tuple[int, ...]) -> None:
    """A watch that takes looks after these steps for a collapse, and signals after those for a jump."""
    handle, on_step_end, now = CollapseWatch.handle, CollapseWatch.on_step_end, [0]

    def handling(self: CollapseWatch, state: TrainingState, found: dict[str, float]) -> bool:
        now[0] = state.step
        return handle(self, state, found)

    def stepping(self: CollapseWatch, state: TrainingState, step: Any) -> None:
        now[0] = state.step
        on_step_end(self, state, step)

    def jumped(self: CollapseDetector, memory: CollapseMemory, distance: float) -> bool:
        memory.signals = [*memory.signals, distance]
        return now[0] in jumps

    monkeypatch.setattr(CollapseWatch, "handle", handling)
    monkeypatch.setattr(CollapseWatch, "on_step_end", stepping)
    monkeypatch.setattr(CollapseCriterion, "collapsed", lambda *_: now[0] in collapses)
    monkeypatch.setattr(CollapseDetector, "jumped", jumped)


def always(*_: Any) -> bool:
    """Every state is one to go back to, where a test's nets are too little trained to stand."""
    return True


@pytest.mark.slow
def test_a_kill_during_a_rescue_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nervous: None) -> None:
    words = small("--method", "NuAT", "--eps", 0.2, "--averaging", 0.9, "--epochs", 6, "--checkpoint_seconds", 0)
    words += ["--log_every", 2]
    assert toughen(*words, "--out", tmp_path / "whole").status == 0
    methods = [line["method"] for line in lines(tmp_path / "whole")]
    assert methods == ["NuAT", "NuAT2", "NuAT2", "NuAT", "NuAT2", "PGDAT"]
    happened = [(e["step"], e["back_to"], e["until"]) for e in events(tmp_path / "whole")]
    assert happened == [(8, 5, 15), (20, 15, 30), (25, 15, 45)]
    for step in (5, 8, 9, 13, 20, 21, 26):
        cut = tmp_path / f"cut{step}"
        with monkeypatch.context() as patched, pytest.raises(Killed):
            kill_at_step(patched, step)
            toughen(*words, "--out", cut)
        assert toughen(*words, "--out", cut, "--resume").status == 0
        same_end(tmp_path / "whole", cut)


def test_the_watch_begins_when_training_on_clean_images_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks like a collapse after the second epoch is ignored; a rescue after the fourth keeps the switch."""
    judged_at(monkeypatch, collapses=(10, 20), jumps=(7,))
    words = small("--method", "Delayed", "--method.after", "PGDAT", "--method.switch_epoch", 3, "--eps", 0.2)
    assert toughen(*words, "--epochs", 6, "--log_every", 1, "--out", tmp_path / "run").status == 0
    happened = [(e["event"], e.get("step"), e.get("back_to")) for e in events(tmp_path / "run")]
    assert [each for each in happened if each[0] != "switch"] == [("collapse", 20, 15)]
    assert [line["method"] for line in lines(tmp_path / "run")] == ["Delayed"] * 4 + ["PGDAT", "Delayed"]
    assert [sorted(line["terms"]) for line in lines(tmp_path / "run")] == [["clean"]] * 3 + [["robust"]] * 3


@pytest.mark.parametrize(("collapse", "trained", "told"), [
    (5, ["Delayed robust", "PGDAT robust", "PGDAT robust", "Delayed clean,robust"], "TRADES after the rescue: as told"),
    (10, ["Delayed robust"] * 2 + ["PGDAT robust"] * 2, "TRADES after the rescue: as told"),
    (15, ["Delayed robust"] * 3 + ["PGDAT robust"] * 2, "TRADES from now on: as told"),
])  # fmt: skip
def test_a_rescue_does_not_move_a_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collapse: int, trained: list[str], told: str
) -> None:
    """Epochs 3 to 6 are trained with the second method where no rescue trains them, and the switch is told once."""
    judged_at(monkeypatch, collapses=(collapse,), jumps=())
    delayed = "--method Delayed --method.before FGSMAT --method.after TRADES --method.switch_epoch 3".split()
    words = small(*delayed, "--method.after.steps", 1, "--eps", 0.2, "--watch_epochs", 2, "--epochs", 7)
    assert toughen(*words, "--out", tmp_path / "run").status == 0
    found = [f"{line['method']} {','.join(sorted(line['terms']))}" for line in lines(tmp_path / "run")]
    assert found == trained + ["Delayed clean,robust"] * (7 - len(trained))
    assert [event["text"] for event in events(tmp_path / "run") if event["event"] == "switch"] == [told]


@pytest.mark.slow
def test_what_does_not_stand_in_half_of_a_run_is_trained_otherwise_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before eight epochs, and once; killed after that it ends the same."""
    monkeypatch.setattr(CollapseCriterion, "never_robust", lambda *_: True)
    words = small("--method", "FBF", "--eps", 0.2, "--epochs", 11, "--checkpoint_seconds", 0)
    assert toughen(*words, "--out", tmp_path / "whole").status == 0
    assert [line["method"] for line in lines(tmp_path / "whole")] == ["FBF"] * 8 + ["PGDAT"] * 3
    (event,) = events(tmp_path / "whole")
    assert (event["event"], event["step"], event["back_to"]) == ("never robust", 40, 0)
    assert event["text"].endswith("PGDAT to the end")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at_step(patched, 47)
        toughen(*words, "--out", tmp_path / "cut")
    assert toughen(*words, "--out", tmp_path / "cut", "--resume").status == 0
    same_end(tmp_path / "whole", tmp_path / "cut")
    assert toughen(*words, "--watch", "warn", "--out", tmp_path / "warned").status == 0
    (event,) = events(tmp_path / "warned")
    assert "rescue" not in event and {line["method"] for line in lines(tmp_path / "warned")} == {"FBF"}


def distances_of_pgd(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How far PGDAT's images lie from the clean ones, step by step; the list grows as it trains."""
    loss, distances = PGDAT.loss, list[float]()

    def measuring(self: PGDAT, model: Any, x: Any, y: Any, crafted: Any) -> Any:
        distances.append(float((crafted.x_adv - x).abs().max()))
        return loss(self, model, x, y, crafted)

    monkeypatch.setattr(PGDAT, "loss", measuring)
    return distances


def test_new_weights_have_a_warm_up_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """55 steps of which 0.2 are 11: after going back to the start the rescue's first image is not moved at all."""
    distances = distances_of_pgd(monkeypatch)
    monkeypatch.setattr(CollapseCriterion, "never_robust", lambda *_: True)
    words = small("--method", "FBF", "--eps", 0.2, "--epochs", 11, "--eps_warmup", 0.2)
    assert toughen(*words, "--out", tmp_path / "run").status == 0
    assert distances == pytest.approx([0.2 * min(1, n / 11) for n in range(15)], abs=1e-6)


def test_a_warm_up_goes_back_with_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 steps of which 0.5 are 15: after the collapse at step 10 the rescue goes on as the fifth step did, 5/15."""
    distances = distances_of_pgd(monkeypatch)
    judged_at(monkeypatch, collapses=(10,), jumps=())
    monkeypatch.setattr(CollapseCriterion, "is_restorable", always)
    words = small("--method", "FBF", "--eps", 0.2, "--epochs", 6, "--eps_warmup", 0.5, "--checkpoint_seconds", 0)
    assert toughen(*words, "--out", tmp_path / "whole").status == 0
    assert [(each["step"], each["back_to"], each["until"]) for each in events(tmp_path / "whole")] == [(10, 5, 15)]
    assert distances == pytest.approx([0.2 * n / 15 for n in range(5, 10)], abs=1e-6)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at_step(patched, 13)
        toughen(*words, "--out", tmp_path / "cut")
    assert toughen(*words, "--out", tmp_path / "cut", "--resume").status == 0
    same_end(tmp_path / "whole", tmp_path / "cut")


def test_until_a_collapse_a_watch_changes_nothing(tmp_path: Path) -> None:
    weights = []
    for mode in ("off", "warn", "rescue"):
        words = small("--method", "FBF", "--eps", 0.2, "--averaging", 0.9, "--log_every", 2, "--watch", mode)
        assert toughen(*words, "--out", tmp_path / mode).status == 0 and not events(tmp_path / mode)
        weights.append((tmp_path / mode / runs.WEIGHTS).read_bytes())
    assert weights[0] == weights[1] == weights[2]


def test_a_kill_before_the_healthy_state_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CollapseCriterion, "is_restorable", always)
    words = small("--method", "FBF", "--eps", 0.2, "--epochs", 3)
    assert toughen(*words, "--out", tmp_path / "whole").status == 0
    keep = checkpoint.keep

    def dying(folder: Path, name: str) -> None:
        if name == checkpoint.HEALTHY and read_tensors(folder / checkpoint.NAME)[1]["step"] == 10:
            raise Killed
        keep(folder, name)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(checkpoint, "keep", dying)
        toughen(*words, "--out", tmp_path / "cut")
    assert read_tensors(tmp_path / "cut" / checkpoint.HEALTHY)[1]["step"] == 5
    step = Trainer.step

    def looking(self: Trainer, *arguments: Any) -> Any:
        healthy.append(read_tensors(self.folder / checkpoint.HEALTHY)[1]["step"])
        return step(self, *arguments)

    healthy: list[int] = []
    monkeypatch.setattr(Trainer, "step", looking)
    assert toughen(*words, "--out", tmp_path / "cut", "--resume").status == 0
    assert healthy == [10] * 5
    same_end(tmp_path / "whole", tmp_path / "cut")


def test_a_rescue_whose_state_is_gone_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"

    def collapsed(*_: Any) -> bool:
        (run / checkpoint.HEALTHY).unlink(missing_ok=True)
        judged.append(True)
        return len(judged) == 2  # after the second epoch

    judged: list[bool] = []
    monkeypatch.setattr(CollapseCriterion, "collapsed", collapsed)
    ended = toughen(*small("--method", "FBF", "--eps", 0.2, "--out", run))
    assert ended.status in (1, 2) and checkpoint.HEALTHY in ended.err and "Traceback" not in ended.err


def test_weights_of_chosen_moments_are_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = small("--method", "FBF", "--eps", 0.2, "--keep_at", '[1, 7, "epoch 1"]')
    assert toughen(*words, "--out", run).status == 0
    kept = {path.stem: read_tensors(path)[0] for path in (run / "kept").iterdir()}
    assert kept.keys() == {"step-1", "step-7", "epoch-1"}
    last = {name: value for name, value in state_of(run).items() if name.startswith("model.")}
    assert all(torch.equal(value, kept["epoch-1"][name.removeprefix("model.")]) for name, value in last.items())
    assert any((kept["step-1"][name] != kept["step-7"][name]).any() for name in kept["step-1"])
    shutil.rmtree(run)
    for wrong in ("epoch", "1.5", "epoch -1"):
        ended = toughen(*words[:-1], json.dumps([wrong]), "--out", run)
        assert ended.status == 2 and 'such as 500, or an epoch such as "epoch 3"' in ended.err
    for beyond in (0, 11, "epoch 2"):
        refused(
            toughen(*words[:-1], json.dumps([beyond]), "--out", run), f"keep_at holds {beyond}", "10 steps, 2 epochs"
        )
    assert not run.exists()


def test_a_run_may_stop_early_under_a_longer_schedule(tmp_path: Path) -> None:
    rates = {}
    for name, more in (("whole", []), ("early", ["--stop_epoch", 2])):
        words = small("--epochs", 4, "--method", "FBF", "--eps", 0.2, *more)
        assert toughen(*words, "--out", tmp_path / name).status == 0
        rates[name] = [line["lr"] for line in lines(tmp_path / name)]
    assert len(rates["early"]) == 2 and rates["early"] == rates["whole"][:2]
    assert timeless(tmp_path / "early") == timeless(tmp_path / "whole")[:2]
    assert "is finished already" in toughen(*words, "--out", tmp_path / "early", "--resume").err


def test_gamma_and_the_clock_are_in_the_metrics(tmp_path: Path) -> None:
    for method, gamma in (("Standard", 0), ("FBF", 1), ("PGDAT", 10)):
        eps = [] if method == "Standard" else ["--eps", 0.1]
        assert toughen(*small("--method", method, *eps, "--out", tmp_path / method)).status == 0
        for line in lines(tmp_path / method):
            assert line["gamma"] == pytest.approx(gamma)
            assert line["seconds_per_step"] * 5 == pytest.approx(line["seconds"], abs=1e-3)


def test_nuats_rescue_is_its_two_step_form() -> None:
    rescue = NuAT(eps=EPS, lam=2.5).rescue()
    assert type(rescue).__name__ == "NuAT2" and rescue is not None and rescue.threat == Threat("linf", EPS)


def test_the_watch_never_sees_test_images(tmp_path: Path) -> None:
    """Its sample comes out of the validation split, which comes out of the training images."""
    seen: list[torch.Tensor] = []
    init = CollapseDetector.__init__

    def keeping(self: CollapseDetector, *arguments: Any) -> None:
        init(self, *arguments)
        seen.append(self.split.images)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CollapseDetector, "__init__", keeping)
        assert toughen(*small("--method", "FBF", "--eps", 0.2, "--out", tmp_path / "run")).status == 0
    whole = data.load(str(digits()))
    trained = {image.numpy().tobytes() for image in whole.train.images}
    assert len(seen[0]) == 10 and {image.numpy().tobytes() for image in seen[0]} <= trained
    assert runs.read_record(tmp_path / "run").validation


def test_a_warm_up_lengthens_perturbations_from_the_first_threatened_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 steps of which 0.4 are 8: strengths 0, 1/8 ... 1; Delayed spends its first epoch of 5 steps unthreatened."""
    distances = distances_of_pgd(monkeypatch)
    for name, words in (("at-once", "--method PGDAT"), ("delayed", DELAYED)):
        distances.clear()
        more = [*words.split(), "--epochs", 4, "--eps", 0.2, "--eps_warmup", 0.4, "--watch", "off"]
        assert toughen(*small(*more, "--out", tmp_path / name)).status == 0
        steps = 20 if name == "at-once" else 15
        assert distances == pytest.approx([0.2 * min(1, n / 8) for n in range(steps)], abs=1e-6)


DELAYED = "--method Delayed --method.after PGDAT --method.switch_epoch 1"


def test_a_stop_beyond_the_end_is_refused(tmp_path: Path) -> None:
    ended = toughen(*small("--epochs", 4, "--stop_epoch", 5, "--out", tmp_path / "run"))
    assert ended.status == 2 and "must not exceed the 4 epochs" in ended.err


def test_a_terms_mean_is_over_the_images_that_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps report "first"; from the third on, at which the rescue takes over, they report "second"; all "both"."""
    judged_at(monkeypatch, collapses=(3,), jumps=(3,))
    step = Trainer.step

    def named(self: Trainer, x: Any, y: Any, batch: Any) -> Any:
        done = step(self, x, y, batch)
        rescued = self.state.step >= 3
        return replace(done, terms={"second" if rescued else "first": torch.tensor(1.0), "both": torch.tensor(2.0)})

    monkeypatch.setattr(Trainer, "step", named)
    words = small("--method", "FBF", "--eps", 0.2, "--epochs", 1, "--log_every", 3, "--out", tmp_path / "run")
    assert toughen(*words).status == 0
    assert lines(tmp_path / "run")[0]["terms"] == {"first": 1.0, "both": 2.0, "second": 1.0}
