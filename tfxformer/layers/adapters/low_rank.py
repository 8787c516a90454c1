"""Low-rank adapters of Dense kernels: kernel + scale * a @ b, of which only a and b are trained (LoRA).

Source: Hu et al., 2021 (arXiv:2106.09685).
"""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.layers.adapters.base import LayerAdapter, current_seed
from tfxformer.layers.kernels import clusters
from tfxformer.layers.kernels.dropout import Dropout, dropout, split_seed


class LowRank(LayerAdapter):
    """The two factors beside one kernel; see `attach`.

    Args:
        rank: int r.
        scale: float, the factor of their product.
        dropout: float, rate at which the adapter's input is dropped in training.
        index: int, another one for each adapter of a model: where its dropout mask begins.

    Built with the kernel's shape as a matrix (in, out): a [in, r] random, b [r, out] zero, so that the product is zero.
    """

    kind = "low_rank"

    def __init__(self, rank, scale=1.0, dropout=0.0, index=0, **kwargs):
        super().__init__(**kwargs)
        self.rank = rank
        self.scale = scale
        self.index = index
        self.dropout = Dropout(dropout, dtype=self.dtype_policy) if dropout else None

    def build(self, input_shape):
        super().build(input_shape)
        width, units = input_shape
        # As torch's peft has them: uniform within +-1/sqrt(in). Float32 under every policy: the sum with the kernel
        # is what is rounded.
        start = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
        self.a = self.add_weight(name="lora_a", shape=(width, self.rank), initializer=start, autocast=False)
        self.b = self.add_weight(name="lora_b", shape=(self.rank, units), initializer="zeros", autocast=False)

    @property
    def rate(self) -> float:
        """The rate of its dropout."""
        return 0.0 if self.dropout is None else self.dropout.rate

    def arguments(self) -> dict:
        own = {name: getattr(self, name) for name in ("rank", "scale", "index")}
        return {**super().arguments(), **own, "dropout": self.rate}

    def scaled_a(self):
        """scale * a, [in, r]."""
        return ops.convert_to_tensor(self.a) * self.scale

    def delta(self):
        """What is added to the kernel, [in, out] in the dtype of the factors."""
        return ops.matmul(self.scaled_a(), self.b)

    def adapted_kernel(self, kernel):
        return kernel + ops.cast(self.delta(), kernel.dtype)

    def product(self, inputs, kernel):
        return low_rank_product(inputs, kernel, self.scaled_a(), ops.convert_to_tensor(self.b), self)

    def dropped(self, inputs):
        """The inputs [..., in] with this adapter's dropout."""
        if self.dropout is None:
            return inputs
        seed = current_seed()
        if seed is None:
            return self.dropout(inputs, training=True)
        return dropout(inputs, self.rate, split_seed(seed, self.index))


class SingularValues(LowRank):
    """Factors with a diagonal between them, scale * a @ diag(e) @ b, as AdaLoRA has them (arXiv:2303.10512); `attach`.

    Args:
        orthogonality: float, what the distance of the columns of a, and of the rows of b, from orthonormal ones counts
            in the loss: the Frobenius norm of a^T a - 1, and of b b^T - 1.
        others: as `LowRank` has them.

    Built with the kernel's shape (in, out): a [in, r] and b [r, out] random, e [r] zero, so that the product is zero.
    An entry of e that is zero is a rank that is not used.
    """

    kind = "singular_values"

    def __init__(self, rank, orthogonality=0.0, **kwargs):
        super().__init__(rank, **kwargs)
        self.orthogonality = orthogonality

    def build(self, input_shape):
        LayerAdapter.build(self, input_shape)
        width, units = input_shape
        for name, shape, axis in (("a", (width, self.rank), 0), ("b", (self.rank, units), 1)):
            start = keras.initializers.RandomNormal(stddev=0.02)
            regularizer = _Orthogonality(self.orthogonality, axis) if self.orthogonality else None
            variable = self.add_weight(
                name=f"lora_{name}", shape=shape, initializer=start, regularizer=regularizer, autocast=False
            )
            setattr(self, name, variable)
        self.e = self.add_weight(name="lora_e", shape=(self.rank,), initializer="zeros", autocast=False)

    def arguments(self) -> dict:
        return {**super().arguments(), "orthogonality": self.orthogonality}

    def scaled_a(self):
        return super().scaled_a() * ops.convert_to_tensor(self.e)


