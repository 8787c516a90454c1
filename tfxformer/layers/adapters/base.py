"""What stands beside the kernel of a Dense layer and is trained in its place."""

from __future__ import annotations

import contextlib
import contextvars

import keras
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords

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


def current_seed():
    """The seed of the `adapter_seed` around; None outside of one."""
    return _seed.get()


class LayerAdapter(KnownKeywords, keras.layers.Layer):
    """What an adapter does to a Dense layer, [..., in] -> [..., out]; this one does nothing.

    Built with the kernel's shape as a matrix (in, out), it has attributes `kind`, its name in configs, `merges`,
    whether kernel and bias can hold it, `rate`, of its dropout, and `shape`.
    """

    kind = ""
    merges = True
    rate = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """(in, out) of the kernel that it was built for."""
        return self._built_for

    def build(self, input_shape):
        self._built_for = tuple(input_shape)

    def begin(self, layer) -> None:
        """Takes what it needs of the layer that it will stand beside, once, while it is new."""

    def arguments(self) -> dict:
        """What makes another one like it, for JSON."""
        return {"kind": self.kind, "name": self.name}

    def adapted_kernel(self, kernel):
        """The kernel [in, out] in place of the layer's own, in the dtype of its variable."""
        return kernel

    def adapted_bias(self, bias):
        """The bias [out] in place of the layer's own."""
        return bias

    def product(self, inputs, kernel):
        """In training, what `inputs` [..., in] times the adapted kernel is, a cheap gradient and dropout in it."""
        return ops.matmul(inputs, ops.cast(kernel, inputs.dtype))

    def after(self, outputs, training=None):
        """What follows the layer: [..., out] -> [..., out]."""
        return outputs


def attach(layer: keras.layers.Layer, adapter: LayerAdapter, kernel_shape: tuple[int, int] | None = None) -> None:
    """Puts an adapter beside the kernel of a built layer, of which it becomes a part; builds it where it is not.

    Args:
        layer: one that reads its attribute `adapter`: `layers.Dense`, `TokenEmbedding` or `Attention`.
        adapter: LayerAdapter.
        kernel_shape: (in, out) of the kernel as a matrix; None for the layer's `adapted_shape`.

    Raises:
        ValueError: for a layer that has one, or an adapter made for a kernel of another shape.
    """
    if getattr(layer, "adapter", None) is not None:
        raise ValueError(f"{layer.path} has the adapter {layer.adapter.name!r} already: detach it first.")
    shape = kernel_shape or layer.adapted_shape
    if not adapter.built:
        with layer._open_name_scope():  # so that the paths of its variables tell the layer
            adapter.build(shape)
    if adapter.shape != shape:
        raise ValueError(f"An adapter of a kernel {adapter.shape}, but {layer.path}: {shape}.")
    layer._tracker.unlock()  # Keras locks built layers; its own enable_lora does the same
    layer.adapter = adapter
    layer._tracker.lock()
    # Read in its own dtype: a small change added to a kernel that is rounded to bfloat16 already would mostly round to
    # nothing, the sum rounded once keeps it on average.
    if hasattr(layer, "_kernel"):  # of a Dense or EinsumDense
        layer._kernel._autocast = False


def detach(layer: keras.layers.Layer) -> LayerAdapter:
    """Takes the adapter of a layer away again, and returns it."""
    adapter = layer.adapter
    layer._tracker.untrack(adapter)
    layer.adapter = None
    if hasattr(layer, "_kernel"):
        layer._kernel._autocast = True
    return adapter


def adapted_layers(model: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers inside `model` that have an adapter, each once."""
    found = {id(layer): layer for layer in model._flatten_layers() if getattr(layer, "adapter", None) is not None}
    return list(found.values())
