"""When a kernel is pruned and how far: plain values; tfmot's own schedules are made from them to run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from numbers import Integral
from typing import TYPE_CHECKING

from tfxformer.arguments import notices
from tfxformer.arguments.plain_values import is_finite_number

if TYPE_CHECKING:
    from typing_extensions import Self


class Schedule:
    """What the schedules share; a step is one update of the weights, the first update of a fresh optimizer 1.

    A schedule acts at `begin_step`, `begin_step + frequency`, ... up to and including `end_step` (-1: for
    ever). Where it acts the masks are chosen anew; between, they stay. Step 0 is the state before training.
    """

    def get_config(self) -> dict:
        """The arguments of the constructor, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> Self:
        return cls(**config)

    def last_acting_step(self, step: int) -> int | None:
        """The newest step up to `step` at which the schedule acts, or None while there was none."""
        newest = step if self.end_step < 0 else min(step, self.end_step)
        if newest < self.begin_step:
            return None
        return newest - (newest - self.begin_step) % self.frequency

    def _check(self, *sparsities: str) -> None:
        name = type(self).__name__
        for field in sparsities:
            value = getattr(self, field)
            if not is_finite_number(value) or not 0.0 <= value < 1.0:
                raise ValueError(
                    f"{name}: {field} is the fraction of zeros, 0 <= {field} < 1; got {value!r}."
                    + (f" For {value} percent write {value / 100}." if is_finite_number(value) and value >= 1 else "")
                )
        for field in ("begin_step", "end_step", "frequency"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise ValueError(f"{name}: {field} counts steps and must be an integer; got {value!r}.")
            object.__setattr__(self, field, int(value))  # a numpy integer would not go into JSON
        if self.begin_step < 0:
            raise ValueError(f"{name}: begin_step must be 0 or more; got {self.begin_step}.")
        if self.frequency < 1:
            raise ValueError(f"{name}: frequency must be 1 or more; got {self.frequency}.")


@dataclass(frozen=True)
class PolynomialDecay(Schedule):
    """Sparsity that grows fast, then slowly: final + (initial - final) (1 - progress)^power.

    Progress runs from 0 at `begin_step` to 1 at `end_step`. The final sparsity is reached only if the
    schedule acts at `end_step`: let `frequency` divide `end_step - begin_step` (else a warning).
    Source: Zhu and Gupta, To prune, or not to prune (arXiv:1710.01878).

    Attributes:
        initial_sparsity, final_sparsity: fractions of zeros, 0 <= sparsity < 1.
        begin_step, end_step, frequency: updates of the weights; see `Schedule`.
        power: exponent, above 0.

    Raises ValueError for a sparsity outside 0 to 1, and for steps in a wrong order.
    """

    initial_sparsity: float
    final_sparsity: float
    begin_step: int
    end_step: int
    power: float = 3
    frequency: int = 100

    def __post_init__(self):
        self._check("initial_sparsity", "final_sparsity")
        if not is_finite_number(self.power) or self.power <= 0:
            raise ValueError(f"PolynomialDecay: power must be a number above 0; got {self.power!r}.")
        if self.end_step <= self.begin_step:
            raise ValueError(
                f"PolynomialDecay: end_step must come after begin_step; got begin_step={self.begin_step}, "
                f"end_step={self.end_step}. For one sparsity throughout use ConstantSparsity."
            )
        if (self.end_step - self.begin_step) % self.frequency:
            last = self.last_acting_step(self.end_step)
            notices.warn(
                f"PolynomialDecay: with frequency={self.frequency} the last mask is chosen at step {last}, "
                f"so final_sparsity={self.final_sparsity} of step {self.end_step} is not quite reached. "
                "Choose a frequency that divides end_step - begin_step, or another end_step."
            )


@dataclass(frozen=True)
class ConstantSparsity(Schedule):
    """One sparsity from `begin_step` on, its masks chosen anew every `frequency` steps.

    Attributes:
        target_sparsity: fraction of zeros, 0 <= sparsity < 1.
        begin_step, end_step, frequency: updates of the weights; see `Schedule`. end_step=begin_step chooses
            the masks once.

    Raises ValueError for a sparsity outside 0 to 1, and for steps in a wrong order.
    """

    target_sparsity: float
    begin_step: int
    end_step: int = -1
    frequency: int = 100

    def __post_init__(self):
        self._check("target_sparsity")
        if self.end_step != -1 and self.end_step < self.begin_step:
            raise ValueError(
                f"ConstantSparsity: end_step must be begin_step or later, or -1 for ever; got "
                f"begin_step={self.begin_step}, end_step={self.end_step}."
            )