class _Orthogonality(keras.regularizers.Regularizer):
    """factor * Frobenius norm of what the products of a factor's vectors differ from 1; they are summed over `axis`."""

    def __init__(self, factor: float, axis: int):
        self.factor, self.axis = factor, axis

    def __call__(self, x):
        products = ops.matmul(ops.transpose(x), x) if self.axis == 0 else ops.matmul(x, ops.transpose(x))  # [r, r]
        difference = products - ops.eye(products.shape[0], dtype=products.dtype)
        return self.factor * ops.sqrt(ops.sum(ops.square(difference)) + 1e-12)  # at 0 the root has no gradient


def product(inputs, layers):
    """In training, inputs [..., in] times the adapted kernels of Dense layers side by side: [..., sum of out].

    Low-rank adapters of all of them are one product. Their dropout is one mask for all that read the same inputs.
    """
    adapters = [one.adapter for one in layers if one.adapter is not None]
    if len(layers) > 1 and _apart(adapters):
        return ops.concatenate([product(inputs, (one,)) for one in layers], axis=-1)
    # Side by side some may be rounded to the compute dtype already, those without adapter.
    every = [ops.convert_to_tensor(one.base_kernel) for one in layers]
    kernel = every[0] if len(layers) == 1 else ops.concatenate(every, axis=1)
    if not adapters:
        return ops.matmul(inputs, ops.cast(kernel, inputs.dtype))
    if len(layers) == 1:
        return adapters[0].product(inputs, kernel)
    return low_rank_product(inputs, kernel, *_joined(layers), adapters[0])


def _apart(adapters) -> bool:
    """Whether adapters of layers side by side cannot be one."""
    return len({one.rate for one in adapters}) > 1 or not all(isinstance(one, LowRank) for one in adapters)


def low_rank_product(inputs, kernel, a, b, adapter):
    """inputs @ (kernel + a @ b), in the way that trains fastest; `inputs` of a and b with the adapter's dropout."""
    if not adapter.rate:
        return _low_rank_product(inputs, kernel, a, b)
    inner = ops.matmul(adapter.dropped(inputs), ops.cast(a, inputs.dtype))
    return ops.matmul(inputs, ops.cast(kernel, inputs.dtype)) + ops.matmul(inner, ops.cast(b, inputs.dtype))


def _joined(layers):
    """(a [in, R], b [R, sum of out]) of all layers' adapters, b block by block."""
    a, b, before, units = [], [], 0, sum(one.units for one in layers)
    for layer in layers:
        after = units - before - layer.units
        if layer.adapter is not None:
            a.append(layer.adapter.scaled_a())
            b.append(ops.pad(ops.convert_to_tensor(layer.adapter.b), ((0, 0), (before, after))))
        before += layer.units
    return (a[0], b[0]) if len(a) == 1 else (ops.concatenate(a, axis=1), ops.concatenate(b, axis=0))


def _low_rank_product(x, kernel, a, b):
    """x @ (kernel + a @ b), with a gradient that never multiplies the factors' full-sized one.

    One product forward, as without adapter. Backward, a's gradient x^T (dy b^T) and b's (x a)^T dy are of rank r; the
    kernel's own is computed only where somebody asks for it (compiled steps drop what nobody reads).

    Args:
        x: [..., in].
        kernel: [in, out].
        a, b: [in, r] and [r, out].
    """
    if keras.backend.backend() != "tensorflow":
        return ops.matmul(x, ops.cast(kernel + ops.matmul(a, b), x.dtype))
    import tensorflow as tf

    kernel_dtype = kernel.dtype

    def forward(x, kernel, a, b):
        effective = tf.cast(kernel + tf.cast(tf.matmul(a, b), kernel.dtype), x.dtype)
        return tf.matmul(x, effective), (x, effective, a, b)

    def backward(constants, kept, upstream):
        x, effective, a, b = kept
        inner = tf.matmul(x, tf.cast(a, x.dtype))  # [..., r]
        inner_gradient = tf.matmul(upstream, tf.cast(b, x.dtype), transpose_b=True)  # [..., r]
        rows, upstream_rows, inner, inner_rows = (
            tf.reshape(part, (-1, part.shape[-1])) for part in (x, upstream, inner, inner_gradient)
        )
        return (
            tf.matmul(upstream, effective, transpose_b=True),
            tf.cast(tf.matmul(rows, upstream_rows, transpose_a=True), kernel_dtype),
            tf.cast(tf.matmul(rows, inner_rows, transpose_a=True), a.dtype),
            tf.cast(tf.matmul(inner, upstream_rows, transpose_a=True), b.dtype),
        )

    return clusters.with_gradient(forward, backward, [], [x, kernel, a, b])
