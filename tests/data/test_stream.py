"""Training images that stay encoded: the order is a shuffle that can be gone on with, whoever decodes."""

from __future__ import annotations

import io
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import digits, refused, small, state_of, timeless, toughen
from PIL import Image

from toughen import data, runs
from toughen.data import Streamed
from toughen.data.feed import LoadedBatch, MemoryFeed, StreamFeed, Unreadable, windowed
from toughen.data.resized import TRIES, ResizedCrop, box
from toughen.data.sources import Encoded
from toughen.evaluation.images import load_test
from toughen.runs.files import read_tensors
from toughen.training import checkpoint
from toughen.training.trainer import Trainer
from toughen.utils import units
from toughen.utils.memory import available_memory

CPU = torch.device("cpu")
TIGHT = ("--memory_limit", "80KB")  # less than the digits take decoded, enough for a few batches


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """400 embedded digits in four parquet shards; row groups of 10 and, at the ends of shards, 7 or 9."""
    train = data.load("mnist-5k").train.take(torch.arange(0, 4000, 10))
    images = [encoded(Image.fromarray(image[0].numpy())) for image in train.images]
    root = tmp_path / "shards"
    root.mkdir()
    for number, rows in enumerate(torch.arange(400).split([97, 97, 97, 109])):
        table = pa.table({"image": [images[row] for row in rows], "label": train.labels[rows].tolist()})
        pq.write_table(table, root / f"train-{number}.parquet", row_group_size=10)
    return root


def streamed(folder: Path, **settings: Any) -> Streamed:
    return streamed_at(str(folder), **settings)


def streamed_at(spec: str, **settings: Any) -> Streamed:
    found = data.load_training(spec, stream=True, **settings)
    assert isinstance(found, Streamed)
    return found


def feed(folder: Path, **settings: Any) -> StreamFeed:
    base: dict[str, Any] = {"split": streamed(folder).train, "seed": 0, "batch_size": 32, "device": CPU, "buffer": 50}
    return StreamFeed(**base | settings)


def same(one: list[LoadedBatch], other: list[LoadedBatch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)
    )


