"""Learned scales of what a Dense layer reads or gives: (IA)^3.

Source: Liu et al., 2022 (arXiv:2205.05638).
"""

from __future__ import annotations

from keras import ops

from tfxformer.layers.adapters.base import LayerAdapter


class Scaling(LayerAdapter):
    """A scale for each output of a layer, (x W + b) * l, or for each of its inputs, (x * l) W + b; see `attach`.

    Args:
        of_inputs: bool, whether inputs are scaled.

    Built with the kernel's shape (in, out): l [in] or [out], ones.
    """

    kind = "scaling"

    def __init__(self, of_inputs=False, **kwargs):
        super().__init__(**kwargs)
        self.of_inputs = of_inputs

    def build(self, input_shape):
        super().build(input_shape)
        width = input_shape[0 if self.of_inputs else 1]
        self.scale = self.add_weight(name="ia3_scale", shape=(width,), initializer="ones", autocast=False)

    def arguments(self) -> dict:
        return {**super().arguments(), "of_inputs": self.of_inputs}

    def adapted_kernel(self, kernel):
        scale = ops.cast(self.scale, kernel.dtype)
        return kernel * (scale[:, None] if self.of_inputs else scale)

    def adapted_bias(self, bias):
        return bias if self.of_inputs else bias * ops.cast(self.scale, bias.dtype)

    def product(self, inputs, kernel):
        # Of activations, not of the kernel: its gradient would cost a product as large as the kernel's own.
        kernel = ops.cast(kernel, inputs.dtype)
        return ops.matmul(self._scaled(inputs), kernel) if self.of_inputs else self._scaled(ops.matmul(inputs, kernel))

    def _scaled(self, x):
        # In float32: the gradient of the scale is a sum over all rows, of which bfloat16 keeps too little.
        return ops.cast(ops.cast(x, "float32") * self.scale, x.dtype)
