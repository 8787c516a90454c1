"""Bottleneck adapters: two small Dense layers with a residual sum behind a layer.

Sources: Houlsby et al., 2019 (arXiv:1902.00751); Pfeiffer et al., 2020 (arXiv:2005.00247).
"""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.layers.activations import activation
from tfxformer.layers.adapters.base import LayerAdapter
from tfxformer.layers.kernels import formulas as kernels


class Bottleneck(LayerAdapter):
    """y + up(activation(down(y))), y [..., out] being what a layer gives; see `attach`.

    Args:
        size: int, width between the two.
        activation: str, a name of `layers.activations`.

    Built with the kernel's shape (in, out): down [out, size] random, up [size, out] zero, so that the sum is y.
    """

    kind = "bottleneck"
    merges = False

    def __init__(self, size, activation="gelu", **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.activation = activation

    def build(self, input_shape):
        super().build(input_shape)
        self._activate = activation(self.activation)
        width = input_shape[1]
        start = keras.initializers.TruncatedNormal(stddev=0.02)
        for name, shape, initializer in (
            ("down_kernel", (width, self.size), start),
            ("down_bias", (self.size,), "zeros"),
            ("up_kernel", (self.size, width), "zeros"),
            ("up_bias", (width,), "zeros"),
        ):
            setattr(self, name, self.add_weight(name=name, shape=shape, initializer=initializer, autocast=False))

    def arguments(self) -> dict:
        return {**super().arguments(), "size": self.size, "activation": self.activation}

    def after(self, outputs, training=None):
        down, up, up_bias = (
            ops.cast(variable, outputs.dtype) for variable in (self.down_kernel, self.up_kernel, self.up_bias)
        )
        down_bias = self.down_bias if training else ops.cast(self.down_bias, outputs.dtype)
        inner = self._activate(ops.matmul(outputs, down), training, down_bias)
        added = ops.matmul(inner, up)
        return outputs + (kernels.add_bias(added, self.up_bias) if training else added + up_bias)
