"""A model whose `compile` has a default optimizer, with a schedule that ends where each `fit` ends."""

from __future__ import annotations

import math

import keras
from keras import tree

from tfxformer.training.distributed_model import DistributedModel
from tfxformer.training.optimizers import adamw

AUTO = "auto"


class ScheduledModel(DistributedModel):
    """A `DistributedModel` that knows how Transformers are tuned: what tasks and the Distiller have in common."""

    _default_optimizer = None  # the arguments of the default one, while compile(optimizer="auto") holds

    def compile(
        self,
        optimizer=AUTO,
        *,
        learning_rate=5e-5,
        warmup=0.1,
        weight_decay=0.01,
        global_clipnorm=1.0,
        **kwargs,
    ):
        """Keras' compile, with a default optimizer.

        Args:
            optimizer: "auto" is AdamW without decay on norms and biases, its rate warming up and then falling
                linearly to zero at the end of each `fit`; the four arguments below are its. Or any Keras optimizer.
            learning_rate: float, the highest rate of the schedule.
            warmup: float, share of the steps in which the rate rises.
            weight_decay: float.
            global_clipnorm: float or None, limit of the norm of all gradients together.
            kwargs: Keras' further arguments (loss, metrics, jit_compile, steps_per_execution, ...).
        """
        default = None
        if isinstance(optimizer, str) and optimizer == AUTO:
            default = {
                "learning_rate": learning_rate,
                "warmup": warmup,
                "weight_decay": weight_decay,
                "global_clipnorm": global_clipnorm,
            }
            optimizer = adamw(total_steps=1, **default)  # `fit` knows the steps and makes the real one
        super().compile(optimizer=optimizer, **kwargs)
        self._default_optimizer = default

    def get_compile_config(self):
        config = super().get_compile_config()
        return {**config, "default_optimizer": self._default_optimizer} if config else config

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        default = config.pop("default_optimizer", None)
        self.compile(**config)
        self._default_optimizer = default
        self.optimizer.build(self.trainable_variables)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        *,
        validation_split=0.0,
        initial_epoch=0,
        steps_per_epoch=None,
        **kwargs,
    ):
        """Keras' `fit`, with a schedule of its own where the optimizer is the default one.

        `initial_epoch` > 0 goes on with the schedule that an interrupted fit left.

        Returns:
            keras.callbacks.History.
        """
        if self._default_optimizer and (initial_epoch == 0 or not int(self.optimizer.iterations)):
            steps = steps_per_epoch or count_steps(x, batch_size, validation_split)
            self._restart_optimizer(steps * epochs)
        if not self.optimizer.built:  # built while the step is traced, it would have it traced twice
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
        return super().fit(
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            validation_split=validation_split,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            **kwargs,
        )

    def _restart_optimizer(self, total_steps: int) -> None:
        with self.distribute_strategy.scope():
            optimizer = adamw(total_steps=total_steps, **self._default_optimizer)
            if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            self.optimizer = optimizer
        self.make_train_function(force=True)  # the traced step holds the old optimizer


def count_steps(x, batch_size: int | None, validation_split: float = 0.0) -> int:
    """The batches of one epoch, as Keras counts them.

    Args:
        x: arrays or any nest of them, a `tf.data.Dataset` or a `keras.utils.PyDataset`.

    Raises:
        ValueError: where a dataset does not know its length.
    """
    if hasattr(x, "num_batches"):
        return int(x.num_batches)
    if hasattr(x, "cardinality"):
        steps = int(x.cardinality())
        if steps < 1:
            raise ValueError(
                "The dataset does not know its length (or is empty), and the default learning rate falls over the "
                "steps of the fit: pass steps_per_epoch, apply tf.data.experimental.assert_cardinality(n), or "
                "compile with an optimizer of your own."
            )
        return steps
    rows = len(tree.flatten(x)[0])
    return max(1, math.ceil(math.floor(rows * (1.0 - validation_split)) / (batch_size or 32)))
