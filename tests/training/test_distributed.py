"""Several processes train and evaluate as one would."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from commands import Ended, process, refused, small, state_of, timeless, toughen
from many import script, torchrun, toughen_in
from paths import NETS
from safetensors.torch import load_file

import toughen as package
from toughen import data
from toughen.core.distributed import ProcessGroup, world
from toughen.runs.files import read_tensors
from toughen.training import checkpoint
from toughen.training.trainer import Trainer

METHODS = {  # each kind of memory: none, per place in the batch, per image, decided by the loss, weights of its own
    "free": "--method Free --method.replays 2",
    "pap": "--method PAP --method.steps 3 --method.share 0.2",
    "fbf": "--method FBF --method.start previous",
    "efgsm": "--method EFGSM",
    "pgi": "--method PGI",
    "delayed": "--method Delayed --method.after Reconstruct --method.after.inner EFGSM --method.switch_epoch 1",
    "hybrid": "--method Hybrid --method.cheap NuAT --method.window 2 --method.threshold 0.01",
}

RECORDS_LOSSES = """
import json, os, sys
from toughen.cli.main import main
from toughen.training.trainer import Trainer

add_up = Trainer.add_up
def recording(self, step, y, passes=None):
    with open(sys.argv[1] + os.environ["RANK"], "a") as file:
        print(json.dumps([float(step.loss) * len(y), len(y)]), file=file)
    add_up(self, step, y, passes)
Trainer.add_up = recording
main(sys.argv[2:])
"""

VECTORS = """
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
"""

DIES = """
import os, signal, sys
from toughen.cli.main import main
from toughen.training.trainer import Trainer

step = Trainer.step
def dying(self, *arguments):
    if self.state.step == 7 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *arguments)
Trainer.step = dying
main(sys.argv[1:])
"""

DIES_ATTACKING = """
import os, signal, sys
from toughen.cli.main import main
from toughen.evaluation.workers import Workers

run = Workers.run
def dying(self, attack_round, chunks):
    if attack_round.key.startswith("pgd") and os.environ["RANK"] == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    return run(self, attack_round, chunks)
Workers.run = dying
main(sys.argv[2:])
"""

DIES_IN_A_POOL = """
import os, signal, sys
from toughen.cli.main import main
from toughen.evaluation import workers
if __name__ == "__main__":
    main(sys.argv[1:])
else:  # a process of the pool, which imports this file
    def dying(self, attack_round, *more):
        os.kill(os.getpid(), signal.SIGKILL)
    workers.Harness.attack = dying
"""

SECONDS = 30  # within which all has ended where one process was killed

EVALUATES = """
import sys
import torch
import toughen
from toughen import data
from toughen.core import distributed
from toughen.data import Split

test = data.load("mnist-5k").test
some = Split(test.images[:48:2], test.labels[:48:2])
with distributed.joined():
    toughen.evaluate(
        toughen.load(sys.argv[1]), some, eps=0.3, attacks=["fgsm", "pgd-10x2", "apgd-ce", "nuclear"], batch_size=4,
        verdict=False, out=sys.argv[2],
    )
