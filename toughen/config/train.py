"""The words after `toughen train`, as a recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toughen.config import settings
from toughen.config.overrides import kept_lengths, under
from toughen.config.parsing import PROGRAM, Parser, options, tidy
from toughen.config.screens import Help, help_requested
from toughen.training import defaults
from toughen.training.initial import read_initial
from toughen.training.recipe import Recipe
from toughen.utils.net_names import check_may_be_created
from toughen.utils.paths import expanded

GROUPS = {
    "Data": "data",
    "Model": "model init",
    "Method and threat": "method eps norm",
    "Length and budget": "epochs time_budget batch_size",
    "Output": "out resume",
    "Device": "device seed",
}
MORE = {
    "Data": "classes image_size memory_limit num_workers shuffle_buffer crop padding flip transform",
    "Model": "model_settings normalize frozen layer_decay",
    "Method and threat": "method.help eps_factor eps_warmup label_smoothing",
    "Length and budget": "stop_epoch",
    "Output": "quiet json keep_at checkpoint_seconds callbacks",
    "Device": "precision compile cuda_graphs channels_last deterministic sync_batch_norm",
    "Steps": "optimizer optimizer.help schedule schedule.help averaging",
    "Weights that are kept": "validation validation_steps validation_every weights",
    "Watch for a collapse": "watch watch_epochs log_every",
    "Recipe": "config print_config",
}
HELP = Help(
    usage=f"{PROGRAM} train [RECIPE_OR_YAML] [--data DATA] [--eps 8/255] [settings]",
    about="Train a classifier on a folder of images, or with a recipe (`toughen list recipes`); without a recipe, "
    "settings are chosen for the images.",
    examples=(
        f"{PROGRAM} train --data photos --eps 8/255 --out runs/mine",
        f"{PROGRAM} train --data mnist-5k --method TRADES --eps 0.3 --time-budget 2m",
        f"{PROGRAM} train demo --epochs 10 --optimizer.lr 0.02 --out runs/short",
    ),
    shown=GROUPS,
    more=MORE,
    defaults=False,  # as they are chosen for the images
)


def train_parser(about: Help = HELP) -> Parser:
    """Every field of a recipe is a flag.

    Args:
        about: what its help says.
    """
    parser = Parser(prog=about.usage.split(" [")[0], about=about)
    parser.add_argument("--config", action="config", help="the same as RECIPE_OR_YAML")
    parser.add_argument(
        "--out", type=str | None, metavar="DIR", help="the run directory; None means runs/ and the run's name"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    if about is HELP:  # `plan` always prints, and no JSON
        parser.add_argument("--quiet", action="store_true", help="print only errors and warnings on standard error")
        parser.add_argument("--json", action="store_true", help="print the path of the weights as JSON")
    parser.add_class_arguments(Recipe)
    parser.set_defaults(dict.fromkeys(settings.PARTS))  # filled in below the recipe, where nothing of them can stay
    return parser


def parse_train(arguments: Sequence[str]) -> tuple[Recipe, str, bool]:
    """The recipe, the run directory and whether to go on with it.

    Where no recipe says how to train, what is not given is chosen for the data, which are looked at.

    Raises:
        FileNotFoundError: there are no such data.
        ValueError: a setting is unknown, of another type, missing or contradicts another.
    """
    name, arguments = split_recipe(arguments)
    if not name and not arguments:
        raise ValueError(
            f"name a recipe, such as nuat-mnist (`{PROGRAM} list recipes`), or settings: see `{PROGRAM} train --help`"
        )
    parser = train_parser()
    if help_requested(arguments):  # before a recipe is read, which changes nothing of what it says
        parser.read(arguments)
    if name and any(option == "config" for option, _ in options(arguments)):
        raise ValueError(f"a second recipe is given with --config beside {name}: give one")
    base = settings.read_recipe(name) if name else {}
    for word in ("quiet", "json", "help", "print_config"):
        if base.get(word):
            raise ValueError(f"recipe {name}: {word} is not a setting of a run: give --{word} to the command")
    refuse_two_lengths(dict(options(arguments)), base)
    settings.find_own_classes(arguments, base)
    parser.read(["--config", json.dumps(under(base, []))], origin=f"recipe {name}: ")
    if "method" not in base:
        words = [word for word in arguments if not word.startswith("--print_config")]
        if "method" not in dict(options(words)):  # its settings are read below, where the method is known
            words = without_settings_of("method", words)
        parser.read(["--config", json.dumps(under(base, options(words))), *words])
        base = fill_for_data(base, dict(options(arguments)))
    arguments = ["--config", json.dumps(under(base, options(arguments))), *arguments]
    parsed, given = parser.read(arguments), parser.read(arguments, defaults=False)
    settings.refuse_bases(parsed)
    settings.refuse_infinite(parsed)
    settings.fill_threat(parsed, given)
    settings.refuse_nulls(parsed)
    out, resume = parsed.pop("out"), parsed.pop("resume")
    for word in ("config", "quiet", "json"):  # of the command, not of the run
        parsed.pop(word)
    fields = parser.instantiate(parsed)
    recipe = Recipe(**{name: fields[name] for name in Recipe.__dataclass_fields__})
    if out == "":
        raise ValueError("--out is empty: name a folder, or leave it out")
    folder = f"runs/{Path(name).stem or default_name(recipe)}" if out is None else str(expanded(Path(out)))
    return recipe, folder, resume


def note_on_lengths(arguments: Sequence[str]) -> str:
    """A message on step sizes that a recipe keeps at another eps, as in :func:`kept_lengths`; "" without any."""
    name, words = split_recipe(arguments)
    return kept_lengths(settings.read_recipe(name), options(words)) if name else ""


def without_settings_of(part: str, words: Sequence[str]) -> list[str]:
    """A tidy command line without the options that set a part's settings, and without their values."""
    kept, dropping = [], False
    for word in words:
        if word.startswith("--"):
            dropping = word.startswith(f"--{part}.")
        if not dropping:
            kept.append(word)
    return kept


