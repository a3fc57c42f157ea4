"""What several commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from rich.console import Console

from toughen.config.parsing import PROGRAM as PROGRAM
from toughen.config.parsing import Parser
from toughen.config.screens import Help as Help
from toughen.utils.fraction import Fraction
from toughen.utils.signals import exit_status, restore_sigterm

if TYPE_CHECKING:
    from torch import nn

ATTACK = (
    "such as fgsm, pgd-100x5, pgd-40@0.01 or apgd-t; NAME[-STEPS][xRESTARTS][@STEP_SIZE], step size in the units of "
    "eps, package.module.Class for a NAME of your own"
)


def several() -> bool:
    """Whether torchrun has started this program several times."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def fail(message: str, status: int = 2) -> NoReturn:
    """Say what is wrong, in one of the processes that it happens in, and leave."""
    if not several() or _first_to_say(message):
        print(f"{PROGRAM}: {message}", file=sys.stderr, flush=True)
    if several():
        restore_sigterm()
    raise SystemExit(status)


def _first_to_say(message: str) -> bool:
    from toughen.core.distributed import world  # imports torch

    return world().first_to_say(message)


@contextmanager
def goes_on() -> Iterator[None]:
    """What keeps all that it has done: a signal ends it with the word that the same command goes on."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        fail("stopped; what is done is kept, and the same command goes on", status=exit_status(stopped))


def add_output(parser: Parser, *, json: str = "") -> None:
    """What a script wants of a command.

    Args:
        parser: the command's.
        json: what it prints as JSON; "" for nothing.
    """
    parser.add_argument("--quiet", action="store_true", help="say nothing on standard error but errors")
    if json:
        parser.add_argument("--json", action="store_true", help=f"print {json} as JSON")


def progress_console(quiet: bool) -> Console:
    """Where a command says how far it is: standard error of the first process, or nowhere."""
    from toughen.core.distributed import world  # imports torch

    return Console(quiet=True) if quiet else world().console()


def add_threat(parser: Parser, limit: int | None = None) -> None:
    """Which images, and what they are attacked within."""
    parser.add_argument("--data", type=str | None, help="a folder or a data set's name (default: the run's)")
    parser.add_argument("--eps", type=Fraction | None, help="radius in image units, as 8/255 (default: the run's)")
    parser.add_argument("--norm", type=Literal["linf", "l2"] | None, help="norm of the threat (default: the run's)")
    parser.add_argument("--limit", type=int | None, default=limit, help="take a balanced sample of so many images")
    parser.add_argument("--seed", type=int, default=0, help="decides the sample and all random numbers")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda and the like; auto takes a GPU if any")


def add_asking(parser: Parser) -> None:
    """How a model is asked."""
    parser.add_argument("--weights", type=str | None, help="a .safetensors or .pth file, for a model from elsewhere")
    parser.add_argument(
        "--image_size", type=int | None, help="pixels that images are brought to, for a model from elsewhere"
    )
    parser.add_argument(
        "--resize", type=int | None, help="pixels of the shorter side before that: 256 for 224 is usual for ImageNet"
    )
    parser.add_argument("--model", type=str | None, help="package.module:function, for a run of a net of your own")
    parser.add_argument(
        "--precision",
        type=Literal["auto", "bf16", "fp32", "fp64"],
        default="auto",
        help="what attacks search in; what they find is confirmed in float32 anyway. fp32 for a published number",
    )
    parser.add_argument(
        "--batch_size", type=int | None, help="images per forward pass (default: what suits the device)"
    )


def own_model(spec: str, name: str | None) -> nn.Module | None:
    """The net that the user names for a run of a net of their own."""
    from toughen import runs

    return runs.create_own(runs.read_record(Path(spec)), name) if name else None
