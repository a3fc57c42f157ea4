"""What happens around the steps of a training run."""

from toughen.training.callbacks.base import Callback as Callback
