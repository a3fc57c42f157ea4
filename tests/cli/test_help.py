"""The help of all commands: a screen for most runs, everything on demand, and examples that work."""

from __future__ import annotations

import glob
import re
import shlex
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from commands import Ended, digits, small, toughen
from paths import ROOT

from toughen import models
from toughen.cli.main import COMMANDS
from toughen.cli.shared import parser_of
from toughen.config.parsing import Parser, tidy
from toughen.config.screens import OTHERS, Help
from toughen.config.train import parse_train

SCREEN = 42  # lines


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@cache
def parser(command: str) -> Parser:
    return parser_of(command)


def about(command: str) -> Help:
    found = parser(command).about
    assert found is not None
    return found


def told(*words: str) -> str:
    """What is printed, on standard output alone."""
    ended = toughen(*words)
    assert (ended.status, ended.err) == (0, ""), ended
    return ended.out


def names(command: str) -> list[str]:
    """All settings, as the parser knows them."""
    return [each.dest for each in parser(command)._actions if each.dest != "help" and each.help != "==SUPPRESS=="]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_screen(command: str) -> None:
    lines = told(command, "--help").splitlines()
    assert len(lines) <= SCREEN and max(map(len, lines)) <= 80
    assert lines[0].startswith(f"usage: toughen {command}")
    blank, start = lines.index(""), lines.index("Examples:")
    assert blank <= 2
    assert [line.startswith("  toughen ") for line in lines[start + 1 : start + 5]] == [True, True, True, False]
    sentence = " ".join(lines[blank + 1 : start - 1])
    assert sentence.endswith(".") and ". " not in sentence
    hidden = len(names(command)) > sum(len(group) for group in about(command).groups(False).values())
    assert (lines[-1] == f"`toughen {command} --help all` shows every setting.") is hidden


@pytest.mark.parametrize("command", COMMANDS)
def test_each_setting_is_in_one_named_group(command: str) -> None:
    named = [name for group in about(command).groups(True).values() for name in group]
    assert sorted(named) == sorted(names(command))
    assert f"{OTHERS}:" not in told(command, "--help", "all")


@pytest.mark.parametrize("command", COMMANDS)
def test_all_help_has_every_option_in_one_spelling(command: str) -> None:
    text = told(command, "--help", "all")
    written = {word for action in parser(command)._actions for word in action.option_strings if not word.endswith("+")}
    for word in written - {"-h", "--help", "--print_shtab"}:
        assert re.search(rf"(^  |, ){word.replace('_', '-')}[ ,\n\[]", text, re.MULTILINE), word
    assert re.findall(r"--[\w.-]*_[\w.-]*", text) == [] and max(map(len, text.splitlines())) <= 80
    for noise in ("<class", "Union[", "Literal[", "None", "toughen.methods.", "\b", "==SUPPRESS=="):
        assert noise not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_the_first_sentences_are_whole(command: str) -> None:
    """They are cut out of longer texts."""
    text = told(command, "--help")
    assert text.count("(") == text.count(")") and not re.search(r"[:,;]\n\n|[,;]\)|\.\.\n", text)


@pytest.mark.parametrize("words", [["-h"], ["--eps", "8/255", "--help"], ["no-recipe", "--help"]])
def test_help_is_given_wherever_it_is_asked_for(words: list[str]) -> None:
    assert told("train", *words) == told("train", "--help")
    assert told("train", *words, "all") == told("train", "--help=all") != told("train", "--help")


def test_a_narrow_terminal_gets_narrow_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = told("train", "--help", "all").split("Data:")[1].splitlines()
    assert max(map(len, lines)) <= 60
    assert "".join("".join(lines).split()) in "".join(told("train", "--help", "all").split())


def test_the_meaning_and_the_default_of_a_setting_by_hand() -> None:
    short, everything = told("evaluate", "--help"), told("evaluate", "--help", "all")
    line = "  --processes N         number of parallel processes"
    assert f"{line} (default: 1)\n" in short
    rest = f"{'':24}and on a CPU each computes on one core (default: 1)\n"
    assert f"{line}; the result is the same,\n{rest}" in everything
    assert "  --batch-size N        images per step\n" in told("train", "--help")  # no default: it is chosen
    assert "  --norm linf|l2        norm of the threat (default: the run's)\n" in short


# ---- Examples.


def words_of(example: str) -> list[str]:
    """A line as a shell reads it, without the file that its output goes to."""
    words = shlex.split(example.partition(" > ")[0])
    assert words[0] == "toughen"
    return [name for word in words[1:] for name in (sorted(glob.glob(word)) or [word])]


