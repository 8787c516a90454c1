"""The gradients that an optimizer is about to use, seen and changed by others."""

from __future__ import annotations

from collections.abc import Callable

import keras


class GradientHook:
    """Stands in the place of an optimizer's `update_step`, in the instance alone.

    There gradients are summed over replicas and batches, unscaled and clipped, in the compiled step, once for each
    update and variable.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        self.optimizer = optimizer
        self.seen: dict[str, Callable] = {}

    def __call__(self, gradient, variable, learning_rate):
        see = self.seen.get(self.optimizer._var_key(variable))
        if see is not None:
            gradient = see(gradient, variable)
        return type(self.optimizer).update_step(self.optimizer, gradient, variable, learning_rate)


def see_gradients(optimizer: keras.optimizers.Optimizer, variable: keras.Variable, see: Callable) -> None:
    """Lets `see(gradient, tf.Variable) -> gradient` stand before each update of a variable."""
    hook = vars(optimizer).get("update_step")
    if hook is None:
        hook = vars(optimizer)["update_step"] = GradientHook(optimizer)  # past Keras, which would track it
    hook.seen[optimizer._var_key(variable)] = see


def unsee_gradients(optimizer, variables=None) -> None:
    """Takes back what `see_gradients` did for some variables; None for all."""
    hook = getattr(optimizer, "update_step", None)
    if not isinstance(hook, GradientHook):
        return
    for key in list(hook.seen) if variables is None else map(optimizer._var_key, variables):
        hook.seen.pop(key, None)
    if not hook.seen:
        del vars(optimizer)["update_step"]
