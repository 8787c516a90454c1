"""Learning-rate schedules: a linear warmup, then one of five ways down."""

from __future__ import annotations

import math

import keras
from keras import ops

from tfxformer.arguments.keywords import keywords_of, refuse_unknown
from tfxformer.arguments.plain_values import is_finite_number


def _count(name, value, total_steps):
    """A number of steps from a count, or from a share of all."""
    if not 0 <= value <= (total_steps if isinstance(value, int) else 1.0):
        raise ValueError(f"{name} must be a share from 0 to 1 or a count up to {total_steps}, got {value!r}.")
    return value if isinstance(value, int) else int(value * total_steps)


def _check_peak(peak):
    if not is_finite_number(peak) or peak < 0:
        raise ValueError(f"peak must be a finite rate of 0 or more, got {peak!r}.")
    return float(peak)


def _check_floor(floor, peak):
    if not 0 <= floor <= peak:
        raise ValueError(f"floor must be a rate from 0 to the peak ({peak}), got {floor!r}.")
    return float(floor)


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

    Raises ValueError for fewer than one step.
    """

    def __init__(self, peak, total_steps, warmup=0.1):
        if total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, got {total_steps}.")
        self.peak = _check_peak(peak)
        self.total_steps = int(total_steps)
        self.warmup = warmup
        self.warmup_steps = _count("warmup", warmup, total_steps)

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rising = self.peak * step / max(1, self.warmup_steps)
        return ops.where(step < self.warmup_steps, rising, self._after_warmup(step))

    def _after_warmup(self, step):
        left = ops.maximum(0.0, self.total_steps - step) / max(1, self.total_steps - self.warmup_steps)
        return self._falling(left)

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
        self.floor = _check_floor(floor, peak)

    def _falling(self, left):
        return self.floor + (self.peak - self.floor) * 0.5 * (1.0 - ops.cos(math.pi * left))

    def get_config(self):
        return {**super().get_config(), "floor": self.floor}


@keras.saving.register_keras_serializable("tfxformer")
class WarmupPolynomial(WarmupLinear):
    """Rises linearly from 0 to `peak`, then falls to `floor` at `total_steps` as a power of the steps left.

    Step for step the schedule of `transformers.get_polynomial_decay_schedule_with_warmup` (its floor: 1e-7).

    Args:
        peak, total_steps, warmup: as `WarmupLinear` has them.
        power: float above 0; 1.0 falls on a line.
        floor: float from 0 to `peak`, the lowest rate after the warmup.

    Call: step, the number of updates made -> float32 scalar.

    Raises ValueError for a power that is not above 0.
    """

    def __init__(self, peak, total_steps, warmup=0.1, power=2.0, floor=0.0):
        super().__init__(peak, total_steps, warmup)
        if not power > 0:
            raise ValueError(f"power must be above 0, got {power!r}.")
        self.power = float(power)
        self.floor = _check_floor(floor, peak)

    def _falling(self, left):
        return self.floor + (self.peak - self.floor) * ops.power(left, self.power)

    def get_config(self):
        return {**super().get_config(), "power": self.power, "floor": self.floor}


@keras.saving.register_keras_serializable("tfxformer")
class WarmupInverseSqrt(WarmupLinear):
    """Rises linearly from 0 to `peak`, then falls with the inverse square root of the step, and never ends.

    The schedule of the first Transformer (Vaswani et al., 2017, arXiv:1706.03762, section 5.3), step for step that of
    `transformers.get_inverse_sqrt_schedule`. Without a warmup it begins as if 10,000 steps were made.

    Args:
        peak, warmup: as `WarmupLinear` has them.
        total_steps: int, what a `warmup` in shares is a share of; the rate goes on falling after them.

    Call: step, the number of updates made -> float32 scalar.
    """

    def _after_warmup(self, step):
        scale = self.warmup_steps or 10_000
        return self.peak * ops.rsqrt(ops.maximum(1.0, step + (scale - self.warmup_steps)) / scale)


# The share of the way down from peak to floor that is left, of the share of steps made: 0 to 1.
_SHAPES = {
    "linear": lambda made: 1.0 - made,
    "cosine": lambda made: 0.5 * (1.0 + ops.cos(math.pi * made)),
    "1-sqrt": lambda made: 1.0 - ops.sqrt(made),
}


@keras.saving.register_keras_serializable("tfxformer")
class WarmupStableDecay(WarmupLinear):
    """Rises linearly from 0 to `peak`, stays there, then falls to `floor` in the last steps.

    Training can go on from any step of the stable part, so its length need not be known (Hu et al., 2024,
    arXiv:2404.06395; the shapes: Hägele et al., 2024, arXiv:2405.18392). Step for step the schedule of
    `transformers.get_wsd_schedule`, whose warmup begins at its floor, ours at 0.

    Args:
        peak, total_steps, warmup: as `WarmupLinear` has them.
        decay: the share of `total_steps` that falls, at the end; or an int, the number of updates.
        shape: "linear", "cosine" or "1-sqrt".
        floor: float from 0 to `peak`, the lowest rate after the warmup.

    Call: step, the number of updates made -> float32 scalar.

    Raises ValueError for an unknown shape, and for more steps of warmup and decay than there are.
    """

    def __init__(self, peak, total_steps, warmup=0.1, decay=0.1, shape="linear", floor=0.0):
        super().__init__(peak, total_steps, warmup)
        self.decay = decay
        self.decay_steps = _count("decay", decay, total_steps)
        if self.warmup_steps + self.decay_steps > total_steps:
            raise ValueError(
                f"warmup ({self.warmup_steps} steps) and decay ({self.decay_steps}) are more than all {total_steps}."
            )
        if shape not in _SHAPES:
            raise ValueError(f"shape must be one of {', '.join(_SHAPES)}; got {shape!r}.")
        self.shape = shape
        self.floor = _check_floor(floor, peak)

    def _after_warmup(self, step):
        begin = self.total_steps - self.decay_steps
        made = ops.clip((step - begin) / max(1, self.decay_steps), 0.0, 1.0)
        falling = self.floor + (self.peak - self.floor) * _SHAPES[self.shape](made)
        return ops.where(step < self.total_steps, falling, self.floor)

    def get_config(self):
        return {**super().get_config(), "decay": self.decay, "shape": self.shape, "floor": self.floor}


@keras.saving.register_keras_serializable("tfxformer")
class Scaled(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule, times a factor: what `Recover` makes of one.

    Args:
        schedule: a LearningRateSchedule.
        factor: float.

    Call: step, the number of updates made -> float32 scalar.
    """

    def __init__(self, schedule, factor):
        self.schedule = schedule
        self.factor = float(factor)

    def __call__(self, step):
        return self.factor * self.schedule(step)

    def get_config(self):
        return {"schedule": keras.optimizers.schedules.serialize(self.schedule), "factor": self.factor}

    @classmethod
    def from_config(cls, config):
        return cls(keras.optimizers.schedules.deserialize(config["schedule"]), config["factor"])


SCHEDULES = {
    "linear": WarmupLinear,
    "cosine": WarmupCosine,
    "polynomial": WarmupPolynomial,
    "inverse-sqrt": WarmupInverseSqrt,
    "stable-decay": WarmupStableDecay,
}


def schedule(name, peak, total_steps, warmup=0.1, **kwargs):
    """A schedule by name: a warmup, then "linear", "cosine", "polynomial", "inverse-sqrt" or "stable-decay".

    Args:
        peak, total_steps, warmup: as `WarmupLinear` has them.
        kwargs: of the class: floor, power, decay, shape.

    Raises:
        ValueError: for a name that is not there.
    """
    if name not in SCHEDULES:
        raise ValueError(f"No schedule is named {name!r}; there are {', '.join(SCHEDULES)}.")
    refuse_unknown(kwargs, keywords_of(SCHEDULES[name]), f"schedule({name!r})")
    return SCHEDULES[name](peak, total_steps, warmup, **kwargs)