def commands_of(page: str) -> list[str]:
    """The commands in a page's blocks of code, without comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", page, re.M | re.S)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    assert not [line for line in lines if line.startswith(("\\", "--"))]  # the rest of a command that was cut
    return [line for line in lines if line.startswith("toughen ")]


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("train", "plan", "demo")])
def test_examples_are_understood(command: str) -> None:
    for example in about(command).examples:
        first, *words = words_of(example)
        assert first == command
        parser(command).read(tidy(words))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples name, and the current one."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits(), "photos")
    shutil.copytree(digits(), "datasets")
    shutil.copy(next(Path("photos/test/7").iterdir()), "image.png")
    Path("nets.py").write_text(
        "from toughen import models\n\n"
        "def small(num_classes, shape):\n    return models.create('fbf-mnist-cnn', num_classes, shape)\n"
    )
    return tmp_path


def test_examples_of_training_are_understood(place: Path) -> None:
    for example in [*about("train").examples, *about("plan").examples]:
        recipe, *_ = parse_train(words_of(example)[1:])
        assert recipe.method is not None


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_COMMANDS = [page for page in PAGES if "\ntoughen " in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.stem)
def test_commands_in_pages_are_understood(page: Path, place: Path) -> None:
    shutil.copytree(ROOT / "tests" / "nets" / "fgsm-at", "runs/first")
    about_run = Path("runs/first/model.json")  # its data would be looked up on the hub
    about_run.write_text(about_run.read_text().replace('"data": "mnist"', '"data": "mnist-5k"'))
    shutil.copy("runs/first/model.safetensors", "resnet18.safetensors")
    torch.save({"weight": torch.zeros(1)}, "weights.pth")
    for command in commands_of(page.read_text(encoding="utf-8")):
        for written, here in (
            ("DIR", "photos"),
            ("$method", "NuAT"),
            ("WideStart", "FBF"),
            ("hf://user/name", "runs/first"),
        ):
            command = command.replace(written, here)
        first, *words = words_of(command)
        if first in ("train", "plan"):
            parse_train(words)
        else:
            parser(first).read(tidy(words))


def test_help_of_a_method() -> None:
    lines = told("train", "--method.help", "Hybrid").splitlines()
    assert lines[0] == "usage: toughen train --method NAME [--method.SETTING VALUE ...]"
    assert "such as NAME" not in " ".join(lines)


def test_help_of_a_method_inside_another_names_its_options_in_full() -> None:
    lines = told("train", "--method", "AWP", "--method.inner.help", "TRADES").splitlines()
    assert lines[0] == "usage: toughen train --method.inner NAME [--method.inner.SETTING VALUE ...]"
    assert "Help for --method.inner.help=toughen.methods.TRADES" in lines
    assert "  --method.inner.beta X" in "\n".join(lines) and not any(line.startswith("  --inner") for line in lines)
    after = told("train", "--method.help", "TRADES").splitlines()
    assert after[0] == "usage: toughen train --method NAME [--method.SETTING VALUE ...]"


def test_settings_of_the_method_that_is_chosen_for_the_data() -> None:
    recipe = parse_train(["--data", str(digits()), "--eps", "0.3", "--method.lam", "2"])[0]
    assert type(recipe.method).__name__ == "NuAT" and vars(recipe.method)["lam"] == 2


SHORTER = {  # what makes them end in seconds
    "train": "--epochs 1",
    "evaluate": "--suite quick --limit 10 --verdict false --details false",
    "diagnose": "--limit 10",
    "doctor": "--seconds 0.5",
    "reproduce": "--scale smoke --time-limit 20s",
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_examples_work(place: Path) -> None:
    def run(example: str) -> Ended:
        command, *words = words_of(example)
        more = "--data photos --time-budget 10s" if command == "train" and "--time-budget" in words else ""
        return toughen(command, *words, *(more or SHORTER.get(command, "")).split())

    assert toughen(*small("--eps", "8/255", "--method", "FBF", "--out", "runs/other")).status == 0
    torch.save(models.create("fbf-mnist-cnn", 10, (1, 28, 28)).state_dict(), "net.pth")
    for command in COMMANDS:
        for example in about(command).examples:
            if command in ("demo", "completion") or "--yes" in example:  # tests of their own
                continue
            ended = run(example)
            assert ended.status == 0, (example, ended)
        if command == "evaluate":
            assert toughen("evaluate", "runs/other", *SHORTER["evaluate"].split()).status == 0
            for folder in {*Path("runs").iterdir()} - {Path("runs/mine"), Path("runs/other")}:
                shutil.rmtree(folder)  # `runs/*` below are runs that were evaluated
