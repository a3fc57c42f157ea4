"""The program's entry point: runs the command, and turns errors into one message and an exit status."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from toughen.cli.shared import KEPT, PROGRAM, fail, several
from toughen.utils import signals
from toughen.utils.openmp import limit_spinning
from toughen.utils.plugins import own_place

INTRODUCTION = "Train image classifiers that withstand adversarial attacks, and measure how\nrobust they are."
COMMANDS = {
    "train": "train a classifier on a folder of images, or by a recipe",
    "plan": "show what `train` would do with the same arguments, and how long",
    "evaluate": "measure accuracy under attack, and whether it can be believed",
    "attack": "attack test images, and write the adversarial images as parquet",
    "diagnose": "measure details: accuracy curves, loss surfaces, transfer",
    "compare": "compare evaluated runs in a table",
    "report": "write runs and their results as one HTML page",
    "predict": "predict classes of image files, and whether an attack changes them",
    "export": "write a run's classifier as ONNX, torch.export or safetensors",
    "card": "write a run's model card",
    "push": "upload a run to the Hugging Face hub, with --yes",
    "list": "list methods, attacks, models, data, recipes, callbacks or checks",
    "reproduce": "run a paper's table or figure, and compare with the published one",
    "doctor": "check this installation and this machine, and measure speed",
    "demo": "train a standard and a robust classifier, and attack both",
    "completion": "print a script for tab completion in a shell",
}
DISTRIBUTED = ("train", "evaluate")  # the commands that may run in several processes under torchrun
LOST_PROCESS = "another process of this command ended (it was killed, or ran out of memory)"
LOST = {
    "train": f"{LOST_PROCESS}: the last checkpoint is complete; continue with --resume",
    "evaluate": f"{LOST_PROCESS}: {KEPT}",
}


def usage() -> str:
    commands = "\n".join(f"  {name:10s} {about}" for name, about in COMMANDS.items())
    more = f"`{PROGRAM} COMMAND --help` explains a command."
    return f"usage: {PROGRAM} COMMAND ...\n\n{INTRODUCTION}\n\n{commands}\n\n{more}"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its status: 0 success, 1 a run that failed, 2 bad input, 128 + n on signal n."""
    program = arguments is None and not several()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    limit_spinning()
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

    if arguments[0] == "evaluate":  # training has its own signal handlers
        signals.end_on_sigterm()  # torchrun sends SIGTERM to the other processes when one has ended
    try:
        with distributed.joined():
            if arguments[0] not in DISTRIBUTED:
                others = " and ".join(DISTRIBUTED)
                fail(f"{arguments[0]} runs in one process only: start it without torchrun ({others} can use torchrun)")
            _run(*arguments)
    except RuntimeError as error:
        fail(str(error), status=1)


def _run(name: str, *arguments: str) -> NoReturn:
    """Run a command, and turn errors into one message and an exit status."""
    try:
        raise SystemExit(importlib.import_module(f"toughen.cli.{name}").run(arguments))
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:
        if not error.filename and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            fail(f"cannot write the output ({error.strerror}): free space, or write elsewhere")
        fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except ValueError as error:
        fail(f"{error}{own_place(error)}")
    except (RuntimeError, MemoryError) as error:
        if several():
            signals.ignore_sigterm()  # so that the message is still printed
        from toughen.core.distributed import is_lost_process  # imports torch
        from toughen.data.feed import Unreadable
        from toughen.engine.memory import is_out_of_memory

        if is_lost_process(error) and not isinstance(error, Unreadable):  # ``Unreadable`` has a message of its own
            fail(LOST.get(name, LOST_PROCESS), status=1)
        if not is_out_of_memory(error):
            fail(f"{error}{own_place(error)}", status=1)
        reason = str(error).splitlines()[0][:200] if str(error) else "MemoryError"
        fail(f"out of memory ({reason}): use smaller batches or images, or close other programs", status=1)
    except KeyboardInterrupt as stopped:
        fail("stopped", status=signals.exit_status(stopped))
    except Exception as error:
        if not (place := own_place(error)):  # a fault of toughen's own, of which the traceback is wanted
            raise
        fail(f"{type(error).__name__}: {error}{place}", status=1)
