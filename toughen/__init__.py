"""toughen: trains image classifiers that hold under adversarial attack, fast, and says honestly how well they hold."""

from toughen import attacks as attacks
from toughen import methods as methods
from toughen import models as models
from toughen.evaluation.evaluate import evaluate as evaluate
from toughen.runs import load as load
from toughen.threat import Threat as Threat
from toughen.types import Batch as Batch

__version__ = "0.1.0"