"""


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = small(*"--method TRADES --method.steps 3 --eps 0.1 --epochs 4 --batch_size 15 --watch off".split())
    words += ["--precision", "fp64", "--optimizer.lr", 0.1]  # 5 batches, of 7 + 8 images and of 5 + 5
    alone: list[float] = []
    add_up = Trainer.add_up

    def recording(self: Trainer, step: Any, y: torch.Tensor, *more: Any) -> None:
        alone.append(float(step.loss))
        add_up(self, step, y, *more)

    monkeypatch.setattr(Trainer, "add_up", recording)
    assert toughen(*words, "--out", tmp_path / "one").status == 0
    program = script(tmp_path, RECORDS_LOSSES)
    ended = torchrun(2, [program, tmp_path / "losses", *words, "--out", tmp_path / "two"])
    assert ended.status == 0, ended
    parts = [[json.loads(line) for line in (tmp_path / f"losses{rank}").read_text().splitlines()] for rank in (0, 1)]
    assert [n for _, n in parts[0][:5]] == [7, 7, 7, 7, 5] and [n for _, n in parts[1][:5]] == [8, 8, 8, 8, 5]
    both = [(a + b) / (n + m) for (a, n), (b, m) in zip(*parts, strict=True)]
    assert len(both) == len(alone) == 20 and max(alone) - min(alone) > 0.01
    assert [math.isclose(one, two, rel_tol=1e-9) for one, two in zip(alone, both, strict=True)] == [True] * 20
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], rtol=1e-9, atol=1e-12) for name in one)
    for line, other in zip(timeless(tmp_path / "one"), timeless(tmp_path / "two"), strict=True):
        assert math.isclose(line["loss"], other["loss"], rel_tol=1e-9) and line["accuracy"] == other["accuracy"]
        assert line["passes"] == pytest.approx(other["passes"])


@pytest.mark.slow
@pytest.mark.parametrize(("method", "kept"), [
    ("ConvergeSmooth --method.inner FGSMAT", "method.last_mean"),
    ("Hybrid --method.cheap NuAT --method.strong FGSMAT --method.window 1000", "method.window_sum"),
])  # fmt: skip
def test_what_a_method_remembers_of_the_loss_counts_each_image_alike(tmp_path: Path, method: str, kept: str) -> None:
    """In batches of 7 + 8 images, and of one image and a padding batch, in one epoch at a rate of almost 0."""
    words = small(*f"--method {method} --eps 0.1 --epochs 1 --batch_size 15 --watch off --validation 4".split())
    words += ["--precision", "fp64", "--optimizer.lr", 1e-9]  # so that NuAT, which couples images, does not matter
    assert toughen(*words, "--out", tmp_path / "one").status == 0
    ended = torchrun(2, ["-m", "toughen", *words, "--out", tmp_path / "two"])
    assert ended.status == 0, ended
    one, two = (float(state_of(tmp_path / name)[kept]) for name in ("one", "two"))
    assert one > 1 and math.isclose(one, two, rel_tol=1e-9)


@pytest.mark.slow
def test_an_evaluation_in_two_processes_finds_the_same(tmp_path: Path) -> None:
    program, net = script(tmp_path, EVALUATES), NETS / "fbf"
    ended = torchrun(2, [program, net, tmp_path / "two"])
    assert ended.status == 0, ended
    test = data.load("mnist-5k").test
    some = data.Split(test.images[:48:2], test.labels[:48:2])
    attacks = ["fgsm", "pgd-10x2", "apgd-ce", "nuclear"]
    package.evaluate(
        package.load(net), some, eps=0.3, attacks=attacks, batch_size=4, verdict=False, out=tmp_path / "one"
    )
    one, two = (pq.read_table(tmp_path / name / "examples.parquet") for name in ("one", "two"))
    assert one.equals(two) and 0 < sum(value is not None for value in one["broken_by"].to_pylist()) < 24
    figures = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("one", "two")]
    for each in figures:
        each.pop("provenance")
        for attack in each["attacks"].values():
            for cost in ("seconds", "padding"):  # blocks are filled up where fewer images are left together
                attack.pop(cost)
    assert figures[0] == figures[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_that_were_killed_go_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    words = small(*METHODS[name].split(), "--eps", 0.2, "--batch_size", 15, "--crop", 2, "--checkpoint_seconds", 0)
    assert toughen_in(2, *words, "--out", tmp_path / "whole").status == 0
    killed = torchrun(2, [script(tmp_path, DIES), *words, "--out", tmp_path / "cut"])
    assert killed.status != 0
    ended = toughen_in(2, *words, "--out", tmp_path / "cut", "--resume")
    assert ended.status == 0 and "continues after step 7" in ended.err, ended
    first, second = state_of(tmp_path / "whole"), state_of(tmp_path / "cut")
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "cut")


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    words = small(*METHODS["free"].split(), "--eps", 0.2, "--checkpoint_seconds", 0, "--out", tmp_path / "run")
    assert torchrun(2, [script(tmp_path, DIES), *words]).status != 0
    ended = toughen(*words, "--resume")
    assert ended.status == 0 and "continues after step 7" in ended.err
    assert "the number of processes has changed, method.delta starts again" in ended.err
    lines = timeless(tmp_path / "run")
    assert [line["epoch"] for line in lines] == [0, 1] and math.isfinite(lines[1]["loss"])
    assert lines[0]["passes"] == pytest.approx(3.0)  # none was counted twice or forgotten


def one_line(ended: Ended, goes_on: str) -> None:
    """We said one sentence on what happened, and no traceback of ours: torchrun prints its own."""
    said = [line for line in ended.err.splitlines() if line.startswith("toughen: ")]
    assert ended.status != 0 and len(said) == 1, ended
    ended_so = ("another process of this command ended", "stopped; ")  # found out, or told by torchrun's SIGTERM
    assert any(word in said[0] for word in ended_so) and goes_on in said[0], ended
    assert "toughen/cli" not in ended.err and "toughen/training" not in ended.err, ended.err


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_training_of_which_a_process_is_killed(victim: int, tmp_path: Path) -> None:
    """All end, the checkpoint is whole, and one process goes on."""
    words = small(*"--method FBF --eps 0.2 --checkpoint_seconds 0 --device cpu --out".split(), tmp_path / "run")
    program = script(tmp_path, DIES.replace('== "1"', f'== "{victim}"'))
    begun = time.monotonic()
    ended = torchrun(2, [program, *words], timeout=120)
    took = time.monotonic() - begun
    one_line(ended, "continue with --resume")
    assert took < SECONDS, took
    assert read_tensors(tmp_path / "run" / checkpoint.NAME)[1]["step"] == 7
    read_tensors(tmp_path / "run" / checkpoint.PREVIOUS)
    again = toughen(*words, "--resume")
    assert again.status == 0 and "continues after step 7" in again.err, again
    assert [line["epoch"] for line in timeless(tmp_path / "run")] == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_an_evaluation_of_which_a_process_is_killed(victim: int, tmp_path: Path) -> None:
    """All end, what was done is kept, and one process comes to the figures of an evaluation that nobody disturbed."""
    words = [
        "evaluate",
        NETS / "pgd-at",
        "--data",
        "mnist-5k",
        "--attacks",
        "fgsm",
        "pgd-5",
        "--limit",
        48,
        "--verdict",
        "false",
    ]
    words += ["--details", "false", "--device", "cpu", "--out"]
    assert toughen(*words, tmp_path / "whole").status == 0
    begun = time.monotonic()
    ended = torchrun(2, [script(tmp_path, DIES_ATTACKING), victim, *words, tmp_path / "cut"], timeout=120)
    took = time.monotonic() - begun
    one_line(ended, "the same command continues it")
    assert took < SECONDS, took
    (ledger,) = (tmp_path / "cut").glob("evaluation-*.safetensors")
    read_tensors(ledger)
    again = toughen(*words, tmp_path / "cut")
    assert again.status == 0 and "continues where it stopped" in again.err, again
    tables = [pq.read_table(tmp_path / name / "examples.parquet") for name in ("whole", "cut")]
    assert tables[0].equals(tables[1])


@pytest.mark.slow
def test_an_evaluation_whose_own_processes_are_killed(tmp_path: Path) -> None:
    """The same of ``--processes``, whose pool is the command's own."""
    words = [
        "evaluate",
        NETS / "pgd-at",
        "--data",
        "mnist-5k",
        "--attacks",
        "fgsm",
        "--limit",
        48,
        "--verdict",
        "false",
    ]
    words += ["--details", "false", "--device", "cpu", "--out", tmp_path / "cut"]
    begun = time.monotonic()
    done = process(script(tmp_path, DIES_IN_A_POOL), *words, "--processes", 2)
    took = time.monotonic() - begun
    one_line(Ended(done.returncode, done.stdout, done.stderr), "the same command continues it")
    assert took < SECONDS and "Traceback" not in done.stderr, done.stderr
    assert toughen(*words).status == 0


