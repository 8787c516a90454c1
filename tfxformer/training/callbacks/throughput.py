"""Tokens a second and model FLOP utilisation, while training."""

from __future__ import annotations

import time

import keras
from keras import ops

from tfxformer.arguments import notices
from tfxformer.backend import on_tensorflow, strategy_of
from tfxformer.backend import tensorflow as tf
from tfxformer.training.callbacks.flops import UncountableError, device_name, measured_flops, peak_flops, training_flops
from tfxformer.training.step.hooks import on_batches
from tfxformer.training.step.sums import StepSums


class Throughput(keras.callbacks.Callback):
    """Puts `tokens_per_second` (or `samples_per_second`) and `mfu` into the progress bar and History of any model.

    Tokens are real ones: those that a batch's `padding_mask` marks (any entry whose name ends so). Without a mask they
    are the positions of `token_ids`, or of an input that is one matrix of integers; without tokens, samples count.
    They are summed inside the step, over all replicas. The clock runs from the beginning of an epoch to the end of its
    last batch so far, other callbacks and waiting for data included, validation not; the first execution of a `fit`,
    which traces and compiles, is left out: an epoch of nothing else has no figures.

    `mfu` is the model FLOPs of what was trained (`flops.training_flops`: padding is trained too; recomputed activations
    do not count), by those that the devices could do at their peak in bfloat16, whatever the model's precision: model
    FLOP utilisation (PaLM, arXiv:2204.02311, appendix B), a fraction. It is left out where the peak is not known, or
    the model's products cannot be counted beforehand (lengths that are not static, loops; a warning says so).

    Put it before callbacks that write logs down (`TensorBoard`, `HistoryFiles`).

    Args:
        peak_flops: FLOP/s of the device of one replica: a number; part of a name that is known ("v5e", "v6e", "A100",
            "H100", "L4", "T4"); "measured" for a product of two matrices in the model's precision, tried when training
            begins (0.3 s; shared by the replicas of a CPU); None: the known peak of the GPU or TPU that is here, none
            for a CPU.
    """

    def __init__(self, peak_flops=None):
        super().__init__()
        known = peak_flops is None or peak_flops == "measured"
        self._wanted = peak_flops if known else _given(peak_flops)
        self.peak_flops = self.flops_per_sample = self._end = None

    # ---- the beginning ----------------------------------------------------------------------------------------

    def on_train_begin(self, logs=None):
        self._stop_watching()
        self.peak_flops, self.flops_per_sample = self._peak(), None
        self._data, self._unit, self._tracing, self._rates = None, "samples", True, {}
        # Samples, tokens. JAX has no integers of 64 bits: there they begin at zero again behind the largest.
        self._counts = StepSums(self.model, [(2,)], "int64" if on_tensorflow() else "uint32", of_replicas=True)
        self._end = on_batches(self.model, self._count, self._counts)

    def _peak(self) -> float | None:
        if self._wanted == "measured":
            shared = self._devices() if device_name() is None else 1
            return measured_flops(keras.backend.standardize_dtype(self.model.compute_dtype)) / shared
        if self._wanted is not None:
            return self._wanted
        name = device_name()
        return None if name is None else peak_flops(name)

    def _devices(self) -> int:
        """How many devices share a batch."""
        if on_tensorflow():
            return strategy_of(self.model).num_replicas_in_sync
        shared = keras.distribution.distribution()
        return 1 if shared is None else shared.device_mesh.devices.size

    def _count(self, data):
        """In the graph: adds a replica's batch."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._data = keras.tree.map_structure(_spec, (x, y, sample_weight))
        tokens, self._unit = _tokens(x)
        samples = ops.shape(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))[0]
        counts = self._counts.variables[0]
        found = [ops.cast(one, counts.dtype) for one in (samples, samples if tokens is None else tokens)]
        counts.assign_add(ops.stack(found))

    # ---- the clock --------------------------------------------------------------------------------------------

    def on_epoch_begin(self, epoch, logs=None):
        self._rates = {}
        self._restart()

    def _restart(self):
        self._before, self._begin = self._counts.read(), time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        counts = self._counts.read()  # waits for the step
        if self._tracing:
            self._tracing = False
            if self.peak_flops:
                self.flops_per_sample = self._flops()
            self._restart()
            return
        seconds = time.perf_counter() - self._begin
        samples, tokens = (counts - self._before) / seconds
        self._rates = {f"{self._unit}_per_second": float(tokens)}
        if self.flops_per_sample:
            self._rates["mfu"] = float(samples) * self.flops_per_sample / (self.peak_flops * self._devices())
        if logs is not None:
            logs.update(self._rates)

    def _flops(self) -> float | None:
        try:
            return training_flops(self.model, self._data)
        except UncountableError as error:
            notices.warn(f"Throughput shows no mfu: {error}")
            return None

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs.update(self._rates)

    def on_train_end(self, logs=None):
        self._stop_watching()

    def _stop_watching(self):
        if self._end is not None:
            self._end()
            self._end = None


def _given(peak) -> float:
    number = peak_flops(peak) if isinstance(peak, str) else peak
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not number > 0:
        raise ValueError(
            f'peak_flops is a number of operations a second, "measured", or a device such as "v5e", "v6e", "A100", '
            f'"H100", "L4", "T4"; got {peak!r}.'
        )
    return float(number)


def _spec(leaf):
    if leaf is None:
        return None
    if on_tensorflow():
        return tf.TensorSpec(leaf.shape, leaf.dtype)
    import jax

    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _tokens(x):
    """The tokens of a batch, None where there are none, and what is counted."""
    entries = x if isinstance(x, dict) else {}
    masks = [value for name, value in entries.items() if name.endswith("padding_mask")]
    if masks:
        return sum(ops.count_nonzero(mask) for mask in masks), "tokens"
    ids = [value for name, value in entries.items() if name.endswith("token_ids")]
    leaves = keras.tree.flatten(x)
    if not ids and len(leaves) == 1 and "int" in keras.backend.standardize_dtype(leaves[0].dtype):
        ids = [leaf for leaf in leaves if leaf.ndim == 2]
    if ids:
        return sum(ops.size(one) for one in ids), "tokens"
    return None, "samples"
