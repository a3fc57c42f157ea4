"""What is wrong with a folder whose images lie otherwise than in class folders, and how to mend it."""

from __future__ import annotations

import os
from pathlib import Path

from toughen.utils.plural import count

PICTURES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
TESTS = ("test", "validation", "valid", "val")  # the first that is there is the test split
LAYOUTS = "expected ROOT/train/CLASS/*.png (and test), ROOT/CLASS/*.png, or train-*.parquet (and test-*.parquet)"
_TRAINING = ("train", "training", "trainset", "train_set", "train-set")  # names that people give it, in small letters
_RUN = ("config.yaml", "provenance.json")  # of a run directory, both


def visible(paths: list[Path]) -> list[Path]:
    """Sorted by path, without hidden ones (.DS_Store, ._copies of other systems)."""
    return sorted(path for path in paths if not path.name.startswith("."))


def folders(path: Path) -> list[Path]:
    """The visible folders in a folder; none where there is no such folder."""
    return [entry for entry in visible(list(path.iterdir())) if entry.is_dir()] if path.is_dir() else []


def pictures(folder: Path) -> list[Path]:
    """The visible files in a folder that are images by their names."""
    return [file for file in visible(list(folder.iterdir())) if file.suffix.lower() in PICTURES and file.is_file()]


def holds_pictures(folder: Path) -> bool:
    """Whether there are images in a folder, or anywhere below."""
    return any(pictures(Path(deeper)) for deeper, _, _ in os.walk(folder))


def holds_classes(root: Path) -> bool:
    """Whether there are images in the folders of a folder, or in those of its splits."""
    within = [root / split for split in ("train", *TESTS)]
    return any(pictures(each) for parent in (root, *within) for each in folders(parent))


def misnamed_train(root: Path) -> Path | None:
    """The folder of classes that is meant for training, by a name that is not ``train``."""
    alike = [each for each in folders(root) if each.name.lower() in _TRAINING and each.name != "train"]
    return next((each for each in alike if folders(each)), None)


def no_train(root: Path) -> str:
    """That a folder has test images alone, and where those to train on should be."""
    meant = misnamed_train(root)
    remedy = f"rename {meant} to {root / 'train'}" if meant else f"add {root / 'train'} with one folder a class"
    return f"{root} has no train split: {remedy}"


def require_no_other_test(root: Path, classes: tuple[str, ...]) -> None:
    """See that no folder beside ``train`` is left out that must be the test split; call it where none was found.

    Raises:
        ValueError: one has folders of the same classes.
    """
    for beside in folders(root):
        if beside.name != "train" and {each.name for each in folders(beside)} & set(classes):
            raise ValueError(
                f"{beside} has folders of the same classes as {root / 'train'}, under a name that is not read: call it "
                f"{root / 'test'} if these are test images, or move it away"
            )


def require_no_run(root: Path) -> None:
    """See that a folder of images is no run directory, whose parquet files are no data set.

    Raises:
        ValueError: it is one.
    """
    if all((root / name).is_file() for name in _RUN):
        raise ValueError(f"{root} is a run directory and holds no data set: name the folder of the images")


def require_classes(root: Path) -> None:
    """See that a folder without a train split may hold folders of classes.

    Raises:
        ValueError: it is empty, or it holds images without classes, splits by other names, or a set deeper down.
    """
    inside = folders(root)
    if meant := misnamed_train(root):
        raise ValueError(f"{root} has no train split: rename {meant} to {root / 'train'}")
    for inner in inside:
        if not pictures(inner) and (folders(inner / "train") or misnamed_train(inner)):
            raise ValueError(f"{root} has its images deeper down: give {inner} in its place")
    if inside:
        return
    if loose := pictures(root):
        raise ValueError(
            f"{root} has {count(len(loose), 'image')} and no class folders: make a folder for each class, with its "
            "images in it"
        )
    raise ValueError(f"{root} {'has no class folders' if any(root.iterdir()) else 'is an empty folder'}: {LAYOUTS}")
