"""How well a model holds: attacks run over a data set, judged image by image, and a verdict on the number."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toughen.evaluation.adversarial import attack_images as attack_images
    from toughen.evaluation.evaluate import evaluate_run as evaluate_run
    from toughen.evaluation.evaluate import output_folder as output_folder
    from toughen.evaluation.judge import How as How
    from toughen.evaluation.result import Evaluation as Evaluation
    from toughen.evaluation.runner import measure as measure
    from toughen.evaluation.suite import SUITES as SUITES
    from toughen.evaluation.suite import parse_attack as parse_attack

_HOMES = {
    "attack_images": "adversarial",
    "evaluate_run": "evaluate",
    "output_folder": "evaluate",
    "How": "judge",
    "Evaluation": "result",
    "measure": "runner",
    "SUITES": "suite",
    "parse_attack": "suite",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: training wants two small parts of this package, not all of it."""
    if name in _HOMES:
        found = globals()[name] = getattr(import_module(f"toughen.evaluation.{_HOMES[name]}"), name)
        return found
    raise AttributeError(f"module 'toughen.evaluation' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
