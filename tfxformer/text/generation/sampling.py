"""How a token is drawn: what a caller or a checkpoint may say, and which tokens each limit keeps.

The limits are written once, on whatever offers numpy's functions: numpy itself where a file is run, `keras.ops` in the
compiled loop. Shape letters: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfxformer.arguments.plain_values import is_finite_number
from tfxformer.ranking import keep_best

LEAST = np.float32(1e-9)  # of a sum of probabilities: the best token is always kept


def top_k(logits, k, ops):
    """The `k` most probable tokens (Fan et al., 2018, arXiv:1805.04833): float32 [B, V] -> bool [B, V]."""
    return keep_best(logits, None, k, ops)


def top_p(logits, p, ops):
    """The fewest tokens whose probabilities sum to `p` (Holtzman et al., 2019, arXiv:1904.09751)."""
    # By logits: probabilities that round to the same number are still told apart.
    return keep_best(logits, ops.softmax(logits, axis=-1), ops.maximum(p, LEAST), ops)


def min_p(logits, p, ops):
    """The tokens at least `p` times as probable as the best (Nguyen et al., 2024, arXiv:2407.01082)."""
    return logits >= ops.max(logits, axis=-1, keepdims=True) + ops.log(p)


def typical_p(logits, p, ops):
    """Those nearest to the entropy in information, `p` of the probability in all (Meister et al., 2022, 2202.00666)."""
    logarithms = ops.log_softmax(logits, axis=-1)
    probabilities = ops.exp(logarithms)
    # A token that a hook ruled out has -inf, and 0 * -inf is no number.
    terms = ops.where(probabilities > 0, probabilities * logarithms, np.float32(0.0))
    distance = ops.abs(logarithms - ops.sum(terms, axis=-1, keepdims=True))
    return keep_best(-distance, probabilities, ops.maximum(p, LEAST), ops)


# Name -> (the limit, the value that keeps all tokens), in the order in which they are applied, as transformers does.
LIMITS: dict[str, tuple[Callable, float]] = {
    "top_k": (top_k, 0),
    "top_p": (top_p, 1),
    "min_p": (min_p, 0),
    "typical_p": (typical_p, 1),
}


def limited(logits, values: Mapping[str, Any], ops):
    """Logits [B, V], -inf at the tokens that the limits in `values` rule out, each read on what the one before left."""
    for name, (limit, _) in LIMITS.items():
        if name in values:
            logits = ops.where(limit(logits, values[name], ops), logits, np.float32(-np.inf))
    return logits


def that_count(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of temperature and limits that are said, and that keep fewer than all tokens."""
    return {
        name: value
        for name, value in values.items()
        if value is not None and (name not in LIMITS or value != LIMITS[name][1])
    }


def check(name: str, value, called: str | None = None) -> None:
    """Refuses a temperature or a limit out of its range; `called` is its name in the message.

    Raises:
        ValueError: naming the value and what was wanted.
    """
    wanted, fits = {
        "temperature": ("above 0 (leave it out for the most probable token, or take Greedy())", lambda: value > 0),
        "top_k": ("a whole number of at least 1", lambda: value >= 1 and int(value) == value),
        "top_p": ("above 0 and at most 1, which keeps all tokens", lambda: 0 < value <= 1),
        "min_p": ("from 0, which keeps all tokens, to 1", lambda: 0 <= value <= 1),
        "typical_p": ("above 0 and at most 1, which keeps all tokens", lambda: 0 < value <= 1),
    }[name]
    if not (is_finite_number(value) and fits()):
        raise ValueError(f"{called or name} must be {wanted}, not {value!r}.")


def read_drawing(temperature=None, **limits) -> dict[str, Any] | None:
    """How a caller wants tokens drawn, checked; None for the most probable token each time.

    Args:
        temperature: what logits are divided by; None for 1 beside a limit, else, as 0, for the most probable token.
        limits: top_k, top_p, min_p, each None for none.

    Raises:
        ValueError: for a value out of its range, and a limit beside a temperature of 0.
    """
    limits = {name: value for name, value in limits.items() if value is not None}
    for name, value in limits.items():
        check(name, value)
    if temperature is None and not limits:
        return None
    if temperature is not None and temperature == 0:
        if limits:
            raise ValueError(
                f"{', '.join(limits)} draw tokens by chance, and temperature=0 takes the most probable one: leave out "
                "one of them."
            )
        return None
    temperature = 1.0 if temperature is None else temperature
    check("temperature", temperature)
    return {"temperature": temperature, **that_count(limits)}
