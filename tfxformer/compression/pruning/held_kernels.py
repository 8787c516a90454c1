"""Kernels that a callback holds in a form while `fit` trains them; nothing of it is left when `fit` ends."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from tfxformer.backend import strategy_of
from tfxformer.backend import tensorflow as tf
from tfxformer.compression.weights.matrices import Kernel, all_kernels, choose_kernels
from tfxformer.training.optimizers.optimizers import updating_optimizer
from tfxformer.training.resume.state import value_of
from tfxformer.training.step.gradients import unsee_gradients
from tfxformer.training.step.hooks import changed_until


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


class HeldKernels:
    """Kernels of a model, each held in a form by an engine, until `release` or, at the latest, the next fit."""

    def __init__(self, model: keras.Model):
        self.model, self.engines = model, {}
        self.release = changed_until(model, self._release)  # before the first constraint: what follows may raise

    def hold(self, variable: keras.Variable, engine) -> None:
        """Lets `engine.after_update()` say what a kernel becomes after each update."""
        variable.constraint = HeldConstraint(engine, variable.constraint)
        self.engines[variable.path] = variable, engine

    def _release(self) -> None:
        for variable, _ in self.engines.values():
            variable.constraint = variable.constraint.own
        variables = [variable for variable, _ in self.engines.values()]
        unsee_gradients(updating_optimizer(getattr(self.model, "optimizer", None)), variables)


class HoldingCallback(keras.callbacks.Callback):
    """What brings kernels into a form while `fit` trains them: `Prune` and `Cluster`.

    A subclass makes the engine of a kernel (`engine_of`), chooses the form of all when training begins (`begin`), and
    says what it is (`in_form` of the engine).

    Args:
        layers: `layers(layer) -> bool`, which layers to take; None for all but the output layer.
    """

    def __init__(self, layers: Callable | None):
        super().__init__()
        if layers is not None and not callable(layers):
            raise TypeError(f"{type(self).__name__}: layers is a function layer -> bool, or None; got {layers!r}.")
        self.layers = layers
        self._begun, self._held = False, None

    def engine_of(self, kernel: Kernel):
        """What holds a kernel: its `after_update()`, `in_form(weights)`, `state()` and `set_state(state)`."""
        raise NotImplementedError("A subclass makes the engine of a kernel.")

    def begin(self) -> None:
        """Brings the weights into the form in which the fit begins."""
        raise NotImplementedError("A subclass says how a fit begins.")

    @property
    def engines(self) -> list:
        """Those of the fit that runs."""
        return [] if self._held is None else [engine for _, engine in self._held.engines.values()]

    @property
    def variables(self) -> list[keras.Variable]:
        """The kernels that they hold."""
        return [] if self._held is None else [variable for variable, _ in self._held.engines.values()]

    def on_train_begin(self, logs=None):
        kernels = trainable_kernels(self.model, self.layers, type(self).__name__)
        self._begun, self._held = False, HeldKernels(self.model)
        with strategy_of(self.model).scope():
            for kernel in kernels:
                self._held.hold(kernel.variable, self.engine_of(kernel))

    def on_epoch_begin(self, epoch, logs=None):
        # Not in on_train_begin: there a callback after this one (BackupAndRestore) may still load weights.
        if not self._begun:
            self.begin()
            self._begun = True

    def on_train_end(self, logs=None):
        self.bring_into_form()  # the optimizer's EMA, written into the weights before this call, has left it
        self._held.release()
        self._held = None

    def resume_state(self) -> dict:
        """What `training.Resume` keeps of it, arrays by name."""
        states = [engine.state() for engine in self.engines] if self._begun else []
        return {name: [value_of(state[name]) for state in states] for name in (states[0] if states else ())}

    def resume_from(self, state: dict) -> None:
        """Goes on where `resume_state` was taken."""
        with strategy_of(self.model).scope():
            for engine, *arrays in zip(self.engines, *state.values(), strict=True):
                engine.set_state(dict(zip(state, map(np.asarray, arrays), strict=True)))
        self._begun = True

    def bring_into_form(self) -> None:
        """Gives the kernels the form that their engines hold."""
        with strategy_of(self.model).scope():
            for variable, engine in zip(self.variables, self.engines, strict=True):
                variable.assign(engine.in_form(variable.value))
