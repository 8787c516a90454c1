"""What a training step changes for others than the model on JAX, where it is a function of values and writes nothing.

Keras' step there is given weights, optimizer and metrics, and returns them. What is neither goes with the metrics.
"""

from __future__ import annotations

from collections.abc import Callable

import keras

from tfxformer.training.optimizers.optimizers import updating_optimizer


class Carried(keras.metrics.Metric):
    """Variables that are carried through the steps: as a metric without result neither saved nor shown.

    An epoch's end does not reset it.
    """

    def update_state(self, *args, **kwargs):
        """Nothing: a training step writes the variables itself."""

    def reset_state(self):
        """Nothing: what is summed may span the end of an epoch."""

    def result(self) -> dict:
        """Nothing to show."""
        return {}


class Watched(Carried):
    """What a callback sums inside the steps of one `fit`; no checkpoint has it."""


def places_of(model, variables) -> list[int]:
    """Where variables stand among the model's metrics variables."""
    index = {id(variable): place for place, variable in enumerate(model.metrics_variables)}
    return [index[id(variable)] for variable in variables]


def value_in(scope, variable):
    """What a variable holds at the end of a `keras.StatelessScope`."""
    value = scope.get_current_value(variable)
    return variable.value if value is None else value


class _WatchedStep:
    """In the place of a model's `train_step`: the same, which carries what is watched.

    While the optimizer updates, the variables are among its own: an update may stand in a branch of its, and what is
    written there comes out with its state only.
    """

    def __init__(self, model):
        self.model, self.method = model, model.train_step
        self.watched: list[tuple[Watched, Callable | None]] = []

    def __call__(self, state, data):
        trainable, others, optimizer, metrics = state
        variables = [variable for watched, _ in self.watched for variable in watched.variables]
        places, metrics = places_of(self.model, variables), list(metrics)
        mapping = [(variable, metrics[place]) for variable, place in zip(variables, places, strict=True)]
        with keras.StatelessScope(mapping) as scope:
            for _, function in self.watched:
                if function is not None:
                    function(data)
        held = [value_in(scope, variable) for variable in variables]
        own = updating_optimizer(self.model.optimizer)._variables  # the last ones of a loss scaling's, too
        own.extend(variables)
        try:
            logs, state = self.method((trainable, others, [*optimizer, *held], metrics), data)
        finally:
            del own[len(own) - len(variables) :]
        trainable, others, optimizer, metrics = state
        size, metrics = len(optimizer) - len(variables), list(metrics)
        for place, value in zip(places, optimizer[size:], strict=True):
            metrics[place] = value
        return logs, (trainable, others, optimizer[:size], metrics)


def watch(model, watched: Watched, function: Callable | None = None) -> Callable[[], None]:
    """Carries variables through a model's training steps; returns what ends that. The steps are to be traced anew.

    Args:
        model: any compiled Keras model.
        watched: the variables, of which there may be none.
        function: sees each batch, as Keras' datasets have it, and writes to the variables; None for none.
    """
    step = vars(model).get("train_step")
    if not isinstance(step, _WatchedStep):
        step = _WatchedStep(model)
        object.__setattr__(model, "train_step", step)  # past Keras, which would track it
    entry = (watched, function)
    step.watched.append(entry)
    model._metrics.append(watched)
    model.test_function = None  # made for as many metrics as there were

    def end():
        step.watched.remove(entry)
        model._metrics.remove(watched)
        model.test_function = None
        if not step.watched:
            object.__delattr__(model, "train_step")

    return end
