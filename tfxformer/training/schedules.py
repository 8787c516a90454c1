"""Learning-rate schedules."""

from __future__ import annotations

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfxformer")
class WarmupLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly from 0 to `peak`, then falls linearly to 0 at `total_steps`, and stays there.

    The schedule of BERT's fine-tuning (Devlin et al., 2018, arXiv:1810.04805), step for step that of
    `transformers.get_linear_schedule_with_warmup`: the very first update has rate 0.

    Args:
        peak: float, the highest rate.
        total_steps: int, updates in all, at least 1.
        warmup: float in [0, 1), the share of `total_steps` that rises; or an int from 0 to `total_steps`, the
            number of updates.

    Call: step, the number of updates made -> float32 scalar.
    """

    def __init__(self, peak, total_steps, warmup=0.1):
        if total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, got {total_steps}.")
        highest = total_steps if isinstance(warmup, int) else 1.0
        if not 0 <= warmup <= highest:
            raise ValueError(f"warmup must be a share from 0 to 1 or a count up to {total_steps}, got {warmup!r}.")
        self.peak = float(peak)
        self.total_steps = int(total_steps)
        self.warmup = warmup
        self.warmup_steps = warmup if isinstance(warmup, int) else int(warmup * total_steps)

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rising = self.peak * step / max(1, self.warmup_steps)
        left = ops.maximum(0.0, self.total_steps - step) / max(1, self.total_steps - self.warmup_steps)
        return ops.where(step < self.warmup_steps, rising, self._falling(left))

    def _falling(self, left):
        """The rate after the warmup, of the share of its steps that are left: 1 to 0."""
        return self.peak * left

    def get_config(self):
        return {"peak": self.peak, "total_steps": self.total_steps, "warmup": self.warmup}


@keras.saving.register_keras_serializable("tfxformer")
class WarmupCosine(WarmupLinear):
    """Rises linearly from 0 to `peak`, then falls along half a cosine to `floor` at `total_steps`, and stays there.

    The usual schedule of training from scratch (Loshchilov and Hutter, 2017, arXiv:1608.03983, without restarts), step
    for step that of `transformers.get_cosine_with_min_lr_schedule_with_warmup`.

    Args:
        peak, total_steps, warmup: as `WarmupLinear` has them.
        floor: float from 0 to `peak`, the lowest rate after the warmup.

    Call: step, the number of updates made -> float32 scalar.
    """

    def __init__(self, peak, total_steps, warmup=0.1, floor=0.0):
        super().__init__(peak, total_steps, warmup)
        if not 0 <= floor <= peak:
            raise ValueError(f"floor must be a rate from 0 to the peak ({peak}), got {floor!r}.")
        self.floor = float(floor)

    def _falling(self, left):
        return self.floor + (self.peak - self.floor) * 0.5 * (1.0 - ops.cos(math.pi * left))

    def get_config(self):
        return {**super().get_config(), "floor": self.floor}
