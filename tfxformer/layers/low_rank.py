"""Low-rank adapters of Dense kernels: kernel + scale * a @ b, of which only a and b are trained (LoRA).

Source: Hu et al., 2021 (arXiv:2106.09685).
"""

from __future__ import annotations

import contextlib
import contextvars

import keras
from keras import ops

from tfxformer.layers import kernels
from tfxformer.layers.dropout import Dropout, dropout, split_seed

_seed = contextvars.ContextVar("adapter_seed", default=None)


@contextlib.contextmanager
def adapter_seed(seed):
    """Inside, adapters make their dropout masks from `seed` (integer tensor [2], or None for their own generators).

    A block that is computed again in the backward pass draws it outside, or the second run would drop other units.
    """
    token = _seed.set(seed)
    try:
        yield
    finally:
        _seed.reset(token)


class LowRank(keras.layers.Layer):
    """The two factors beside one kernel; see `attach`.

    Args:
        rank: int r.
        scale: float, the factor of their product.
        dropout: float, rate at which the adapter's input is dropped in training.
        index: int, another one for each adapter of a model: where its dropout mask begins.

    Built with the kernel's shape as a matrix (in, out): a [in, r] random, b [r, out] zero, so that the product is zero.
    """

    def __init__(self, rank, scale=1.0, dropout=0.0, index=0, **kwargs):
        super().__init__(**kwargs)
        self.rank = rank
        self.scale = scale
        self.index = index
        self.dropout = Dropout(dropout, dtype=self.dtype_policy) if dropout else None

    def build(self, input_shape):
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
        """What makes another one like it, for JSON."""
        names = ("name", "rank", "scale", "index")
        return {**{name: getattr(self, name) for name in names}, "dropout": self.rate}

    def scaled_a(self):
        """scale * a, [in, r]."""
        return ops.convert_to_tensor(self.a) * self.scale

    def delta(self):
        """What is added to the kernel, [in, out] in the dtype of the factors."""
        return ops.matmul(self.scaled_a(), self.b)

    def dropped(self, inputs):
        """The inputs [..., in] with this adapter's dropout."""
        if self.dropout is None:
            return inputs
        seed = _seed.get()
        if seed is None:
            return self.dropout(inputs, training=True)
        return dropout(inputs, self.rate, split_seed(seed, self.index))


def attach(layer: keras.layers.Layer, adapter: LowRank, kernel_shape: tuple[int, int] | None = None) -> None:
    """Puts an adapter beside the kernel of a built layer, of which it becomes a part; builds it where it is not.

    Args:
        layer: one that reads its attribute `adapter`: `layers.Dense`.
        adapter: LowRank.
        kernel_shape: (in, out) of the kernel as a matrix; None for that of a Dense.

    Raises:
        ValueError: for a layer that has one, or an adapter made for a kernel of another shape.
    """
    if getattr(layer, "adapter", None) is not None:
        raise ValueError(f"{layer.path} has the adapter {layer.adapter.name!r} already: detach it first.")
    shape = tuple(layer.kernel.shape) if kernel_shape is None else kernel_shape
    if not adapter.built:
        with layer._open_name_scope():  # so that the paths of its variables tell the layer
            adapter.build(shape)
    if (adapter.a.shape[0], adapter.b.shape[1]) != shape:
        raise ValueError(
            f"An adapter of a kernel {(adapter.a.shape[0], adapter.b.shape[1])}, but {layer.path}: {shape}."
        )
    layer._tracker.unlock()  # Keras locks built layers; its own enable_lora does the same
    layer.adapter = adapter
    layer._tracker.lock()


def detach(layer: keras.layers.Layer) -> LowRank:
    """Takes the adapter of a layer away again, and returns it."""
    adapter = layer.adapter
    layer._tracker.untrack(adapter)
    layer.adapter = None
    return adapter


def adapted_layers(model: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers inside `model` that have an adapter, each once."""
    found = {id(layer): layer for layer in model._flatten_layers() if getattr(layer, "adapter", None) is not None}
    return list(found.values())


def product(inputs, layers):
    """In training, inputs [..., in] times the kernels of one or more Dense layers side by side: [..., sum of out].

    The adapters of all of them are one low-rank product. Their dropout is one mask for all that read the same inputs.
    """
    kernel = layers[0].base_kernel if len(layers) == 1 else ops.concatenate([one.base_kernel for one in layers], axis=1)
    kernel = ops.cast(kernel, inputs.dtype)
    adapters = [one.adapter for one in layers if one.adapter is not None]
    if not adapters:
        return ops.matmul(inputs, kernel)
    a, b = _joined(layers)
    rates = {adapter.rate for adapter in adapters}
    if rates == {0.0}:
        return _low_rank_product(inputs, kernel, a, b)
    if len(rates) > 1:
        return ops.concatenate([product(inputs, (one,)) for one in layers], axis=-1)
    inner = ops.matmul(adapters[0].dropped(inputs), ops.cast(a, inputs.dtype))
    return ops.matmul(inputs, kernel) + ops.matmul(inner, ops.cast(b, inputs.dtype))


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
        kernel: [in, out] in the dtype of `x`.
        a, b: [in, r] and [r, out].
    """
    if keras.backend.backend() != "tensorflow":
        return ops.matmul(x, kernel + ops.cast(ops.matmul(a, b), kernel.dtype))
    import tensorflow as tf

    def forward(x, kernel, a, b):
        effective = kernel + tf.cast(tf.matmul(a, b), kernel.dtype)
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
            tf.matmul(rows, upstream_rows, transpose_a=True),
            tf.cast(tf.matmul(rows, inner_rows, transpose_a=True), a.dtype),
            tf.cast(tf.matmul(inner, upstream_rows, transpose_a=True), b.dtype),
        )

    return kernels.with_gradient(forward, backward, [], [x, kernel, a, b])
