"""What each command takes."""

from __future__ import annotations

from typing import Literal

from toughen import settings
from toughen.evaluation.diagnostics.diagnose import NAMES as DIAGNOSTICS
from toughen.evaluation.diagnostics.diagnose import TRANSFER
from toughen.parsing import Parser
from toughen.training.recipe import Recipe
from toughen.types import Fraction, Norm

PROGRAM = "toughen"
TRAIN_USAGE = """toughen train [RECIPE_OR_YAML] [--data D] [--model M] [--method C]
                     [--eps 8/255] [--out DIR] [options]"""

EVALUATE_USAGE = """toughen evaluate RUN [--suite quick|standard|papers] [options]
       toughen evaluate PACKAGE.MODULE:FUNCTION --weights W.safetensors --data D
                        --eps 8/255 [options]"""

REPRODUCE_USAGE = """toughen reproduce --list [--out DIR]
       toughen reproduce NAME --scale smoke|cpu|full [--rows A,B] [--seeds N]
                         [--data DIR] [--out DIR] [options]"""


def train_parser() -> Parser:
    """Every field of a recipe is a flag."""
    parser = Parser(prog=f"{PROGRAM} train", usage=TRAIN_USAGE, description="Train a classifier as a recipe says.")
    parser.add_argument("--config", action="config", help="the same as RECIPE_OR_YAML")
    parser.add_argument("--out", type=str | None, help="the run directory; None means runs/ and the run's name")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, bit for bit")
    parser.add_class_arguments(Recipe)
    parser.set_defaults(dict.fromkeys(settings.PARTS))  # filled in below the recipe, where nothing of them can stay
    return parser


def add_threat(parser: Parser, limit: int | None = None) -> None:
    """Which images, and what they are attacked within."""
    parser.add_argument("--data", type=str | None, help="a folder or a data set's name (default: the run's)")
    parser.add_argument("--eps", type=Fraction | None, help="radius in image units, such as 8/255 (default: the run's)")
    parser.add_argument("--norm", type=Norm | None, help="norm of the threat (default: the run's)")
    parser.add_argument("--limit", type=int | None, default=limit, help="take a balanced sample of so many images")
    parser.add_argument("--seed", type=int, default=0, help="decides the sample and all random numbers")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda and the like; auto takes a GPU if any")


def add_asking(parser: Parser) -> None:
    """How a model is asked."""
    parser.add_argument("--weights", type=str | None, help="a safetensors file, for a model from elsewhere")
    parser.add_argument("--model", type=str | None, help="package.module:function, for a run of a net of your own")
    parser.add_argument(
        "--precision",
        type=Literal["auto", "bf16", "fp32", "fp64"],
        default="auto",
        help="what attacks search in; what they find is confirmed in float32 anyway. fp32 for a published number",
    )
    parser.add_argument("--block", type=int | None, help="images per forward pass (default: what suits the device)")


ATTACK = "NAME[-STEPS][xRESTARTS][@STEP_SIZE], step size in the units of eps: fgsm, pgd-100x5, pgd-40@0.01, apgd-t"


def evaluate_parser() -> Parser:
    parser = Parser(
        prog=f"{PROGRAM} evaluate",
        usage=EVALUATE_USAGE,
        description="Attack a model on test images, and judge whether the number that comes out can be believed.",
    )
    parser.add_argument("spec", type=str, help="a run directory, package.module:function or timm:NAME")
    parser.add_argument(
        "--suite",
        type=Literal["quick", "standard", "papers"] | None,
        help="quick, if none is named: FGSM, PGD and APGD on 1,000 images; standard: PGD-100 from 5 starts, GAMA-PGD "
        "and AutoAttack; papers: what the papers' tables report",
    )
    parser.add_argument("--attacks", nargs="+", metavar="ATTACK", help=f"instead of a suite: {ATTACK}")
    add_threat(parser)
    add_asking(parser)
    parser.add_argument(
        "--source", type=str | None, help="a normally trained run for black-box checks; `train` makes one"
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="processes that attack at once; the result is the same"
    )
    parser.add_argument(
        "--time_budget", type=str | None, help="end within this time, such as 5m, by attacking fewer images, a sample"
    )
    parser.add_argument("--verdict", type=bool, default=True, help="whether to check that the number can be believed")
    parser.add_argument(
        "--details", type=bool, default=True, help="whether to look closer at a few images, for `toughen report`"
    )
    parser.add_argument("--out", type=str | None, help="where to write (default: the run directory)")
    return parser


