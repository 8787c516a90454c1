"""What changes the compiled training step for the time of a `fit`: functions that see every batch or every gradient.

A callback has the numbers that a step returns, nothing of what it computed them from. What is hooked here is traced
with the step, so that a callback's sums are made where the data is, and read when the callback likes.
"""

from __future__ import annotations

from collections.abc import Callable

from tfxformer.backend import on_jax, on_tensorflow
from tfxformer.backend import tensorflow as tf
from tfxformer.training.optimizers.optimizers import updating_optimizer
from tfxformer.training.step.carried import watch
from tfxformer.training.step.sums import StepSums


class _Preceded:
    """A method that some functions are called before, with its arguments."""

    def __init__(self, method):
        self.method, self.functions = method, []

    def __call__(self, *args, **kwargs):
        for function in self.functions:
            function(*args, **kwargs)
        return self.method(*args, **kwargs)


def _precede(owner, name, function) -> Callable[[], None]:
    """Calls `function` before `owner.<name>`; returns what ends that."""
    preceded = getattr(owner, name)
    if not isinstance(preceded, _Preceded):
        preceded = _Preceded(preceded)
        object.__setattr__(owner, name, preceded)  # past Keras, which would track it
    preceded.functions.append(function)

    def remove():
        preceded.functions.remove(function)
        if not preceded.functions:
            object.__delattr__(owner, name)

    return remove


class _UntilNextFit:
    """In the place of a model's `make_train_function`, with which each fit begins, while its step is changed."""

    def __init__(self, model):
        self.model, self.undo = model, []

    def __call__(self, force=False):
        if not force:
            while self.undo:
                self.end(self.undo[-1])
        type(self.model).make_train_function(self.model, force)

    def end(self, undo) -> None:
        """Undoes one of the changes, if it is there still."""
        if undo not in self.undo:
            return
        self.undo.remove(undo)
        undo()
        if not self.undo:
            del vars(self.model)["make_train_function"]
        type(self.model).make_train_function(self.model, force=True)  # the traced step has the change


def changed_until(model, undo) -> Callable[[], None]:
    """Lets a training step be traced anew, with what was changed in it; returns what undoes the change.

    A fit that raises or is interrupted calls no callback. But each fit begins with `make_train_function()`, without
    force: there what was left behind is undone, before a callback is called or a step is traced.

    Args:
        model: any compiled Keras model.
        undo: function without arguments that takes the change back; called once.
    """
    changes = vars(model).get("make_train_function")
    if changes is None:
        changes = vars(model)["make_train_function"] = _UntilNextFit(model)  # past Keras, which would track it
    changes.undo.append(undo)
    type(model).make_train_function(model, force=True)  # a step traced earlier has no change
    return lambda: changes.end(undo)


def on_batches(model, function, sums: StepSums) -> Callable[[], None]:
    """Lets `function(data)` see each training batch, in the graph; returns what ends that.

    To be called in `on_train_begin`, ended in `on_train_end`.

    Args:
        model: any compiled Keras model.
        function: gets (x, y, sample weights), under a strategy those of one replica, in replica context.
        sums: all that the function writes to.
    """
    if on_jax():
        return changed_until(model, watch(model, sums.watched, function))
    return changed_until(model, _precede(model, "train_step", function))


def see_batch(model, data) -> None:
    """Shows a batch to the functions of `on_batches`, for a step that is not `model.train_step`."""
    for function in getattr(model.train_step, "functions", ()):
        function(data)


def on_gradients(model, function, sums: StepSums) -> Callable[[], None]:
    """Lets `function(gradients, variables)` see what each update is made from, in the graph; returns what ends that.

    Unscaled, before any clipping; of a `DistributedModel` the sum over replicas and accumulated batches, of another
    model those of each batch. An update that loss scaling leaves out is not seen. Where an embedding's gradient has
    slices, rows of one id are summed.

    Args:
        model: any compiled Keras model.
        function: gets a tensor or None for each variable.
        sums: all that the function writes to.
    """
    optimizer = updating_optimizer(model.optimizer)

    def unscaled(gradients, trainable_variables=None):
        scale = optimizer.loss_scale_factor  # None in DistributedModel's own step, which has divided already
        gradients = [g if g is None else _dense(g) if scale is None else _dense(g) / scale for g in gradients]
        function(gradients, optimizer._trainable_variables if trainable_variables is None else trainable_variables)

    ends = [_precede(optimizer, "apply", unscaled)]
    if on_jax():
        ends.append(watch(model, sums.watched))

    def undo():
        for end in ends:
            end()

    return changed_until(model, undo)


def _dense(gradient):
    return tf.convert_to_tensor(gradient) if on_tensorflow() else gradient
