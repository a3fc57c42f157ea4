"""A folder of results is of one set of images, and at full that set is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commands import digits, refused, toughen

from toughen.data.ingest import Outline
from toughen.papers import datasets
from toughen.papers.datasets import SETS
from toughen.papers.samples import at_scale
from toughen.papers.scales import SCALES

FULL = SCALES["full"]


def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few digits pass for the whole of MNIST."""
    monkeypatch.setattr(datasets, "check_whole", lambda name, spec: None)


def test_other_images_are_refused_where_some_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture that was taken for another, of the same name and size; moving the folder changes nothing."""
    whole(monkeypatch)
    shutil.copytree(digits(), tmp_path / "a")
    datasets.check_same("mnist", str(tmp_path / "a"), FULL, tmp_path / "out")
    shutil.copytree(tmp_path / "a", tmp_path / "moved")
    (tmp_path / "moved" / "notes.txt").write_text("no image")
    datasets.check_same("mnist", str(tmp_path / "moved"), FULL, tmp_path / "out")
    picture = sorted((tmp_path / "a" / "test").rglob("*.png"))[0]
    content = bytearray(picture.read_bytes())
    content[-20] ^= 1
    picture.write_bytes(content)
    words = ("reproduce", "pap-table7", "--rows", "FGSM-AT", "--scale", "full", "--data", tmp_path / "a")
    refused(toughen(*words, "--out", tmp_path / "out"), "other images of mnist", "another --out")
    datasets.check_same("mnist", str(tmp_path / "a"), SCALES["cpu"], tmp_path / "out")  # nothing was measured there yet


def test_names_and_sizes_alone_tell_large_sets_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "READ", 10)
    shutil.copytree(digits(), tmp_path / "a")
    before = datasets.fingerprint(tmp_path / "a")
    picture = sorted((tmp_path / "a" / "test").rglob("*.png"))[0]
    content = picture.read_bytes()
    picture.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert datasets.fingerprint(tmp_path / "a") == before  # they are not read
    picture.write_bytes(content + b"0")
    assert datasets.fingerprint(tmp_path / "a") != before
    picture.unlink()
    assert datasets.fingerprint(tmp_path / "a") != before


@pytest.mark.parametrize(
    ("name", "train", "test", "whole"),
    [
        ("imagenet100", 126_689, 5_000, True),
        ("imagenet100", 1_281_167, 50_000, True),  # of which the recipes take the hundred classes
        ("imagenet", 1_281_167, 50_000, True),
        ("imagenet100", 200, 100, False),
        ("imagenet100", 126_689, 4_999, False),
        ("imagenet", 126_689, 5_000, False),
        ("mnist", 60_000, 10_000, True),
        ("mnist", 59_999, 10_000, False),
    ],
)
def test_a_part_is_not_taken_for_the_whole(
    name: str, train: int, test: int, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Outline(SETS[name].shape, ("a",), train, test)
    monkeypatch.setattr(datasets, "peek", lambda spec: found)
    if whole:
        datasets.check_whole(name, "somewhere")
        return
    with pytest.raises(datasets.Missing, match=f"somewhere has {train:,} and {test:,}: give the whole set"):
        datasets.check_whole(name, "somewhere")


@pytest.mark.parametrize("given", [None, "mnist"])
def test_a_folder_of_a_set_s_name_is_not_taken_for_the_hub_s(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands read such a folder in the current one, not the hub; it has 80 images here."""
    monkeypatch.chdir(tmp_path)
    assert datasets.place("mnist", None) == "mnist"
    Path("mnist").symlink_to(digits(), target_is_directory=True)
    found = datasets.place("mnist", given)
    assert found == str(tmp_path / "mnist")
    with pytest.raises(datasets.Missing, match="60,000 training and 10,000 test images, but .* has 80 and 40"):
        at_scale("mnist", found, FULL, tmp_path / "out")
