"""`toughen attack`."""

from __future__ import annotations

from collections.abc import Sequence

from toughen.cli.shared import (
    ATTACK,
    PROGRAM,
    Help,
    add_model_options,
    add_output,
    add_threat,
    own_model,
    progress_console,
)
from toughen.config import settings
from toughen.config.parsing import Parser, tidy
from toughen.evaluation import attack_images

HELP = Help(
    usage=f"{PROGRAM} attack RUN|MODULE:FUNCTION|timm:NAME --out FILE|DIR [settings]",
    about="Attack test images, and write the adversarial images as parquet or as PNG files.",
    examples=(
        f"{PROGRAM} attack runs/mine --out adversarial.parquet",
        f"{PROGRAM} attack runs/mine --attack apgd-ce-50 --eps 4/255 --out apgd.parquet",
        f"{PROGRAM} attack runs/mine --data photos --limit 100 --out hundred",
    ),
    shown={
        "Model": "spec weights",
        "Attack and threat": "attack eps norm",
        "Test images": "data limit",
        "Output": "out",
        "Device": "device seed",
    },
    more={"Model": "model image_size resize", "Output": "quiet", "Device": "precision batch_size"},
)


def run(arguments: Sequence[str]) -> int:
    settings.find_own_classes(arguments)
    given = vars(attack_parser().read(tidy(arguments)))
    console = progress_console(given.pop("quiet"))
    given["model"] = own_model(given["spec"], given["model"])
    print(attack_images(**given, console=console))
    return 0


def attack_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} attack", about=HELP)
    parser.add_argument(
        "spec",
        type=str,
        metavar="RUN",
        help="a run directory; package.module:function, timm:NAME or a net of `toughen list models`, with --weights",
    )
    parser.add_argument("--attack", type=str, default="pgd-20", help=ATTACK)
    add_threat(parser)
    add_model_options(parser)
    parser.add_argument(
        "--out",
        type=str,
        metavar="FILE|DIR",
        required=True,
        help="a parquet file, or a folder for PNG files; these are rounded to 8 bits, the parquet file is exact",
    )
    add_output(parser)
    return parser
