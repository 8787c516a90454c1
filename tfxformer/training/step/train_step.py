"""One step of all replicas: gradients are summed, divided by the terms of the whole batch, and applied once.

Whatever is conditional (the end of an accumulation, a loss scale gone too high, the end of the data) stands around
`strategy.run`, never inside a replica: a replica that waits for the others inside a branch is an error or a deadlock.
"""

from __future__ import annotations

import contextlib

from tfxformer.backend import strategy_of
from tfxformer.backend import tensorflow as tf
from tfxformer.training.optimizers.optimizers import updating_optimizer
from tfxformer.training.step.accumulation import Accumulator
from tfxformer.training.step.replica_step import ReplicaStep


class TestStep:
    """One batch of all replicas in inference mode: metrics are updated.

    Args:
        model: a built and compiled `DistributedModel`.
        batch_spec: tensor specs of a replica's batch, as its datasets have it.
    """

    __test__ = False  # no test, whatever pytest thinks of its name
    training = False

    def __init__(self, model, batch_spec):
        self.model = model
        self.replica_step = ReplicaStep(model, batch_spec, self.training)

    def expect(self, batch_spec) -> None:
        """Gives the shapes of the batches to come, before they are traced."""
        self.replica_step.batch_spec = batch_spec

    def __call__(self, batch) -> None:
        """In cross-replica context; `batch` is what the strategy's iterator yields."""
        strategy_of(self.model).run(self._in_replica, args=(batch,))

    def _in_replica(self, batch):
        self._measure(self.replica_step(batch, tf.ones(())))

    def _measure(self, result) -> list:
        """Sets the loss metrics as one device would, which sees the whole batch.

        Returns:
            For each objective the number of its terms on all replicas, None for a sum.
        """
        pairs = [*result["parts"], *result["outputs"]]
        divided = [count is not None for _, count in pairs]
        counts = [tf.ones(()) if count is None else count for _, count in pairs]
        sums = [tf.math.multiply_no_nan(value, count) for (value, _), count in zip(pairs, counts, strict=True)]
        (totals,) = _all_reduce_sum([tf.stack([tf.stack(sums), tf.stack(counts)])])
        sums, counts = tf.unstack(totals)
        means = tf.where(divided, tf.math.divide_no_nan(sums, counts), sums)
        parts = len(result["parts"])
        self.model._loss_tracker.update_state(tf.reduce_sum(means[:parts]), sample_weight=result["samples"])
        if self.replica_step.loss_metrics:  # Keras has none for a single output
            for metric, mean in zip(self.replica_step.loss_metrics, tf.unstack(means[parts:]), strict=True):
                metric.update_state(mean, sample_weight=result["samples"])
        self.divided = divided[:parts]
        return [count if has else None for count, has in zip(tf.unstack(counts)[:parts], self.divided, strict=True)]


