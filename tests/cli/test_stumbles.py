"""What a new user does wrong, and what a command says of it: one message, status 2, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import digits, refused, small, toughen
from PIL import Image

FOLDERS = [  # folders that hold an image each, files, and what the message must say; DIR is the set's folder
    ("training/a training/b test/a test/b", "", "no train split: rename DIR/training to DIR/train"),
    ("Train/a Train/b Val/a Val/b", "", "no train split: rename DIR/Train to DIR/train"),
    ("train/a train/b dev/a dev/b", "", "DIR/dev has folders of the same classes as DIR/train", "call it DIR/test"),
    ("photos/train/a photos/train/b", "", "DIR has its images deeper down: give DIR/photos in its place"),
    ("train/a/2021 train/b", "", "DIR/train/a/2021 holds images below a class", "move them up into DIR/train/a"),
    ("a/2021 b", "", "DIR/a/2021 holds images below a class", "move them up into DIR/a"),
    (".", "", "DIR has 1 image and no class folders", "make a folder for each class"),
    ("train/a", "", "1 class, a: a classifier needs two or more"),
    ("", "notes.txt", "DIR has no class folders: expected ROOT/train/CLASS"),
    ("", "", "DIR is an empty folder: expected ROOT/train/CLASS"),
    ("", "config.yaml provenance.json examples.parquet", "DIR is a run directory and holds no data set"),
]


@pytest.mark.parametrize(("folders", "names", "said"), [(folders, names, said) for folders, names, *said in FOLDERS])
def test_folders_that_lie_otherwise(folders: str, names: str, said: list[str], tmp_path: Path) -> None:
    data = tmp_path / "set"
    data.mkdir()
    for folder in folders.split():
        (data / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(data / folder / "0.png")
    for name in names.split():
        (data / name).write_text("text")
    for command in ("train", "plan"):
        ended = toughen(command, "--data", data, "--eps", "8/255", "--out", tmp_path / "run")
        refused(ended, *(text.replace("DIR", str(data)) for text in said))
    assert not (tmp_path / "run").exists()


TRAIN = [  # words of a command line, and what the message must say
    ("train FOLDER --eps 0.1", "FOLDER is a folder, no recipe", "--data FOLDER", "--init"),
    ("plan FOLDER --eps 0.1", "FOLDER is a folder, no recipe", "--data FOLDER"),
    ("train demo --epochs 3 --time-budget 1m", "--epochs 3 and the time budget of 1m both say", "--time-budget null"),
    ("plan demo --time_budget=1m --epochs=3", "--epochs 3 and the time budget of 1m both say"),
    ("train timed.yaml --epochs 3", "--epochs 3 and the time budget of 90s both say"),
    ("train demo --optimizer.lr -1", "optimizer.lr is -1", "not below 0"),
    ("train demo --optimizer.weight_decay -1", "optimizer.weight_decay is -1", "not below 0"),
    ("train demo --optimizer Adam --optimizer.beta2 1.5", "optimizer.beta2 is 1.5", "below 1"),
]


@pytest.mark.parametrize(("words", "said"), [(words, said) for words, *said in TRAIN], ids=[each[0] for each in TRAIN])
def test_training(words: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("timed.yaml").write_text("method: FBF\neps: 0.1\nepochs: 5\ntime_budget: 90s\n")
    folder = str(digits())
    ended = toughen(*words.replace("FOLDER", folder).split(), "--out", tmp_path / "run")
    refused(ended, *(text.replace("FOLDER", folder) for text in said))
    assert not (tmp_path / "run").exists()


def test_what_a_run_says_of_its_beginning(tmp_path: Path) -> None:
    words = [*small("--batch-size", 5000, "--epochs", 1), "--out", tmp_path / "run"]
    begun = toughen(*words, "--resume")
    said = " ".join(begun.err.split())
    assert begun.status == 0 and f"{tmp_path}/run holds no checkpoint to go on from: the run begins" in said
    assert "batch_size 5,000 is more than there are images: each step takes all 70" in said
    again = toughen(*words, "--resume")
    assert again.status == 0 and "holds no checkpoint" not in again.err
    refused(toughen(*words, "--epochs", 3, "--resume"), "begun with other settings (epochs: 1, now 3)")
