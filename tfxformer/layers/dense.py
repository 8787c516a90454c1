"""Keras' Dense, its bias gradient put right."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.adapters import low_rank
from tfxformer.layers.kernels import formulas as kernels
from tfxformer.layers.quantization.fake_quantization import rounded, rounded_kernel, rounds


@keras.saving.register_keras_serializable("tfxformer")
class Dense(KnownKeywords, keras.layers.Dense):
    """`keras.layers.Dense`, [..., in] -> [..., out].

    In training the bias is added by `kernels.add_bias`: TensorFlow sums the gradient of a bfloat16 bias in bfloat16,
    which over the rows of one batch is off by tens of percent.

    The kernel's initializer is cloned: Keras draws one seed per initializer, so that layers that share one begin with
    the same numbers, the keys of an attention with those of its queries.

    With `channels`, int [K], some of out, it gives ([..., out] zero there, [..., K] those alone): `outlier_channels`.

    Attributes:
        adapter: `adapters.LayerAdapter`, or None. With one `kernel` and `bias` are what it makes of `base_kernel` and
            `base_bias`, the variables.
    """

    def __init__(self, units, kernel_initializer="glorot_uniform", **kwargs):
        initializer = keras.initializers.get(kernel_initializer)
        clone = initializer.clone() if isinstance(initializer, keras.initializers.Initializer) else initializer
        super().__init__(units, kernel_initializer=clone, **kwargs)
        self.adapter = None

    @property
    def adapted_shape(self) -> tuple[int, int]:
        """The (in, out) that an adapter of this layer is built for."""
        return tuple(self._kernel.shape)

    @property
    def base_kernel(self):
        """The kernel without its adapter."""
        return super().kernel

    @property
    def kernel(self):
        kernel = self.base_kernel
        if self.adapter is None:
            return kernel
        return ops.cast(self.adapter.adapted_kernel(ops.convert_to_tensor(kernel)), self.compute_dtype)

    @property
    def base_bias(self):
        """The bias without the adapter; None where the layer has none, or is not built."""
        return self.__dict__.get("bias")

    @property
    def bias(self):
        bias = self.base_bias
        if self.adapter is None or bias is None:
            return bias
        return self.adapter.adapted_bias(ops.convert_to_tensor(bias))

    @bias.setter
    def bias(self, bias):  # Keras' build sets it
        self.__dict__["bias"] = bias

    def product(self, inputs):
        """In training, the inputs times the kernel, the adapter's fast gradient and dropout in it; without bias."""
        return low_rank.product(inputs, (self,))

    def product_and_bias(self, inputs):
        """In training, (`product`, the bias still to be added); with an adapter that follows, (all of it, None)."""
        product = self.product(inputs)
        if self.followed:
            return self.adapter.after(kernels.add_bias(product, self.bias), training=True), None
        return product, self.bias

    @property
    def followed(self) -> bool:
        """Whether the adapter is one that follows the layer, which its kernel and bias cannot hold."""
        return self.adapter is not None and not self.adapter.merges

    def after(self, outputs):
        """What the adapter makes of outputs [..., out] that another computed with `kernel` and `bias`."""
        return self.adapter.after(outputs) if self.followed else outputs

    def call(self, inputs, training=None, channels=None):
        if channels is not None:
            return self._call_apart(inputs, channels)
        if rounds(self):
            return self.after(self._call_rounded(inputs))
        if not training:
            return self.after(super().call(inputs, training=training))
        outputs = kernels.add_bias(*self.product_and_bias(inputs))
        return outputs if self.activation is None else self.activation(outputs)

    def _call_rounded(self, inputs):
        outputs = ops.matmul(inputs, rounded_kernel(self))
        outputs = rounded(outputs if self.bias is None else outputs + self.bias, self, "product")
        if self.activation in (None, keras.activations.linear):
            return outputs
        return rounded(self.activation(outputs), self, "activation")

    def _call_apart(self, inputs, channels):
        """([..., out] zero at `channels`, [..., K] those alone), of a layer without activation."""
        kernel = rounded_kernel(self) if rounds(self) else ops.convert_to_tensor(self.kernel)
        others = np.ones(self.units, "float32")
        others[list(channels)] = 0.0
        others = ops.cast(others, kernel.dtype)
        rest, apart = ops.matmul(inputs, kernel * others), ops.matmul(inputs, ops.take(kernel, channels, axis=1))
        if self.bias is not None:
            bias = ops.convert_to_tensor(self.bias)
            rest, apart = rest + bias * ops.cast(others, bias.dtype), apart + ops.take(bias, channels)
        return rounded(rest, self, "product"), rounded(apart, self, "outliers")

    def save_own_variables(self, store):
        if self.adapter is None:
            super().save_own_variables(store)
        else:  # Keras would write what the adapter makes of them, and the adapter writes itself too
            keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        if self.adapter is None:
            super().load_own_variables(store)
        else:
            keras.layers.Layer.load_own_variables(self, store)


def child_dense(
    parent, name: str, units: int, width: int, use_bias: bool | None = None, kernel_initializer=None
) -> Dense:
    """A built Dense, [..., width] -> [..., units], with the initializer and policy of the layer it is part of.

    `use_bias` and `kernel_initializer` are the parent's where they are None.
    """
    layer = Dense(
        units,
        use_bias=parent.use_bias if use_bias is None else use_bias,
        kernel_initializer=kernel_initializer or parent.kernel_initializer,
        dtype=parent.dtype_policy,
        name=name,
    )
    layer.build((None, None, width))
    return layer
