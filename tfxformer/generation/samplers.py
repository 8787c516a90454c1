"""How the next token is chosen from the logits: values that a compiled loop reads as tensors.

Shape letters: B rows, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.kernels.random_bits import random_bits
from tfxformer.text.generation import sampling


@dataclass(frozen=True)
class Sampler(KnownKeywords):
    """What all samplers are: frozen values; a compiled loop is traced for their class and reads them as tensors.

    Attributes:
        temperature: what logits are divided by; below 1 for safer, above 1 for more surprising tokens.
    """

    temperature: float = field(default=1.0, kw_only=True)

    def __post_init__(self):
        sampling.check("temperature", self.temperature)

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
        sampling.check("top_k", self.k, "k of TopK")

    @classmethod
    def kept(cls, logits, values):
        return sampling.top_k(logits, values["k"], ops)


@dataclass(frozen=True)
class TopP(Sampler):
    """One of the fewest tokens whose probabilities sum to `p` (Holtzman et al., 2019, arXiv:1904.09751)."""

    p: float

    def __post_init__(self):
        super().__post_init__()
        sampling.check("top_p", self.p, "p of TopP")

    @classmethod
    def kept(cls, logits, values):
        return sampling.top_p(logits, values["p"], ops)


@dataclass(frozen=True)
class MinP(Sampler):
    """One of the tokens at least `p` times as probable as the best (Nguyen et al., 2024, arXiv:2407.01082)."""

    p: float

    def __post_init__(self):
        super().__post_init__()
        sampling.check("min_p", self.p, "p of MinP")

    @classmethod
    def kept(cls, logits, values):
        return sampling.min_p(logits, values["p"], ops)


@dataclass(frozen=True)
class Typical(Sampler):
    """One of the tokens whose information is nearest to the entropy, `p` of the probability in all.

    Meister et al., 2022, arXiv:2202.00666.
    """

    p: float

    def __post_init__(self):
        super().__post_init__()
        sampling.check("typical_p", self.p, "p of Typical")

    @classmethod
    def kept(cls, logits, values):
        return sampling.typical_p(logits, values["p"], ops)


@dataclass(frozen=True)
class Filtered(Sampler):
    """One of the tokens that several limits leave, each read on what the one before it left, in this order.

    As transformers draws where a checkpoint names more than one.

    Attributes:
        top_k, top_p, min_p, typical_p: of `TopK`, `TopP`, `MinP` and `Typical`; 0, 1, 0 and 1 for none.
    """

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        for name in sampling.LIMITS:
            if getattr(self, name) != 0:  # which leaves the best token, where it is not none
                sampling.check(name, getattr(self, name))

    def values(self) -> dict:
        """Those that rule out tokens: a loop is traced for each choice of them."""
        return sampling.that_count(super().values())

    @classmethod
    def kept(cls, logits, values):
        return sampling.limited(logits, values, ops) > -np.inf


def read_sampler(sampler, temperature=None, top_k=None, top_p=None, min_p=None):
    """What a caller wants tokens chosen by: a sampler, or the numbers of one; `Greedy()` where neither is given.

    Raises:
        ValueError: for both, and for numbers out of their range; see `text.generation.sampling.read_drawing`.
    """
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    said = [name for name, value in given.items() if value is not None]
    if sampler is not None and said:
        raise ValueError(f"sampler and {', '.join(said)} both say how tokens are chosen: give one or the other.")
    drawing = sampling.read_drawing(**given)
    if drawing is None:
        return Greedy() if sampler is None else sampler
    return Filtered(**drawing)
