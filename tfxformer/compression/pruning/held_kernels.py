"""Kernels that a callback holds in a form while `fit` trains them; nothing of it is left when `fit` ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import keras
import tensorflow as tf

from tfxformer.compression.weights.matrices import Kernel, all_kernels, choose_kernels
from tfxformer.training.optimizers.optimizers import updating_optimizer
from tfxformer.training.step.gradients import unsee_gradients


class HeldConstraint(keras.constraints.Constraint):
    """Applied by the optimizer after each update: the kernel's own constraint, then what an engine makes of it."""

    def __init__(self, engine, own: Callable | None):
        self.engine, self.own = engine, own

    def __call__(self, kernel: keras.Variable) -> tf.Tensor:
        if self.own is not None:  # first and in place: the engine works on the weights it reads there
            kernel.assign(self.own(kernel))
        return self.engine.after_update()


def trainable_kernels(model: keras.Model, layers: Callable | None, name: str) -> list[Kernel]:
    """The kernels that a callback is to hold.

    Args:
        layers: `layers(layer) -> bool`, or None; see `choose_kernels`.
        name: the callback's, for messages.

    Raises:
        ValueError: for none, and for one that another callback holds.
    """
    chosen = choose_kernels(model, layers)
    kernels = [kernel for kernel in chosen if kernel.variable.trainable]
    if not kernels:
        known = [kernel.layer.path for kernel in all_kernels(model)]
        raise ValueError(
            f"{name}: no kernel to work on. Of the {len(known)} layers with a prunable kernel "
            f"{'the predicate' if layers else 'the default (all but the output layer)'} chose "
            f"{len(chosen)}, {len(kernels)} of them trainable. Give layers=..., a function layer -> bool "
            f"that is true for some of: {', '.join(known[:8]) or 'none in this model'}"
            f"{', ...' if len(known) > 8 else ''}."
        )
    for kernel in kernels:
        if isinstance(kernel.variable.constraint, HeldConstraint):
            raise ValueError(
                f"{name}: {kernel.path} is pruned or clustered by another callback already. Give each its own "
                "layers=..., or one fit after the other; what an interrupted loop of your own has left is removed by "
                "that callback's on_train_end()."
            )
    return kernels


def constrain(variable: keras.Variable, engine) -> None:
    """Lets `engine.after_update()` say what a kernel becomes after each update."""
    variable.constraint = HeldConstraint(engine, variable.constraint)


def unconstrain(model: keras.Model, variables: Iterable[keras.Variable]) -> None:
    """Gives some kernels their own constraints; with the last ones the model is as it was."""
    variables = list(variables)
    for variable in variables:
        variable.constraint = variable.constraint.own
    unsee_gradients(updating_optimizer(model.optimizer), variables)
    if not _held(model):  # another callback of the same fit may still hold some
        release(model)


def release_before_next_fit(model: keras.Model) -> None:
    """Makes the next fit, whatever its callbacks, take off the constraints this one may leave behind.

    A fit that raises or is interrupted calls no callback. But each fit begins with `make_train_function()`,
    without force: there the model is released, before a callback is called or a step is traced.
    """

    def make_train_function(force=False):
        if not force:
            release(model)
        return type(model).make_train_function(model, force)

    model.make_train_function = make_train_function


def release(model: keras.Model) -> None:
    """Gives all kernels their own constraints and the model its own methods and an untraced step."""
    for variable in _held(model):
        variable.constraint = variable.constraint.own
    unsee_gradients(updating_optimizer(getattr(model, "optimizer", None)))
    if "make_train_function" in vars(model):
        del model.make_train_function
    model.make_train_function(force=True)


def _held(model: keras.Model) -> list[keras.Variable]:
    return [variable for variable in model.variables if isinstance(variable.constraint, HeldConstraint)]
