"""The one training loop and what it consists of."""

from toughen.training.callbacks.base import Callback as Callback
from toughen.training.defaults import default_recipe as default_recipe
from toughen.training.optimizers import SGD as SGD
from toughen.training.optimizers import Adam as Adam
from toughen.training.optimizers import AdamW as AdamW
from toughen.training.optimizers import Muon as Muon
from toughen.training.recipe import Recipe as Recipe
from toughen.training.run import train as train
from toughen.training.schedules import Constant as Constant
from toughen.training.schedules import Cosine as Cosine
from toughen.training.schedules import Cyclic as Cyclic
from toughen.training.schedules import CyclicStep as CyclicStep
from toughen.training.schedules import OneCycle as OneCycle
from toughen.training.schedules import Piecewise as Piecewise
from toughen.training.training_state import TrainingState as TrainingState
