"""Options and functions that several commands use."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NoReturn

from rich.console import Console

from toughen.config.parsing import PROGRAM as PROGRAM
from toughen.config.parsing import Parser
from toughen.config.screens import Help as Help
from toughen.utils.signals import exit_status, restore_sigterm
from toughen.utils.units import Fraction

if TYPE_CHECKING:
    from torch import nn

ATTACK = (
    "such as fgsm, pgd-100x5, pgd-40@0.01 or apgd-t; NAME[-STEPS][xRESTARTS][@STEP_SIZE], step size in the units of "
    "eps; for an attack of your own, NAME is package.module.Class"
)
KEPT = "the finished work is kept, and the same command continues it"


def parser_of(command: str) -> Parser:
    """The parser of a command, from ``NAME_parser()`` in the module ``toughen.cli.NAME``."""
    parser = getattr(importlib.import_module(f"toughen.cli.{command}"), f"{command}_parser")()
    assert isinstance(parser, Parser)
    return parser


def several() -> bool:
    """Whether torchrun has started this program in several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def fail(message: str, status: int = 2) -> NoReturn:
    """Print an error message, in only one of several processes, and exit."""
    if not several() or _first_to_say(message):
        print(f"{PROGRAM}: {message}", file=sys.stderr, flush=True)
    if several():
        restore_sigterm()
    raise SystemExit(status)


def _first_to_say(message: str) -> bool:
    from toughen.core.distributed import world  # imports torch

    return world().first_to_say(message)


@contextmanager
def resumable() -> Iterator[None]:
    """For commands that keep finished work: on a signal, the message says that the same command continues it."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        fail(f"stopped; {KEPT}", status=exit_status(stopped))


def add_output(parser: Parser, *, json: str = "") -> None:
    """Add --quiet, and --json if the command can print JSON.

    Args:
        parser: the command's parser.
        json: what the command prints as JSON; "" for nothing.
    """
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors on standard error")
    if json:
        parser.add_argument("--json", action="store_true", help=f"print {json} as JSON")


def progress_console(quiet: bool) -> Console:
    """The console for progress: standard error of the first process; nowhere with ``quiet``."""
    from toughen.core.distributed import world  # imports torch

    return Console(quiet=True) if quiet else world().console()


def add_threat(parser: Parser, limit: int | None = None) -> None:
    """Add the options for the images, the threat, the seed and the device."""
    parser.add_argument("--data", type=str | None, help="a folder or a data set's name (default: the run's)")
    parser.add_argument("--eps", type=Fraction | None, help="radius in image units, as 8/255 (default: the run's)")
    parser.add_argument("--norm", type=Literal["linf", "l2"] | None, help="norm of the threat (default: the run's)")
    parser.add_argument("--limit", type=int | None, default=limit, help="use a stratified sample of this many images")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample and of all random numbers")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda and the like; auto takes a GPU if any")


def add_model_options(parser: Parser) -> None:
    """Add the options for loading a model and for its input, precision and batch size."""
    parser.add_argument("--weights", type=str | None, help="a .safetensors or .pth file, for a model from elsewhere")
    parser.add_argument(
        "--image_size", type=int | None, help="pixels that images are resized to, for a model from elsewhere"
    )
    parser.add_argument(
        "--resize",
        type=int | None,
        help="pixels of the shorter side before the crop to --image-size; usual for ImageNet: 256",
    )
    parser.add_argument("--model", type=str | None, help="package.module:function, for a run of a net of your own")
    parser.add_argument(
        "--precision",
        type=Literal["auto", "bf16", "fp32", "fp64"],
        default="auto",
        help="precision of the attacks; their results are always verified in float32. Use fp32 for published numbers",
    )
    parser.add_argument(
        "--batch_size", type=int | None, help="images per forward pass (default: chosen for the device)"
    )


def own_model(spec: str, name: str | None) -> nn.Module | None:
    """The user's own net for a run; None if no name is given."""
    from toughen import runs
    from toughen.runs.loading import read_record

    return runs.create_own(read_record(spec), name) if name else None