def refuse_two_lengths(given: dict[str, str], recipe: dict[str, Any]) -> None:
    """See that no epochs are given where a time budget takes their place; a recipe's own may stand beside it.

    Args:
        given: the command line's options by name.
        recipe: the settings that lie under them.

    Raises:
        ValueError: both would say how long the run is.
    """
    budget = given.get("time_budget", recipe.get("time_budget"))
    if "epochs" in given and budget not in (None, "null"):
        raise ValueError(
            f"--epochs {given['epochs']} and the time budget of {budget} both set the length of the run: leave "
            "--epochs out, or give --time-budget null"
        )


def fill_for_data(base: dict[str, Any], given: dict[str, str]) -> dict[str, Any]:
    """A recipe without a method, completed by settings that are chosen for the data.

    Args:
        base: the recipe; empty where there is none.
        given: the command line's options by name.

    Raises:
        FileNotFoundError, ValueError: the data cannot be used as it is.
    """
    known = {**base, **given}
    initial = {}
    if known.get("init") not in (None, "null"):
        found = settings_of_weights(str(known["init"]), net="model" not in known)
        initial = {name: value for name, value in found.items() if name not in known}
    size, epochs = str(known.get("image_size", "null")), str(known.get("epochs", ""))
    fields = defaults.for_data(
        str(known.get("data", initial.get("data", Recipe.data))),
        classes=known.get("classes"),
        image_size=int(size) if size.isdigit() else "keep" if size == "keep" else None,
        device=str(known.get("device", Recipe.device)),
        epochs=int(epochs) if epochs.isdigit() else None,
        model=known.get("model", initial.get("model")),
        methods=[
            word for name, value in given.items() if name.startswith("method") for word in re.findall(r"\w+", value)
        ],
    )
    return {**fields, **initial, **base}


def settings_of_weights(init: str, *, net: bool) -> dict[str, Any]:
    """The model settings, and for a run directory the data, that initial weights name; {} where they name none.

    Args:
        init: where the weights are.
        net: whether the net is wanted.

    Raises:
        ValueError: there are no such weights, or they name a net that only the user may name.
    """
    record = read_initial(init).record
    if record is None:
        return {}
    fields: dict[str, Any] = {"data": record.data} if expanded(Path(init)).is_dir() else {}
    if net:
        name, settings = record.model.get("name"), record.model["settings"]
        check_may_be_created(name, settings, f"--init {init}")
        # timm would load them, and no file may say from where
        fields |= {"model": name, "model_settings": {key: settings[key] for key in settings if key != "pretrained"}}
    return fields


def split_recipe(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The name of the recipe, "" without one, and the rest of the command line, tidied."""
    arguments = list(arguments)
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], tidy(arguments[1:])
    given = [value for name, value in options(tidy(arguments)) if name == "config" and value]
    if not given:
        return "", tidy(arguments)
    place = next(number for number, word in enumerate(arguments) if word.partition("=")[0] == "--config")
    return given[0], tidy(arguments[:place] + arguments[place + (1 if "=" in arguments[place] else 2) :])


def default_name(recipe: Recipe) -> str:
    data = Path(recipe.data).name or Path(recipe.data).resolve().name  # of "." the folder's own
    parts = (type(recipe.method).__name__, recipe.model, data)
    return "-".join(part.replace(":", "-").replace("/", "-") for part in parts).lower()
