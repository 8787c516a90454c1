"""Examples of an earlier task among those of the next, against forgetting."""

from __future__ import annotations

import random
from collections.abc import Sequence


def replay(
    texts: Sequence, labels: Sequence, old_texts: Sequence, old_labels: Sequence, *, share: float = 0.2, seed: int = 0
) -> tuple[list, list]:
    """The examples of a task with some of an earlier one among them, in an order by chance.

    Args:
        texts, labels: of the task that is learned now.
        old_texts, old_labels: of the earlier one.
        share: float above 0, how many old examples come to each new one; all old ones where that is more.
        seed: int, of the choice and of the order.

    Returns:
        (texts, labels), lists for `fit`.

    Raises:
        ValueError: for a share that cannot be, and lists of unlike lengths.

    Source: Robins, 1995, "Catastrophic forgetting, rehearsal and pseudorehearsal".
    """
    if not share > 0.0:
        raise ValueError(f"share={share!r}: wanted a number above 0.")
    new, old = list(zip(texts, labels, strict=True)), list(zip(old_texts, old_labels, strict=True))
    generator = random.Random(seed)
    mixed = new + generator.sample(old, min(len(old), round(share * len(new))))
    generator.shuffle(mixed)
    return [text for text, _ in mixed], [label for _, label in mixed]
