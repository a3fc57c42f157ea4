"""What happens around the steps of a training run: a file for each."""

from toughen.training.callbacks.base import Callback as Callback
