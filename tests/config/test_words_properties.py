"""The words of a command line: each setting arrives as it was given, and what means nothing is refused by name."""

from __future__ import annotations

import fractions
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from properties import holds

from toughen.config.parsing import options, tidy
from toughen.config.train import parse_train, split_recipe
from toughen.training.recipe_yaml import recipe_yaml

OPTIONS = ["--eps", "--batch-size", "--batch_size", "--method.lr", "--epochs=3", "--norm=l2", "--config", "--flip"]
VALUES = ["8/255", "-8/255", "-0.5", "-1e-3", "l2", "3", "", "a b", "[1, 2]", "-x", "=", "demo", "true"]
WORDS = st.lists(st.sampled_from(OPTIONS + VALUES), max_size=8)


@holds(examples=100, words=WORDS)
def test_tidying_loses_no_word(words: list[str]) -> None:
    found = tidy(words)
    assert tidy(found) == found
    # a negative number is tied to its option by =, and options have underscores
    parts = [part for word in found for part in (word.split("=", 1) if word.startswith("--") else [word])]
    given = [
        part
        for word in words
        for part in (word.replace("-", "_").replace("__", "--", 1).split("=", 1) if word.startswith("--") else [word])
    ]
    assert sorted(parts) == sorted(given)
    assert all(not name.startswith("-") for name, _ in options(found))


@holds(
    pairs=st.dictionaries(st.sampled_from(["eps", "seed", "out", "method.steps", "method"]), st.sampled_from(VALUES))
)
def test_options_are_read_with_their_values(pairs: dict[str, str]) -> None:
    pairs = {name: value for name, value in pairs.items() if not value.startswith("-")}
    for tied in (False, True):
        words = [f"--{name}={value}" for name, value in pairs.items()]
        if not tied:
            words = [part for name, value in pairs.items() for part in (f"--{name}", value)]
        found = options(tidy(words))
        assert dict(found) == pairs and [name.count(".") for name, _ in found] == sorted(n.count(".") for n in pairs)


@holds(rest=st.lists(st.sampled_from(["--eps", "8/255", "--flip=true", "--seed", "3"]), max_size=4),
       tied=st.booleans(), before=st.booleans(), dashes=st.booleans())  # fmt: skip
def test_a_recipe_is_found_wherever_it_stands(rest: list[str], tied: bool, before: bool, dashes: bool) -> None:
    rest = [word for word in rest if word.startswith("--") and "=" in word] if before else rest
    given = ["mine.yaml"] if dashes else ["--config=mine.yaml"] if tied else ["--config", "mine.yaml"]
    words = [*rest, *given] if before and not dashes else [*given, *rest]
    assert split_recipe(words) == ("mine.yaml", tidy(rest))


SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "epochs": st.integers(1, 10**6),
    "batch_size": st.integers(1, 10**5),
    "seed": st.integers(0, 2**40),
    "eps": st.integers(1, 255).map(lambda pixels: f"{pixels}/255") | st.sampled_from(["0.3", "1e-2", "+0.1", "1"]),
    "averaging": st.sampled_from([0.9, 0.9998]) | st.just("null"),
    "time_budget": st.just("null"),
    "norm": st.sampled_from(["linf", "l2"]),
    "flip": st.sampled_from(["true", "false", "null"]),
    "keep_at": st.lists(st.integers(0, 999), max_size=3).map(str),
    "device": st.sampled_from(["cpu", "cuda", "1e3", "null", "1:", "~", "yes"]),
    "memory_limit": st.sampled_from(["512MB", "1.5GiB"]),
    "model_settings": st.sampled_from(["{}", "{depth: 28}", "{a: 1e3, b: '1e3', c: 0o7}"]),
}


@holds(examples=4, given=st.fixed_dictionaries({}, optional=SETTINGS), dashes=st.booleans(), tied=st.booleans())
def test_settings_arrive_and_are_read_back_from_the_recipe_that_is_written(
    given: dict[str, Any], dashes: bool, tied: bool
) -> None:
    words = ["demo"]
    for name, value in given.items():
        flag = f"--{name.replace('_', '-') if dashes else name}"
        words += [f"{flag}={value}"] if tied else [flag, str(value)]
    recipe, _, _ = parse_train(words)
    config = recipe_yaml(recipe)
    for name, value in given.items():
        found = getattr(recipe, name)
        if name == "eps":
            assert str(found) == value
            assert abs(float(found) - float(fractions.Fraction(value))) < 1e-15
        elif value in ("true", "false"):
            assert found is (value == "true")
        elif value == "null" and name != "device":
            assert found is None
        elif name == "keep_at":
            assert str(found) == value
        elif name != "model_settings":
            assert found == value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(config, encoding="utf-8")
        again, _, _ = parse_train([str(path)])
        text = recipe_yaml(again)
    assert text == config and again.eps == recipe.eps and again.model_settings == recipe.model_settings


ANY = ["--eps", "--epochs", "--norm", "--method", "--method.steps", "--optimizer", "--optimizer.lr", "--seed", "--crop"]
ANY += ["--schedule", "--memory-limit", "--time-budget", "--keep-at", "--callbacks", "--averaging", "--no-such", "-x"]
ODD = [
    "8/255",
    "-1",
    "nan",
    "inf",
    "1e999",
    "9" * 5000,
    "",
    "{",
    "[a, [b",
    "{a: 1, a: 2}",
    "!!int x",
    "&a [*a]",
    "1:",
    "._",
]
ODD += [
    "\x00",
    "\ud7ff",
    "\u0663m",
    "2G\u0130B",
    "9" * 400 + "GB",
    "9" * 400 + "h",
    "FBF",
    "PGDAT",
    "l2",
    "null",
    "os.system",
]
ODD += ["{class_path: FBF}", "{class_path: os.system}", "{init_args: {}}", "toughen.methods.base.Method", "a.b.C", "~"]


@holds(examples=10, words=st.lists(st.tuples(st.sampled_from(ANY), st.sampled_from(ODD), st.booleans()), max_size=3))
def test_any_words_are_a_run_or_refused_in_one_message(words: list[tuple[str, str, bool]]) -> None:
    line = [part for name, value, tied in words for part in ([f"{name}={value}"] if tied else [name, value])]
    try:
        parse_train(["demo", *line])
    except ValueError as error:
        message = str(error)
        assert message and len(message) < 12_000 and "Traceback" not in message
        named = [
            part for name, value, _ in words for part in (name.strip("-"), name.strip("-").split(".")[0], value) if part
        ]
        plain = message.replace("_", "-")
        assert any(part in plain or repr(part)[1:-1] in plain or part.replace("-", "_") in message for part in named)


@pytest.mark.parametrize("name", ["os.system", "subprocess.run", "builtins.eval", "shutil.rmtree"])
def test_what_executes_is_no_class_of_a_setting(name: str) -> None:
    """Without the setting that refuses them, jsonargparse only warns of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=rf"--schedule {name} is unknown: use Constant, .* or your own as package"):
            parse_train(["demo", "--schedule", name])


def test_a_number_behind_a_whole_option_is_not_its_value() -> None:
    assert tidy(["--epochs=3", "-8/255"]) == ["--epochs=3", "-8/255"]
    assert tidy(["--eps", "-8/255"]) == ["--eps=-8/255"]


def test_a_text_like_a_number_is_read_back_as_a_text(tmp_path: Path) -> None:
    config = recipe_yaml(parse_train(["demo", "--device", "1e3"])[0])
    (tmp_path / "config.yaml").write_text(config, encoding="utf-8")
    assert parse_train([str(tmp_path / "config.yaml")])[0].device == "1e3"
