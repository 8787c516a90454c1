"""What a `DistributedModel` adds to Keras' own training on JAX; nothing on TensorFlow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tfxformer.arguments.keywords import checked
from tfxformer.backend import on_jax
from tfxformer.training.devices.keras_distribution import batches_of_any_size, share_order, whole_on_each_process
from tfxformer.training.step.accumulated_gradients import AccumulatedGradients, accumulating_step, count_objectives
from tfxformer.training.step.passes import pass_changes, stateless_loss


class JAXTraining:
    """Keras' step on JAX is right as it is: one program sees the whole batch. Ours are an accumulation that counts as
    one update, and batches that the devices cannot share.

    Mixed in before `keras.Model`, by a class with `gradient_accumulation_steps`.
    """

    _sums: AccumulatedGradients | None = None

    def forget_sums(self) -> None:
        """Begins the accumulation anew, as `compile` does."""
        object.__setattr__(self, "_sums", None)  # past Keras, which would track it as a metric to be saved

    @contextlib.contextmanager
    def without_sums(self) -> Iterator[None]:
        """While it holds, no accumulation has begun; afterwards it stands where it stood."""
        sums = self._sums
        self.forget_sums()
        try:
            yield
        finally:
            object.__setattr__(self, "_sums", sums)

    def _symbolic_build(self, iterator=None, data_batch=None):
        """Keras' build from the first batch; the sums of an accumulation are made of it too."""
        accumulates = on_jax() and self.gradient_accumulation_steps > 1 and self.optimizer is not None
        if not accumulates or self._sums is not None or self._has_own("train_step"):
            super()._symbolic_build(iterator=iterator, data_batch=data_batch)
            return
        if data_batch is None:
            data_batch = next(next(batches for _, _, batches in iterator))
        super()._symbolic_build(data_batch=data_batch)
        sums = AccumulatedGradients(self, self.gradient_accumulation_steps, count_objectives(self, data_batch))
        object.__setattr__(self, "_sums", sums)

    @property
    def metrics(self):
        return [*super().metrics, *([] if self._sums is None else [self._sums])]

    def train_step(self, *given):
        if on_jax() and self._sums is not None:
            return accumulating_step(self, self._sums, *given)
        return super().train_step(*given)

    def compute_loss_and_updates(
        self,
        trainable_variables,
        non_trainable_variables,
        metrics_variables,
        x,
        y,
        sample_weight,
        training=False,
        optimizer_variables=None,
    ):
        """Keras' own, or that of changed passes: (scaled loss, (loss, outputs, state, metrics' state))."""
        state = (trainable_variables, non_trainable_variables, metrics_variables)
        if training and pass_changes(self):
            return stateless_loss(self, state, x, y, sample_weight, optimizer_variables)
        return super().compute_loss_and_updates(*state, x, y, sample_weight, training, optimizer_variables)

    def predict_step(self, *given):
        if not on_jax():
            return super().predict_step(*given)
        outputs, state = super().predict_step(*given)
        return whole_on_each_process(outputs), state

    @checked
    def fit(self, *args, **kwargs):
        share_order()
        with batches_of_any_size():
            return super().fit(*args, **kwargs)

    @checked
    def evaluate(self, *args, **kwargs):
        with batches_of_any_size():
            return super().evaluate(*args, **kwargs)

    @checked
    def predict(self, *args, **kwargs):
        with batches_of_any_size():
            return super().predict(*args, **kwargs)
