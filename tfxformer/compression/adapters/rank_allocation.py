"""AdaLoRA's budget: which ranks of which layers stay, chosen again and again while a `fit` trains them.

Source: Zhang et al., 2023 (arXiv:2303.10512), section 3.2.
"""

from __future__ import annotations

from numbers import Integral

import keras
import numpy as np
from keras import ops

from tfxformer.compression.adapters.adapters import Adapters
from tfxformer.layers.adapters.low_rank import SingularValues
from tfxformer.training.optimizers.optimizers import updating_optimizer
from tfxformer.training.step.hooks import on_gradients
from tfxformer.training.step.sums import StepSums, between_steps


class AllocateRanks(keras.callbacks.Callback):
    """Takes the least important ranks of an AdaLoRA while `fit` trains it, until `rank` of each layer are left on
    average.

    The importance of a rank is that of its singular value and the mean of its two vectors'; that of a weight is the
    smoothed |weight * gradient| times its smoothed change. At `begin_step`, then every `frequency` updates, the ranks
    of all layers are compared; those beyond the budget, which falls as (1 - progress)^3, get the singular value zero.
    They may come back until `end_step`; then they stay zero. History gets "rank", the mean of what is left.

    Args:
        adapters: `Adapters` whose active adapter is an `AdaLoRA`.
        rank: int, the mean in the end; below the adapter's at first.
        begin_step, end_step, frequency: int, updates of this `fit`; leave a part of them for after `end_step`.
        beta_1, beta_2: float, how much of the smoothed importance and of its change an update keeps.

    Raises ValueError for numbers out of their range, and when a fit begins without an active AdaLoRA.
    """

    def __init__(self, adapters: Adapters, rank, begin_step, end_step, frequency=10, beta_1=0.85, beta_2=0.85):
        super().__init__()
        for name, value, least in (
            ("rank", rank, 1),
            ("begin_step", begin_step, 0),
            ("end_step", end_step, begin_step + 1),
            ("frequency", frequency, 1),
        ):
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise ValueError(f"AllocateRanks: {name} is an integer of {least} or more; got {value!r}.")
        self.adapters, self.rank = adapters, rank
        self.begin_step, self.end_step, self.frequency = begin_step, end_step, frequency
        self.betas = beta_1, beta_2
        self._end = None

    # ---- the callback -----------------------------------------------------------------------------------------

    def on_train_begin(self, logs=None):
        self._parts = self._singular_values()
        self._updates = updating_optimizer(self.model.optimizer).iterations
        self._first = int(self._updates)
        self._next = self.begin_step
        factors = [factor for part in self._parts for factor in (part.a, part.e, part.b)]
        self._places = {id(factor): 2 * index for index, factor in enumerate(factors)}
        shapes = [shape for factor in factors for shape in (factor.shape, factor.shape)]
        self._sums = StepSums(self.model, [*shapes, *(part.e.shape for part in self._parts)])
        self._zeros = range(len(shapes), len(shapes) + len(self._parts))
        for part, place in zip(self._parts, self._zeros, strict=True):
            part.e.constraint = _Kept(self._sums.variables[place])
        self._end = on_gradients(self.model, self._see, self._sums)

    def on_train_batch_end(self, batch, logs=None):
        if self._next is None:
            return
        between_steps(self.model)
        step = int(self._updates) - self._first
        if step < self._next:
            return
        self._choose(step)
        if step >= self.end_step:
            self._hold()
            self._next = None
        else:
            steps = step - self.begin_step
            self._next = min(self.end_step, self.begin_step + (steps // self.frequency + 1) * self.frequency)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["rank"] = float(np.mean([np.count_nonzero(part.e) for part in self._parts]))

    def on_train_end(self, logs=None):
        if self._next is not None:  # a fit that ended early
            self._choose(self.end_step)
        for part in self._parts:
            part.e.constraint = None
        self._end()
        self._sums = None

    # ---- the parts --------------------------------------------------------------------------------------------

    def _singular_values(self) -> list[SingularValues]:
        parts = list(self.adapters.layers.values())
        if not parts or not all(isinstance(part, SingularValues) for part in parts):
            raise ValueError(
                f"AllocateRanks takes ranks of an AdaLoRA; the active adapter is {self.adapters.active!r}, none of "
                "that kind. add() one: compression.AdaLoRA(rank=12)."
            )
        if len({part.rank for part in parts}) > 1:
            raise ValueError("AllocateRanks: the layers of this adapter have different ranks: it was allotted already.")
        if self.rank >= parts[0].rank:
            raise ValueError(f"AllocateRanks: rank={self.rank} is to be below the adapter's {parts[0].rank} at first.")
        return parts

    def _see(self, gradients, variables):
        """In the graph: what each update says of the importance of each weight."""
        beta_1, beta_2 = self.betas
        for gradient, variable in zip(gradients, variables, strict=True):
            place = self._places.get(id(variable))
            if gradient is None or place is None:
                continue
            importance, change = self._sums.variables[place : place + 2]
            now = ops.abs(ops.cast(gradient, "float32") * ops.cast(variable.value, "float32"))
            smoothed = beta_1 * importance + (1 - beta_1) * now
            change.assign(beta_2 * change + (1 - beta_2) * ops.abs(now - smoothed))
            importance.assign(smoothed)

    def budget(self, step: int) -> int:
        """How many ranks of all layers are left after `step` updates."""
        count, initial = len(self._parts), self._parts[0].rank
        progress = min(1.0, max(0.0, (step - self.begin_step) / (self.end_step - self.begin_step)))
        return round(count * (self.rank + (initial - self.rank) * (1 - progress) ** 3))

    def _scores(self) -> np.ndarray:
        """The importance of each rank: [layers, r]."""

        def of(factor):
            place = self._places[id(factor)]
            return self._sums.read(place) * self._sums.read(place + 1)

        return np.stack([of(part.e) + of(part.a).mean(axis=0) + of(part.b).mean(axis=1) for part in self._parts])

    def _choose(self, step: int) -> None:
        """Sets the singular values beyond the budget to zero."""
        scores = self._scores()
        kept = np.zeros(scores.size, bool)
        kept[np.argsort(-scores, axis=None, kind="stable")[: self.budget(step)]] = True
        for part, mask in zip(self._parts, kept.reshape(scores.shape), strict=True):
            part.e.assign(np.asarray(part.e) * mask)

    def _hold(self) -> None:
        """From now on zeros stay zeros."""
        for part, place in zip(self._parts, self._zeros, strict=True):
            self._sums.write((np.asarray(part.e) == 0).astype("float32"), place)


class _Kept(keras.constraints.Constraint):
    """Keeps singular values zero where `zeros` is 1; the optimizer applies it inside the step."""

    def __init__(self, zeros):
        self.zeros = zeros

    def __call__(self, w):
        return ops.convert_to_tensor(w) * (1 - self.zeros)
