"""toughen: trains image classifiers that withstand adversarial attacks, and checks their robust accuracy."""

from typing import TYPE_CHECKING

from toughen.utils.lazy import lazily
from toughen.utils.version import __version__ as __version__

if TYPE_CHECKING:
    from toughen import attacks as attacks
    from toughen import methods as methods
    from toughen import models as models
    from toughen.core.threat import Threat as Threat
    from toughen.core.types import Batch as Batch
    from toughen.evaluation.evaluate import evaluate as evaluate
    from toughen.runs.loading import load as load
else:  # `toughen.report` reads results without waiting for torch
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "evaluate": "toughen.evaluation.evaluate",
            "load": "toughen.runs.loading",
            "Threat": "toughen.core.threat",
            "Batch": "toughen.core.types",
        },
        ("attacks", "core", "data", "evaluation", "methods", "models", "report", "runs", "training"),
    )
