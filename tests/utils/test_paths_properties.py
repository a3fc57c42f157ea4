"""The folder that was meant: there, beside what is missing, and for no name an error."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import strategies as st
from properties import holds

from toughen.data import load
from toughen.utils.paths import did_you_mean, expanded, meant

NAMES = st.text("abc", min_size=1, max_size=6)
ODD = st.text(max_size=8) | st.sampled_from(["~nobody-here", "~", "..", ".", "", "a" * 300, "a\x00b", "\ud800", "/"])


@holds(there=st.lists(st.tuples(NAMES, NAMES), max_size=4), wanted=st.tuples(NAMES, NAMES), files=st.lists(NAMES))
def test_what_was_meant_is_a_folder_of_the_same_depth(
    there: list[tuple[str, str]], wanted: tuple[str, str], files: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for parts in there:
            root.joinpath(*parts).mkdir(parents=True, exist_ok=True)
        for name in files:
            if not (root / name).exists():
                (root / name).touch()
        path = root.joinpath(*wanted)
        near = meant(path)
        assert did_you_mean(path) == (f"did you mean {near}? Else " if near else "")
        if near:
            assert near.is_dir() and len(near.parts) == len(path.parts)
            changed = [one != other for one, other in zip(near.parts, path.parts, strict=True)]
            assert sum(changed) <= 1  # the one part that was misspelt


@holds(
    name=st.permutations("abcdef").map("".join),
    place=st.integers(0, 5),
    letter=st.sampled_from("abcxyz"),
    deeper=st.booleans(),
)
def test_one_wrong_letter_in_six_is_seen_through(name: str, place: int, letter: str, deeper: bool) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / name / "run").mkdir(parents=True)
        wrong = name[:place] + letter + name[place + 1 :]
        inner = ["run"] if deeper else []
        if wrong != name:
            assert meant(root.joinpath(wrong, *inner)) == root.joinpath(name, *inner)


@holds(parts=st.lists(ODD, max_size=4))
def test_no_name_is_an_error(parts: list[str]) -> None:
    path = Path(*parts)
    near = meant(path)
    assert near is None or near.is_dir()
    assert os.path.expanduser(str(path)) == str(expanded(path))


@pytest.mark.parametrize("spec", ["~nobody-here/photos", "~nobody-here"])
def test_the_folder_of_a_user_who_is_not_there_is_named(spec: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"folder '{spec}' does not exist"):
        load(spec)
