"""Heads: what a task puts on an encoder."""

from __future__ import annotations

import keras

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers import DEFAULT, Dense, Dropout, GraphForm
from tfxformer.layers.activations import activation
from tfxformer.layers.normalization import make_norm
from tfxformer.models.pooling import between_tokens, mean_vector


@keras.saving.register_keras_serializable("tfxformer")
class ClassificationHead(KnownKeywords, keras.layers.Layer):
    """Dropout and a Dense layer to the labels, with an optional hidden Dense in front, perhaps with a norm behind it.

    Args:
        num_labels: int C.
        hidden_activation: activation of the hidden layer, or None for none.
        dropout: float, rate in front of each Dense layer, but for a hidden one that has a norm.
        initializer: initializer of the kernels.
        use_bias: bool, whether the last Dense has a bias.
        norm_epsilon: float, epsilon of the norm of the hidden layer, or None for no norm.
        norm_bias, hidden_bias: bool, whether that norm and the hidden Dense have a bias.

    Call: [..., D] -> [..., C], logits in float32.
    """

    def __init__(
        self,
        num_labels,
        hidden_activation=None,
        dropout=0.0,
        initializer="glorot_uniform",
        use_bias=True,
        norm_epsilon=None,
        norm_bias=True,
        hidden_bias=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_labels = num_labels
        self.hidden_activation = hidden_activation
        self.dropout_rate = dropout
        self.initializer = keras.initializers.get(initializer)
        self.use_bias = use_bias
        self.norm_epsilon = norm_epsilon
        self.norm_bias = norm_bias
        self.hidden_bias = hidden_bias
        self.dropout = Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape):
        width, policy = input_shape[-1], self.dtype_policy
        self.dense = self.norm = None
        if self.hidden_activation is not None:
            self._activate = activation(self.hidden_activation)
            arguments = {"use_bias": self.hidden_bias, "kernel_initializer": self.initializer, "dtype": policy}
            self.dense = Dense(width, name="dense", **arguments)
            self.dense.build(input_shape)
        if self.norm_epsilon is not None:
            self.norm = make_norm("layer", self.norm_epsilon, policy, "norm", self.norm_bias)
            self.norm.build(input_shape)
        self.output_projection = Dense(
            self.num_labels,
            kernel_initializer=self.initializer,
            use_bias=self.use_bias,
            dtype=policy,
            name="output",
        )
        self.output_projection.build(input_shape)

    def call(self, inputs, training=None, graph_form: GraphForm = DEFAULT):
        x = inputs if self.norm is not None else self.dropout(inputs, training=training)
        if self.dense is not None:
            x = self._activate(self.dense(x), training)
            x = x if self.norm is None else self.norm(x, graph_form=graph_form)
            x = self.dropout(x, training=training)
        return keras.ops.cast(self.output_projection(x), "float32")

    def compute_output_spec(self, inputs, *args, **kwargs):
        return keras.KerasTensor((*inputs.shape[:-1], self.num_labels), dtype="float32")

    def get_config(self):
        return {
            **super().get_config(),
            "num_labels": self.num_labels,
            "hidden_activation": self.hidden_activation,
            "dropout": self.dropout_rate,
            "initializer": keras.initializers.serialize(self.initializer),
            "use_bias": self.use_bias,
            "norm_epsilon": self.norm_epsilon,
            "norm_bias": self.norm_bias,
            "hidden_bias": self.hidden_bias,
        }


def transform_arguments(config) -> dict:
    """Arguments of a `ClassificationHead` by a TransformerConfig, where heads begin as the masked-language one does."""
    if not config.heads.transform:
        return {}
    return {
        "hidden_activation": config.heads.classifier_activation,
        "norm_epsilon": config.encoder.norm.epsilon,
        "norm_bias": config.encoder.norm.bias,
        "hidden_bias": config.heads.transform_bias,
    }


