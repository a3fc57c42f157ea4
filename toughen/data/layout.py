"""Checks the layout of an image folder, with messages on how to repair it."""

from __future__ import annotations

import os
from pathlib import Path

from toughen.utils.plural import count

PICTURES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
TESTS = ("test", "validation", "valid", "val")  # the first one that exists is the test split
LAYOUTS = "expected ROOT/train/CLASS/*.png (and test), ROOT/CLASS/*.png, or train-*.parquet (and test-*.parquet)"
_TRAINING = ("train", "training", "trainset", "train_set", "train-set")  # names that users give it, in lower case
_RUN = ("config.yaml", "provenance.json")  # a folder with both is a run directory


def visible(paths: list[Path]) -> list[Path]:
    """The paths, sorted, without hidden files (such as .DS_Store)."""
    return sorted(path for path in paths if not path.name.startswith("."))


def folders(path: Path) -> list[Path]:
    """The visible folders in a folder; [] if the folder does not exist."""
    return [entry for entry in visible(list(path.iterdir())) if entry.is_dir()] if path.is_dir() else []


def pictures(folder: Path) -> list[Path]:
    """The visible files in a folder whose extensions are those of images."""
    return [file for file in visible(list(folder.iterdir())) if file.suffix.lower() in PICTURES and file.is_file()]


def holds_pictures(folder: Path) -> bool:
    """Whether a folder or any folder below it contains images."""
    return any(pictures(Path(deeper)) for deeper, _, _ in os.walk(folder))


def holds_classes(root: Path) -> bool:
    """Whether a folder has class folders with images, directly or in its splits."""
    within = [root / split for split in ("train", *TESTS)]
    return any(pictures(each) for parent in (root, *within) for each in folders(parent))


def misnamed_train(root: Path) -> Path | None:
    """A folder of classes whose name is a variant of ``train``, such as ``training``; None if there is none."""
    alike = [each for each in folders(root) if each.name.lower() in _TRAINING and each.name != "train"]
    return next((each for each in alike if folders(each)), None)


def no_train(root: Path) -> str:
    """The message that a folder has no training split, and where to put it."""
    meant = misnamed_train(root)
    remedy = f"rename {meant} to {root / 'train'}" if meant else f"add {root / 'train'} with one folder per class"
    return f"{root} has no train split: {remedy}"


def require_no_other_test(root: Path, classes: tuple[str, ...]) -> None:
    """Check that no folder next to ``train`` looks like a test split under an unknown name.

    Raises:
        ValueError: one has folders of the same classes.
    """
    for other in folders(root):
        if other.name != "train" and {each.name for each in folders(other)} & set(classes):
            raise ValueError(
                f"{other} has folders of the same classes as {root / 'train'}, but an unknown name: rename it to "
                f"{root / 'test'} if these are test images, or move it away"
            )


def require_no_run(root: Path) -> None:
    """Check that the folder is not a run directory, whose parquet files are not a data set.

    Raises:
        ValueError: it is a run directory.
    """
    if all((root / name).is_file() for name in _RUN):
        raise ValueError(f"{root} is a run directory, not a data set: give the folder with the images")


def require_outside(out: Path, root: Path) -> None:
    """Check that files are not written to a folder that would be taken for a class of a data set ROOT/CLASS/*.png.

    Raises:
        ValueError: they would be.
    """
    if (root / "train").is_dir() or root.resolve() not in out.resolve().parents:
        return
    first = out.resolve().relative_to(root.resolve()).parts[0]
    if not first.startswith(".") and holds_classes(root):
        raise ValueError(
            f"{out} lies in the data set {root}, where {first} would be taken for a class: choose another --out"
        )


def require_classes(root: Path) -> None:
    """Check that a folder without a train split can contain class folders.

    Raises:
        ValueError: it is empty, or it has images without class folders, splits with other names, or a set in a
            subfolder.
    """
    inside = folders(root)
    if meant := misnamed_train(root):
        raise ValueError(f"{root} has no train split: rename {meant} to {root / 'train'}")
    for inner in inside:
        if not pictures(inner) and (folders(inner / "train") or misnamed_train(inner)):
            raise ValueError(f"{root} has its images in a subfolder: give {inner} instead")
    if inside:
        return
    if loose := pictures(root):
        raise ValueError(
            f"{root} has {count(len(loose), 'image')} and no class folders: make a folder for each class, and move "
            "its images into it"
        )
    raise ValueError(f"{root} {'has no class folders' if any(root.iterdir()) else 'is an empty folder'}: {LAYOUTS}")
