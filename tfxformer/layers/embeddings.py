"""Token embeddings, usable in both directions, and segment embeddings."""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.kernels.formulas import embedding_lookup
from tfxformer.layers.quantization.equalization import scaled
from tfxformer.layers.quantization.graph_form import DEFAULT, GraphForm, WrittenLayer, chosen


@keras.saving.register_keras_serializable("tfxformer")
class TokenEmbedding(WrittenLayer, KnownKeywords, keras.layers.Layer):
    """A table of embeddings: ids to vectors, or with `reverse=True` vectors to logits over the ids.

    Args:
        vocabulary_size: int V, rows of the table.
        size: int D, width of a row.
        initializer: initializer of the table.
        rank: int E or None: the table is a product [V, E] x [E, D], `embeddings` times `projection`, never multiplied
            out; None for a table [V, D].

    Call: int32 [B, S] -> [B, S, D]; with `reverse=True` [B, S, D] -> [B, S, V], times `scale`. The lookup reads the
    table in its own dtype and casts the rows: casting the table would cost more than the lookup itself.

    Attributes:
        adapter: `prompt.Prompt`, or None. With one negative ids are its rows.
    """

    def __init__(self, vocabulary_size, size, initializer="uniform", rank=None, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.size = size
        self.rank = rank
        self.initializer = keras.initializers.get(initializer)
        self.adapter = None

    def build(self, input_shape):
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.vocabulary_size, self.rank or self.size),
            initializer=self.initializer,
            autocast=False,
        )
        self.projection = None
        if self.rank is not None:
            self.projection = self.add_weight(
                name="projection", shape=(self.rank, self.size), initializer=self.initializer
            )

    @property
    def adapted_shape(self) -> tuple[int, int]:
        """The (V, D) that an adapter of this table is built for."""
        return self.vocabulary_size, self.size

    def call(self, inputs, reverse=False, scale=1.0, graph_form: GraphForm = DEFAULT):
        if reverse and scale != 1.0:
            # In front of the product, as T5 has it, and not as one number: LiteRT's converter would multiply that into
            # a second copy of the table.
            inputs = scaled(inputs, ops.full(inputs.shape[-1:], scale, self.compute_dtype))
        if reverse and self.projection is not None:
            inputs = ops.matmul(inputs, ops.transpose(self.projection))  # [B, S, D] -> [B, S, E]
        graph_form = chosen(graph_form)
        equalization, columns, table = graph_form.equalization, None, self.embeddings
        if equalization is not None:
            columns, table = equalization.column_scale(self, inputs if reverse else None), equalization.table(self)
        if reverse:
            inputs = inputs if columns is None else scaled(inputs, columns)
            return ops.matmul(inputs, ops.transpose(ops.cast(table, self.compute_dtype)))
        ids = inputs if self.adapter is None else ops.maximum(inputs, 0)
        rows = embedding_lookup(table, ids, graph_form.embedding)
        rows = ops.cast(rows if columns is None else scaled(rows, columns), self.compute_dtype)
        if self.projection is not None:
            rows = ops.matmul(rows, self.projection)
        return rows if self.adapter is None else self.adapter.placed(inputs, rows, graph_form.embedding)

    def compute_output_spec(self, inputs, reverse=False, *args, **kwargs):
        shape = (*inputs.shape[:-1], self.vocabulary_size) if reverse else (*inputs.shape, self.size)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "size": self.size,
            "rank": self.rank,
            "initializer": keras.initializers.serialize(self.initializer),
        }


@keras.saving.register_keras_serializable("tfxformer")
class ConstantSegmentEmbedding(KnownKeywords, keras.layers.Layer):
    """The one segment row that a model with a single token type adds to every token (RoBERTa).

    Call: [B, S, D] -> [B, S, D].
    """

    def __init__(self, initializer="uniform", **kwargs):
        super().__init__(**kwargs)
        self.initializer = keras.initializers.get(initializer)
        self.supports_masking = True

    def build(self, input_shape):
        self.embeddings = self.add_weight(name="embeddings", shape=(1, input_shape[-1]), initializer=self.initializer)

    def call(self, inputs):
        return inputs + self.embeddings[0]

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "initializer": keras.initializers.serialize(self.initializer)}
