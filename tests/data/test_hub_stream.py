"""Training on shards of a hub: its client against an imitation of the hub on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hub_server import Hub, hub_of
from PIL import Image
from safetensors.torch import load_file
from test_stream import encoded

from toughen import data, runs

TRAIN = "--model small-cnn --method FBF --eps 0.2 --epochs 1 --batch_size 32 --validation 20 --shuffle_buffer 50"
LIMIT = "--memory_limit 100KB --num_workers 0 --watch off"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """300 embedded digits in three training shards and a test shard, as a repository of the hub lays them out."""
    digits = data.load("mnist-5k")
    folder = tmp_path / "repository" / "data"
    folder.mkdir(parents=True)
    named = {f"train-{number:05d}-of-00003": digits.train.take(torch.arange(number, 4000, 40)) for number in range(3)}
    named["test-00000-of-00001"] = digits.test.take(torch.arange(0, 1000, 10))
    for name, split in named.items():
        images = [encoded(Image.fromarray(image[0].numpy())) for image in split.images]
        table = pa.table({"image": images, "label": split.labels.tolist()})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=10)
    return folder.parent


def train(hub: Hub, out: Path, spec: str | Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: the hub's address is read when its client is imported."""
    words = [*TRAIN.split(), *LIMIT.split(), *more, "--data", str(spec), "--out", str(out)]
    where = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "NO_PROXY": "*", "HF_HOME": str(out.parent / "home")}
    return subprocess.run(
        [sys.executable, "-m", "toughen", "train", *words], env=os.environ | where, capture_output=True, text=True
    )


@pytest.mark.slow
def test_a_set_of_the_hub_trains_as_the_same_files_here(repository: Path, tmp_path: Path) -> None:
    with hub_of(repository, "owner/digits") as hub:
        ended = train(hub, tmp_path / "far", "hf://datasets/owner/digits")
        assert ended.returncode == 0, ended.stderr
        asked = {file for file, _, _ in hub.ranges}
        assert train(hub, tmp_path / "near", repository).returncode == 0
    assert asked >= {f"data/train-{number:05d}-of-00003.parquet" for number in range(3)}
    far, near = (load_file(tmp_path / name / runs.WEIGHTS) for name in ("far", "near"))
    assert far and all(torch.equal(far[name], near[name]) for name in near)
    cached = [path for path in (tmp_path / "home").rglob("*") if path.suffix == ".parquet"]
    assert not cached


def test_a_hub_without_the_set_is_said(repository: Path, tmp_path: Path) -> None:
    with hub_of(repository, "owner/digits") as hub:
        ended = train(hub, tmp_path / "run", "hf://datasets/owner/letters")
    assert ended.returncode == 2 and "hf://datasets/owner/letters" in ended.stderr, ended.stderr
    assert "Traceback" not in ended.stderr and not (tmp_path / "run").exists()
