"""tfmot's schedules, pruning engine and clustering on Keras 3 kernels; the only file that imports tfmot.

Import it where pruning runs, not before: it loads tf_keras, which takes seconds.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import numpy as np

from tfxformer.backend import tensorflow as tf
from tfxformer.extras import needs

# tfmot sets TF_USE_LEGACY_KERAS=1 when imported. A `tf.keras` first touched after that is tf_keras for the
# whole process, and child processes inherit the variable: so touch it before, and put the variable back.
needs("tfmot's pruning and clustering", "tensorflow_model_optimization")
_legacy_keras = os.environ.get("TF_USE_LEGACY_KERAS")
_ = tf.keras.__name__
from tensorflow_model_optimization.python.core.clustering.keras import (  # noqa: E402
    cluster_config,
    clustering_algorithm,
    clustering_centroids,
)
from tensorflow_model_optimization.python.core.sparsity.keras import (  # noqa: E402
    pruning_impl,
    pruning_schedule,
    pruning_utils,
)

if _legacy_keras is None:
    os.environ.pop("TF_USE_LEGACY_KERAS", None)
else:
    os.environ["TF_USE_LEGACY_KERAS"] = _legacy_keras

from tfxformer.compression.pruning.replicas import assign_on_replicas  # noqa: E402
from tfxformer.compression.pruning.sparsity_schedules import Schedule  # noqa: E402
from tfxformer.compression.weights.matrices import Kernel  # noqa: E402
from tfxformer.compression.weights.ranking import keep_largest  # noqa: E402


def tfmot_schedule(schedule: Schedule) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """tfmot's schedule of the same name and arguments, as a function that is traced once for all kernels of a step."""
    return _traced_schedule(type(schedule).__name__, tuple(schedule.get_config().items()))


@functools.cache
def _traced_schedule(name: str, config: tuple):
    schedule = getattr(pruning_schedule, name)(**dict(config))
    return tf.function(schedule, autograph=False, experimental_attributes={"_noinline": True})