@pytest.mark.slow
def test_what_goes_wrong_is_said_once(tmp_path: Path) -> None:
    ended = toughen_in(2, "train", "fgsm-mnist", "--data", tmp_path / "nowhere")
    said = [line for line in ended.err.splitlines() if line.startswith("toughen: ")]
    assert ended.status != 0 and len(said) == 1 and "nowhere" in said[0], ended
    ended = toughen_in(2, "diagnose", tmp_path)
    said = [line for line in ended.err.splitlines() if line.startswith("toughen: ")]
    assert ended.status != 0 and len(said) == 1 and "without torchrun" in said[0], ended


@pytest.mark.slow
def test_a_last_batch_of_three_images_trains_a_net_that_needs_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vectors.py").write_text(VECTORS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    words = small("--model", "vectors:net", "--batch_size", 67, "--eps", "null", "--epochs", 1)
    ended = toughen_in(2, *words, "--out", tmp_path / "run")
    assert ended.status == 0, ended


@pytest.mark.slow
def test_running_means_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    """At a rate of nearly nothing the first layer stays what it is, and so do its outputs' means."""
    words = small(*"--method Standard --eps null --model resnet18 --optimizer.lr 1e-9 --epochs 1".split())
    words += ["--model_settings", "{width: 4}", "--precision", "fp32"]
    assert toughen(*words, "--out", tmp_path / "one").status == 0
    ended = toughen_in(2, *words, "--out", tmp_path / "two")
    assert ended.status == 0, ended
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    (mean,) = [name for name in one if "stem" in name and name.endswith("running_mean")]
    assert one[mean].abs().max() > 0.001
    torch.testing.assert_close(one[mean], two[mean], rtol=1e-4, atol=1e-6)


