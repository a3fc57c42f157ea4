"""An evaluation can be killed, cut up and shared out, and finds the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from broken_models import Noisy
from paths import NETS
from torch import nn

import toughen
from toughen import data
from toughen.attacks import APGD, APGDT, FAB, PGD, AutoAttack, Square
from toughen.attacks.base import Attack
from toughen.core.rng import Noise
from toughen.core.types import Eps, Images, Labels, Logits, Norm
from toughen.data import Split
from toughen.engine import device
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation import measure
from toughen.evaluation.harness import Harness
from toughen.evaluation.plan import attack_rounds
from toughen.evaluation.runner import _chunk_size
from toughen.evaluation.workers import Workers
from toughen.runs.files import read_json

SHORT: dict[str, Attack] = {  # every way in which an attack is cut into pieces, at a length for tests
    "pgd": PGD(eps=0.3, steps=5, restarts=3),
    "apgd": APGD(eps=0.3, steps=8, restarts=2),
    "apgd-t": APGDT(eps=0.3, steps=8, targets=3),
    "fab-t": FAB(eps=0.3, steps=8, targets=3),
    "square": Square(eps=0.3, queries=40),
}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Chunks come one after the other, so that it is known which are done when."""
    with device.one_thread():
        yield


class ByThreads(nn.Module):
    """The mean of each row of pixels, a little larger the more threads there are."""

    def forward(self, x: Images) -> Logits:
        return x.mean(3)[:, 0, 9:19] * (1 + 1e-6 * torch.get_num_threads())