@keras.saving.register_keras_serializable("tfxformer")
class EntityHead(KnownKeywords, keras.layers.Layer):
    """Classifies the relation of two entities by the first token and the tokens of both (R-BERT; Wu and He, 2019,
    arXiv:1905.08284, section 3.2).

    The first token's vector, and the mean of the vectors between the marks of each entity, go through tanh, dropout and
    a Dense, one for the first token and one for both entities; side by side they are what the labels are read from.

    Args:
        num_labels: int C.
        markers: 4 ids of tokens: before and behind the first entity, before and behind the second.
        dropout: float, rate in front of each Dense.
        initializer: initializer of the kernels.

    Call: sequence [B, S, D], token_ids and padding_mask int [B, S] -> [B, C], logits in float32. An entity without
    marks is a vector of zeros, one without its second mark goes on to the end of the text.
    """

    def __init__(self, num_labels, markers, dropout=0.0, initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.num_labels = num_labels
        self.markers = tuple(markers)
        self.dropout_rate = dropout
        self.initializer = keras.initializers.get(initializer)
        self.dropout = Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, sequence_shape, *shapes):
        width = sequence_shape[-1]

        def dense(units, name, inputs):
            # A clone each: an initializer gives all that share it the same numbers.
            kernel = self.initializer.clone() if hasattr(self.initializer, "clone") else self.initializer
            layer = Dense(units, kernel_initializer=kernel, dtype=self.dtype_policy, name=name)
            layer.build((None, inputs))
            return layer

        self.text_dense = dense(width, "text", width)
        self.entity_dense = dense(width, "entity", width)
        self.output_projection = dense(self.num_labels, "output", 3 * width)

    def call(self, sequence, token_ids, padding_mask, training=None):
        real = keras.ops.not_equal(padding_mask, 0)
        vectors = [sequence[:, 0]]
        for opening, closing in (self.markers[:2], self.markers[2:]):
            inside = keras.ops.logical_and(between_tokens(token_ids, opening, closing), real)
            vectors.append(keras.ops.cast(mean_vector(sequence, inside), sequence.dtype))
        layers = (self.text_dense, self.entity_dense, self.entity_dense)
        read = [
            layer(self.dropout(keras.ops.tanh(vector), training=training))
            for layer, vector in zip(layers, vectors, strict=True)
        ]
        x = self.dropout(keras.ops.concatenate(read, axis=-1), training=training)
        return keras.ops.cast(self.output_projection(x), "float32")

    def compute_output_spec(self, sequence, *args, **kwargs):
        return keras.KerasTensor((sequence.shape[0], self.num_labels), dtype="float32")

    def get_config(self):
        return {
            **super().get_config(),
            "num_labels": self.num_labels,
            "markers": list(self.markers),
            "dropout": self.dropout_rate,
            "initializer": keras.initializers.serialize(self.initializer),
        }


@keras.saving.register_keras_serializable("tfxformer")
class MaskedLMTransform(KnownKeywords, keras.layers.Layer):
    """What a masked-language head does before the tied table: Dense, activation, norm.

    Args:
        size: int, width of the table.
        activation: str.
        norm_epsilon: float.
        initializer: initializer of the kernel.
        norm_bias, use_bias: bool, whether the norm and the Dense have a bias.

    Call: [B, S, D] -> [B, S, size].
    """

    def __init__(
        self,
        size,
        activation="gelu",
        norm_epsilon=1e-12,
        initializer="glorot_uniform",
        norm_bias=True,
        use_bias=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.size = size
        self.norm_bias = norm_bias
        self.use_bias = use_bias
        self.activation = activation
        self.norm_epsilon = norm_epsilon
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape):
        policy = self.dtype_policy
        self._activate = activation(self.activation)
        arguments = {"use_bias": self.use_bias, "kernel_initializer": self.initializer, "dtype": policy}
        self.dense = Dense(self.size, name="dense", **arguments)
        self.dense.build(input_shape)
        self.norm = make_norm("layer", self.norm_epsilon, policy, "norm", self.norm_bias)
        self.norm.build((*input_shape[:-1], self.size))

    def call(self, inputs, training=None, graph_form: GraphForm = DEFAULT):
        return self.norm(self._activate(self.dense(inputs), training), graph_form=graph_form)

    def compute_output_spec(self, inputs, *args, **kwargs):
        return keras.KerasTensor((*inputs.shape[:-1], self.size), dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "size": self.size,
            "activation": self.activation,
            "norm_epsilon": self.norm_epsilon,
            "initializer": keras.initializers.serialize(self.initializer),
            "norm_bias": self.norm_bias,
            "use_bias": self.use_bias,
        }


@keras.saving.register_keras_serializable("tfxformer")
class LogitsBias(KnownKeywords, keras.layers.Layer):
    """Adds one bias per token of the vocabulary.

    Call: [B, S, V] -> [B, S, V] in float32.
    """

    def build(self, input_shape):
        self.bias = self.add_weight(name="bias", shape=(input_shape[-1],), initializer="zeros", autocast=False)

    def call(self, inputs):
        return keras.ops.cast(inputs, "float32") + self.bias


@keras.saving.register_keras_serializable("tfxformer")
class ReplacedTokenHead(KnownKeywords, keras.layers.Layer):
    """Whether each token was replaced: Dense, activation, Dense to one logit.

    Args:
        activation: str.
        initializer: initializer of the kernels.

    Call: [B, S, D] -> float32 [B, S].
    """

    def __init__(self, activation="gelu", initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.activation = activation
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape):
        self._activate = activation(self.activation)
        arguments = {"kernel_initializer": self.initializer, "dtype": self.dtype_policy}
        self.dense = Dense(input_shape[-1], name="dense", **arguments)
        self.output_projection = Dense(1, name="output", **arguments)
        for layer in (self.dense, self.output_projection):
            layer.build(input_shape)

    def call(self, inputs, training=None):
        x = self._activate(self.dense(inputs), training)
        return keras.ops.cast(self.output_projection(x)[..., 0], "float32")  # [B, S, 1] -> [B, S]

    def compute_output_spec(self, inputs, *args, **kwargs):
        return keras.KerasTensor(inputs.shape[:-1], dtype="float32")

    def get_config(self):
        return {
            **super().get_config(),
            "activation": self.activation,
            "initializer": keras.initializers.serialize(self.initializer),
        }
