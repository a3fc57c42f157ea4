"""How well a model holds: attacks run over a data set, judged image by image."""

from toughen.evaluation.evaluate import Evaluation as Evaluation
from toughen.evaluation.evaluate import evaluate as evaluate
from toughen.evaluation.evaluate import evaluate_run as evaluate_run
from toughen.evaluation.suite import DEFAULT as DEFAULT
from toughen.evaluation.suite import parse_attack as parse_attack
