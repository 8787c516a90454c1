"""Keras' Dense, its bias gradient put right."""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.layers import kernels


@keras.saving.register_keras_serializable("tfxformer")
class Dense(keras.layers.Dense):
    """`keras.layers.Dense`, [..., in] -> [..., out].

    In training the bias is added by `kernels.add_bias`: TensorFlow sums the gradient of a bfloat16 bias in bfloat16,
    which over the rows of one batch is off by tens of percent.

    The kernel's initializer is cloned: Keras draws one seed per initializer, so that layers that share one begin with
    the same numbers, the keys of an attention with those of its queries.
    """

    def __init__(self, units, kernel_initializer="glorot_uniform", **kwargs):
        initializer = keras.initializers.get(kernel_initializer)
        clone = initializer.clone() if isinstance(initializer, keras.initializers.Initializer) else initializer
        super().__init__(units, kernel_initializer=clone, **kwargs)

    def call(self, inputs, training=None):
        if not training:
            return super().call(inputs, training=training)
        product = ops.matmul(inputs, ops.cast(self.kernel, inputs.dtype))
        outputs = kernels.add_bias(product, self.bias)
        return outputs if self.activation is None else self.activation(outputs)


def child_dense(parent, name: str, units: int, width: int, use_bias: bool | None = None) -> Dense:
    """A built Dense, [..., width] -> [..., units], with the initializer and policy of the layer it is part of.

    `use_bias` is the parent's where it is None.
    """
    layer = Dense(
        units,
        use_bias=parent.use_bias if use_bias is None else use_bias,
        kernel_initializer=parent.kernel_initializer,
        dtype=parent.dtype_policy,
        name=name,
    )
    layer.build((None, None, width))
    return layer
