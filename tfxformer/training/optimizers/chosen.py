"""What `compile` makes of an optimizer and of the arguments that stand beside it."""

from __future__ import annotations

import inspect
import math
from numbers import Real

import keras
from keras import tree

from tfxformer.arguments.keywords import keywords_of, refuse_unknown
from tfxformer.training.optimizers.optimizers import OPTIMIZERS, AdamW, updating_optimizer
from tfxformer.training.optimizers.schedules import WarmupLinear
from tfxformer.training.optimizers.variable_rules import WAY_OUT

AUTO = "auto"
# AdamW without decay on norms and biases, its rate warming up and then falling linearly to zero.
DEFAULTS = {"learning_rate": 5e-5, "warmup": 0.1, "weight_decay": 0.01, "global_clipnorm": 1.0, "epsilon": 1e-8}
CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")  # Keras takes one of them
KERAS_COMPILE = tuple(inspect.signature(keras.Model.compile).parameters)[1:]


def choose_optimizer(optimizer, arguments: dict, owner: str) -> tuple:
    """The optimizer of compile(optimizer, **arguments), and how each fit makes it anew, or None.

    Args:
        optimizer: "auto", a name of Keras', or whatever else `keras.Model.compile` takes.
        arguments: of the optimizer: learning_rate, warmup, weight_decay, global_clipnorm, beta_1, ...
        owner: the method that was called, for messages.

    Returns:
        (optimizer, plan): the plan is {"optimizer": name, argument: value} where the rate is a schedule of the steps
        that only `fit` knows; `planned_optimizer` makes it.

    Raises:
        TypeError: for an argument that the optimizer does not take, and for any beside an optimizer that is made.
        ValueError: for a value that cannot be used.
    """
    if inspect.isclass(optimizer):
        name = optimizer.__name__
        raise TypeError(f"optimizer={name} is a class: give an object, {name}(...), or a name beside its arguments.")
    if isinstance(optimizer, dict):
        optimizer = keras.optimizers.get(optimizer)
    if not isinstance(optimizer, str):
        if arguments:
            known = () if optimizer is None else keywords_of(type(optimizer))
            refuse_unknown(arguments, (*KERAS_COMPILE, *known, *DEFAULTS), owner)
            name = type(optimizer).__name__
            raise TypeError(
                f"{', '.join(arguments)} beside optimizer=<{name}>, which is made already: set them on the object, "
                f"keras.optimizers.{name}(learning_rate=...), or name the optimizer, compile('adamw', "
                "learning_rate=...)."
            )
        return optimizer, None
    if optimizer != AUTO and not arguments:
        return optimizer, None  # Keras knows its names
    _class_of(optimizer, arguments, owner)
    _check(arguments)
    plan = {"optimizer": optimizer, **arguments}
    if optimizer != AUTO and "warmup" not in arguments:
        return _made(plan, owner), None
    if isinstance(arguments.get("learning_rate", 1.0), keras.optimizers.schedules.LearningRateSchedule):
        raise TypeError(
            "learning_rate is a schedule of your own, but beside optimizer='auto' or warmup=... it is the highest rate "
            "of one: a number. Give an optimizer, compile(training.AdamW(schedule))."
        )
    return planned_optimizer(plan, total_steps=1), plan  # `fit` knows the steps and makes the real one


def planned_optimizer(plan: dict, total_steps: int):
    """The optimizer of a plan, its rate warming up and then falling linearly to zero at the last of the steps.

    Args:
        plan: as `choose_optimizer` returns it; without "optimizer", as files of version 0.4 have it, the default one.
        total_steps: int, updates in all.
    """
    plan = {"optimizer": AUTO, **plan}
    if plan["optimizer"] == AUTO:
        clipped = any(plan.get(clip) is not None for clip in CLIPS)
        plan = {**{name: value for name, value in DEFAULTS.items() if name not in CLIPS or not clipped}, **plan}
    peak = plan.get("learning_rate")
    if peak is None:
        peak = float(_made({"optimizer": plan["optimizer"]}, "").learning_rate)
    rate = WarmupLinear(peak, total_steps, plan.pop("warmup"))
    return _made({**plan, "learning_rate": rate}, "")


def check_rate_callbacks(callbacks, optimizer) -> None:
    """Refuses callbacks that set the learning rate beside an optimizer whose rate is a schedule.

    Raises:
        ValueError: naming the callback; Keras would fail where the rate is first set, after an epoch or more.
    """
    listed = callbacks.callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else tree.flatten(callbacks)
    setting = (keras.callbacks.ReduceLROnPlateau, keras.callbacks.LearningRateScheduler)
    rate = getattr(updating_optimizer(optimizer), "_learning_rate", None)
    for callback in listed:
        if isinstance(callback, setting) and isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            raise ValueError(
                f"{type(callback).__name__} sets the learning rate, which is a {type(rate).__name__} of the steps: "
                f"one of the two. {WAY_OUT} trains with a constant rate that it can set."
            )


def _made(plan: dict, owner: str):
    arguments = dict(plan)
    return _class_of(arguments.pop("optimizer"), arguments, owner)(**arguments)


def _class_of(name: str, arguments: dict, owner: str) -> type:
    """The class of a name that takes the arguments: Keras', or ours of the same name, which has rules by variable."""
    ours = OPTIMIZERS.get(name.lower())
    classes = [AdamW] if name == AUTO else [type(keras.optimizers.get(name)), *([ours] if ours else [])]
    for one in classes:
        if all(argument in (*keywords_of(one), "warmup") for argument in arguments):
            return one
    known = (*KERAS_COMPILE, "warmup", *keywords_of(classes[-1]))
    refuse_unknown(arguments, known, owner)
    raise AssertionError("a class of a name takes all that its base does")


def _check(arguments: dict) -> None:
    """Raises ValueError for numbers that no optimizer can train with."""
    for name in ("learning_rate", "weight_decay", "warmup"):
        value = arguments.get(name)
        if not isinstance(value, Real) or isinstance(value, bool):
            if value is None or (name == "learning_rate" and callable(value)):
                continue
            raise ValueError(f"{name}={value!r} is no number.")
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{name}={value!r}: wanted a finite number of 0 or more.")
    for name in CLIPS:
        value = arguments.get(name)
        if value is not None and not (isinstance(value, Real) and value > 0 and math.isfinite(value)):
            raise ValueError(f"{name}={value!r}: wanted a finite number above 0, or None for no limit.")
