"""How the next token is chosen from the logits: values that a compiled loop reads as tensors.

Shape letters: B rows, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
from keras import ops

from tfxformer.layers.kernels.random_bits import random_bits


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_share(name: str, value) -> None:
    _require(0 < value <= 1, f"{name} must be above 0 and at most 1 (1 keeps all tokens), not {value!r}.")


def keep_best(scores, weights, target):
    """The fewest best tokens of each row that weigh `target` together; tokens that tie with the last are kept too.

    The lowest kept score is searched bit by bit, 32 sums over the row: exact, and cheaper than to sort V scores.

    Args:
        scores: float32 [B, V], higher is better.
        weights: float32 [B, V], not negative.
        target: float32 scalar; where it is above the sum, all are kept.

    Returns:
        bool [B, V].
    """
    bits = ops.cast(ops.view(scores, "int32"), "uint32")
    sign = np.uint32(1 << 31)
    # As unsigned integers in the order of the floats: negative ones reversed, and below the others. By the sign bit: a
    # processor that takes tiny numbers for zero does not say that they are below it.
    keys = ops.where(bits >= sign, ops.bitwise_not(bits), ops.bitwise_or(bits, sign))

    def narrow(index, lowest):
        trial = ops.bitwise_or(lowest, ops.right_shift(ops.full_like(lowest, sign), ops.cast(index, "uint32")))
        weight = ops.sum(ops.where(keys >= trial, weights, 0.0), axis=-1, keepdims=True)
        return ops.where(weight >= target, trial, lowest)

    lowest = ops.fori_loop(0, 32, narrow, ops.zeros_like(keys[:, :1]))
    return keys >= lowest


@dataclass(frozen=True)
class Sampler:
    """What all samplers are: frozen values; a compiled loop is traced for their class and reads them as tensors.

    Attributes:
        temperature: what logits are divided by; below 1 for safer, above 1 for more surprising tokens.
    """

    temperature: float = field(default=1.0, kw_only=True)

    def __post_init__(self):
        _require(
            0 < self.temperature < float("inf"),
            f"temperature must be above 0, not {self.temperature!r}; for the most probable token take Greedy().",
        )

    def values(self) -> dict:
        """The numbers of this sampler, by name."""
        return {name: np.float32(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def kept(cls, logits, values):
        """Which tokens may be drawn: float32 logits [B, V], after temperature -> bool [B, V]."""
        return ops.ones_like(logits, dtype="bool")

    @classmethod
    def distribution(cls, logits, values):
        """The logits that tokens are drawn from: float32 [B, V] -> [B, V], -inf at tokens that are not kept."""
        logits = logits / values["temperature"]
        return ops.where(cls.kept(logits, values), logits, -np.inf)

    @classmethod
    def choose(cls, logits, values, seed):
        """Draws a token for each row.

        Args:
            logits: float32 [B, V].
            values: dict of float32 scalars, see `values`.
            seed: uint32 [2]; the same seed draws the same, whatever the other rows hold.

        Returns:
            int32 [B].
        """
        shape = (logits.shape[0], logits.shape[1])
        uniform = (ops.cast(random_bits(shape, seed), "float32") + 0.5) * np.float32(2.0**-32)
        # The race of exponentials (Gumbel, 1954): the highest logit - log(e) is a draw from the softmax. log1p, since
        # it is the small e that win, and they have all their bits where the uniform numbers are small.
        waiting = -ops.log1p(-ops.minimum(uniform, np.float32(1.0 - 2.0**-24)))
        return ops.cast(ops.argmax(cls.distribution(logits, values) - ops.log(waiting), axis=-1), "int32")


@dataclass(frozen=True)
class Greedy(Sampler):
    """The most probable token; of equal ones the first. A temperature changes nothing."""

    @classmethod
    def choose(cls, logits, values, seed):
        return ops.cast(ops.argmax(logits, axis=-1), "int32")


@dataclass(frozen=True)
class Random(Sampler):
    """Any token, by its probability."""


@dataclass(frozen=True)
class TopK(Sampler):
    """One of the `k` most probable tokens (Fan et al., 2018, arXiv:1805.04833)."""

    k: int

    def __post_init__(self):
        super().__post_init__()
        _require(isinstance(self.k, int) and self.k >= 1, f"k must be an int of at least 1, not {self.k!r}.")

    @classmethod
    def kept(cls, logits, values):
        return keep_best(logits, ops.ones_like(logits), values["k"])


@dataclass(frozen=True)
class TopP(Sampler):
    """One of the fewest tokens whose probabilities sum to `p` (Holtzman et al., 2019, arXiv:1904.09751)."""

    p: float

    def __post_init__(self):
        super().__post_init__()
        _check_share("p of TopP", self.p)

    @classmethod
    def kept(cls, logits, values):
        # By logits: probabilities that round to the same number are still told apart.
        return keep_best(logits, ops.softmax(logits, axis=-1), values["p"])


@dataclass(frozen=True)
class MinP(Sampler):
    """One of the tokens at least `p` times as probable as the best (Nguyen et al., 2024, arXiv:2407.01082)."""

    p: float

    def __post_init__(self):
        super().__post_init__()
        _check_share("p of MinP", self.p)

    @classmethod
    def kept(cls, logits, values):
        return logits >= ops.max(logits, axis=-1, keepdims=True) + ops.log(values["p"])


@dataclass(frozen=True)
class Typical(Sampler):
    """One of the tokens whose information is nearest to the entropy, `p` of the probability in all.

    Meister et al., 2022, arXiv:2202.00666.
    """

    p: float

    def __post_init__(self):
        super().__post_init__()
        _check_share("p of Typical", self.p)

    @classmethod
    def kept(cls, logits, values):
        logarithms = ops.log_softmax(logits, axis=-1)
        probabilities = ops.exp(logarithms)
        # A token that a hook ruled out has -inf, and 0 * -inf is no number.
        terms = ops.where(probabilities > 0, probabilities * logarithms, 0.0)
        distance = ops.abs(logarithms - ops.sum(terms, axis=-1, keepdims=True))
        return keep_best(-distance, probabilities, values["p"])


@dataclass(frozen=True)
class Filtered(Sampler):
    """One of the tokens that several limits leave, each read on what the one before it left, in this order.

    As transformers draws where a checkpoint names more than one.

    Attributes:
        k: of `TopK`; 0 for none.
        top_p, min_p, typical_p: of `TopP`, `MinP` and `Typical`; 1, 0 and 1 for none.
    """

    k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        _require(isinstance(self.k, int) and self.k >= 0, f"k must be an int of at least 0, not {self.k!r}.")
        for name in ("top_p", "min_p", "typical_p"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"{name} must be of 0 to 1, not {value!r}.")

    @classmethod
    def kept(cls, logits, values):
        count = np.float32(logits.shape[-1])
        limits = (
            (TopK, "k", ops.where(values["k"] > 0, values["k"], count)),
            (TopP, "p", ops.maximum(values["top_p"], np.float32(1e-9))),
            (MinP, "p", values["min_p"]),
            (Typical, "p", ops.maximum(values["typical_p"], np.float32(1e-9))),
        )
        none = (values["k"] <= 0, values["top_p"] >= 1, values["min_p"] <= 0, values["typical_p"] >= 1)
        for (limit, name, value), is_none in zip(limits, none, strict=True):
            kept = ops.logical_or(limit.kept(logits, {name: value}), is_none)
            logits = ops.where(kept, logits, -np.inf)
        return logits > -np.inf
