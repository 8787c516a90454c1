"""What a block may have in place of attention: layers that carry a state from token to token, and no keys.

Shape letters: B batch, S query length, K taps of a convolution, C channels, D model width.
"""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.attention.cache import cache_spec
from tfxformer.layers.dense import child_dense
from tfxformer.layers.quantization.graph_form import DEFAULT, GraphForm, WrittenLayer


class Mixer(WrittenLayer, KnownKeywords, keras.layers.Layer):
    """A layer that stands in attention's place in a block; each token is mixed with earlier ones.

    Call:
        inputs: [B, S, D].
        padding_mask: int [B, S], 0 at padding, which leaves no trace in a state; another number at real tokens, where
            several documents stand in a row each its own (`masks.document_visibility`). None where all are real.
        cache: None, or the state after the tokens before: a tuple of tensors, at first those of `empty_state`.

    Returns:
        [B, S, D], or with a cache ([B, S, D], new state).

    Attributes:
        dropout: float, 0: no mixer drops anything inside.
        output_projection: Dense, the last of its layers.
    """

    dropout = 0.0

    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of its state's tensors, without the batch."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its state is.")

    def empty_state(self, batch_size: int) -> tuple:
        """The state before the first token: zeros, each tensor its own, in the compute dtype."""
        return tuple(ops.zeros((batch_size, *shape), self.compute_dtype) for shape in self.state_shapes())

    def compute_output_spec(self, inputs, *args, cache=None, **kwargs):
        outputs = keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)
        return outputs if cache is None else (outputs, cache_spec(cache))


def real_tokens(x, padding_mask):
    """x [B, S, C] with zeros at padding; as it is for no mask."""
    if padding_mask is None:
        return x
    return x * ops.cast(ops.expand_dims(ops.not_equal(padding_mask, 0), 2), x.dtype)


def causal_convolution(x, kernel, padding_mask=None, past=None):
    """Each channel's last K values, weighed and summed: y[t] = sum over i of kernel[i] * x[t - K + 1 + i].

    Before the first token of a document all is zero, and so is padding.

    Args:
        x: [B, S, C].
        kernel: [K, C].
        padding_mask: int [B, S], see `Mixer`; None where all are real tokens of one document.
        past: [B, K - 1, C], the values before; None for none.

    Returns:
        (y [B, S, C], the last K - 1 values [B, K - 1, C]).
    """
    reach, documents = kernel.shape[0] - 1, None
    x = real_tokens(x, padding_mask)
    if past is None:
        values = ops.pad(x, ((0, 0), (reach, 0), (0, 0)))
        if padding_mask is not None:
            documents = ops.pad(padding_mask, ((0, 0), (reach, 0)))
    else:  # whoever has a past is one document
        values = ops.concatenate([ops.cast(past, x.dtype), x], axis=1)
    y = values[:, reach:] * kernel[reach]
    for tap in range(reach):
        earlier = values[:, tap : tap - reach]
        if documents is not None:
            seen = documents[:, tap : tap - reach]
            same = ops.logical_or(ops.equal(seen, padding_mask), ops.equal(seen, -1))  # -1 is a prompt's, see `masks`
            same = ops.logical_or(same, ops.equal(padding_mask, 0))  # as on a cache, which knows no documents
            earlier = earlier * ops.cast(ops.expand_dims(same, 2), x.dtype)
        y = y + earlier * kernel[tap]
    return y, values[:, -reach:]


@keras.saving.register_keras_serializable("tfxformer")
class CausalConvolution(KnownKeywords, keras.layers.Layer):
    """`causal_convolution` with a kernel [K, C] of its own.

    Args:
        width: int K, the tokens that one sees, itself among them; at least 2.
        kernel_initializer: initializer of the kernel.

    Call: x [B, S, C], padding_mask, past -> (y [B, S, C], the last K - 1 values [B, K - 1, C]).

    Raises ValueError for a width below 2.
    """

    def __init__(self, width, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        if width < 2:
            raise ValueError(f"A convolution sees at least 2 tokens, one and the one before; got width={width!r}.")
        self.width = width
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(self.width, input_shape[-1]), initializer=self.kernel_initializer, name="kernel"
        )

    def call(self, inputs, padding_mask=None, past=None):
        return causal_convolution(inputs, ops.convert_to_tensor(self.kernel), padding_mask, past)

    def compute_output_spec(self, inputs, *args, **kwargs):
        past = keras.KerasTensor((inputs.shape[0], self.width - 1, inputs.shape[2]), dtype=self.compute_dtype)
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype), past

    def get_config(self):
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {**super().get_config(), "width": self.width, "kernel_initializer": initializer}


@keras.saving.register_keras_serializable("tfxformer")
class ShortConvolution(Mixer):
    """A gated short convolution: output(c * convolution(b * x)), b, c and x of one Dense (Liquid AI, 2025, LFM2).

    Args:
        width: int K, the tokens that one sees, itself among them.
        kernel_initializer: initializer of all kernels.

    Call: as `Mixer`; its state is the last K - 1 of what it convolves, [B, K - 1, D].
    """

    use_bias = False

    def __init__(self, width=3, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def build(self, input_shape):
        size = input_shape[-1]
        self.size = size
        self.input_projection = child_dense(self, "input", 3 * size, size)
        self.convolution = CausalConvolution(
            self.width, self.kernel_initializer, dtype=self.dtype_policy, name="convolution"
        )
        self.convolution.build((None, None, size))
        self.output_projection = child_dense(self, "output", size, size)

    def state_shapes(self):
        return ((self.width - 1, self.size),)

    def call(self, inputs, padding_mask=None, cache=None, training=None, graph_form: GraphForm = DEFAULT):
        before, after, x = ops.split(self.input_projection(inputs, training=training), 3, axis=-1)
        x, past = self.convolution(before * x, padding_mask, None if cache is None else cache[0])
        outputs = self.output_projection(after * x, training=training)
        return outputs if cache is None else (outputs, (ops.cast(past, cache[0].dtype),))

    def get_config(self):
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {**super().get_config(), "width": self.width, "kernel_initializer": initializer}