def attack_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} attack", description="Write the adversarial images of an attack as parquet.")
    parser.add_argument("spec", type=str, help="a run directory, package.module:function or timm:NAME")
    parser.add_argument("--attack", type=str, default="pgd-20", help=ATTACK)
    add_threat(parser)
    add_asking(parser)
    parser.add_argument("--out", type=str, required=True, help="the parquet file to write")
    return parser


def diagnose_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} diagnose", description="Look closer at trained runs: curves, surfaces, transfer.")
    parser.add_argument("runs", nargs="+", type=str, metavar="RUN", help="run directories; transfer needs two or more")
    parser.add_argument("--which", nargs="+", metavar="NAME", help=f"some of {', '.join(DIAGNOSTICS)} (default: all)")
    parser.add_argument(
        "--transfer_attacks", nargs="+", metavar="ATTACK", default=list(TRANSFER), help="what transfer is measured with"
    )
    add_threat(parser, limit=500)
    parser.add_argument(
        "--precision",
        type=Literal["bf16", "fp32", "fp64"],
        default="fp32",
        help="what attacks search in; figures are float32",
    )
    parser.add_argument(
        "--out", type=str | None, help="where comparisons of runs go, and other eps or data (default: into each run)"
    )
    return parser


def compare_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} compare", description="Show evaluated runs side by side.")
    parser.add_argument("runs", nargs="+", type=str, metavar="RUN", help="evaluated run directories")
    return parser


def report_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} report", description="Write runs and their results as one HTML page.")
    parser.add_argument("runs", nargs="+", type=str, metavar="RUN", help="run directories, evaluated or not")
    parser.add_argument(
        "-o", "--out", type=str | None, help="the file (default: report.html, in the run's directory if it is one run)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    return parser


def list_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} list", description="List what can be named on the command line.")
    parser.add_argument("what", choices=["methods", "attacks", "models", "data", "recipes"])
    return parser


def demo_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} demo", description="Train a standard and a robust classifier, and attack both.")
    parser.add_argument("--out", type=str, default="runs/demo", help="where both runs go")
    return parser


def reproduce_parser() -> Parser:
    parser = Parser(
        prog=f"{PROGRAM} reproduce",
        usage=REPRODUCE_USAGE,
        description="Run a table or figure of a paper: train what is missing, evaluate it, keep it, and print it "
        "beside the published one. Killed and repeated, it goes on.",
    )
    parser.add_argument("name", type=str, nargs="?", default="", help="a table or figure, such as nuat-table1a")
    parser.add_argument("--list", action="store_true", help="name all, with what was measured of them in --out")
    parser.add_argument(
        "--scale",
        type=Literal["smoke", "cpu", "full"] | None,
        help="smoke: a few steps, to see it run; cpu: shorter training of narrower nets, 1,000 test images; full: the "
        "paper's own setting",
    )
    parser.add_argument("--rows", type=str | None, help="some rows only, with commas between: NuAT,FBF")
    parser.add_argument("--seeds", type=int | None, help="how many seeds (default: 1; the paper's for a spread)")
    parser.add_argument(
        "--data", type=str | None, help="a folder that is a data set or holds mnist, cifar10, ... (default: the hub)"
    )
    parser.add_argument("--limit", type=int | None, help="evaluate on a stratified sample of so many test images")
    parser.add_argument("--out", type=str, default="runs/reproduce", help="where runs and results are kept")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda and the like; auto takes a GPU if any")
    return parser
