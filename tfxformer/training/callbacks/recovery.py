"""Going on after a blow-up: back to the last good state, at a lower rate."""

from __future__ import annotations

import math
import statistics
from collections import deque
from pathlib import Path
from typing import NamedTuple

import keras

from tfxformer.arguments import notices
from tfxformer.training.optimizers.optimizers import updating_optimizer
from tfxformer.training.optimizers.schedules import Scaled
from tfxformer.training.resume.state import State, value_of

_WINDOW = 50  # losses whose median a spike is measured by
_ENOUGH = 10  # of them, before one can be told


class Recovery(NamedTuple):
    """One entry of `Recover.events`.

    Attributes:
        epoch, batch: where the loss blew up, as callbacks count them.
        loss: that of the batch.
        reason: "not finite" or "spike".
        step, restored_step: the optimizer's updates then, and those of the state gone back to.
        factor: what all rates are multiplied by since.
    """

    epoch: int
    batch: int
    loss: float
    reason: str
    step: int
    restored_step: int
    factor: float


class TrainingDivergedError(RuntimeError):
    """`Recover` has gone back as often as it may; the model is in its last good state."""


class Recover(keras.callbacks.Callback):
    """When the loss is not finite or jumps, goes back to the last good state and on with the next batch.

    Weights, random states, optimizer and metrics are put back as they were; the batches since are skipped. A state is
    good once the loss of the batch after it is. With `steps_per_execution` the loss is that of an execution.

    `events` lists what happened, and each recovery is a warning. Put it first among the callbacks.

    Args:
        factor: float above 0, up to 1: the rate is multiplied by it at each recovery; 1.0 only skips the batches. A
            schedule becomes a `schedules.Scaled`, and the step is traced again.
        spike: float above 1: a loss more than so many times the median of the last 50 is a blow-up too (where that
            is above 0); None looks for losses that are not finite alone.
        every: int, batches between two states kept; a copy of all variables is made each time.
        limit: int, recoveries in one `fit` before it ends with an error.
        path: a file (.npz) to keep the state in for the time of `fit`, None for memory.

    Raises:
        TrainingDivergedError: after `limit` recoveries; the model has its last good state.
    """

    def __init__(self, factor=0.5, spike=4.0, every=100, limit=3, path=None):
        super().__init__()
        if not 0 < factor <= 1:
            raise ValueError(f"factor multiplies the rate, above 0 and up to 1; got {factor!r}.")
        if spike is not None and not spike > 1:
            raise ValueError(f"spike is how many times the median loss is too much, above 1, or None; got {spike!r}.")
        if every < 1 or limit < 0:
            raise ValueError(f"every must be at least 1 and limit at least 0; got {every!r} and {limit!r}.")
        self.factor, self.spike, self.every, self.limit, self.path = factor, spike, every, limit, path
        self.events: list[Recovery] = []

    def on_train_begin(self, logs=None):
        rate = updating_optimizer(self.model.optimizer)._learning_rate
        if self.factor < 1 and not isinstance(rate, (keras.Variable, keras.optimizers.schedules.LearningRateSchedule)):
            raise TypeError(
                f"The optimizer's rate is {rate!r}, which cannot be lowered: give it a number or a "
                "LearningRateSchedule, or Recover(factor=1.0)."
            )
        self.events = []
        self._losses = deque(maxlen=_WINDOW)
        self._good = self._new = None  # states proven by a loss, and waiting for one

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._batch = epoch, -1
        self._sums = self._read_sums()
        self._keep()  # the metrics have begun anew

    def on_train_batch_end(self, batch, logs=None):
        loss = self._loss_since_last(logs)
        reason = self._reason(loss)
        if reason:
            self._recover(batch, loss, reason)
        else:
            self._losses.append(loss)
            self._accept()
            self._since += batch - self._batch
            if self._since >= self.every:
                self._keep()
        self._batch = batch

    def on_train_end(self, logs=None):
        self._discard()

    # ---- resuming ---------------------------------------------------------------------------------------------

    def resume_state(self) -> dict:
        """What a `Resume` keeps of it: JSON values, and the good states as lists of arrays."""
        states = {"good": self._good, "new": self._new}
        return {
            "events": [list(event) for event in self.events],
            "losses": list(self._losses),
            "since": self._since,
            "batch": self._batch,
            "epoch": self._epoch,
            "about": {name: [kept.step, kept.epoch] for name, kept in states.items() if kept is not None},
            **{name: None if kept is None else kept.state.values() for name, kept in states.items()},
        }

    def resume_from(self, state: dict) -> None:
        """Goes on as after `resume_state`."""
        self.events = [Recovery(*event) for event in state["events"]]
        self._losses.extend(state["losses"][-_WINDOW:])
        self._since, self._batch, self._epoch = state["since"], state["batch"], state["epoch"]
        self._discard()
        for name in ("good", "new"):
            if state[name] is not None:
                self._keep()
                self._new.state.put(state[name])
                self._new = _Kept(self._new.state, *state["about"][name])
                if name == "good":
                    self._good, self._new = self._new, None
        self._since = state["since"]
        self._sums = self._read_sums()

    # ---- the loss ---------------------------------------------------------------------------------------------

    def _read_sums(self):
        """The sum of losses and their weight in Keras' own metric of the loss; None where a model has none."""
        for metric in self.model.metrics:
            if metric.name == "loss" and isinstance(metric, keras.metrics.Mean):
                return float(value_of(metric.total)), float(value_of(metric.count))
        return None

    def _loss_since_last(self, logs) -> float:
        """The mean loss of the batches since the last call: what Keras logs is the mean of the epoch so far."""
        before, self._sums = self._sums, self._read_sums()
        if before is None or self._sums is None:
            return float(logs["loss"])
        if self._sums[1] <= before[1]:  # something else has reset the metrics
            before = (0.0, 0.0)
        return (self._sums[0] - before[0]) / max(self._sums[1] - before[1], 1e-9)

    def _reason(self, loss) -> str | None:
        if not math.isfinite(loss):
            return "not finite"
        if self.spike is None or len(self._losses) < _ENOUGH:
            return None
        median = statistics.median(self._losses)
        return "spike" if 0 < self.spike * median < loss else None

    # ---- the states -------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        path = self.path
        if path is not None:  # beside the good one, not over it
            taken = self._good is not None and self._good.state.path
            path = next(one for one in (Path(path), Path(f"{path}.new")) if one != taken)
        step = int(value_of(updating_optimizer(self.model.optimizer).iterations))
        self._new, self._since = _Kept(State(self.model, path), step, self._epoch), 0

    def _accept(self) -> None:
        if self._new is not None:
            if self._good is not None:
                self._good.state.discard()
            self._good, self._new = self._new, None

    def _discard(self) -> None:
        for kept in (self._good, self._new):
            if kept is not None:
                kept.state.discard()
        self._good = self._new = None

    def _recover(self, batch, loss, reason) -> None:
        optimizer = updating_optimizer(self.model.optimizer)
        step, rate = int(value_of(optimizer.iterations)), optimizer._learning_rate
        rate = float(value_of(rate)) if isinstance(rate, keras.Variable) else rate
        if self._good is None:
            self._good = self._new  # nothing but the beginning
        elif self._new is not None:
            self._new.state.discard()
        self._new, self._since = None, 0
        kept = self._good
        kept.state.restore()
        if kept.epoch != self._epoch:
            self.model.reset_metrics()
        self._sums = self._read_sums()
        factor = self.factor ** (len(self.events) + 1)
        self.events.append(Recovery(self._epoch, batch, loss, reason, step, kept.step, factor))
        said = f"the loss of batch {batch} in epoch {self._epoch} was {loss:.4g} ({reason})"
        if len(self.events) > self.limit:
            self._discard()
            raise TrainingDivergedError(
                f"Training blew up {len(self.events)} times: {said}. The model is as it was after {kept.step} updates. "
                "Lower the rate, lengthen the warmup, clip gradients (global_clipnorm), or look at the data; "
                "find_learning_rate shows which rates a model stands."
            )
        self._set_rate(optimizer, rate)
        after = f" and rates times {factor:.4g}" if self.factor < 1 else ""
        notices.warn(f"Recover: {said}; back to the state after {kept.step} updates{after}.")

    def _set_rate(self, optimizer, rate) -> None:
        """The rate of before, lowered."""
        if isinstance(rate, float):
            optimizer.learning_rate = rate * self.factor
        elif self.factor < 1:
            plain, factor = (rate.schedule, rate.factor) if isinstance(rate, Scaled) else (rate, 1.0)
            optimizer.learning_rate = Scaled(plain, factor * self.factor)
            self.model.make_train_function(force=True)


class _Kept(NamedTuple):
    state: State
    step: int
    epoch: int
