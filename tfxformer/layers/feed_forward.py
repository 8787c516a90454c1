"""The feed-forward half of a Transformer block."""

from __future__ import annotations

import keras

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.activations import activation
from tfxformer.layers.dense import child_dense
from tfxformer.layers.quantization.equalization import equalized, equalized_product, sum_of_parts
from tfxformer.layers.quantization.fake_quantization import rounded, rounds
from tfxformer.layers.quantization.graph_form import DEFAULT, GraphForm, WrittenLayer


@keras.saving.register_keras_serializable("tfxformer")
class FeedForward(WrittenLayer, KnownKeywords, keras.layers.Layer):
    """Two Dense layers around an activation, or three where the activation gates (Shazeer, arXiv:2002.05202).

    Args:
        size: int F, inner width.
        activation: str, a name of `layers.activations`.
        gated: bool, output(activation(gate(x)) * expand(x)) in place of output(activation(expand(x))).
        use_bias: bool, biases on all Dense layers.
        output_bias: bool or None (`use_bias`), bias on the last of them.
        kernel_initializer: initializer of the kernels.

    Call: [B, S, D] -> [B, S, D]; with `channels`, some of D, ([B, S, D] zero there, [B, S, K] those alone).
    """

    def __init__(
        self,
        size,
        activation="gelu",
        gated=False,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        output_bias=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.size = size
        self.activation = activation
        self.gated = gated
        self.use_bias = use_bias
        self.output_bias = use_bias if output_bias is None else output_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def build(self, input_shape):
        width = input_shape[-1]
        self._activate = activation(self.activation)
        self.expand = child_dense(self, "expand", self.size, width)
        self.gate = child_dense(self, "gate", self.size, width) if self.gated else None
        self.output_projection = child_dense(self, "output", width, self.size, self.output_bias)

    def compute_output_spec(self, inputs, *args, **kwargs):
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def call(self, inputs, training=None, graph_form: GraphForm = DEFAULT, channels=None):
        equalization = graph_form.equalization
        if channels is not None:
            return self.output_projection(self.inner(inputs, training, graph_form), channels=channels)
        if equalization is None:
            return self.output_projection(self.inner(inputs, training, graph_form))
        if self.gated:
            return self._equalized(inputs, training, graph_form)
        parts = equalization.parts(self.output_projection)
        if not parts:
            return self.output_projection(self.inner(inputs, training, graph_form))
        inner = [self.inner(inputs, training, graph_form, units) for units in parts]
        return sum_of_parts(self.output_projection, inner, parts)

    def _equalized(self, inputs, training, graph_form):
        # The gated product takes a scale through to the output projection.
        inner = self.inner(inputs, training, graph_form)
        graph_form.equalization.see_gated(self.output_projection, self.expand, inner)
        return equalized_product(self.output_projection, inner, graph_form)

    def inner(self, inputs, training=None, graph_form: GraphForm = DEFAULT, units=None):
        """What the output projection reads: [B, S, D] -> [B, S, F], or only its channels `units`."""
        project = equalized(inputs, (self.gate, self.expand) if self.gated else (self.expand,), graph_form)
        if rounds(self):
            return self._rounded_inner(project)
        if training and self.gated:  # said to the layers too, as in `Attention.training_context`
            return self._activate(self.gate(inputs, training=True), training) * self.expand(inputs, training=True)
        if self.gated:
            return self._activate(project(self.gate, units), training) * project(self.expand, units)
        if training:  # the bias goes into the activation's kernel
            product, bias = self.expand.product_and_bias(inputs)
            return self._activate(product, training, bias)
        return self._activate(project(self.expand, units), training)

    def _rounded_inner(self, project):
        activated = rounded(self._activate(project(self.gate if self.gated else self.expand)), self, "activation")
        return rounded(activated * project(self.expand), self, "gated") if self.gated else activated

    def get_config(self):
        return {
            **super().get_config(),
            "size": self.size,
            "activation": self.activation,
            "gated": self.gated,
            "use_bias": self.use_bias,
            "output_bias": self.output_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
