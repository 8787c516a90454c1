"""The learning-rate range test: how the loss answers to a rate that grows from step to step."""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from tfxformer.figures import BLUE, SKY, VERMILION, figure, plain_log, save_figure
from tfxformer.training.optimizers.optimizers import updating_optimizer
from tfxformer.training.resume.state import State, value_of


class LearningRates(NamedTuple):
    """What a range test found.

    Attributes:
        rates: float64 [steps made], growing.
        losses: float64 [steps made], of the batch each was met on, before its update.
        suggestion: the rate at which the smoothed loss falls fastest; None where it never falls.
    """

    rates: np.ndarray
    losses: np.ndarray
    suggestion: float | None

    def plot(self, path) -> None:
        """Writes the curve as an image, of the kind that the name ends on (.png, .svg), whole or not at all."""
        drawn, (panel,) = figure(1, (6.5, 3.8))
        panel.plot(self.rates, self.losses, color=SKY, alpha=0.6, label="loss of each batch")
        panel.plot(self.rates, _smooth(self.losses), color=BLUE, label="smoothed")
        if self.suggestion is not None:
            label = f"suggestion {self.suggestion:.2g}: the loss falls fastest"
            panel.axvline(self.suggestion, color=VERMILION, linestyle="--", label=label)
        panel.set(title="Learning-rate range test", xlabel="learning rate, growing from step to step", ylabel="loss")
        plain_log(panel.xaxis)
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
        save_figure(drawn, path)


def find_learning_rate(
    model, x, y=None, *, sample_weight=None, batch_size=None, lowest=1e-7, highest=1.0, steps=100, plot=None
) -> LearningRates:
    """Trains with a rate that grows exponentially, gives the model back as it was, and suggests the highest rate.

    The test of Smith (2017, arXiv:1506.01186). It ends early where the loss is not finite, or, in means over a few
    steps, three times as far above its lowest as it began. Weights, random states, optimizer and metrics are restored
    exactly, on errors too.

    Args:
        model: a compiled model, of which `fit` takes the data.
        x, y, sample_weight, batch_size: as `fit` has them; shuffled and gone through again as often as need be.
        lowest, highest: floats, the first and the last rate.
        steps: int, updates from the one to the other, at least 10.
        plot: path of an image to write, or None.

    Raises:
        ValueError: for a model that is not compiled, or a range that is none.
    """
    if getattr(model, "optimizer", None) is None:
        raise ValueError("The model has no optimizer: compile it first; the rate is found for its optimizer.")
    if not 0 < lowest < highest or steps < 10:
        raise ValueError(f"Wanted 0 < lowest < highest and at least 10 steps; got {lowest}, {highest} and {steps}.")
    sweep = _Sweep(lowest, highest, steps)
    optimizer, train_function, stopping = model.optimizer, model.train_function, model.stop_training
    try:
        arguments = {} if batch_size is None else {"batch_size": batch_size}
        if sample_weight is not None:
            arguments["sample_weight"] = sample_weight
        model.fit(x, y, epochs=steps, verbose=0, callbacks=[sweep], **arguments)
    finally:
        sweep.restore()
        if model.optimizer is not optimizer:  # a task makes a new default one for each fit
            model.optimizer = optimizer
        model.train_function, model.stop_training = train_function, stopping
    found = LearningRates(np.array(sweep.rates), np.array(sweep.losses), _suggest(sweep.rates, sweep.losses))
    if plot is not None:
        found.plot(plot)
    return found


class _Exponential(keras.optimizers.schedules.LearningRateSchedule):
    """lowest * factor^(step - begin)."""

    def __init__(self, lowest, factor, begin):
        self.lowest, self.factor, self.begin = lowest, factor, begin

    def __call__(self, step):
        made = ops.cast(step - self.begin, "float32")
        return self.lowest * ops.exp(math.log(self.factor) * made)

    def get_config(self):
        return {"lowest": self.lowest, "factor": self.factor, "begin": self.begin}


class _Sweep(keras.callbacks.Callback):
    """Puts the growing rate into the optimizer once all is built, and writes down what each execution saw."""

    def __init__(self, lowest, highest, steps):
        super().__init__()
        self.lowest, self.highest, self.steps = lowest, highest, steps
        self.factor = (highest / lowest) ** (1 / (steps - 1))
        self.rates, self.losses, self._state, self._lowest = [], [], None, math.inf

    def on_train_begin(self, logs=None):
        self._optimizer = updating_optimizer(self.model.optimizer)
        self._state = State(self.model)
        self._rate = self._optimizer._learning_rate  # the setter would forget the variable of a constant rate
        self._begin = int(value_of(self._optimizer._iterations))
        self._optimizer._learning_rate = _Exponential(self.lowest, self.factor, self._begin)
        self.model.make_train_function(force=True)

    def restore(self):
        """The state of before `fit`, if it came to begin."""
        if self._state is not None:
            self._optimizer._learning_rate = self._rate
            self._state.restore()

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()  # the loss is then that of this execution alone
        self._first = int(value_of(self._optimizer._iterations))

    def on_train_batch_end(self, batch, logs=None):
        after, loss = int(value_of(self._optimizer._iterations)), float(logs["loss"])
        if not math.isfinite(loss):
            self.model.stop_training = True
            return
        if after == self._first:  # float16 overflowed, and the update was left out
            return
        self.rates.append(self.lowest * self.factor ** ((self._first + after - 1) / 2 - self._begin))
        self.losses.append(loss)
        self.model.stop_training = after - self._begin >= self.steps or self._diverged()

    def _diverged(self) -> bool:
        """Whether the mean of a few steps is three times as far above its lowest as the first steps were."""
        reach, first = max(3, self.steps // 20), max(8, self.steps // 10)
        mean, highest = float(np.mean(self.losses[-reach:])), max(self.losses[:first])
        self._lowest = min(self._lowest, mean)
        # Before the first steps are seen, it is unknown how far batches differ: three easy ones may come first.
        return len(self.losses) > first and mean - self._lowest > 3 * max(highest - self._lowest, 0.1 * abs(highest))


def _smooth(losses) -> np.ndarray:
    """Means over a tenth of the steps around each."""
    losses = np.asarray(losses, np.float64)
    reach = max(1, len(losses) // 20)
    padded = np.pad(losses, reach, mode="edge")
    return np.convolve(padded, np.ones(2 * reach + 1) / (2 * reach + 1), mode="valid")


def _suggest(rates, losses) -> float | None:
    """The rate of the steepest descent over log(rate), before the lowest smoothed loss."""
    if len(rates) < 5:
        return None
    smooth = _smooth(losses)
    slopes = np.gradient(smooth, np.log(rates))[: int(smooth.argmin()) + 1]
    steepest = int(slopes.argmin())
    return float(rates[steepest]) if slopes[steepest] < 0 else None
