"""Normalizations that are written as the graph's form says."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.layers.kernels import formulas as kernels
from tfxformer.layers.quantization.fake_quantization import rounded, rounds
from tfxformer.layers.quantization.graph_form import DEFAULT, GraphForm, WrittenLayer, chosen

NORMS = LAYER, PLAIN, RMS, ZERO_CENTRED, AFFINE = "layer", "plain_layer", "rms", "zero_centred_rms", "affine"
RMS_NORMS = (RMS, ZERO_CENTRED)


def make_norm(kind: str, epsilon: float, dtype, name: str, bias: bool = True):
    """The normalization layer of a kind in `NORMS`; `bias` says whether a "layer" norm has a beta.

    A "plain_layer" norm has no weights (OLMo: Groeneveld et al., 2024, arXiv:2402.00838).
    """
    if kind in RMS_NORMS:
        return RMSNormalization(epsilon=epsilon, zero_centred=kind == ZERO_CENTRED, dtype=dtype, name=name)
    if kind == AFFINE:
        return ScaleAndShift(dtype=dtype, name=name)
    plain = kind == PLAIN
    return LayerNormalization(epsilon=epsilon, center=bias and not plain, scale=not plain, dtype=dtype, name=name)


@keras.saving.register_keras_serializable("tfxformer")
class LayerNormalization(WrittenLayer, KnownKeywords, keras.layers.LayerNormalization):
    """Layer normalization over the last axis (Ba et al., 2016, arXiv:1607.06450).

    Input and output [..., D]; the statistics are float32 under every dtype policy. In training it is one kernel.
    With `outliers` [..., K], some of the D `channels`, the input is zero there; they have scales of their own in int8.
    """

    @classmethod
    def from_config(cls, config):
        # Keras writes it, and takes it as a keyword that its own signature does not name.
        return cls(**{name: value for name, value in config.items() if name != "rms_scaling"})

    def call(self, inputs, training=None, graph_form: GraphForm = DEFAULT, outliers=None, channels=None):
        graph_form = chosen(graph_form)
        if rounds(self) or graph_form.layer_norm == "inner_product" or outliers is not None:
            return self._call_as_inner_product(inputs, outliers, channels)
        if training:
            inputs = ops.cast(inputs, self.compute_dtype)
            return kernels.add_norm(inputs, None, self.factor, self.shift, self.epsilon)
        if graph_form.layer_norm == "product":
            return self._call_as_product(inputs)
        return super().call(inputs)

    def _call_as_product(self, inputs):
        wide = self._wide_dtype
        inputs = ops.cast(inputs, wide)
        mean = ops.mean(inputs, axis=-1, keepdims=True)
        # Two equal differences, not one squared: the converter folds square(x - mean) into
        # SQUARED_DIFFERENCE, which has no int8 or int16 kernel.
        centred, again = inputs - mean, inputs - mean
        variance = ops.mean(centred * again, axis=-1, keepdims=True)
        gamma, beta = ops.cast(self.factor, wide), ops.cast(self.shift, wide)
        # gamma scales the small factor: last in the chain, the converter would fold it into the kernels that read
        # the result, which then quantize worse, and would store a tied table twice.
        scale = ops.rsqrt(variance + self.epsilon) * gamma
        return ops.cast(centred * scale + beta, self.compute_dtype)

    def _call_as_inner_product(self, inputs, outliers, channels):
        """The norm as int8 computes it best: the squares are summed inside a product, none is stored."""
        wide, width = self._wide_dtype, inputs.shape[-1]
        inputs = rounded(ops.cast(inputs, wide), self, "inputs")
        gamma, beta = ops.cast(self.factor, wide) * width**0.5, ops.cast(self.shift, wide)
        mean = ops.mean(inputs, axis=-1, keepdims=True)
        if outliers is not None:
            outliers = rounded(ops.cast(outliers, wide), self, "outliers")
            share = ops.mean(outliers, axis=-1, keepdims=True) * (len(channels) / width)
            mean = rounded(mean, self, "mean_of_others") + rounded(share, self, "mean_of_outliers")
        mean = rounded(mean, self, "mean")
        centred = rounded(inputs - mean, self, "centred")
        if outliers is None:
            deviation = self._inverse_deviation(_inner_product(centred, centred))
            scaled = centred * rounded(deviation * gamma, self, "scale")
            return ops.cast(rounded(rounded(scaled, self, "scaled") + beta, self, "outputs"), self.compute_dtype)
        place = one_hot(channels, width)
        others = 1.0 - place.sum(axis=0)  # [D]
        outliers = rounded(outliers - mean, self, "centred_outliers")
        squares = rounded(_inner_product(centred, centred * others), self, "squares")
        squares += rounded(_inner_product(outliers, outliers), self, "squared_outliers")
        deviation = self._inverse_deviation(squares)
        scaled = rounded(centred * rounded(deviation * (gamma * others), self, "scale"), self, "scaled")
        outliers = rounded(outliers * deviation, self, "scaled_outliers")
        placed = rounded(ops.matmul(outliers, place * gamma) + beta, self, "placed")  # [B, S, K] -> [B, S, D]
        return ops.cast(rounded(scaled + placed, self, "outputs"), self.compute_dtype)

    def _inverse_deviation(self, squares):
        """1 / sqrt of the sum of squares [B, S, 1]: sqrt(D) times the inverse of the standard deviation."""
        epsilon = self.epsilon * self.width
        squares = rounded(rounded(squares, self, "variance") + epsilon, self, "variance_and_epsilon")
        return rounded(ops.rsqrt(squares), self, "deviation")

    def build(self, input_shape):
        super().build(input_shape)
        self.width = input_shape[-1]

    @property
    def factor(self):
        """gamma [D]; ones where the norm has none (`scale=False`)."""
        return ops.ones(self.width) if self.gamma is None else self.gamma

    @property
    def shift(self):
        """beta [D]; zeros where the norm has none (`center=False`)."""
        return ops.zeros_like(self.factor) if self.beta is None else self.beta

    @property
    def _wide_dtype(self) -> str:
        return "float64" if self.compute_dtype == "float64" else "float32"


def one_hot(channels, width: int) -> np.ndarray:
    """float32 [K, D], a row for each of the channels."""
    return np.eye(width, dtype="float32")[np.asarray(channels)]


def _inner_product(first, second):
    """The sums of products of two [B, S, D], as one product of matrices per token: [B, S, 1]."""
    product = ops.matmul(ops.expand_dims(first, -2), ops.expand_dims(second, -1))  # [B, S, 1, 1]
    return ops.reshape(product, (*ops.shape(first)[:-1], 1))


@keras.saving.register_keras_serializable("tfxformer")
class ScaleAndShift(WrittenLayer, KnownKeywords, keras.layers.Layer):
    """x * gamma + beta over the last axis: what stands in a norm's place where phones shall sum nothing (MobileBERT).

    Input and output [..., D].

    Source: Sun et al., 2020 (arXiv:2004.02984), section 3.5.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(input_shape[-1],), initializer="zeros")

    def call(self, inputs, graph_form: GraphForm = DEFAULT):
        return rounded(inputs * self.gamma + self.beta, self, "outputs")

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable("tfxformer")
class RMSNormalization(WrittenLayer, KnownKeywords, keras.layers.Layer):
    """x / sqrt(mean(x^2) + epsilon) * gamma over the last axis (Zhang and Sennrich, 2019, arXiv:1910.07467).

    Args:
        epsilon: float.
        zero_centred: bool, whether the factor is 1 + gamma (Gemma); gamma begins at 0 then.

    Input and output [..., D]; the mean is float32 under every dtype policy. In training it is one kernel.
    """

    def __init__(self, epsilon=1e-6, zero_centred=False, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.zero_centred = zero_centred
        self.supports_masking = True

    def build(self, input_shape):
        initializer = "zeros" if self.zero_centred else "ones"
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer=initializer, autocast=False)

    @property
    def scale(self):
        """What the normed input is multiplied by, [D]."""
        return self.gamma + 1.0 if self.zero_centred else self.gamma

    def call(self, inputs, training=None, graph_form: GraphForm = DEFAULT):
        if training:
            return kernels.add_norm(ops.cast(inputs, self.compute_dtype), None, self.scale, None, self.epsilon)
        wide = ops.cast(inputs, "float64" if self.compute_dtype == "float64" else "float32")
        scale = ops.rsqrt(ops.mean(wide * wide, axis=-1, keepdims=True) + self.epsilon)
        gamma = ops.cast(self.scale, wide.dtype)
        graph_form = chosen(graph_form)
        if graph_form.layer_norm == "product":  # gamma scales the small factor, as in `LayerNormalization`
            return ops.cast(wide * (scale * gamma), self.compute_dtype)
        return ops.cast(wide * scale * gamma, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon, "zero_centred": self.zero_centred}
