"""`toughen export`: writes a run's classifier in a format for other programs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from torch import nn

from toughen import runs
from toughen.attacks.base import Attack
from toughen.cli.shared import ATTACK, PROGRAM, Help, own_model
from toughen.config.parsing import Parser, tidy
from toughen.config.settings import find_own_classes
from toughen.core.rng import ImageNoise
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels
from toughen.evaluation.call_attack import call_attack
from toughen.evaluation.images import load_test, sample
from toughen.evaluation.suite import parse_attack
from toughen.evaluation.target import usable_threat
from toughen.models.export import SUFFIXES, Difference, Exported, difference, export, load_exported
from toughen.runs.files import check_takes_tensors
from toughen.runs.single_file import load_single, write_single
from toughen.utils.console import say
from toughen.utils.plural import count
from toughen.utils.units import format_radius
from toughen.utils.version import __version__

TOLERANCE = (
    1e-3  # for a logit's difference, which comes from another order of float32 sums; see ``Difference.relative``
)
NAMES = {form: f"model{suffix}" for form, suffix in SUFFIXES.items()} | {"safetensors": "net.safetensors"}
NO_ATTACK = "none"
# if mean and std are null, the net takes the images themselves
TENSORS_TAKE = "(images - mean) / std, per channel, of float32 images [n, c, h, w] in [0, 1]"
BATCH = 50

HELP = Help(
    usage=f"{PROGRAM} export RUN [--format FORMAT] [--out FILE] [settings]",
    about="Write a run's classifier for other programs, and check the file on test images.",
    examples=(
        f"{PROGRAM} export runs/mine",
        f"{PROGRAM} export runs/mine --format safetensors --out net.safetensors",
        f"{PROGRAM} export runs/mine --format torch-export --attack pgd-20 --limit 200",
    ),
    shown={"Model": "run model", "File": "format out", "Check": "data limit attack"},
)


def run(arguments: Sequence[str]) -> int:
    find_own_classes(arguments)
    given = export_parser().read(tidy(arguments))
    folder = Path(given.run)
    record = runs.read_record(folder)
    out = Path(given.out) if given.out else folder / NAMES[given.format]
    require_new(out)
    other = next((form for form, name in NAMES.items() if Path(name).suffix == out.suffix), given.format)
    if other != given.format:
        raise ValueError(
            f"{out} ends as files of --format {other} do, and --format is {given.format}: "
            f"give --format {other}, or another --out"
        )
    if given.format == "torch-export" and out.suffix != SUFFIXES[given.format]:
        raise ValueError(f"{out} must end in {SUFFIXES[given.format]}: torch.export.load expects it")
    check_takes_tensors(out.parent)
    model = runs.load(folder, own_model(given.run, given.model))
    attack = None if given.attack == NO_ATTACK else parse_attack(given.attack, threat(record, given.run))
    test = load_test(folder, record, given.data)
    images, _ = sample(test.test, given.limit, 0)
    x = images.images.float() / 255
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=out.parent) as place:
        part = Path(place, out.name)  # moved to ``out`` once it is checked
        exported = write(part, given.format, record, model, given.run, given.model)
        differences = [(f"{len(x):,} test images of {test.name}", checked(difference(model, exported, x, BATCH)))]
        if attack is not None:
            x_adv = attacked(model, x, images.labels, attack, given.attack)
            kind = f"adversarial images by {given.attack} within {about(record)['threat']}"
            differences.append((kind, checked(difference(model, exported, x_adv, BATCH))))
        require_new(out)  # another export may have ended first
        part.replace(out)
    results = "; ".join(f"on {kind} {classes_differ(each)}, {logits_differ(each)}" for kind, each in differences)
    say(Console(), f"{out}: {results}")
    return 0


def require_new(out: Path) -> None:
    """See that a file does not exist yet.

    Raises:
        ValueError: it does.
    """
    if out.exists():
        raise ValueError(f"{out} exists already: choose another --out, or remove it")


def write(path: Path, form: str, record: runs.Record, model: nn.Module, spec: str, own: str | None) -> Exported:
    """Write the file, and return the classifier that is loaded from it."""
    if form == "safetensors":
        write_single(path, record, model, {**about(record), "input": TENSORS_TAKE})
        return load_single(path, own_model(spec, own))
    channels, rows, columns = record.shape
    export(model, (channels, rows, columns), path, form, about(record))
    return load_exported(path, form)


def checked(result: Difference) -> Difference:
    """The given difference, if rounding explains it.

    Raises:
        RuntimeError: the difference is larger.
    """
    if not result.relative <= TOLERANCE:  # a class can still change where its logit nearly equals another
        raise RuntimeError(
            f"the exported net differs from the run's: {result.classes:,} of {result.images:,} predictions change, and "
            f"logits differ by up to {result.logit:.2g}; no file was written: try another --format"
        )
    return result


def classes_differ(result: Difference) -> str:
    """How many predictions change, in words."""
    if not result.classes:
        return "the same classes"
    return f"{result.classes:,} of {count(result.images, 'prediction')} between nearly equal logits differ"


def logits_differ(result: Difference) -> str:
    """By how much logits differ, in words."""
    return f"logits within {result.logit:.1g}" if result.logit else "identical logits"


def threat(record: runs.Record, spec: str) -> Threat:
    """The threat that the run was trained against.

    Raises:
        ValueError: it was trained without a threat.
    """
    if record.eps is None:
        raise ValueError(f"{spec} was trained without an attack, so it has no eps to attack with: leave --attack out")
    return usable_threat("l2" if record.norm == "l2" else "linf", record.eps)


def attacked(model: nn.Module, x: Images, y: Labels, attack: Attack, name: str) -> Images:
    """Adversarial images, made by attacking the run's classifier."""
    parts = []
    for rows in torch.arange(len(x)).split(BATCH):
        x_adv, _ = call_attack(attack, name, model, x[rows], y[rows], ImageNoise(0, name, rows.tolist()))
        parts.append(x_adv)
    return torch.cat(parts)


def about(record: runs.Record) -> dict[str, str]:
    """The metadata of the file."""
    return {
        "classes": json.dumps(record.classes),
        "input": "float32 [n, c, h, w] in [0, 1]; normalisation is inside",
        "threat": "none" if record.eps is None else f"{record.norm} {format_radius(record.eps)}",
        "method": record.method,
        "toughen": __version__,
    }


def export_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} export", about=HELP)
    parser.add_argument("run", type=str, metavar="RUN", help="a run directory")
    parser.add_argument(
        "--format", type=Literal["onnx", "torch-export", "safetensors"], default="onnx", help="the file's format"
    )
    parser.add_argument(
        "--out",
        type=str | None,
        metavar="FILE",
        help="the file to write (default: in the run directory, named after the format)",
    )
    parser.add_argument("--data", type=str | None, help="data set for the check (default: the run's)")
    parser.add_argument("--limit", type=int | None, default=1000, help="number of test images for the check")
    parser.add_argument(
        "--attack", type=str, default=NO_ATTACK, help=f"check also on adversarial images of this attack, {ATTACK}"
    )
    parser.add_argument("--model", type=str | None, help="package.module:function, for a run of a net of your own")
    return parser
