"""How well a model holds: attacks run over a data set, judged image by image, and a verdict on the number."""

from toughen.evaluation.adversarial import attack_images as attack_images
from toughen.evaluation.evaluate import evaluate as evaluate
from toughen.evaluation.evaluate import evaluate_run as evaluate_run
from toughen.evaluation.evaluate import output_folder as output_folder
from toughen.evaluation.judge import How as How
from toughen.evaluation.result import Evaluation as Evaluation
from toughen.evaluation.runner import measure as measure
from toughen.evaluation.suite import SUITES as SUITES
from toughen.evaluation.suite import parse_attack as parse_attack