class TrainStep(TestStep):
    """One batch of all replicas: metrics are updated, and weights where the batch ends an accumulation.

    Args:
        model, batch_spec: as `TestStep` has them.

    `accumulator` is an `Accumulator`, or None for an update each batch.
    """

    training = True

    def __init__(self, model, batch_spec):
        super().__init__(model, batch_spec)
        self.accumulator: Accumulator | None = None
        self.optimizer = updating_optimizer(model.optimizer)
        self.loss_scaling = model.optimizer if model.optimizer is not self.optimizer else None

    def __call__(self, batch) -> None:
        strategy, accumulator = strategy_of(self.model), self.accumulator
        if accumulator is None:
            self._update(strategy.run(self._in_replica, args=(batch,)))
            return
        strategy.run(self._accumulate_in_replica, args=(batch,))
        ends = accumulator.count_batch()
        tf.cond(ends, lambda: self._update(strategy.run(self._take_in_replica)), lambda: tf.constant(False))

    # ---- in replica context -----------------------------------------------------------------------------------

    @property
    def _scale(self) -> tf.Tensor:
        """What a replica multiplies its mean by, so that float16 overflows where that of the whole batch would."""
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        if self.loss_scaling is not None:
            return tf.convert_to_tensor(self.loss_scaling.dynamic_scale.value) / replicas
        return tf.constant(float(self.optimizer.loss_scale_factor or 1.0) / replicas)

    def _in_replica(self, batch):
        result = self.replica_step(batch, self._scale)
        return self._reduce(result["gradients"], self._measure(result))

    def _accumulate_in_replica(self, batch):
        result = self.replica_step(batch, self._scale)
        self.accumulator.add(result["gradients"], self._measure(result))

    def _take_in_replica(self):
        gradients, counts = self.accumulator.take(self.divided)
        return self._reduce(gradients, counts)

    def _reduce(self, gradients, counts):
        """Gradients of the global loss, the same on all replicas, and whether all are finite.

        Args:
            gradients: for each objective, for each weight, this replica's sum or None.
            counts: for each objective, the number of terms on all replicas, or None for a sum.
        """
        scale = self._scale
        total = [None] * len(self.replica_step.trainable)
        for of_part, count in zip(gradients, counts, strict=True):
            for index, gradient in enumerate(of_part):
                if gradient is not None:
                    divisor = scale if count is None else count * scale
                    gradient = tf.math.divide_no_nan(gradient, tf.cast(divisor, gradient.dtype))
                    total[index] = gradient if total[index] is None else total[index] + gradient
        present = [index for index, gradient in enumerate(total) if gradient is not None]
        if not present:
            raise ValueError("No trainable weight has a gradient: the loss depends on none of them.")
        # Inside tf.cond tensors carry no device, which multi-worker collectives need ("destinations can not be empty").
        with tf.device(self.replica_step.trainable[0].value.device):
            reduced = _all_reduce_sum([tf.identity(total[index]) for index in present])
        for index, gradient in zip(present, reduced, strict=True):
            total[index] = gradient
        return total, tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in reduced])

    def _apply(self, gradients):
        self.optimizer.apply(gradients, self.replica_step.trainable)

    # ---- in cross-replica context -----------------------------------------------------------------------------

    def _update(self, reduced) -> tf.Tensor:
        """One update of the optimizer, unless loss scaling finds the gradients not finite; returns whether it was."""
        strategy = strategy_of(self.model)
        gradients, finite = reduced
        finite = strategy.experimental_local_results(finite)[0]  # one value on all replicas

        def update():
            with _gradients_as_given(self.optimizer):
                strategy.run(self._apply, args=(gradients,))
            return tf.constant(True)

        if self.loss_scaling is None:
            return update()
        tf.cond(finite, update, lambda: tf.constant(False))
        self._rescale(finite)
        return finite

    def _rescale(self, finite) -> None:
        """Keras' rule: half the scale after an overflow, twice after `dynamic_growth_steps` updates without."""
        scale, counter = self.loss_scaling.dynamic_scale, self.loss_scaling.step_counter
        grows = tf.equal(counter.value, self.loss_scaling.dynamic_growth_steps - 1)
        factor = tf.where(finite, tf.where(grows, 2.0, 1.0), 0.5)
        again = tf.logical_or(grows, tf.logical_not(finite))
        scale.assign(scale.value * factor)
        counter.assign(tf.where(again, tf.zeros_like(counter.value), counter.value + 1))


def _all_reduce_sum(tensors):
    return tf.distribute.get_replica_context().all_reduce("SUM", tensors)


@contextlib.contextmanager
def _gradients_as_given(optimizer):
    """The optimizer takes gradients that are summed over replicas and unscaled already.

    Around `strategy.run`, not inside: replicas are traced in turns.
    """
    factor, optimizer.loss_scale_factor = optimizer.loss_scale_factor, None
    optimizer._all_reduce_sum_gradients = list
    try:
        yield
    finally:
        del optimizer._all_reduce_sum_gradients
        optimizer.loss_scale_factor = factor
