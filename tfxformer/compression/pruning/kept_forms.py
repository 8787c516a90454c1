"""Keeps through a later fit what an earlier one has made of kernels: zeros, and the shared values of clusters."""

from __future__ import annotations

import keras
import numpy as np

from tfxformer.backend import strategy_of
from tfxformer.backend import tensorflow as tf
from tfxformer.compression.pruning.held_kernels import HeldConstraint, HeldKernels
from tfxformer.compression.weights.matrices import all_kernels
from tfxformer.training.resume.state import value_of

MOST_CLUSTERS = 256  # distinct values of a kernel that is taken for a clustered one: 8 bits say which


class KeptForms:
    """Holds the zeros of pruned kernels, and the shared values of clustered ones, while `fit` trains a model.

    Which weights share a value is read from the weights as the fit finds them and stays so; the values themselves are
    trained, each by the mean of its members' updates (Han et al., 2015, arXiv:1510.00149, section 3). Kernels that are
    neither, frozen ones, and those that another callback of the fit holds are left alone.
    """

    def __init__(self, model: keras.Model):
        self.model, self._held = model, None
        kernels = [kernel.variable for kernel in all_kernels(model)]
        free = [kernel for kernel in kernels if kernel.trainable and not isinstance(kernel.constraint, HeldConstraint)]
        with strategy_of(model).scope():
            found = [(kernel, _form(kernel)) for kernel in free]
            found = [(kernel, engine) for kernel, engine in found if engine is not None]
            if found:
                self._held = HeldKernels(model)
            for kernel, engine in found:
                self._held.hold(kernel, engine)

    def release(self) -> None:
        """Brings the kernels into their forms once more (an average of weights may have left them), and lets go."""
        if self._held is None:
            return
        with strategy_of(self.model).scope():
            for kernel, engine in self._held.engines.values():
                kernel.assign(engine.after_update())
        self._held.release()
        self._held = None


def _form(kernel: keras.Variable):
    """What keeps a kernel's form; None for one of many values without zeros, or of zeros alone (a new adapter's)."""
    values = np.asarray(keras.ops.cast(value_of(kernel), "float32"))
    zeros = values == 0
    if zeros.all():
        return None
    if _few_values(values) > 1:
        return _Shared(kernel, values)
    return _Sparse(kernel, ~zeros) if zeros.any() else None


def _few_values(values: np.ndarray) -> int:
    """How many values a clustered kernel has; 0 for one that is not clustered."""
    flat = values.reshape(-1)
    if len(np.unique(flat[: 16 * MOST_CLUSTERS])) > MOST_CLUSTERS:  # a large kernel need not be sorted
        return 0
    count = len(np.unique(flat))
    return count if count <= MOST_CLUSTERS and 2 * count < np.count_nonzero(flat) else 0


class _Sparse:
    """Zeros stay zero."""

    def __init__(self, kernel: keras.Variable, present: np.ndarray):
        self._kernel, self._present = kernel, tf.constant(present)

    def after_update(self) -> tf.Tensor:
        """What the kernel becomes after an update."""
        weights = tf.convert_to_tensor(self._kernel.value)
        return tf.where(self._present, weights, tf.zeros_like(weights))


class _Shared:
    """Weights that share a value go on sharing one; zeros stay zero."""

    def __init__(self, kernel: keras.Variable, values: np.ndarray):
        distinct, places, counts = np.unique(values, return_inverse=True, return_counts=True)
        self._kernel, self._places = kernel, tf.constant(places.reshape(values.shape), tf.int32)
        self._weight = tf.constant((distinct != 0) / counts, tf.float32)  # of each member in its mean; 0 keeps zeros

    def after_update(self) -> tf.Tensor:
        """What the kernel becomes after an update."""
        weights = tf.convert_to_tensor(self._kernel.value)
        sums = tf.math.unsorted_segment_sum(tf.cast(weights, tf.float32), self._places, len(self._weight))
        return tf.cast(tf.gather(sums * self._weight, self._places), weights.dtype)