def some(count: int) -> Split:
    test = data.load("mnist-5k").test
    return test.take(torch.arange(0, 1000, 1000 // count)[:count])


class Life:
    """The images of each chunk that was attacked, and how many chunks there may be."""

    def __init__(self, chunks: int = 1000) -> None:
        self.seen: list[list[float]] = []
        self.chunks = [chunks]  # in a list, since another number of its own would make it another attack


@dataclass(frozen=True, kw_only=True)
class Mortal(Attack):
    """PGD that notes whom it attacks, and dies when its life is over."""

    life: Life
    eps: Eps | None = 0.3
    norm: Norm = "linf"
    restarts: int = 2

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        if len(self.life.seen) == self.life.chunks[0]:
            raise KeyboardInterrupt
        self.life.seen.append(x.flatten(1).sum(1).tolist())
        x_adv: Images = PGD(eps=self.eps, steps=3)(model, x, target, noise)
        return x_adv


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("dies", [0, 1, 2, 3, 5])
def test_nothing_is_attacked_twice(dies: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before any chunk, gone on with: each image is attacked as often as in one go, by the same draws."""
    monkeypatch.setattr("toughen.evaluation.runner.chunk_size", lambda images, block: 16)
    net, split = toughen.load(NETS / "fbf"), some(40)
    whole, life = Life(), Life(dies)
    wanted = measure(net, split, {"mortal": Mortal(life=whole)}, batch_size=8)
    assert len(whole.seen) > 5
    with pytest.raises(KeyboardInterrupt):
        measure(net, split, {"mortal": Mortal(life=life)}, batch_size=8, folder=tmp_path)
    life.chunks[0] = 1000
    found = measure(net, split, {"mortal": Mortal(life=life)}, batch_size=8, folder=tmp_path)
    assert life.seen == whole.seen
    assert found.ledger().equals(wanted.ledger())
    costs = [{**each.summary()["attacks"]["mortal"], "seconds": 0} for each in (found, wanted)]
    assert costs[0] == costs[1]


@pytest.mark.usefixtures("one_thread")
def test_a_model_with_random_outputs_is_continued_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was drawn before: no image is attacked twice in a round, and the same clean images are right."""
    monkeypatch.setattr("toughen.evaluation.runner.chunk_size", lambda images, block: 16)
    net, split, life = Noisy(toughen.load(NETS / "fbf"), 0.5), some(40), Life(1)
    with pytest.raises(KeyboardInterrupt):
        measure(net, split, {"mortal": Mortal(life=life, restarts=1)}, batch_size=8, folder=tmp_path)
    torch.rand(3)
    life.chunks[0] = 1000
    found = measure(net, split, {"mortal": Mortal(life=life, restarts=1)}, batch_size=8, folder=tmp_path)
    assert 16 < int(found.correct.sum()) < 40
    assert sum(map(len, life.seen)) == int(found.correct.sum())


@pytest.mark.usefixtures("one_thread")
def test_another_evaluation_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toughen.evaluation.runner.chunk_size", lambda images, block: 16)
    split = some(40)

    def begin(net: str = "fbf", **settings: Any) -> int:
        attack = Mortal(life=Life(2), restarts=settings.pop("restarts", 2))
        with pytest.raises(KeyboardInterrupt):
            measure(toughen.load(NETS / net), split, {"mortal": attack}, batch_size=8, folder=tmp_path, **settings)
        return len(attack.life.seen)

    assert begin() == 2 and begin() == 2  # each attempt does two more chunks
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 1
    for other in ({"seed": 1}, {"net": "pgd-at"}, {"restarts": 3}, {"precision": "bf16"}):
        assert begin(**other) == 2
    assert len(list(tmp_path.iterdir())) == 5 and names < {path.name for path in tmp_path.iterdir()}


def test_another_number_of_threads_continues_it(tmp_path: Path) -> None:
    """On some processors the last bits of logits differ with the number of threads, as this net's do on all."""
    split, threads = some(8), torch.get_num_threads()
    for count in (1, 8):
        torch.set_num_threads(count)
        measure(ByThreads(), split, {"fgsm": PGD(eps=0.3, steps=1)}, folder=tmp_path)
    torch.set_num_threads(threads)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    net, split = toughen.load(NETS / "fbf"), some(20)
    attacks: dict[str, Attack] = {"pgd": PGD(eps=0.3, steps=1)}
    measure(net, split, attacks, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{path.name} is damaged"):
        measure(net, split, attacks, folder=tmp_path)


def test_pieces_make_the_whole() -> None:
    """Restarts and targets one by one, on what the ones before left, find what the attack finds in one call."""
    net, split = toughen.load(NETS / "fbf"), some(40)
    for name, attack in SHORT.items():
        parts = attack_rounds(name, attack)
        assert len(parts) == {"pgd": 3, "apgd": 2, "apgd-t": 3, "fab-t": 3, "square": 1}[name]
        found = measure(net, split, {name: attack}, precision="fp64")
        whole = measure(net, split, {name: Whole(attack=attack)}, precision="fp64")
        assert torch.equal(found.results[name].broken, whole.results[name].broken), name
        assert 0 < int(found.results[name].broken.sum()) < 40


@dataclass(frozen=True, kw_only=True)
class Whole(Attack):
    """An attack that cannot be cut up."""

    attack: Attack
    norm: Norm = "linf"

    @property
    def eps(self) -> Eps | None:  # type: ignore[override]
        return self.attack.eps

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        early = replace(self.attack, stop_early=True) if isinstance(self.attack, PGD) else self.attack
        return early(model, x, target, noise)


@pytest.mark.slow
def test_batch_size_and_company_change_nothing() -> None:
    net, split = toughen.load(NETS / "fbf"), some(40)
    found = {block: measure(net, split, SHORT, batch_size=block) for block in (1, 7, 128)}
    exact = {block: measure(net, split, SHORT, batch_size=block, precision="fp64") for block in (1, 7, 128)}
    for block in (7, 128):
        assert exact[block].ledger().equals(exact[1].ledger())
        assert torch.equal(found[block].robust, found[1].robust)
        for name, result in found[block].results.items():
            other = found[1].results[name]
            assert torch.equal(result.broken, other.broken)
            assert torch.allclose(result.distance, other.distance, atol=1e-5, rtol=0)
    rows = torch.tensor([31, 2, 17, 8])  # alone, in another order: bit for bit
    for precision, whole in (("fp32", found[7]), ("bf16", measure(net, split, SHORT, batch_size=7, precision="bf16"))):
        part: Any = measure(net, split.take(rows), SHORT, index=rows, batch_size=7, precision=precision)  # type: ignore[arg-type]
        for name, result in part.results.items():
            assert torch.equal(result.broken, whole.results[name].broken[rows])
            assert torch.equal(result.distance, whole.results[name].distance[rows])


@pytest.mark.slow
def test_threads_change_nothing() -> None:
    """Neither how many work at the chunks, nor how many the rest of the program uses."""
    net, split, threads = toughen.load(NETS / "fbf"), some(40), torch.get_num_threads()
    found, interval = [], sys.getswitchinterval()
    for count in (1, 3):
        torch.set_num_threads(count)
        found.append(measure(net, split, SHORT, batch_size=8, precision="bf16"))
        assert torch.get_num_threads() == count and sys.getswitchinterval() == interval
    torch.set_num_threads(threads)
    assert found[0].ledger().equals(found[1].ledger())
    costs = [{name: each["passes"] for name, each in one.summary()["attacks"].items()} for one in found]
    assert all(costs[0][name] == costs[1][name] for name in SHORT if name != "fab-t")  # it fills blocks as they come


@pytest.mark.slow
def test_processes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toughen.evaluation.runner.chunk_size", lambda images, block: 16)
    net, split = toughen.load(NETS / "fbf"), some(40)
    for precision in ("fp32", "bf16"):
        alone = measure(net, split, SHORT, batch_size=8, precision=precision)
        shared = measure(net, split, SHORT, batch_size=8, precision=precision, processes=2)
        assert shared.ledger().equals(alone.ledger())
        assert shared.summary()["attacks"]["fab-t"]["passes"] == alone.summary()["attacks"]["fab-t"]["passes"]


@pytest.mark.slow
def test_cores_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process computes on one core: the last bits of a matrix product depend on how many share it."""
    net, split, attacks = toughen.load(NETS / "fbf"), some(40), {"fab-t": FAB(eps=0.4, steps=15)}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    distances = [
        measure(net, split, attacks, batch_size=16, processes=processes).results["fab-t"].distance
        for processes in (1, 2)
    ]
    assert len(distances[0].unique()) > 10 and torch.equal(*distances)


def _command(out: Path) -> list[str]:
    words = "--data mnist-5k --limit 60 --attacks autoattack --verdict false --batch_size 16 --eps 0.3 --out"
    return [sys.executable, "-m", "toughen", "evaluate", str(out.parent / "net"), *words.split(), str(out)]


@pytest.mark.slow
def test_killed_in_the_middle_of_autoattack(tmp_path: Path) -> None:
    """kill -9 wherever it stands, twice; then run again: the same ledger as the evaluation that was left alone."""
    (tmp_path / "net").mkdir()
    for path in (NETS / "fbf").iterdir():
        (tmp_path / "net" / path.name).write_bytes(path.read_bytes())
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(_command(alone), check=True, env=environment, capture_output=True)
    for wanted in (3, 8):
        process = subprocess.Popen(_command(killed), env=environment, stderr=subprocess.DEVNULL)
        _wait(lambda wanted=wanted: _pieces_done(killed) >= wanted, process)  # type: ignore[misc]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(_command(killed), check=True, env=environment, capture_output=True)
    assert pq.read_table(killed / "examples.parquet").equals(pq.read_table(alone / "examples.parquet"))
    assert not list(killed.glob("evaluation-*.safetensors"))
    costs = [read_json(each / "evaluation.json")["attacks"]["autoattack"] for each in (alone, killed)]
    assert costs[0]["passes"] == costs[1]["passes"]


def _pieces_done(folder: Path) -> int:
    from toughen.runs.files import read_tensors

    for path in folder.glob("evaluation-*.safetensors"):
        return int(read_tensors(path)[1]["autoattack"]["round"])
    return 0


def _wait(until: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    for _ in range(3000):
        assert process.poll() is None, "it ended before it could be killed"
        if until():
            return
        time.sleep(0.05)
    raise AssertionError("nothing happened")


def test_autoattack_is_cut_into_targets() -> None:
    parts = [(piece.part, getattr(piece.attack, "first", None)) for piece in attack_rounds("aa", AutoAttack(eps=0.1))]
    nine = list(range(1, 10))
    assert parts == [("apgd-ce", None), *(("apgd-t", n) for n in nine), *(("fab-t", n) for n in nine), ("square", None)]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_stop_waits_for_no_chunk(processes: int) -> None:
    """Ctrl-C while all workers are at chunks of hours; then they are ready for others."""
    split = some(64)
    model = FixedBatchModel(toughen.load(NETS / "fgsm-at"), 32)
    (short,) = attack_rounds("pgd", PGD(eps=0.3, steps=1))
    (hours,) = attack_rounds("pgd", PGD(eps=1e-6, steps=10**7))
    chunks = torch.arange(64).split(32)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    with Workers(Harness(model, split.images, split.labels, torch.arange(64), 0), processes) as workers:
        assert len(list(workers.run(short, chunks))) == 2
        started = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, 1)
        with pytest.raises(KeyboardInterrupt):
            list(workers.run(hours, chunks))
        assert time.perf_counter() - started < 20
        assert len(list(workers.run(short, chunks))) == 2
    signal.signal(signal.SIGALRM, before)


def test_the_end_does_not_wait_for_a_process_that_was_killed() -> None:
    """One that waited for work, as by the system where memory is short."""
    split, model = some(64), FixedBatchModel(toughen.load(NETS / "fgsm-at"), 32)
    (short,) = attack_rounds("pgd", PGD(eps=0.3, steps=1))
    workers = Workers(Harness(model, split.images, split.labels, torch.arange(64), 0), 2)
    assert len(list(workers.run(short, torch.arange(64).split(32)))) == 2
    assert isinstance(workers.pool, ProcessPoolExecutor)
    processes = list(workers.pool._processes.values())
    processes[0].kill()
    ended = threading.Thread(target=workers.__exit__, daemon=True)
    ended.start()
    ended.join(20)
    waits = ended.is_alive()
    for process in processes:  # a test that fails must not wait, either
        process.kill()
    assert not waits


@pytest.mark.parametrize(
    ("queries", "rows", "images"), [(40, 1000, 512), (40, 9450, 960), (5000, 1000, 256), (10**7, 1000, 64)]
)
def test_both_workers_get_as_much_and_of_a_long_attack_little_at_a_time(queries: int, rows: int, images: int) -> None:
    """Of 9,450 images each gets five chunks; 5,001 passes of 256 images are the least whole batches of a million."""
    split = some(1000)
    model = FixedBatchModel(toughen.load(NETS / "fgsm-at"), 64)
    harness = Harness(model, split.images, split.labels, torch.arange(1000), 0)
    (attack_round,) = attack_rounds("square", Square(eps=0.3, queries=queries))
    workers = Workers(harness, 1)
    workers.count = 2
    with workers:
        assert _chunk_size(attack_round, rows, workers) == images
