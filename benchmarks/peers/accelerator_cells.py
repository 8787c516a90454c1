"""What `accelerator.py` measures: shapes, their data, the same for every peer, and their floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

HIDDEN_RATE = 0.15  # of masked language modelling
LEARNING_RATE, WEIGHT_DECAY, CLIP = 1e-4, 0.01, 1.0


@dataclass(frozen=True)
class Cell:
    """A model and what is done with it.

    Attributes:
        kind: "causal", "masked" or "classes" training, or "decoding".
        batch: int, rows.
        length: int, tokens of a row; of decoding those of the prompt, and as many new ones.
        layers, hidden, heads, vocabulary: ints, of the model; its feed-forward is four times as wide as `hidden`.
        dropout: float, of embeddings, attention and blocks.
        steps: int, training steps of one measurement.
    """

    kind: str
    batch: int
    length: int
    layers: int = 12
    hidden: int = 768
    heads: int = 12
    vocabulary: int = 50257
    dropout: float = 0.0
    steps: int = 10

    @property
    def filled_vocabulary(self) -> int:
        """The vocabulary filled up to a multiple of 64, as nanoGPT trains it."""
        return 64 * -(-self.vocabulary // 64)

    @property
    def places(self) -> int:
        """Hidden places of a row of masked language modelling."""
        return max(1, int(HIDDEN_RATE * self.length))

    @property
    def tokens(self) -> int:
        """Tokens of one measurement."""
        return self.batch * self.length * (self.steps if self.kind != "decoding" else 1)

    def flops_per_token(self) -> float:
        """Of a training step, by nanoGPT's formula: 6 for each weight of a product, and attention's."""
        blocks = self.layers * (12 * self.hidden**2 + 2 * self.length * self.hidden)
        head = {
            "causal": self.vocabulary * self.hidden,
            "masked": (self.hidden**2 + self.hidden * self.vocabulary) * self.places / self.length,
        }
        return 6 * (blocks + head.get(self.kind, 0.0))


_BERT = Cell("masked", 64, 512, vocabulary=30522, dropout=0.1)
_MINILM = Cell("classes", 256, 128, layers=6, hidden=384, vocabulary=30522, dropout=0.1)
CELLS = {
    "gpt2 16x1024": Cell("causal", 16, 1024),
    "bert 64x512": _BERT,
    "bert 256x128": replace(_BERT, batch=256, length=128),
    "minilm 256x128": _MINILM,
    "decoding 1": Cell("decoding", 1, 128),
    "decoding 32": Cell("decoding", 32, 128),
}


def tiny(cell: Cell) -> Cell:
    """The same on a small model, to rehearse on a CPU."""
    return replace(cell, batch=min(cell.batch, 2), length=16, layers=2, hidden=64, heads=2, vocabulary=503, steps=2)


def token_rows(cell: Cell) -> np.ndarray:
    """Random ids, int32 [batch * steps, length]; no padding, which all would compute alike."""
    rows = cell.batch * (cell.steps if cell.kind != "decoding" else 1)
    return np.random.default_rng(0).integers(1, cell.vocabulary, (rows, cell.length), dtype="int32")


def hidden_places(cell: Cell) -> np.ndarray:
    """Ascending places of the hidden tokens, int32 [batch * steps, places]."""
    draw = np.random.default_rng(1)
    rows = [np.sort(draw.choice(cell.length, cell.places, False)) for _ in range(cell.batch * cell.steps)]
    return np.stack(rows).astype("int32")


def class_labels(cell: Cell) -> np.ndarray:
    """Labels 0 or 1, int32 [batch * steps]."""
    return np.random.default_rng(2).integers(0, 2, cell.batch * cell.steps, dtype="int32")
