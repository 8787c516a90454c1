"""What callbacks have in common that change the loss of training for the time of a `fit`."""

from __future__ import annotations

import math

import keras

from tfxformer.training.distributed_model import DistributedModel
from tfxformer.training.step.loss_terms import Objective
from tfxformer.training.step.passes import Batch, change_passes


class ChangedPass(keras.callbacks.Callback):
    """A callback in whose `fit` training steps compute a batch by `change`; validation stays as it is.

    A subclass says `change`, and in `check` what it does not fit on.
    """

    _end = None

    def check(self, model) -> None:
        """Refuses a model that the change does not fit on."""

    def change(self, passes, model, batch: Batch, records: list) -> tuple[object, list[Objective]]:
        """See `passes.change_passes`."""
        raise NotImplementedError("A subclass says how a pass is changed.")

    def on_train_begin(self, logs=None):
        name, model = type(self).__name__, self.model
        if not isinstance(model, DistributedModel):
            raise ValueError(
                f"{name} changes the training step of a training.DistributedModel, which every task is, and this is a "
                f"{type(model).__name__}: make it a training.DistributedModel, or train it by a task."
            )
        if type(model).train_step is not DistributedModel.train_step:
            raise ValueError(
                f"{name} changes the training step of DistributedModel, and {type(model).__name__} has a train_step of "
                "its own: override compute_loss instead."
            )
        self.check(model)
        self._end = change_passes(model, self.change)

    def on_train_end(self, logs=None):
        self._end()


def check_positive(**numbers) -> None:
    """Refuses what is no finite number above 0.

    Raises:
        ValueError: naming the first.
    """
    for name, number in numbers.items():
        if not (isinstance(number, (int, float)) and math.isfinite(number) and number > 0):
            raise ValueError(f"{name}={number!r}: wanted a finite number above 0.")
