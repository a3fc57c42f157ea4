"""The command line: find the command, and turn what goes wrong into one message and a status."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from toughen.cli.shared import PROGRAM, fail, several
from toughen.utils import signals

INTRODUCTION = "Train image classifiers that withstand adversarial attacks, and measure how\nrobust they are."
COMMANDS = {
    "train": "train a classifier on a folder of images, or as a recipe says",
    "plan": "say what `train` would do, and how long it would take",
    "evaluate": "attack a model on test images, and judge the robust accuracy",
    "attack": "write the adversarial images of an attack as parquet",
    "diagnose": "look closer at runs: curves, surfaces, transfer",
    "compare": "show evaluated runs side by side",
    "report": "write runs and their results as one HTML page",
    "predict": "say the classes of image files, and whether an attack changes them",
    "export": "write a run's classifier as ONNX, torch.export or safetensors",
    "card": "write a run's model card",
    "push": "upload a run to the Hugging Face hub, with --yes",
    "list": "list methods, attacks, models, data or recipes",
    "reproduce": "run a paper's table or figure; show it beside what was published",
    "doctor": "say what this machine and installation can do, and what is missing",
    "demo": "train a standard and a robust classifier, and attack both",
    "completion": "print a script that completes words with the tab key",
}
SHARED = ("train", "evaluate")  # what torchrun may start several times
LOST_ELSEWHERE = "another process that worked on this ended (killed, or out of memory)"
LOST = {
    "train": f"{LOST_ELSEWHERE}: the last checkpoint is whole; go on with --resume",
    "evaluate": f"{LOST_ELSEWHERE}: what is done is kept, and the same command goes on",
}


def usage() -> str:
    commands = "\n".join(f"  {name:10s} {about}" for name, about in COMMANDS.items())
    return f"usage: {PROGRAM} COMMAND ...\n\n{INTRODUCTION}\n\n{commands}\n\n`{PROGRAM} COMMAND --help` tells more."


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and leave with its status: 0 done, 1 a run that failed, 2 bad input, 128 + n on signal n."""
    program = arguments is None and not several()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        raise SystemExit(0 if arguments else 2)
    if arguments[0] == "--version":
        from toughen.utils.version import __version__

        print(f"{PROGRAM} {__version__}")
        raise SystemExit(0)
    if arguments[0] not in COMMANDS:
        close = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
        advice = f"did you mean {close[0]}?" if close else f"`{PROGRAM} --help` lists all"
        fail(f"command {arguments[0]!r} is unknown: {advice}")
    warnings.filterwarnings("ignore")
    if not several():
        if program:
            signals.end_on_sigterm()
        _run(*arguments)
    from toughen.core import distributed

    if arguments[0] == "evaluate":  # training waits for signals itself
        signals.end_on_sigterm()  # as torchrun sends it to the others where one process has ended
    try:
        with distributed.joined():
            if arguments[0] not in SHARED:
                others = ", ".join(SHARED)
                fail(f"{arguments[0]} works in one process: start it without torchrun (more of them: {others})")
            _run(*arguments)
    except RuntimeError as error:
        fail(str(error), status=1)


def _run(name: str, *arguments: str) -> NoReturn:
    """Run a command, and turn what goes wrong into one message and a status."""
    try:
        raise SystemExit(importlib.import_module(f"toughen.cli.{name}").run(arguments))
    except BrokenPipeError:  # who reads our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except ValueError as error:
        fail(str(error))
    except (RuntimeError, MemoryError) as error:
        if several():
            signals.ignore_sigterm()  # until it is said
        from toughen.core.distributed import is_lost_process  # imports torch
        from toughen.data.feed import Unreadable
        from toughen.engine.memory import is_out_of_memory

        if is_lost_process(error) and not isinstance(error, Unreadable):  # which names the process that ended
            fail(LOST[name] if name in LOST else LOST_ELSEWHERE, status=1)
        if not is_out_of_memory(error):
            fail(str(error), status=1)
        fail(f"memory does not suffice ({str(error).splitlines()[0][:200] if str(error) else 'MemoryError'})", status=1)
    except KeyboardInterrupt as stopped:
        fail("stopped", status=signals.exit_status(stopped))