class KernelPruning(pruning_impl.Pruning):
    """tfmot's engine on one kernel: when to act, how many to keep, blocks, m:n; the mask is exact.

    Three things differ from tfmot 0.8.1. A kernel of any rank is seen as the matrix [in, out] it is. Weights
    of equal magnitude count one by one, the lower index first (tfmot keeps all that reach the threshold, so
    an all-equal kernel stays dense, and bfloat16 kernels drift). And the m:n mask is chosen where the
    schedule acts, not only at step 1, so a later `fit` can prune.

    Attributes:
        mask: bool variable of the kernel's shape, True where the weight stays.
    """

    def __init__(
        self,
        kernel: Kernel,
        step: Callable[[], tf.Tensor],
        schedule: Schedule,
        block_size: tuple[int, int] = (1, 1),
        block_pooling: str = "AVG",
        m_by_n: tuple[int, int] | None = None,
    ):
        """Creates the mask, all True. Call inside the scope of the model's strategy.

        Args:
            kernel: the kernel to prune.
            step: returns the int64 step the schedule is asked for; a negative one never acts.
        """
        self._kernel = kernel
        self.mask = tf.Variable(tf.ones(kernel.variable.shape, tf.bool), trainable=False, name="mask")
        threshold = tf.Variable(0.0, trainable=False, name="threshold")
        # The engine needs tf.Variables: a keras.Variable's assign takes no name.
        pruned = [(kernel.variable.value, self.mask, threshold)]
        self._live_step = step
        super().__init__(self._step, pruned, tfmot_schedule(schedule), block_size, block_pooling, m_by_n)

    def update_mask_at(self, step: int) -> None:
        """Chooses the mask now as at `step`, one at which the schedule acts; outside a compiled step."""
        live, self._live_step = self._live_step, lambda: tf.constant(step, tf.int64)
        try:
            self.conditional_mask_update()
        finally:
            self._live_step = live

    def start_at(self, step: int) -> None:
        """Brings the mask to where the schedule stands when a fit begins: it acted last at `step`."""
        self.update_mask_at(step)

    def after_update(self) -> tf.Tensor:
        """What the kernel becomes after an update: a due new mask, then the zeros."""
        self.conditional_mask_update()
        return self.in_form(self._kernel.variable.value)

    def in_form(self, weights: tf.Tensor) -> tf.Tensor:
        """The weights with zeros where the mask is False: +0.0, where a product would leave -0.0 and NaN."""
        return tf.where(self.mask, weights, tf.zeros_like(weights))

    def _step(self) -> tf.Tensor:
        step = self._live_step()
        if self._sparsity_m_by_n:  # tfmot chooses an m:n mask where the step is 1
            return tf.cast(self._pruning_schedule(step)[0], tf.int64)
        return step

    def _validate_block(self) -> None:
        """tfmot wants rank 2 for blocks; here every kernel becomes a matrix."""

    def _ranked(self, weights: tf.Tensor) -> tf.Tensor:
        """What is compared: the largest stay."""
        return tf.abs(weights)

    def _maybe_update_block_mask(self, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        ranked = self._ranked(weights)
        if ranked.dtype.size < 4:
            ranked = tf.cast(ranked, tf.float32)  # exact, and the engine's pooling wants it
        order = self._kernel.permutation
        turned = tf.transpose(ranked, order)
        rows = 1
        for axis in self._kernel.summed_axes:
            rows *= weights.shape[axis]
        matrix = tf.reshape(turned, [rows, weights.shape.num_elements() // rows])  # [in, out]

        if self._sparsity_m_by_n:
            threshold, mask = super()._maybe_update_block_mask(matrix)
            mask = tf.cast(mask, tf.bool)
        elif self._block_size == [1, 1]:
            threshold, mask = self._update_mask(matrix)
        else:
            threshold, mask = self._update_blocks(matrix)
        mask = tf.reshape(mask, turned.shape)
        inverse = sorted(range(len(order)), key=order.__getitem__)
        return tf.cast(threshold, tf.float32), tf.transpose(mask, inverse)

    def _update_blocks(self, matrix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """tfmot's own pooling and expansion, mended where blocks do not fill the matrix or are one in a row.

        tfmot pools with SAME padding, which shifts the windows against the blocks that are then masked, and
        squeezes the result, which breaks on a single row or column of blocks.
        """
        (rows, columns), (height, width) = matrix.shape, self._block_size
        largest = self._block_pooling_type == "MAX"  # scores may all be negative
        padding = tf.as_dtype(matrix.dtype).min if largest else 0.0
        matrix = tf.pad(matrix, [[0, -rows % height], [0, -columns % width]], constant_values=padding)
        pooled = pruning_utils.factorized_pool(
            matrix, self._block_size, self._block_pooling_type, self._block_size, padding="VALID"
        )
        pooled = tf.reshape(pooled, [-(-rows // height), -(-columns // width)])
        if self._block_pooling_type == "AVG":  # of the weights in the block, not of the padding
            pooled /= tf.cast(np.outer(_filled(rows, height), _filled(columns, width)), pooled.dtype)
        threshold, kept = self._update_mask(pooled)
        expanded = pruning_utils.expand_tensor(tf.cast(kept, tf.float32), self._block_size)
        return threshold, tf.cast(expanded[:rows, :columns], tf.bool)

    def _update_mask(self, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Keeps the k largest, k counted as tfmot counts it.

        tfmot sorts for the threshold; `keep_largest` finds the same one, 7 to 20 times faster on a CPU.
        """
        sparsity = self._pruning_schedule(self._step_fn())[1]
        size = tf.cast(tf.size(weights), tf.float32)
        kept = tf.cast(tf.maximum(tf.round(size * (1 - sparsity)), 1), tf.int32)
        threshold, mask = keep_largest(tf.reshape(weights, [-1]), kept)
        return threshold, tf.reshape(mask, weights.shape)


class MovementPruning(KernelPruning):
    """The same on a kernel whose weights are ranked by where they move, not by how large they are.

    Each update adds -gradient * weight to a weight's score: positive where it moves away from zero. The gradient is
    that of the masked kernel, so pruned weights have one too; with a score above others' they come back, with the
    value that they had. Only weights that are there are updated, as by a straight-through estimator's gradient.
    Source: Sanh, Wolf, Rush, Movement Pruning (arXiv:2005.07683); its rate of scores is a common factor and ranks
    nothing.

    Attributes:
        scores: float32 variable of the kernel's shape.
        values: variable of the kernel's shape and dtype, the weights without the mask.
    """

    def __init__(self, kernel: Kernel, *arguments):
        super().__init__(kernel, *arguments)
        self.scores = tf.Variable(tf.zeros(kernel.variable.shape, tf.float32), trainable=False, name="scores")
        self.values = tf.Variable(tf.convert_to_tensor(kernel.variable.value), trainable=False, name="values")

    def see_gradient(self, gradient: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Counts an update that is about to be made, where variables are updated; returns the gradient to use."""
        weights = tf.where(self.mask, weights, self.values)
        self.scores.assign_sub(tf.cast(gradient, tf.float32) * tf.cast(weights, tf.float32))
        return tf.where(self.mask, gradient, tf.zeros_like(gradient))

    def start_at(self, step: int) -> None:
        """Takes the zeros that are there for what was pruned: there are no scores yet to prune by.

        Raises:
            ValueError: where the schedule wants more zeros than there are.
        """
        weights = tf.convert_to_tensor(self._kernel.variable.value)
        present = tf.not_equal(weights, tf.zeros_like(weights))
        self.values.assign(weights)
        self.scores.assign(tf.where(present, 0.0, PRUNED_BEFORE))
        self.update_mask_at(step)
        if bool(tf.reduce_any(present & ~tf.convert_to_tensor(self.mask))):
            raise ValueError(
                f"Prune: the schedule wants more zeros in {self._kernel.path} at once than the "
                f"{int(tf.math.count_nonzero(~present))} there are, and no gradient has been seen to say which. Let "
                'begin_step come after the updates made so far, or take method="magnitude" for this fit.'
            )
        if bool(tf.reduce_all(self.mask)):
            self.scores.assign(tf.zeros(self.scores.shape))

    def after_update(self) -> tf.Tensor:
        weights = tf.where(self.mask, self._kernel.variable.value, self.values)
        assign_on_replicas(self.values, weights)
        self.conditional_mask_update()
        return self.in_form(weights)

    def state(self) -> dict:
        """What a later fit needs to go on: tensors by name."""
        return {name: getattr(self, name) for name in MOVEMENT_STATE}

    def set_state(self, state: dict) -> None:
        """The inverse of `state`."""
        for name in MOVEMENT_STATE:
            getattr(self, name).assign(state[name])

    def _ranked(self, weights: tf.Tensor) -> tf.Tensor:
        return tf.convert_to_tensor(self.scores)


MOVEMENT_STATE = ("mask", "scores", "values")
PRUNED_BEFORE = -1e30  # the score of a weight that was zero when scores began: below all that gradients make


def _filled(size: int, block: int) -> np.ndarray:
    """The part of each block that lies within `size`: 1 for all but perhaps the last."""
    return np.minimum(size - np.arange(0, size, block), block) / block


class KernelClustering(clustering_algorithm.ClusteringAlgorithm):
    """tfmot's weight clustering of one kernel: which centroid a weight takes, and where an update goes.

    The kernel holds centroids only. What the optimizer adds to it goes to the weights behind it (straight through),
    and its mean over a cluster's members to their centroid; then each weight takes its nearest centroid anew. With
    SGD that is tfmot's training: there both are the optimizer's own variables.

    Two things differ from tfmot 0.8.1. The nearest centroid is looked up among sorted ones: tfmot compares each weight
    with each, in that many times the kernel's memory. And its k-means++ seeds are followed by Lloyd's iterations.

    Attributes:
        cluster_centroids: variable [k]; where there are fewer values than that, the last one several times.
        weights: variable of the kernel's shape, those behind it.
        places: int32 variable of the kernel's shape, each weight's centroid.
        present: bool variable of the kernel's shape, False where a zero is kept.
        pinned: bool variable [k], True at the centroid that is kept at zero.
    """

    def __init__(self, kernel: Kernel, number_of_clusters: int):
        """Creates the variables. Call inside the scope of the model's strategy."""
        value = _at_least_float32(kernel.variable.value)
        self._kernel = kernel
        self.weights = tf.Variable(value, trainable=False, name="weights")
        self.places = tf.Variable(tf.zeros(value.shape, tf.int32), trainable=False, name="places")
        self.present = tf.Variable(tf.ones(value.shape, tf.bool), trainable=False, name="present")
        self.pinned = tf.Variable(tf.zeros([number_of_clusters], tf.bool), trainable=False, name="pinned")
        centroids = tf.Variable(tf.zeros([number_of_clusters], value.dtype), trainable=False, name="centroids")
        super().__init__(centroids, cluster_config.GradientAggregation.SUM)

    def choose(self, keep_zeros: bool) -> None:
        """Chooses centroids for the weights that are there; with `keep_zeros` zero is one, and stays where it is."""
        weights = _at_least_float32(self._kernel.variable.value)
        present = tf.not_equal(weights, tf.zeros_like(weights))
        zeros = keep_zeros and not bool(tf.reduce_all(present))
        present = present if zeros else tf.ones_like(present)
        number = self.cluster_centroids.shape[0] - zeros
        found = best_centroids(tf.boolean_mask(weights, present).numpy(), number)
        centroids = np.full(number + zeros, found[-1] if len(found) else 0.0)
        centroids[: len(found)] = found
        if zeros:
            centroids[-1] = 0.0
        self.present.assign(present)
        self.pinned.assign([False] * number + [True] * zeros)
        self.weights.assign(weights)
        self.cluster_centroids.assign(tf.cast(centroids, weights.dtype))
        self.places.assign(self.get_pulling_indices(weights))

    def get_pulling_indices(self, weight: tf.Tensor, centroids: tf.Tensor | None = None) -> tf.Tensor:
        """Each weight's nearest centroid: int32 of its shape; a kept zero's is the centroid that is zero."""
        centroids = tf.convert_to_tensor(self.cluster_centroids if centroids is None else centroids)
        order = tf.argsort(centroids, stable=True)
        ascending = tf.gather(centroids, order)
        between = 0.5 * (ascending[:-1] + ascending[1:])
        flat = tf.reshape(_at_least_float32(weight), [-1])
        places = tf.reshape(tf.gather(order, tf.searchsorted(between, flat, side="left")), weight.shape)
        zero = tf.argmax(self.pinned, output_type=tf.int32)
        return tf.where(self.present, places, zero)

    def in_form(self, weights: tf.Tensor) -> tf.Tensor:
        """The nearest centroid of each weight, in the weights' dtype."""
        return self._taken(self.cluster_centroids, self.get_pulling_indices(weights))

    def _taken(self, centroids, places: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.cast(centroids, self._kernel.variable.value.dtype), places)

    def after_update(self) -> tf.Tensor:
        """What the kernel becomes after the optimizer has updated it."""
        before = _at_least_float32(self._taken(self.cluster_centroids, self.places))
        update = _at_least_float32(self._kernel.variable.value) - before
        weights = tf.convert_to_tensor(self.weights)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([self.cluster_centroids, weights])
            clustered = self.get_clustered_weight(self.places, weights)
        sources = [self.cluster_centroids, weights]
        of_centroids, of_weights = tape.gradient(clustered, sources, output_gradients=update)
        weights = tf.where(self.present, weights + of_weights, tf.zeros_like(weights))
        # tfmot's own mean counts members by bincount, which XLA would compile anew for each step.
        members = tf.math.unsorted_segment_sum(tf.ones_like(update), self.places, self.cluster_centroids.shape[0])
        centroids = self.cluster_centroids + tf.math.divide_no_nan(tf.convert_to_tensor(of_centroids), members)
        centroids = tf.where(self.pinned, tf.zeros_like(centroids), centroids)
        places = self.get_pulling_indices(weights, centroids)
        for variable, value in ((self.weights, weights), (self.cluster_centroids, centroids), (self.places, places)):
            assign_on_replicas(variable, value)
        return self._taken(centroids, places)

    def state(self) -> dict:
        """What a later fit needs to go on: tensors by name."""
        return {name: getattr(self, name) for name in CLUSTERING_STATE}

    def set_state(self, state: dict) -> None:
        """The inverse of `state`."""
        for name in CLUSTERING_STATE:
            getattr(self, name).assign(state[name])


CLUSTERING_STATE = ("weights", "cluster_centroids", "places", "present", "pinned")
LLOYD_ITERATIONS = 20


def best_centroids(values: np.ndarray, number: int) -> np.ndarray:
    """Centroids of one-dimensional k-means: [at most `number`] of the values' dtype, ascending.

    Args:
        values: float32 or float64 [n].
        number: int, 1 or more.
    """
    distinct = np.unique(values)
    if len(distinct) <= number:
        return distinct
    seeds = clustering_centroids.KmeansPlusPlusCentroidsInitialisation(values.astype("float32"), number)
    centroids = np.sort(seeds.get_cluster_centroids().numpy()).astype("float64")
    ascending = np.sort(values).astype("float64")
    sums = np.concatenate([[0.0], np.cumsum(ascending)])
    for _ in range(LLOYD_ITERATIONS):
        ends = np.searchsorted(ascending, 0.5 * (centroids[:-1] + centroids[1:]), side="right")
        begin, end = np.concatenate([[0], ends]), np.concatenate([ends, [len(values)]])
        members = end - begin
        centroids = np.where(members, (sums[end] - sums[begin]) / np.maximum(members, 1), centroids)
    return centroids.astype(values.dtype)


def _at_least_float32(values) -> tf.Tensor:
    values = tf.convert_to_tensor(values)
    return tf.cast(values, tf.float32) if values.dtype.size < 4 else values
