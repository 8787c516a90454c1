"""Quantization-aware training as a Keras callback: weights that serve a file computing in int8 (`export_litert`)."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from tfxformer.backend import needs_tensorflow
from tfxformer.compression.pruning.kept_forms import KeptForms
from tfxformer.layers.quantization.fake_quantization import rounding
from tfxformer.layers.quantization.graph_form import STATIC_INT8
from tfxformer.layers.quantization.observing import observe_ranges, with_outliers_apart
from tfxformer.models.backbone import Backbone
from tfxformer.training.step.hooks import changed_until


class QuantizationAware(keras.callbacks.Callback):
    """Lets `fit` train a task on what its full-integer int8 file will answer (Jacob et al., 2018, arXiv:1712.05877).

    Kernels and activations are rounded as `export_litert(task, path, quantization="int8", representative=...)` will
    round them, with gradients as if they were not (`layers.fake_quantization`). The ranges of the activations are
    those that the representative texts have at the beginning of each epoch. So it is for training steps alone, while
    `fit` runs: validation, `evaluate` and `predict` stay float, and the model keeps nothing of it.

    It is meant for the last fit, of a model that is good already: some hundred steps at a tenth of its learning rate.
    Give it the texts that will calibrate the file, and the sequence length of the file.

    In the fit of a `compression.Distiller` it is the student that rounds, and the teacher that does not. It works
    under distribution strategies, XLA, gradient accumulation, gradient checkpointing and mixed precision (where the
    numbers that are rounded are bfloat16 first), and beside `compression.Prune` and `compression.Cluster`.

    What earlier fits with these two have left stays: zeros are zero after it, weights that shared a value share one.

    Args:
        representative: texts or (text, pair) tuples as the task reads them, or a batch, a dict of int32 [B, S].

    Raises:
        ValueError: for no representative text, or, when `fit` begins, a model that is no encoder of ours.
    """

    def __init__(self, representative: Sequence | dict):
        super().__init__()
        empty = not (_rows(representative) if isinstance(representative, dict) else len(representative))
        if empty:
            raise ValueError(
                "QuantizationAware: the representative data is empty; pass some dozens of texts that the model will "
                "meet. They say in which ranges activations are rounded."
            )
        self.representative = representative
        self._remove = self._kept = None

    def on_train_begin(self, logs=None):
        needs_tensorflow("QuantizationAware, which rounds as a LiteRT file does,")
        _check(self._rounding_model)
        self._remove = self._kept = None

    def on_epoch_begin(self, epoch, logs=None):
        # Not in on_train_begin: there a callback after this one may still load weights (BackupAndRestore), or begin to
        # hold kernels itself (Prune).
        if self._remove is not None:
            self._remove()
        if self._kept is None:
            self._kept = KeptForms(self.model)
        self._remove = _train_rounded(self.model, observe(self._rounding_model, self.representative))

    def on_train_end(self, logs=None):
        if self._remove is not None:
            self._remove()
        if self._kept is not None:
            self._kept.release()
        self._remove = self._kept = None

    @property
    def _rounding_model(self) -> keras.Model:
        return getattr(self.model, "student", self.model)


def observe(model, representative):
    """The `FakeQuantization` whose ranges are those of a task on texts, written as its int8 file is."""
    batch = representative if isinstance(representative, dict) else model.encode(list(representative))
    batch = {tensor.name: np.asarray(batch[tensor.name]) for tensor in model.inputs}
    parts = [{name: ids[begin : begin + 32] for name, ids in batch.items()} for begin in range(0, _rows(batch), 32)]
    return observe_ranges(model, parts, with_outliers_apart(model, parts, STATIC_INT8))


def _rows(batch: dict) -> int:
    return len(next(iter(batch.values())))


def _check(model) -> None:
    """Refuses a model whose layers do not round.

    Raises:
        ValueError: saying what can be done with it.
    """
    layers = list(model._flatten_layers())
    backbones = [layer for layer in layers if isinstance(layer, Backbone)]
    if hasattr(model, "forward") and backbones and all(one.stack_name == "encoder" for one in backbones):
        return
    if hasattr(model, "forward"):
        raise ValueError(
            f"QuantizationAware: {type(model).__name__} is no encoder. A decoder's file does not compute in int8 "
            'throughout: export it with quantization="dynamic_int8", which needs no training.'
        )
    raise ValueError(
        f"QuantizationAware trains tasks of tfxformer on an encoder; {type(model).__name__} {model.name!r} is another "
        'model, whose layers do not round. Export it with quantization="dynamic_int8", or with "int8" and '
        "representative=... as it is."
    )


def _train_rounded(model, quantization):
    """Lets the training steps of `model` round from here on; returns what ends that."""

    def call(*args, training=None, **kwargs):
        with rounding(quantization if training else None):
            return type(model).call(model, *args, training=training, **kwargs)

    vars(model)["call"] = call  # past Keras, which would track it
    return changed_until(model, lambda: vars(model).pop("call"))
