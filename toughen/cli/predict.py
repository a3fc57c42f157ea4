"""`toughen predict`: predicts the classes of image files, and whether an attack changes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from toughen import runs
from toughen.cli.shared import ATTACK, PROGRAM, Help, own_model
from toughen.config.parsing import Parser, tidy
from toughen.config.settings import find_own_classes
from toughen.core.threat import Threat
from toughen.data.files import load_files
from toughen.engine.device import pick_device
from toughen.evaluation.predict import Prediction, predict
from toughen.evaluation.suite import parse_attack
from toughen.evaluation.target import check_norm, usable_threat
from toughen.runs.loading import load, read_record
from toughen.utils.console import plain
from toughen.utils.statistics import percent
from toughen.utils.units import Fraction, format_radius

NO_ATTACK = "none"

HELP = Help(
    usage=f"{PROGRAM} predict RUN FILE ... [settings]",
    about="Predict the classes of image files, and whether a quick attack changes them.",
    examples=(
        f"{PROGRAM} predict runs/mine image.png",
        f"{PROGRAM} predict runs/mine photos/test/*/*.png --attack none --json",
        f"{PROGRAM} predict runs/mine image.png --attack pgd-100x5 --eps 4/255",
    ),
    shown={
        "Model and images": "run files model",
        "Attack and threat": "attack eps norm seed",
        "Output": "json",
        "Device": "device",
    },
)


def run(arguments: Sequence[str]) -> int:
    find_own_classes(arguments)
    given = predict_parser().read(tidy(arguments))
    if given.attack == NO_ATTACK and (given.eps is not None or given.norm is not None):
        raise ValueError(f"--attack {NO_ATTACK} has no threat: leave --eps and --norm out")
    device, record, own = pick_device(given.device), read_record(given.run), own_model(given.run, given.model)
    channels, rows, columns = record.shape
    pixels = load_files(given.files, (channels, rows, columns), record.resize)
    x = pixels.to(device).float() / 255
    model = load(given.run, own).to(device)
    threat = None
    if given.attack != NO_ATTACK:
        check_norm(given.run, record, given.eps, given.norm)
        threat = _threat(given.eps, given.norm, record)
    attack = None if threat is None else parse_attack(given.attack, threat)
    predictions = predict(model, x, attack, given.attack, given.seed)
    if given.json:
        for path, each in zip(given.files, predictions, strict=True):
            print(json.dumps(_fields(path, each, record.classes)))
    else:
        Console().print(_table(given.files, predictions, record.classes))
        if threat is not None:
            threat_text = f"{threat.norm} {format_radius(threat.eps)}"
            print(f"attack: {given.attack} within {threat_text}\nA stronger attack may change more predictions.")
    return 0


def predict_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} predict", about=HELP)
    parser.add_argument("run", type=str, metavar="RUN", help="a run directory, an exported file, or hf://user/name")
    parser.add_argument("files", nargs="+", type=str, metavar="FILE", help="image files")
    parser.add_argument("--attack", type=str, default="pgd-20", help=f"none, or an attack {ATTACK}")
    parser.add_argument("--eps", type=Fraction | None, help="radius in image units, as 8/255 (default: the run's)")
    parser.add_argument("--norm", type=Literal["linf", "l2"] | None, help="norm of the threat (default: the run's)")
    parser.add_argument("--model", type=str | None, help="package.module:function, for a run of a net of your own")
    parser.add_argument("--seed", type=int, default=0, help="decides the attack's random numbers")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda and the like; auto takes a GPU if any")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each file")
    return parser


def _threat(eps: Fraction | None, norm: str | None, record: runs.Record) -> Threat:
    """The threat of the attack.

    Raises:
        ValueError: no radius is given and the run was trained without an attack, or the radius is 0.
    """
    given = eps if eps is not None else record.eps
    if given is None:
        raise ValueError("the run was trained without an attack: give --eps, such as 8/255, or --attack none")
    return usable_threat("l2" if (norm or record.norm) == "l2" else "linf", given)


def _fields(path: str, prediction: Prediction, classes: Sequence[str]) -> dict[str, object]:
    fields: dict[str, object] = {"file": path, "class": classes[prediction.label], "confidence": prediction.confidence}
    if prediction.attacked is not None:
        fields |= {
            "attacked_class": _attacked(prediction.attacked, classes),
            "unchanged": prediction.attacked == prediction.label,
        }
    return fields


def _attacked(number: int, classes: Sequence[str]) -> str:
    """The class under attack; "none" for -1, a prediction with logits that are not finite."""
    return classes[number] if number >= 0 else "none"


def _table(files: Sequence[str], predictions: Sequence[Prediction], classes: Sequence[str]) -> Table:
    table = Table("file", "class", "confidence", box=None, pad_edge=False)
    table.columns[0].overflow = "fold"
    table.columns[2].justify = "right"
    attacked = any(each.attacked is not None for each in predictions)
    if attacked:
        table.add_column("under attack")
    for path, each in zip(files, predictions, strict=True):
        cells = [plain(path), plain(classes[each.label]), Text(percent(each.confidence))]
        if each.attacked is not None:
            cells.append(
                plain("not changed" if each.attacked == each.label else f"becomes {_attacked(each.attacked, classes)}")
            )
        table.add_row(*cells)
    return table
