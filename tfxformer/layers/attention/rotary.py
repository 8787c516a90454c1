"""Rotary positions (Su et al., 2021, arXiv:2104.09864) and the ways in which they are stretched to longer texts."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import keras
import numpy as np
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords

ROTARY_KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope", "ntk")


@dataclass(frozen=True)
class Rotary:
    """Which angles turn queries and keys.

    Attributes:
        base: theta; channel pair i turns by position * base ** (-2 i / width).
        fraction: share of a head's channels that turn, the first ones.
        kind: "default"; "linear" divides positions by `factor` (arXiv:2306.15595); "dynamic" raises the base with
            the sequence once it is longer than trained; "llama3" slows the slow pairs only (Llama 3.1); "yarn" blends
            both (Peng et al., 2023, arXiv:2309.00071); "longrope" divides each pair's frequency by a factor of its
            own, another one once the sequence is longer than trained (Ding et al., 2024, arXiv:2402.13753); "ntk"
            multiplies the base by `factor` and divides positions by factor ** (2 / R) (kexue.fm/archives/9706).
        factor: how much longer than trained sequences may be.
        original_max_positions: tokens it was trained on; needed by all kinds but "default", "linear" and "ntk".
        low_frequency_factor, high_frequency_factor: bounds of the blend in "llama3".
        beta_fast, beta_slow: turns over the trained length that bound the blend in "yarn".
        attention_factor: what cosines and sines are multiplied by in "yarn" and "longrope"; None for the papers'.
        short_factors, long_factors: of "longrope", a number for each of the R / 2 pairs.

    Raises ValueError for an unknown kind, and for numbers that are out of their range or missing for the kind.
    """

    base: float = 10000.0
    fraction: float = 1.0
    kind: str = "default"
    factor: float = 1.0
    original_max_positions: int | None = None
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    short_factors: tuple[float, ...] | None = None
    long_factors: tuple[float, ...] | None = None

    def __post_init__(self):
        if self.kind not in ROTARY_KINDS:
            raise ValueError(f"Unknown kind of rotary positions {self.kind!r}; known: {', '.join(ROTARY_KINDS)}.")
        for name in ("base", "factor", "attention_factor"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"The rotary {name} must be a finite number above 0, not {value!r}.")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"The rotary fraction must be above 0 and at most 1, not {self.fraction!r}.")
        for name in ("short_factors", "long_factors"):
            self._check_factors(name)
        if self.kind not in ("default", "linear", "ntk") and not self.original_max_positions:
            raise ValueError(f"Rotary positions of kind {self.kind!r} need original_max_positions.")
        if self.kind != "default" and self.factor < 1:
            raise ValueError(f"The rotary factor must be at least 1, not {self.factor!r}.")

    def _check_factors(self, name: str) -> None:
        factors = getattr(self, name)
        if (factors is not None) != (self.kind == "longrope"):
            raise ValueError(f"{name} are what rotary positions of kind 'longrope' have, and no others.")
        if factors is not None:
            if not all(isinstance(one, (int, float)) and 0 < one < math.inf for one in factors):
                raise ValueError(f"The rotary {name} must be finite numbers above 0, not {factors!r:.80}.")
            object.__setattr__(self, name, tuple(factors))  # a list of a JSON file

    def width(self, head_size: int) -> int:
        """R, the channels of a head that turn."""
        width = int(head_size * self.fraction)
        if width < 2 or width % 2 or (width == 2 and self.kind == "dynamic"):
            raise ValueError(f"{width} of {head_size} channels cannot turn in pairs: rotary fraction {self.fraction}.")
        for name in ("short_factors", "long_factors"):
            if self.kind == "longrope" and len(getattr(self, name)) != width // 2:
                raise ValueError(
                    f"The rotary {name} are {len(getattr(self, name))}, for {width // 2} pairs of channels."
                )
        return width

    @property
    def scale(self) -> float:
        """What cosines and sines are multiplied by."""
        if self.kind not in ("yarn", "longrope"):
            return 1.0
        if self.attention_factor is not None:
            return self.attention_factor
        if self.kind == "longrope":
            return math.sqrt(1.0 + math.log(self.factor) / math.log(self.original_max_positions))
        return 0.1 * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0


def inverse_frequencies(rotary: Rotary, head_size: int, longer: bool = False) -> np.ndarray:
    """Radians per position of each pair, float32 [R / 2], at the trained length or a `longer` one (LongRoPE)."""
    width = rotary.width(head_size)
    base = rotary.base * rotary.factor if rotary.kind == "ntk" else rotary.base
    frequencies = base ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    if rotary.kind == "linear":
        frequencies = frequencies / rotary.factor
    elif rotary.kind == "ntk":
        frequencies = frequencies / rotary.factor ** (2 / width)
    elif rotary.kind == "llama3":
        frequencies = _llama3(rotary, frequencies)
    elif rotary.kind == "yarn":
        frequencies = _yarn(rotary, frequencies, width)
    elif rotary.kind == "longrope":
        frequencies = frequencies / np.array(rotary.long_factors if longer else rotary.short_factors)
    return frequencies.astype(np.float32)


def _llama3(rotary: Rotary, frequencies):
    """Keeps the fast pairs, divides the slow ones by the factor, and blends between."""
    turns = rotary.original_max_positions * frequencies / (2 * math.pi)  # over the trained length
    low, high = rotary.low_frequency_factor, rotary.high_frequency_factor
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return kept * frequencies + (1.0 - kept) * frequencies / rotary.factor


def _yarn(rotary: Rotary, frequencies, width: int):
    """As `_llama3`, the blend linear in the pair's index instead of its frequency."""

    def pair(turns):  # index of the pair that makes so many turns over the trained length
        return width * math.log(rotary.original_max_positions / (turns * 2 * math.pi)) / (2 * math.log(rotary.base))

    low = max(math.floor(pair(rotary.beta_fast)), 0)
    high = min(math.ceil(pair(rotary.beta_slow)), width - 1)
    slow = np.clip((np.arange(width // 2) - low) / max(high - low, 0.001), 0.0, 1.0)
    return (1.0 - slow) * frequencies + slow * frequencies / rotary.factor


def rotate(x, cosine, sine):
    """Turns channel i with channel i + R / 2 of each head, for the first R channels.

    Args:
        x: [B, N, S, H].
        cosine, sine: broadcastable to [B, N, S, R], as `RotaryPositions` gives them: the sines of the first half
            negative.
    """
    width = cosine.shape[-1]
    half, turned = width // 2, x if width == x.shape[-1] else x[..., :width]  # a whole slice is an operator, too
    cosine, sine = ops.cast(cosine, x.dtype), ops.cast(sine, x.dtype)
    swapped = ops.concatenate([turned[..., half:], turned[..., :half]], axis=-1)
    turned = turned * cosine + swapped * sine  # whole rows: half as many operators as by halves
    return turned if width == x.shape[-1] else ops.concatenate([turned, x[..., width:]], axis=-1)


@keras.saving.register_keras_serializable("tfxformer")
class RotaryPositions(KnownKeywords, keras.layers.Layer):
    """The cosines and sines that `rotate` takes, computed once for all blocks.

    Args:
        rotary: `Rotary` or its dict.
        head_size: int H.

    Attributes:
        shift: int, 0; what is added to the positions (`prefix.Prefix` stands in front).

    Call: positions int32 [B, S] -> (cosine, sine), each float32 [B, 1, S, R], once for either half; the sines of the
    first half are negative.
    """

    def __init__(self, rotary, head_size, **kwargs):
        super().__init__(**kwargs)
        self.rotary = Rotary(**rotary) if isinstance(rotary, dict) else rotary
        self.head_size = head_size
        self._frequencies = inverse_frequencies(self.rotary, head_size)
        self.shift = 0
        self.built = True

    def call(self, positions):
        positions = positions + self.shift if self.shift else positions
        frequencies = self._frequencies
        if self.rotary.kind == "dynamic":
            frequencies = self._stretched(ops.max(positions) + 1)
        elif self.rotary.kind == "longrope":
            longer = ops.max(positions) + 1 > self.rotary.original_max_positions
            frequencies = ops.where(longer, inverse_frequencies(self.rotary, self.head_size, True), frequencies)
        angles = ops.expand_dims(ops.cast(positions, "float32"), -1) * frequencies  # [B, S, R / 2]
        angles = ops.expand_dims(angles, 1)
        cosine, sine = ops.cos(angles) * self.rotary.scale, ops.sin(angles) * self.rotary.scale
        return ops.concatenate([cosine, cosine], axis=-1), ops.concatenate([-sine, sine], axis=-1)

    def _stretched(self, length):
        """Frequencies of a base that grows with the sequence once it is longer than trained."""
        rotary, width = self.rotary, self.rotary.width(self.head_size)
        trained = rotary.original_max_positions
        length = ops.cast(ops.maximum(length, trained), "float32")
        growth = rotary.factor * length / trained - (rotary.factor - 1.0)
        base = rotary.base * growth ** (width / (width - 2))
        return ops.exp(-ops.log(base) * np.arange(0, width, 2, dtype=np.float32) / width)

    def compute_output_spec(self, positions):
        shape = (positions.shape[0], 1, positions.shape[1], 2 * len(self._frequencies))
        return keras.KerasTensor(shape, dtype="float32"), keras.KerasTensor(shape, dtype="float32")

    def get_config(self):
        return {**super().get_config(), "rotary": asdict(self.rotary), "head_size": self.head_size}
