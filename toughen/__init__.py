"""toughen: trains image classifiers that hold under adversarial attack, fast, and says honestly how well they hold."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toughen import attacks as attacks
    from toughen import methods as methods
    from toughen import models as models
    from toughen.evaluation.evaluate import evaluate as evaluate
    from toughen.runs import load as load
    from toughen.threat import Threat as Threat
    from toughen.types import Batch as Batch

__version__ = "0.1.0"

_PARTS = ("attacks", "data", "evaluation", "gradients", "methods", "models", "objectives", "report", "runs", "types")
_HOMES = {
    "evaluate": "toughen.evaluation.evaluate",
    "load": "toughen.runs",
    "Threat": "toughen.threat",
    "Batch": "toughen.types",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: `toughen.report` reads results without waiting for torch."""
    if name in _PARTS:
        return import_module(f"toughen.{name}")
    if name in _HOMES:
        found = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return found
    raise AttributeError(f"module 'toughen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PARTS, *_HOMES})