# --- the order


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own(shards: Path) -> None:
    given = feed(shards)
    orders = [torch.cat([fed.rows for fed in given.batches(epoch)]) for epoch in (0, 1)]
    assert all(sorted(order.tolist()) == list(range(len(given.split))) for order in orders)
    assert not torch.equal(*orders)
    assert [len(fed.rows) for fed in given.batches(0)] == [32] * (len(given.split) // 32) + [len(given.split) % 32]


def test_batches_hold_the_images_that_they_name(shards: Path) -> None:
    """Judged by the images in memory, which another way of reading decodes."""
    whole = data.load(str(shards)).train
    for fed in feed(shards).batches(0):
        assert torch.equal(fed.images, whole.images[fed.rows]) and torch.equal(fed.labels, whole.labels[fed.rows])


def test_groups_are_mixed_within_the_buffer_and_no_further(shards: Path) -> None:
    """An image comes at most ``buffer`` places after its group's turn, so no more than that and a group wait."""
    split, buffer = streamed(shards).train, 60
    order = windowed(split, buffer, seed=0, epoch=0)
    group = torch.searchsorted(split.store.sizes.cumsum(0), split.rows[order], right=True)
    first = {g: int((group == g).nonzero()[0]) for g in set(group.tolist())}
    last = {g: int((group == g).nonzero()[-1]) for g in first}
    spans = torch.tensor([last[g] - first[g] for g in first])
    assert int(spans.max()) <= buffer + 10 and float(spans.double().mean()) > buffer / 2
    assert len(set(group[:32].tolist())) >= 3  # the first batch is a mixture, too
    middle = torch.tensor([(first[g] + last[g]) / 2 for g in sorted(first)])
    assert abs(float(torch.corrcoef(torch.stack([middle, torch.arange(len(middle)).float()]))[0, 1])) < 0.5


def test_every_group_is_read_once_an_epoch(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, asked = feed(shards), list[int]()
    read = given.split.store.read

    def counting(group: int, places: list[int]) -> list[Encoded]:
        asked.append(group)
        return read(group, places)

    monkeypatch.setattr(given.split.store, "read", counting)
    assert len(list(given.batches(0))) == math.ceil(len(given.split) / 32)
    assert sorted(asked) == sorted(set(asked)) and len(asked) == len(given.split.store.sizes)


@pytest.mark.parametrize("buffer", [50, 4096])
def test_an_epoch_goes_on_where_it_stopped(shards: Path, buffer: int) -> None:
    whole = list(feed(shards, buffer=buffer).batches(3))
    for first in (1, 5, len(whole) - 1):
        assert same(list(feed(shards, buffer=buffer).batches(3, first)), whole[first:])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize("resized", [False, True])
def test_any_number_of_workers_gives_the_same_images(shards: Path, resized: bool) -> None:
    one, *others = [list(feed(shards, resized=resized, workers=workers).batches(1)) for workers in (0, 1, 2)]
    assert all(same(one, other) for other in others)


def test_parts_of_batches_make_the_whole(shards: Path) -> None:
    """As processes that train together take them: each its slice, with the same crops."""
    given = feed(shards, resized=True)
    first, second = given.batches(0, part=lambda n: slice(0, n // 2)), given.batches(0, part=lambda n: slice(n // 2, n))
    for fed, left, right in zip(given.batches(0), first, second, strict=True):
        assert all(torch.equal(a, torch.cat([b, c])) for a, b, c in zip(fed, left, right, strict=True))


def test_class_folders_come_in_the_order_of_images_in_memory() -> None:
    whole = data.load(str(digits())).train
    for fed, held in zip(feed(digits()).batches(2), MemoryFeed(whole, 0, 32).batches(2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(fed, held, strict=True))


def test_a_subset_of_classes_and_of_images(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("7\n3\n")
    whole = data.load(str(shards), classes=tmp_path / "classes.txt").train
    given = streamed(shards, classes=tmp_path / "classes.txt")
    train, validation, index = given.split(10, seed=1)
    held = data.load(str(shards), classes=tmp_path / "classes.txt").split(10, 1)
    assert torch.equal(validation.images, held[1].images) and torch.equal(index, held[2])
    for fed in StreamFeed(split=train, seed=0, batch_size=16, device=CPU, buffer=20).batches(0):
        assert torch.equal(fed.images, whole.images[index][fed.rows]) and set(fed.labels.tolist()) <= {0, 1}


def test_statistics_are_those_of_a_sample_of_stated_size(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, whole = streamed(shards), data.load(str(shards))
    assert given.statistics() == whole.statistics()  # the sample is all of them
    monkeypatch.setattr("toughen.data.stream.SAMPLE", 100)
    assert len(given.train.sample()) == 100 and given.train.sample().labels.bincount().tolist() == [10] * 10
    assert given.statistics() == streamed(shards).statistics() != whole.statistics()
    assert given.statistics()[0][0] == pytest.approx(whole.statistics()[0][0], rel=0.1)


# --- random resized crops


def test_a_part_worked_out_by_hand() -> None:
    """Of 400x300 pixels: 0.54 of the area is 64,800; ratio 1, so 254.6 by 254.6; a half and a quarter of the room."""
    assert box(400, 300, [[0.5, 0.5, 0.5, 0.25]]) == (73, 11, 73 + 255, 11 + 255)
    # 1.0 in a square does not fit; 0.08 of it, 9,600, at 4:3 is 113.1 by 84.9, and 215 of 216 rows lie above it
    assert box(400, 300, [[1.0, 0.6, 0.0, 0.0], [0.0, 1.0, 0.0, 0.999]]) == (0, 215, 113, 215 + 85)


def test_what_never_fits_is_the_largest_part_of_an_allowed_shape() -> None:
    """All of 0.9 of the area in a square does not fit into a strip: its middle does, three wide for each four high."""
    assert box(1000, 100, [[0.9, 0.5, 0.0, 0.0]] * TRIES) == (433, 0, 433 + 133, 100)
    assert box(90, 1000, [[0.9, 0.5, 0.0, 0.0]] * TRIES) == (0, 440, 90, 440 + 120)


def reference(generator: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    """torchvision's ``RandomResizedCrop.get_params`` with its defaults, transcribed: left, top, right, bottom."""
    for _ in range(10):
        target = width * height * generator.uniform(0.08, 1.0)
        ratio = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(generator.integers(0, height - h + 1)), int(generator.integers(0, width - w + 1))
            return left, top, left + w, top + h
    raise AssertionError("such images always have a part that fits")


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (224, 224)])
def test_parts_are_distributed_as_torchvision_s(width: int, height: int) -> None:
    """The largest gap of the cumulative distributions (Kolmogorov, Smirnov), which one in 10,000 samples exceeds."""
    count = 2000
    ours = np.array([ResizedCrop(0, 1, index)(width, height) for index in range(count)])
    generator = np.random.default_rng(0)
    theirs = np.array([reference(generator, width, height) for _ in range(count)])

    def figures(boxes: Any) -> list[Any]:
        w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        return [w * h, w / h, boxes[:, 0] / np.maximum(1, width - w), boxes[:, 1] / np.maximum(1, height - h)]

    for one, other in zip(figures(ours), figures(theirs), strict=True):
        points = np.sort(np.concatenate([one, other]))
        gap = np.abs(np.searchsorted(np.sort(one), points, "right") - np.searchsorted(np.sort(other), points, "right"))
        assert gap.max() / count < 2.23 * math.sqrt(2 / count)


def test_parts_are_an_image_s_and_an_epoch_s_own() -> None:
    parts = {ResizedCrop(seed, epoch, index)(500, 375) for seed in (0, 1) for epoch in (0, 1) for index in range(10)}
    assert len(parts) == 40 and ResizedCrop(0, 1, 2)(500, 375) == ResizedCrop(0, 1, 2)(500, 375)


def colours(root: Path, each: int = 6, side: tuple[int, int] = (60, 44), classes: int = 3) -> Path:
    """Class folders of JPEGs of one embedded digit on another's, enlarged, in colour; `test` has two a class."""
    whole = data.load("mnist-5k").train.images[:, 0]
    for split, count in (("train", each), ("test", 2)):
        for label in range(classes):
            folder = root / split / f"c{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                rows = [400 * label + number + (100 if split == "test" else 0), 40 * number, 7 * number]
                picture = Image.fromarray(torch.stack([whole[row] for row in rows], 2).numpy()).resize(side)
                picture.save(folder / f"{number}.jpg", quality=90)
    return root


def test_a_part_is_resized_as_pil_does_it(tmp_path: Path) -> None:
    """The box by ``ResizedCrop``, the pixels by PIL's own crop and bilinear resize."""
    root = colours(tmp_path)
    given = streamed(root, image_size=32, resize=37).train
    (fed,) = StreamFeed(split=given, seed=5, batch_size=99, device=CPU, buffer=9, resized=True).batches(4)
    files = sorted((root / "train").rglob("*.jpg"))
    for row, image in zip(fed.rows.tolist(), fed.images, strict=True):
        part = Image.open(files[row]).crop(ResizedCrop(5, 4, row)(60, 44)).resize((32, 32), Image.Resampling.BILINEAR)
        assert np.array_equal(image.numpy().transpose(1, 2, 0), np.asarray(part))


def test_validation_and_test_images_are_the_centre_of_a_larger_resize(tmp_path: Path) -> None:
    root = colours(tmp_path)
    whole = Image.open(root / "train/c0/0.jpg").resize((round(60 * 37 / 44), 37), Image.Resampling.BILINEAR)
    left = (whole.width - 32) // 2
    expected = np.asarray(whole.crop((left, 2, left + 32, 34))).transpose(2, 0, 1)
    held = streamed(root, image_size=32, resize=37).train.decoded()
    assert np.array_equal(held.images[0].numpy(), expected)
    assert np.array_equal(data.load(str(root), image_size=32, resize=37).train.images[0].numpy(), expected)


# --- runs


def test_a_streamed_run_is_the_run_in_memory(tmp_path: Path) -> None:
    """Class folders without resized crops: the same images, the same order, the same weights to the bit."""
    words = small("--method", "NuAT", "--eps", 0.2, "--crop", 2, "--flip", "true")
    whole = toughen(*words, "--out", tmp_path / "memory")
    assert whole.status == 0 and "are streamed" not in whole.err, whole.err
    for workers in (0, 2):
        ended = toughen(*words, *TIGHT, "--num_workers", workers, "--out", tmp_path / f"streamed{workers}")
        assert ended.status == 0 and "training images are streamed" in ended.err, ended.err
        assert runs.streamed(tmp_path / f"streamed{workers}") and not runs.streamed(tmp_path / "memory")
        one, other = state_of(tmp_path / "memory"), state_of(tmp_path / f"streamed{workers}")
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
        assert timeless(tmp_path / "memory") == timeless(tmp_path / f"streamed{workers}")


@pytest.mark.slow
def test_replays_and_a_time_budget_work_on_streamed_images(tmp_path: Path) -> None:
    words = small("--method", "Free", "--eps", 0.2, "--method.replays", 3)
    assert toughen(*words, "--out", tmp_path / "memory").status == 0
    assert toughen(*words, *TIGHT, "--num_workers", 0, "--out", tmp_path / "streamed").status == 0
    assert timeless(tmp_path / "memory") == timeless(tmp_path / "streamed")
    # for as many epochs as the clock lets it have; at a rate of 0.1 the loss may become NaN
    words = small(
        "--method", "Free", "--eps", 0.2, "--method.replays", 3, "--time-budget", "3s", "--optimizer.lr", 0.01
    )
    ended = toughen(*words, *TIGHT, "--num_workers", 0, "--out", tmp_path / "timed")
    assert ended.status == 0, ended.err


class Killed(BaseException):
    """What stands for a kill within this process."""


def test_a_killed_run_goes_on_bit_for_bit(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards, a small buffer, resized crops; going on with other workers and another limit."""
    words = ["train", "--data", shards, "--model", "fbf-mnist-cnn", "--image_size", 28, "--crop", "resized"]
    words += ["--method", "FBF", "--eps", 0.2, "--epochs", 2, "--batch_size", 48, "--shuffle_buffer", 64]
    words += ["--validation", 20, "--validation_steps", 2, "--precision", "fp32", "--checkpoint_seconds", 0]
    assert toughen(*words, "--num_workers", 0, "--out", tmp_path / "whole").status == 0
    add_up = Trainer.add_up

    def dying(self: Trainer, *arguments: Any) -> None:
        add_up(self, *arguments)
        if self.state.step == 10:
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Trainer, "add_up", dying)
        toughen(*words, "--num_workers", 1, "--out", tmp_path / "cut")
    assert read_tensors(tmp_path / "cut" / checkpoint.NAME)[1]["step"] == 9
    ended = toughen(*words, "--num_workers", 2, "--memory_limit", "1GB", "--out", tmp_path / "cut", "--resume")
    assert ended.status == 0 and "continues after step 9" in ended.err, ended.err
    one, other = state_of(tmp_path / "whole"), state_of(tmp_path / "cut")
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "cut")


def test_a_run_stays_streamed_or_in_memory_when_it_goes_on(tmp_path: Path) -> None:
    """Else a machine with another amount of memory would go on in another order."""
    words = small("--method", "FBF", "--eps", 0.2, "--num_workers", 0)
    for name, first, then in (("streamed", TIGHT, ()), ("memory", (), TIGHT)):
        assert toughen(*words, *first, "--stop_epoch", 1, "--out", tmp_path / name).status == 0
        before = runs.streamed(tmp_path / name)
        assert toughen(*words, *then, "--stop_epoch", 1, "--out", tmp_path / name, "--resume").status == 0
        assert runs.streamed(tmp_path / name) is before is (name == "streamed")


def broken_shard(folder: Path) -> str:
    file = folder / "train-2.parquet"
    table = pq.read_table(file)
    images = table["image"].to_pylist()
    images[33] = images[33][:60]
    pq.write_table(table.set_column(0, "image", pa.array(images)), file, row_group_size=10)
    return "train-2.parquet, row 33 cannot be decoded"


def vanished_shard(folder: Path) -> str:
    (folder / "train-1.parquet").unlink()
    return "train-1.parquet cannot be read as parquet"


def shorter_shard(folder: Path) -> str:
    file = folder / "train-0.parquet"
    pq.write_table(pq.read_table(file).slice(0, 45), file, row_group_size=10)
    return "train-0.parquet has changed: row group"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("harm", [broken_shard, vanished_shard, shorter_shard])
def test_a_file_that_is_damaged_while_a_run_goes_on(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], str], workers: int
) -> None:
    """One message with file and row, status 1, a checkpoint of the last step; mended, the run ends as if unharmed."""
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    words = ["train", "--data", shards, "--model", "fbf-mnist-cnn", "--method", "FBF", "--eps", 0.2, "--epochs", 2]
    words += ["--batch_size", 32, "--shuffle_buffer", 32, "--validation", 20, "--validation_steps", 2]
    words += ["--precision", "fp32", "--num_workers", workers, "--memory_limit", "200KB"]
    assert toughen(*words, "--out", tmp_path / "whole").status == 0
    run, said, add_up = tmp_path / "run", list[str](), Trainer.add_up

    def harming(self: Trainer, *arguments: Any) -> None:
        add_up(self, *arguments)
        if self.state.step == 12 and not said:  # in the second epoch
            said.append(harm(shards))

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "add_up", harming)
        ended = toughen(*words, "--out", run)
    last = ended.err.splitlines()[-1]
    assert ended.status == 1 and last.startswith(f"toughen: training failed: {shards}/{said[0]}"), ended.err
    assert last.endswith("continue with --resume: nothing is lost") and "Traceback" not in ended.err
    assert read_tensors(run / checkpoint.NAME)[1]["step"] >= 12
    shutil.copytree(copy, shards, dirs_exist_ok=True)
    assert toughen(*words, "--out", run, "--resume").status == 0
    one, other = state_of(tmp_path / "whole"), state_of(run)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_other_images_are_refused_when_a_run_goes_on(tmp_path: Path) -> None:
    shutil.copytree(digits(), tmp_path / "data")
    words = [*small("--num_workers", 0, *TIGHT, "--stop_epoch", 1), "--data", tmp_path / "data"]
    assert toughen(*words, "--out", tmp_path / "run").status == 0
    file = next((tmp_path / "data/train/3").iterdir())
    file.rename(file.with_name("another.png"))
    refused(toughen(*words, "--out", tmp_path / "run", "--resume"), "have changed since")


def test_an_evaluation_says_that_it_cannot_know_what_was_seen(tmp_path: Path) -> None:
    """Also of training images themselves, which it would refuse, had they been kept count of."""
    words = small("--method", "FBF", "--eps", 0.2, "--epochs", 1, "--num_workers", 0)
    assert toughen(*words, *TIGHT, "--out", tmp_path / "streamed").status == 0
    assert toughen(*words, "--out", tmp_path / "memory").status == 0
    for name, words_said in (("streamed", "not checked"), ("memory", "")):
        ended = toughen("evaluate", tmp_path / name, "--attacks", "fgsm", "--verdict", "false")
        said = json.loads((tmp_path / name / "evaluation.json").read_text()).get("seen_images", "")
        assert ended.status == 0 and said.startswith(words_said) and bool(said) is bool(words_said)
        assert ("whether these images were used for training: not checked" in ended.out) is bool(words_said)
    assert toughen("diagnose", tmp_path / "streamed", "--which", "confusion", "--limit", 10).status == 0
    found = json.loads((tmp_path / "streamed/diagnostics.json").read_text())["confusion"]["about"]
    assert found["seen_images"].startswith("not checked")


def test_test_images_are_evaluated_without_the_training_images(tmp_path: Path) -> None:
    """In the form in which the run validates; of the training images no pixel is decoded."""
    root = colours(tmp_path / "data")
    words = ["train", "--data", root, "--model", "resnet18", "--model_settings.width", 16, "--image_size", 32]
    words += ["--crop", "resized", "--method", "FBF", "--eps", 0.03, "--epochs", 1, "--batch_size", 6]
    words += ["--validation", 3, "--validation_steps", 1, "--num_workers", 0, "--out", tmp_path / "run"]
    assert toughen(*words).status == 0
    record = runs.read_record(tmp_path / "run")
    assert (record.image_size, record.resize, record.shape) == (32, 37, [3, 32, 32])
    both = data.load(str(root), image_size=32, resize=37)
    for path in (root / "train").rglob("*.jpg"):
        path.write_bytes(b"")
    alone = load_test(tmp_path / "run", record, None)
    assert len(both.train) == 18 and len(alone.train) == 0 and alone.shape == (3, 32, 32)
    assert torch.equal(both.test.images, alone.test.images) and torch.equal(both.test.labels, alone.test.labels)


# --- what is refused, and where images stay encoded


def test_images_stay_encoded_where_they_exceed_the_limit(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 400 * 28 * 28
    assert isinstance(data.load_training(str(shards), memory=needed - 1), Streamed)
    assert not isinstance(data.load_training(str(shards), memory=needed), Streamed)
    monkeypatch.setattr("toughen.data.ingest.available_memory", lambda: 2 * needed - 2)
    assert isinstance(data.load_training(str(shards)), Streamed)
    assert not isinstance(data.load_training("mnist-5k"), Streamed)  # it lies in memory anyway


@pytest.mark.parametrize("buffer", [50, 400])
def test_the_memory_limit_covers_the_images_that_wait(shards: Path, buffer: int) -> None:
    """Counted from the order: a group is in memory from its first image on, an image until its turn."""
    given = feed(shards, buffer=buffer, batch_size=1)
    store, rows = given.split.store, given.split.rows
    group = torch.searchsorted(store.sizes.cumsum(0), rows, right=True)
    waiting, most, read = 0, 0, set[int]()
    for row in windowed(given.split, buffer, seed=0, epoch=0).tolist():
        number = int(group[row])
        if number not in read:
            read.add(number)
            waiting += int((group == number).sum())
        most, waiting = max(most, waiting), waiting - 1
    needed = most * int(store.weights.sum()) // len(rows)
    with pytest.raises(ValueError, match="need more than the memory limit"):
        given.check_memory(needed, 0)
    given.check_memory(2 * needed + 50_000, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--memory_limit lots", "'lots' is not an amount of memory: write one such as 512MB"),
        ("--memory_limit 0MB", "'0MB' is not an amount of memory"),
        ("--memory_limit 20KB", "need more than the memory limit of 20KB: "),
        ("--num_workers -1", "num_workers and checkpoint_seconds must not be below 0"),
        ("--shuffle_buffer 0", "shuffle_buffer is 0: it must be at least 1"),
        ("--crop resized", "crop resized needs a size: add --image-size"),
        ("--crop resized --image_size 28 --method PGI --eps 0.1", "PGI keeps a history of each image"),
        ("--crop resized --image_size 28 --method EFGSM --eps 0.1", "EFGSM keeps a history of each image"),
        ("--crop resized --image_size 28 --method AWP --method.inner PGI --eps 0.1", "AWP keeps a history"),
        ("--crop resized --image_size 28 --data mnist-5k", "cannot be streamed: give a folder"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, words: str, said: str) -> None:
    refused(toughen(*small("--out", tmp_path / "run"), *words.split()), said)
    assert not (tmp_path / "run").exists()


def test_pgi_keeps_its_history_of_streamed_images_that_are_shifted(tmp_path: Path) -> None:
    words = small("--method", "PGI", "--eps", 0.2, "--crop", 2)
    assert toughen(*words, "--out", tmp_path / "memory").status == 0
    assert toughen(*words, *TIGHT, "--num_workers", 0, "--out", tmp_path / "streamed").status == 0
    assert timeless(tmp_path / "memory") == timeless(tmp_path / "streamed")


def test_a_colour_image_among_grey_ones_is_refused_when_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(digits(), tmp_path / "data")
    file = sorted((tmp_path / "data/train/3").iterdir())[0]
    given = streamed(tmp_path / "data").train
    Image.open(file).convert("RGB").save(file)
    with pytest.raises(Unreadable, match=rf"{file} is in colour, but the images before it are grey"):
        list(StreamFeed(split=given, seed=0, batch_size=8, device=CPU, buffer=8).batches(0))


def test_colour_in_the_test_images_alone_is_seen(tmp_path: Path) -> None:
    """As in memory: else the run could not be evaluated on its own data."""
    shutil.copytree(digits(), tmp_path / "data")
    file = sorted((tmp_path / "data/test/3").iterdir())[0]
    Image.open(file).convert("RGB").save(file)
    assert data.load(str(tmp_path / "data")).shape == streamed(tmp_path / "data").shape == (3, 28, 28)
    assert streamed(digits()).shape == (1, 28, 28)


def test_hub_sets_are_read_out_of_their_cache(shards: Path) -> None:
    """The arrow tables that the hub's client keeps, in groups of 100 rows."""
    from toughen.data import hub, tables

    class Cached:
        data = pq.read_table(shards)
        features = type("Features", (), {"arrow_schema": data.schema})

    shard = hub._shard("some/set", "train", {"train": Cached})
    train = tables.sources("some/set", [shard], None).train
    assert train is not None and train.store is not None
    store = train.store
    assert store.sizes.tolist() == [100] * 4 and int(store.weights.sum()) > 50_000
    assert [item.where for item in store.read(3, [0, 99])] == ["some/set, train, row 300", "some/set, train, row 399"]
    column = Cached.data["image"].to_pylist()
    assert [item.content for item in store.read(3, [0, 99])] == [column[300], column[399]]


def test_shards_behind_an_address_are_read_in_place(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system in memory, by the same way as the hub's: the same images in the same order, and nothing is kept."""
    import fsspec

    system = fsspec.filesystem("memory")
    for number, file in enumerate(sorted(shards.iterdir())):
        system.pipe(f"/set/data/train-{number:05d}-of-00004.parquet", file.read_bytes())
    given = streamed_at("memory://set")
    local = feed(shards)
    remote = StreamFeed(split=given.train, seed=0, batch_size=32, device=CPU, buffer=50)
    assert same(list(local.batches(1)), list(remote.batches(1)))
    system.rm("/set/data/train-00002-of-00004.parquet")
    with pytest.raises(Unreadable, match="/set/data/train-00002-of-00004.parquet cannot be read as parquet"):
        list(remote.batches(1))
    with pytest.raises(ValueError, match="/set/data has 3 of 4 shards"):
        streamed_at("memory://set")
    for address, said in (("memory://none", "has no parquet files"), ("nowhere://set", "cannot be read")):
        with pytest.raises(ValueError, match=said):
            streamed_at(address)
    monkeypatch.setattr("toughen.data.hub.unreachable", lambda: "no answer in 2.5 s")
    with pytest.raises(ValueError, match=r"hf://datasets/a/b: the hub cannot be reached \(no answer in 2.5 s\)"):
        streamed_at("hf://datasets/a/b")


def test_amounts_of_memory() -> None:
    assert [units.parse_size(text) for text in ("512MB", "1.5GiB", " 2 gb", "64KiB")] == [
        512_000_000, 3 * 2**29, 2_000_000_000, 65_536,
    ]  # fmt: skip
    assert [units.format_size(amount) for amount in (512e6, 1.5e9, 64e3)] == ["512MB", "1.5GB", "64KB"]
    for text in ("512", "MB", "-1MB", "1PB", ""):
        with pytest.raises(ValueError, match="not an amount of memory"):
            units.parse_size(text)
    assert 2**20 < available_memory() < 2**50


# --- ImageNet


def imagenet(root: Path, side: tuple[int, int], each: int, classes: int) -> Path:
    """ImageNet's layout: train/n.../*.JPEG and val/n.../*.JPEG, of the first of the 100 classes and of one more."""
    packaged = Path(data.__file__).parent / "classes/imagenet100.txt"
    names = packaged.read_text().split()[: classes - 1]
    made = colours(root / "made", each, side, classes)
    for split, called in (("train", "train"), ("test", "val")):
        for number, name in enumerate([*names, "n09999999"]):
            folder = root / "set" / called / name
            folder.mkdir(parents=True)
            for file in (made / split / f"c{number}").iterdir():
                file.rename(folder / f"{name}_{file.stem}.JPEG")
    return root / "set"


def few_steps(name: str, root: Path, out: Path, *more: object) -> None:
    """A recipe for two epochs of two or three steps; then its weights are evaluated as any run's."""
    listed = [file.name for file in sorted((root / "train").iterdir())][:-1]
    (out.parent / "classes.txt").write_text("\n".join(listed))
    words = ["train", name, "--data", root, "--classes", out.parent / "classes.txt", "--epochs", 2]
    words += ["--batch_size", 8, "--validation", 4, "--validation_steps", 1, "--num_workers", 1, *more]
    ended = toughen(*words, "--out", out)
    assert ended.status == 0, ended.err
    record = runs.read_record(out)
    lines = timeless(out)
    assert len(lines) == 2 and all(math.isfinite(line["loss"]) for line in lines) and record.classes == listed
    assert runs.streamed(out) and record.resize == round(record.shape[1] * 256 / 224)
    words = ["--attacks", "fgsm", "--verdict", "false", "--details", "false", "--limit", 4]
    ended = toughen("evaluate", out, *words)
    assert ended.status == 0, ended.err


@pytest.mark.parametrize("name", ["nuat-imagenet100", "nuat-imagenet"])
def test_imagenet_s_recipes_train_on_its_layout(name: str, tmp_path: Path) -> None:
    root = imagenet(tmp_path, (60, 44), each=8, classes=4)
    few_steps(name, root, tmp_path / "run", "--image_size", 32, "--model_settings.width", 16)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nuat-imagenet100", "nuat-imagenet"])
def test_imagenet_s_recipes_train_at_224_pixels(name: str, tmp_path: Path) -> None:
    few_steps(name, imagenet(tmp_path, (500, 375), each=3, classes=4), tmp_path / "run", "--batch_size", 2)


def test_the_hundred_classes_have_a_name(tmp_path: Path) -> None:
    root = colours(tmp_path, each=1, side=(8, 8))
    with pytest.raises(ValueError, match="does not have 100 of the given classes, the first is 'n01484850'"):
        data.load(str(root), classes="imagenet100")
    with pytest.raises(FileNotFoundError, match="no file of classes 'imagenet101'"):
        data.load(str(root), classes="imagenet101")


# --- memory

WATCHED = """
import sys
from pathlib import Path
import torch
from toughen import data
from toughen.data.feed import StreamFeed
train = data.load_training(sys.argv[1], image_size=64, stream=True).train
feed = StreamFeed(split=train, seed=0, batch_size=32, device=torch.device("cpu"), buffer=128)
for fed in feed.batches(0):
    print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
"""


@pytest.mark.slow
def test_memory_stays_what_it_was(tmp_path: Path) -> None:
    """An epoch of 1,600 JPEGs, some 130 MB encoded: after a fifth of it the process grows by no sixth of that."""
    drawn = np.random.default_rng(0)
    noise = [Image.fromarray(drawn.integers(0, 256, (300, 400, 3), np.uint8)) for _ in range(50)]
    images = [image for image in (encoded(each, "JPEG") for each in noise) for _ in range(32)]
    for number in range(4):
        table = pa.table({"image": images[number::4], "label": [row % 2 for row in range(400)]})
        file = tmp_path / f"train-{number}.parquet"
        pq.write_table(table, file, row_group_size=50, compression="none", use_dictionary=False)
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    ended = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tmp_path)], capture_output=True, text=True, check=True,
    )  # fmt: skip
    resident = [int(line) for line in ended.stdout.split()]
    assert len(resident) == 45 and max(resident[9:]) - resident[9] < size / 6, (size, resident)


def test_workers_end_with_a_run_that_is_killed(shards: Path) -> None:
    """Their parent is the process that they were forked off, which waits for them in turn."""
    script = (
        "import os, sys, torch\n"
        "from toughen import data\n"
        "from toughen.data.feed import StreamFeed\n"
        "train = data.load_training(sys.argv[1], stream=True).train\n"
        "feed = StreamFeed(split=train, seed=0, batch_size=8, device=torch.device('cpu'), buffer=9, workers=2)\n"
        "next(feed.batches(0))\n"
        "batches = feed.batches(0)\n"
        "next(batches)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(shards)], capture_output=True, check=False, timeout=60)
    assert ended.returncode == -9  # a worker that is left would hold its output's pipe open, and run into the timeout
