"""Token embeddings, usable in both directions, segment embeddings, and what near tokens' embeddings add."""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.activations import activation
from tfxformer.layers.kernels.dropout import Dropout
from tfxformer.layers.kernels.formulas import embedding_lookup
from tfxformer.layers.normalization import make_norm
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

    Args:
        initializer: initializer of the table.
        rows: int, rows of the table, of which the first is added (the tasks of ERNIE 3.0).

    Call: [B, S, D] -> [B, S, D].
    """

    def __init__(self, initializer="uniform", rows=1, **kwargs):
        super().__init__(**kwargs)
        self.rows = rows
        self.initializer = keras.initializers.get(initializer)
        self.supports_masking = True

    def build(self, input_shape):
        shape = (self.rows, input_shape[-1])
        self.embeddings = self.add_weight(name="embeddings", shape=shape, initializer=self.initializer)

    def call(self, inputs):
        return inputs + self.embeddings[0]

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "initializer": keras.initializers.serialize(self.initializer),
            "rows": self.rows,
        }


@keras.saving.register_keras_serializable("tfxformer")
class HiddenToken(KnownKeywords, keras.layers.Layer):
    """An embedding [1, 1, D] in the place of a token that is to be predicted.

    Args:
        size: int D.
        initializer: its initializer.
    """

    def __init__(self, size, initializer="uniform", **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.initializer = keras.initializers.get(initializer)
        self.build()

    def build(self, *shapes):
        self.embeddings = self.add_weight(name="embeddings", shape=(1, 1, self.size), initializer=self.initializer)
        self.built = True

    def call(self, inputs):
        return ops.zeros_like(inputs) + self.embeddings

    def get_config(self):
        return {
            **super().get_config(),
            "size": self.size,
            "initializer": keras.initializers.serialize(self.initializer),
        }


def beside_neighbours(x):
    """Each token's embedding between those of the next token and the previous one, zeros beyond either end.

    [B, S, E] -> [B, S, 3 * E].
    """
    following = ops.pad(x[:, 1:], ((0, 0), (0, 1), (0, 0)))
    previous = ops.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0)))
    return ops.concatenate([following, x, previous], axis=-1)


@keras.saving.register_keras_serializable("tfxformer")
class EmbeddingConvolution(WrittenLayer, KnownKeywords, keras.layers.Layer):
    """What the embeddings around each token add to the first block's output: a convolution, and a norm of the sum.

    Args:
        kernel_size: odd int K, how many neighbouring tokens are read, the token itself in their middle.
        activation: str, a name of `layers.activations`.
        norm_epsilon: float, epsilon of the norm.
        dropout: float, rate on what the convolution gives.
        kernel_initializer: initializer of the kernel [K, D, D].

    Call: inputs, the block's output [B, S, D] (with `first_only` [B, 1, D]); embeddings [B, S, D]; padding_mask
    [B, S], 0 at tokens that are not read -> as inputs.

    Source: He et al., 2020 (arXiv:2006.03654), section 5, "nGiE".
    """

    def __init__(
        self,
        kernel_size,
        activation="tanh",
        norm_epsilon=1e-7,
        dropout=0.0,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.kernel_size = kernel_size
        self.activation = activation
        self.norm_epsilon = norm_epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.dropout = Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape, *shapes):
        policy, width = self.dtype_policy, input_shape[-1]
        self._activate = activation(self.activation)
        arguments = {"padding": "same", "kernel_initializer": self.kernel_initializer, "dtype": policy}
        self.convolution = keras.layers.Conv1D(width, self.kernel_size, **arguments, name="convolution")
        self.convolution.build((None, None, width))
        self.norm = make_norm("layer", self.norm_epsilon, policy, "norm")
        self.norm.build((None, None, width))

    def call(self, inputs, embeddings, padding_mask, first_only=False, training=None, graph_form: GraphForm = DEFAULT):
        real = ops.cast(ops.expand_dims(ops.not_equal(padding_mask, 0), -1), embeddings.dtype)  # [B, S, 1]
        near = self._activate(self.dropout(self.convolution(embeddings * real), training=training))
        return self.norm(inputs + (near[:, :1] if first_only else near), graph_form=graph_form)

    def compute_output_spec(self, inputs, *args, **kwargs):
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "activation": self.activation,
            "norm_epsilon": self.norm_epsilon,
            "dropout": self.dropout.rate,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
