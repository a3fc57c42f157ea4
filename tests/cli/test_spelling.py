"""Options with hyphens and with underscores: both are understood by every command, and messages write hyphens."""

from __future__ import annotations

import shlex

import pytest
from commands import Ended, refused, toughen

from toughen.cli.main import COMMANDS
from toughen.cli.shared import parser_of
from toughen.config.train import parse_train
from toughen.training.recipe_yaml import recipe_yaml

SPELLED = [
    (command, word, action.nargs == 0)
    for command in COMMANDS
    if command != "plan"  # which reads its words by train's own function
    for action in parser_of(command)._actions
    for word in action.option_strings
    if "_" in word and not word.endswith("+") and action.help != "==SUPPRESS=="
]


def test_there_are_options_of_several_words() -> None:
    """By hand, one each of five commands."""
    found = {(command, word) for command, word, _ in SPELLED}
    assert found >= {
        ("train", "--batch_size"),
        ("reproduce", "--time_limit"),
        ("evaluate", "--time_budget"),
        ("diagnose", "--transfer_attacks"),
        ("card", "--additional_data"),
    }


@pytest.mark.parametrize(("command", "word", "bare"), SPELLED, ids=[f"{each[0]} {each[1]}" for each in SPELLED])
def test_both_spellings_are_known(command: str, word: str, bare: bool) -> None:
    """Through the command itself: what comes of it where the value is wrong, or none is there."""
    hyphens = word.replace("_", "-")

    def say(spelled: str) -> Ended:
        return toughen(command, f"{spelled}=x" if bare else spelled)

    one = say(hyphens)
    assert one == say(word)
    if word != "--print_config":  # which needs no value
        refused(one, f"{hyphens} {'takes no' if bare else 'needs a'} value")


def test_parts_and_values() -> None:
    """A part's settings are spelled either way, too; values stay as they are."""
    words = "--data mnist-5k --eps 0.1 --method GAT --method.start{0}size 0.05 --model{0}settings.width 8"
    one, other = (recipe_yaml(parse_train(words.format(mark).split())[0]) for mark in "-_")
    assert one == other and "start_size: 0.05" in one
    assert "data: my_photos-1" in recipe_yaml(parse_train(["demo", "--data", "my_photos-1"])[0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train demo --batch_size x", "--batch-size must be a whole number, not x"),
        ("train demo --method.start_size x", "--method.start-size: 'x' is not a number"),
        ("train demo --method.start_siz 1", "NuAT has no setting --method.start-siz: did you mean start-size?"),
        ("train demo --batch_siz 1", "there is no option --batch-siz: did you mean --batch-size?"),
        ("train demo --lr 0.1", "there is no option --lr: did you mean --optimizer.lr?"),
        ("train demo --weight-decay 0.1", "did you mean --optimizer.weight-decay?"),
        ("train demo --peak 0.1", "did you mean --schedule.peak?"),
        ("train demo --beta 6", "did you mean --method.beta?"),
        ("train demo --restarts 6", "there is no option --restarts: `toughen train --help all` lists all"),
        ("evaluate x --image_size y", "--image-size must be a whole number"),
        ("train demo --model_settings '{a: 1, a: 2}'", "--model-settings sets 'a' twice"),
    ],
)
def test_messages_write_hyphens(words: str, said: str) -> None:
    refused(toughen(*shlex.split(words)), said)
