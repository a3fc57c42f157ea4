"""Memory of a run on a data set larger than its limit, and whether a killed and resumed run has the same weights.

python benchmarks/streaming.py --folder DIR --gigabytes 2 --limit 512MB

JPEG shards are generated in the folder, where they are not there already. One epoch is trained on them by `toughen
train`, once left alone and once killed (SIGKILL) half way and resumed. The memory of the run and its workers together
is read twice a second: their proportional set size, where each page that n processes share counts as a share of 1/n.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from toughen.engine.device import provenance
from toughen.runs.files import read_tensors, write_json
from toughen.utils import units

SHARD = 100 * 10**6  # bytes
ROWS = 100  # a row group, as the hub writes them
WORDS = (
    "train --model resnet18 --model_settings.width 4 --model_settings.stem imagenet --image_size 224 --epochs 1 "
    "--batch_size 64 --validation_steps 1 --precision fp32 --channels_last false --checkpoint_seconds 5 --num_workers 1"
)


def picture(number: int) -> bytes:
    """A JPEG of 500x375 pixels, some 100 KB: coarse and fine noise, each its own."""
    drawn = np.random.default_rng(number)
    coarse = Image.fromarray(drawn.integers(0, 256, (9, 12, 3), np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
    fine = drawn.integers(0, 60, (375, 500, 1), np.uint8)
    file = io.BytesIO()
    Image.fromarray((np.asarray(coarse) // 2 + fine + 30).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def generate(folder: Path, amount: int) -> None:
    """Shards of JPEGs, ten classes, the last one a test split."""
    folder.mkdir(parents=True, exist_ok=True)
    count = -(-amount // SHARD)
    for shard in range(count + 1):
        file = folder / (f"train-{shard:05d}.parquet" if shard < count else "test-00000.parquet")
        if file.exists():
            continue
        images: list[bytes] = []
        while sum(map(len, images)) < (SHARD if shard < count else SHARD // 50):
            images.append(picture(10**6 * shard + len(images)))
        table = pa.table({"image": images, "label": [number % 10 for number in range(len(images))]})
        pq.write_table(table, file.with_suffix(".tmp"), row_group_size=ROWS, compression="none")
        file.with_suffix(".tmp").rename(file)


def tree(process: int) -> list[int]:
    """A process and its descendants."""
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [process, *(each for child in children for each in tree(child))]


def memory(process: int) -> int:
    """Bytes of a process tree's proportional set size."""
    total = 0
    for each in tree(process):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            total += next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):  # it has just ended
            continue
    return total


def steps_done(folder: Path) -> int:
    """The number of steps in a run's last checkpoint."""
    try:
        return int(read_tensors(folder / "checkpoint.safetensors")[1]["step"])
    except (OSError, ValueError):
        return 0


def run(words: list[str], folder: Path, kill_at: int | None = None) -> tuple[float, list[int]]:
    """Run a command; return its seconds, and its memory, measured twice a second."""
    words = [*words, "--out", str(folder)]
    started, found = time.perf_counter(), list[int]()
    process = subprocess.Popen([sys.executable, "-m", "toughen", *words], env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None:
        found.append(memory(process.pid))
        if kill_at is not None and steps_done(folder) >= kill_at:
            process.send_signal(signal.SIGKILL)
            process.wait()
            break
        time.sleep(0.5)
    if kill_at is None and process.returncode:
        raise SystemExit(f"toughen ended with {process.returncode}")
    return time.perf_counter() - started, found


def course(found: list[int]) -> dict[str, Any]:
    """The mean of each fifth of the time between beginning and end, and the most, in MB."""
    settled = found[len(found) // 10 :]
    cuts = np.array_split(np.array(settled), 5)
    return {"fifths": [round(mean(cut.tolist()) / 1e6) for cut in cuts], "most": round(max(found) / 1e6)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--limit", default="512MB")
    parser.add_argument("--out", type=Path, help="a JSON file for the result")
    given = parser.parse_args()
    generate(given.folder / "shards", int(given.gigabytes * 10**9))
    words = [*WORDS.split(), "--data", str(given.folder / "shards"), "--memory-limit", given.limit]
    whole, cut = given.folder / "whole", given.folder / "cut"
    seconds, found = run(words, whole)
    run(words, cut, kill_at=steps_done(whole) // 2)
    step = steps_done(cut)
    _, again = run([*words, "--resume"], cut)
    one, other = (read_tensors(each / "checkpoint.safetensors")[0] for each in (whole, cut))
    bytes_read = sum(file.stat().st_size for file in (given.folder / "shards").glob("train-*"))
    result = {
        "shards": units.format_size(bytes_read),
        "limit": given.limit,
        "memory_mb": course(found),
        "memory_mb_resumed": course(again),
        "seconds": round(seconds),
        "killed_at_step": step,
        "steps": steps_done(whole),
        "same_weights_after_the_kill": all(torch.equal(one[name], other[name]) for name in one),
        "command": " ".join(WORDS.split()),
        **provenance(torch.device("cpu")),
    }
    print(result)
    if given.out:
        write_json(given.out, result)


if __name__ == "__main__":
    main()
