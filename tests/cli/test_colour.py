"""Colour on a terminal alone, and none where NO_COLOR is set (https://no-color.org)."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import digits, small
from paths import NETS, ROOT

NAMES = ["list", *(pytest.param(name, marks=pytest.mark.slow) for name in ("train", "evaluate"))]
STYLE = re.compile(r"\x1b\[([\d;]*)m")
COLOURS = {*range(30, 39), *range(40, 49), *range(90, 98), *range(100, 108)}  # of ECMA-48's SGR and its extensions


def coloured(text: str) -> bool:
    """Whether a terminal shows some of it in colour; bold and dim are none."""
    codes = [code for style in STYLE.findall(text) for code in style.split(";")]
    return any(code.isdigit() and int(code) in COLOURS for code in codes)


def on_terminal(words: list[str], folder: Path, **settings: str) -> str:
    """All that a command writes where standard output and error are a terminal."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **settings}
    command = [sys.executable, "-m", "toughen", *words]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=folder, env=environment) as started:
        os.close(theirs)
        parts = []
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux: the other end is closed
                break
            if not part:
                break
            parts.append(part)
    os.close(ours)
    text = b"".join(parts).decode()
    assert started.returncode == 0, text
    return text


def words_of(name: str) -> list[str]:
    """A command that has colours on a terminal."""
    evaluate: list[object] = [
        "evaluate",
        NETS / "pgd-at",
        "--data",
        digits(),
        "--attacks",
        "fgsm",
        "--limit",
        10,
        "--out",
        ".",
    ]
    found: dict[str, list[object]] = {"list": ["list", "methods"], "train": small("--out", "run"), "evaluate": evaluate}
    return [str(word) for word in found[name]]


@pytest.mark.parametrize("text, said", [("\x1b[1;31mred", True), ("\x1b[38;5;1mred", True), ("\x1b[1m\x1b[0mb", False)])
def test_what_is_colour(text: str, said: bool) -> None:
    assert coloured(text) is said


@pytest.mark.parametrize("name", NAMES)
def test_no_color_is_respected(name: str, tmp_path: Path) -> None:
    (tmp_path / "colour").mkdir()
    assert coloured(on_terminal(words_of(name), tmp_path / "colour", NO_COLOR=""))  # empty means unset
    (tmp_path / "none").mkdir()
    assert not coloured(on_terminal(words_of(name), tmp_path / "none", NO_COLOR="1"))


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_gets_no_escape_sequence(name: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "toughen", *words_of(name)]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment, check=True)
    assert b"\x1b" not in done.stdout + done.stderr and done.stdout


def test_help_is_plain_on_a_terminal(tmp_path: Path) -> None:
    assert "\x1b" not in on_terminal(["train", "--help"], tmp_path)


def test_colours_come_from_rich_alone_which_asks_the_terminal() -> None:
    """Nothing forces them, and nothing writes them by itself."""
    own = re.compile(r"\\x1b\[|\\033\[|\\e\[|force_terminal|color_system|colorama|termcolor|\bansi", re.IGNORECASE)
    sources = sorted((ROOT / "toughen").rglob("*.py"))
    assert sources and [str(path) for path in sources if own.search(path.read_text(encoding="utf-8"))] == []
