"""Position embeddings, learned or sinusoidal, and which position each token has."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.kernels.formulas import embedding_lookup
from tfxformer.layers.quantization.graph_form import DEFAULT, GraphForm, WrittenLayer, chosen

POSITION_MODES = ("arange", "nonpad_cumsum")
TABLES = ("learned", "sinusoidal", "sinusoidal_fairseq")


def sinusoids(rows: int, size: int, kind: str = "sinusoidal", padding_id: int = 0) -> np.ndarray:
    """A table of sines and cosines, the sines in the first half of each row: float32 [rows, size].

    Args:
        rows: positions, from 0 on.
        size: int, width of a row.
        kind: "sinusoidal" (Vaswani et al., 2017; Marian, Pegasus), or "sinusoidal_fairseq", whose wavelengths end a
            step earlier and whose row `padding_id` is zero (M2M-100).
    """
    half = (size + 1) // 2 if kind == "sinusoidal" else size // 2
    steps = size / 2 if kind == "sinusoidal" else half - 1
    frequencies = np.exp(np.arange(half) * (-np.log(10000.0) / steps))
    angles = np.arange(rows)[:, None] * frequencies
    table = np.zeros((rows, size), "float32")
    table[:, :half], table[:, half : 2 * half] = np.sin(angles), np.cos(angles)[:, : size - half]
    if kind == "sinusoidal_fairseq":
        table[padding_id] = 0
    return table


def nonpad_positions(token_ids, padding_id: int):
    """Positions that count real tokens only, from `padding_id` + 1 on (RoBERTa).

    Args:
        token_ids: int32 [B, S].
        padding_id: int, the id that is not counted; its tokens get the position `padding_id`.

    Returns:
        int32 [B, S].
    """
    real = ops.cast(ops.not_equal(token_ids, padding_id), "int32")
    return ops.cumsum(real, axis=1) * real + padding_id


def positions_seen(visible):
    """The position of each token in its document, from what it sees: bool [B, S, S] -> int32 [B, S]."""
    return ops.sum(ops.cast(visible, "int32"), axis=-1) - 1


@keras.saving.register_keras_serializable("tfxformer")
class PositionEmbedding(WrittenLayer, KnownKeywords, keras.layers.Layer):
    """Absolute position embeddings, learned or sines and cosines.

    Args:
        max_positions: int, rows of the table (RoBERTa's table counts its unused first rows too).
        size: int, width D of a row.
        mode: "arange" (0, 1, 2, ...) or "nonpad_cumsum" (`nonpad_positions`).
        padding_id: int, used by "nonpad_cumsum".
        offset: int, first rows of the table that are not used (OPT), but by "nonpad_cumsum".
        initializer: initializer of the table.
        table: "learned", or a kind of `sinusoids`, which is computed and no variable.

    Attributes:
        shift: int, 0; what is added to given positions (`prefix.Prefix` stands in front).

    Call: token_ids int32 [B, S] -> [1, S, D] ("arange") or [B, S, D]; with `positions` int32 [B, S], those.

    Raises:
        ValueError: if the static sequence length exceeds the table.
    """

    def __init__(
        self,
        max_positions,
        size,
        mode="arange",
        padding_id=0,
        offset=0,
        initializer="uniform",
        table="learned",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if table not in TABLES:
            raise ValueError(f"Unknown table of positions {table!r}; known: {', '.join(TABLES)}.")
        if mode not in POSITION_MODES:
            raise ValueError(f"Unknown position mode {mode!r}; known: {', '.join(POSITION_MODES)}.")
        self.max_positions = max_positions
        self.size = size
        self.mode = mode
        self.padding_id = padding_id
        self.offset = offset
        self.initializer = keras.initializers.get(initializer)
        self.table = table
        self.shift = 0

    @property
    def usable_positions(self) -> int:
        """The longest sequence the table serves."""
        unused = self.padding_id + 1 if self.mode == "nonpad_cumsum" else self.offset + self.shift
        return self.max_positions - unused

    def build(self, input_shape):
        if self.table != "learned":
            self.embeddings = sinusoids(self.max_positions, self.size, self.table, self.padding_id)
            return
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.max_positions, self.size),
            initializer=self.initializer,
            autocast=False,
        )

    def _check_length(self, length):
        if length is not None and length > self.usable_positions:
            raise ValueError(
                f"The sequence is {length} tokens long, but the model has {self.usable_positions} positions. "
                f"Truncate with sequence_length={self.usable_positions} or less."
            )

    def call(self, token_ids, positions=None, graph_form: GraphForm = DEFAULT):
        self._check_length(token_ids.shape[1])
        # A computed table is a constant of each graph: of one tensor, made in the first, others could not read.
        table = self.embeddings if self.table == "learned" else ops.convert_to_tensor(self.embeddings)
        if positions is not None:
            positions = positions + (self.offset + self.shift)
            rows = embedding_lookup(table, positions, chosen(graph_form).embedding)
            return ops.cast(rows, self.compute_dtype)
        if self.mode == "arange":
            rows = table[self.offset : self.offset + ops.shape(token_ids)[1]]
            return ops.cast(ops.expand_dims(rows, 0), self.compute_dtype)
        rows = ops.take(table, nonpad_positions(token_ids, self.padding_id), axis=0)
        return ops.cast(rows, self.compute_dtype)

    def compute_output_spec(self, token_ids, positions=None, *args, **kwargs):
        self._check_length(token_ids.shape[1])
        given = token_ids if positions is None else positions
        shape = (1, token_ids.shape[1]) if positions is None and self.mode == "arange" else given.shape
        return keras.KerasTensor((*shape, self.size), dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "max_positions": self.max_positions,
            "size": self.size,
            "mode": self.mode,
            "padding_id": self.padding_id,
            "offset": self.offset,
            "initializer": keras.initializers.serialize(self.initializer),
            "table": self.table,
        }