def test_batch_norm_over_processes_is_refused_on_a_cpu(tmp_path: Path) -> None:
    refused(toughen(*small("--sync_batch_norm", "true"), "--out", tmp_path / "run"), "sync_batch_norm needs GPUs")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_even_and_whole(count: int) -> None:
    for n in range(20):
        found: list[int] = []
        for rank in range(count):
            part = range(n)[ProcessGroup(rank, count).shard(n)]
            assert len(part) - n // count in (0, 1)
            found += part
        assert found == list(range(n))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_no_process_trains_on_a_single_image(count: int) -> None:
    for n in range(2, 20):
        parts = [range(n)[ProcessGroup(rank, count).batch_shard(n)] for rank in range(count)]
        assert [row for part in parts for row in part] == list(range(n))
        assert 1 not in map(len, parts)
        assert n < 2 * count or parts == [range(n)[ProcessGroup(rank, count).shard(n)] for rank in range(count)]


def test_a_process_alone_sends_nothing() -> None:
    group, values = world(), torch.ones(3)
    assert (group.rank, group.world_size, group.is_distributed, group.shard(5)) == (0, 1, False, slice(0, 5))
    assert group.all_gather({"a": 1}) == [{"a": 1}] and group.broadcast(3) == 3
    assert group.any(True, False) == (True, False) and group.all_reduce(values) is values
    assert group.on_main(max, 2, 3) == 3


@pytest.mark.parametrize(("rank", "ran", "rows"), [(0, 7, slice(0, 2)), (1, None, slice(2, 5)), (2, None, slice(0, 2))])
def test_what_one_of_three_processes_does(rank: int, ran: int | None, rows: slice) -> None:
    """Of five images the last of three processes gets none, and takes two as padding; the first is the main one."""
    group = ProcessGroup(rank, 3)
    assert group.on_main(max, 7, 3) == ran and group.padded_shard(5) == rows
    assert group.own_of(["a", "b", "c"], "".join) == "abc"[rank]
    assert group.own_of(["a", "b"], "".join) == ("ab" if rank == 0 else None)
    assert group.console().quiet is (rank > 0)
