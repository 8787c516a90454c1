"""A model as it is when its active adapters are merged, for the time of an export."""

from __future__ import annotations

import contextlib

import keras
import numpy as np

from tfxformer.backend import strategy_of
from tfxformer.compression.adapters import keras_layers
from tfxformer.layers.adapters.base import adapted_layers


@contextlib.contextmanager
def merged_adapters(model: keras.Model):
    """Holds every adapter that a kernel can hold (LoRA, AdaLoRA, IA3, Keras' own LoRA) in it while the block runs.

    A file of it is then the one of the merged model, by construction: the converter sees no factors that it would have
    to multiply out. Adapters computed beside their layers (Bottleneck, prompts, prefixes) stay there. Afterwards the
    model is what it was, bit for bit.
    """
    taken_back = contextlib.ExitStack()
    with taken_back, strategy_of(model).scope():
        for layer in adapted_layers(model):
            if layer.adapter.merges:
                _merge(keras_layers.kernel_of(layer), taken_back)
        for layer in model._flatten_layers():
            if getattr(layer, "lora_enabled", False):
                _merge_keras_lora(layer, taken_back)
        yield


def _merge(kernel, taken_back: contextlib.ExitStack) -> None:
    adapter = keras_layers.detach(kernel)
    taken_back.callback(keras_layers.attach, kernel, adapter)
    for variable, value in keras_layers.merged(kernel, adapter):
        _assign(variable, value, taken_back)


def _merge_keras_lora(layer, taken_back: contextlib.ExitStack) -> None:
    """The same of `layer.enable_lora(rank)` of Keras' Dense, EinsumDense, convolutions and Embedding."""
    name = "embeddings" if hasattr(layer, "_embeddings") else "kernel"
    value = getattr(layer, name)
    layer.lora_enabled = False
    taken_back.callback(setattr, layer, "lora_enabled", True)
    _assign(getattr(layer, f"_{name}"), value, taken_back)


def _assign(variable, value, taken_back: contextlib.ExitStack) -> None:
    taken_back.callback(variable.assign, np.array(variable))
    variable.assign(value)
