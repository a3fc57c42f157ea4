"""Evaluation of a model's robustness: attacks on a data set, a result for each image, and a verdict on the number."""

from typing import TYPE_CHECKING

from toughen.utils.lazy import lazily

if TYPE_CHECKING:
    from toughen.evaluation.adversarial import attack_images as attack_images
    from toughen.evaluation.config import EvaluationConfig as EvaluationConfig
    from toughen.evaluation.evaluate import evaluate_run as evaluate_run
    from toughen.evaluation.output import output_folder as output_folder
    from toughen.evaluation.result import Evaluation as Evaluation
    from toughen.evaluation.runner import measure as measure
    from toughen.evaluation.suite import SUITES as SUITES
    from toughen.evaluation.suite import parse_attack as parse_attack
else:  # training needs only small parts of this package
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "attack_images": "toughen.evaluation.adversarial",
            "evaluate_run": "toughen.evaluation.evaluate",
            "output_folder": "toughen.evaluation.output",
            "EvaluationConfig": "toughen.evaluation.config",
            "Evaluation": "toughen.evaluation.result",
            "measure": "toughen.evaluation.runner",
            "SUITES": "toughen.evaluation.suite",
            "parse_attack": "toughen.evaluation.suite",
        },
    )
