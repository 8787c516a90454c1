"""A Keras model whose `fit` is right under every strategy."""

from __future__ import annotations

import operator

import keras
from keras import tree

from tfxformer.arguments.keywords import FUNCTIONAL, SUBCLASSED, KnownKeywords, refuse_unknown
from tfxformer.arguments.notices import warn
from tfxformer.backend import ONE_PROGRAM, batches_of, compiled_ahead, on_tensorflow, only_cpus, strategy_of
from tfxformer.backend import tensorflow as tf
from tfxformer.keras_files import SavedModel
from tfxformer.training.devices.workers import (
    check_batch_size,
    check_workers,
    is_cluster,
    naming_lost_workers,
    replica_rows,
)
from tfxformer.training.jax_training import JAXTraining
from tfxformer.training.memory.batch_specs import local_spec, spec_of_whole, split, symbolic, to_tensors
from tfxformer.training.optimizers.chosen import check_rate_callbacks
from tfxformer.training.optimizers.optimizers import updating_optimizer
from tfxformer.training.resume.data_positions import Epochs, describe
from tfxformer.training.resume.resumable_fit import resumable_fit, resume_among
from tfxformer.training.step.accumulation import Accumulator
from tfxformer.training.step.passes import call, pass_changes
from tfxformer.training.step.replica_step import batch_size, compiled, values
from tfxformer.training.step.train_step import TestStep, TrainStep

# Of tf.distribute: strategies under which Keras' own steps fail or differ from one device, and those that are refused.
_DISTRIBUTED = ("MirroredStrategy", "MultiWorkerMirroredStrategy", "TPUStrategy")
_REFUSED = (
    "ParameterServerStrategy",
    "experimental.ParameterServerStrategy",
    "experimental.CentralStorageStrategy",
)

# Measured on 2 cores of a Xeon with matrix units, whose bfloat16 products took XLA 4 to 7 times as long as TensorFlow.
SLOW_XLA = (
    "jit_compile=True on CPUs: a step of MiniLM takes 1.5 times as long as without it, in bfloat16 2.7 times. It is "
    "for GPUs and TPUs."
)


def _is_among(strategy, names: tuple[str, ...]) -> bool:
    if strategy is ONE_PROGRAM:
        return False
    return isinstance(strategy, tuple(operator.attrgetter(name)(tf.distribute) for name in names))


class _Accumulation:
    """What `compile` starts anew, in an object that Keras and TensorFlow do not track."""

    accumulator: Accumulator | None = None


@keras.saving.register_keras_serializable("tfxformer")
class DistributedModel(KnownKeywords, JAXTraining, SavedModel):
    """A `keras.Model`, made and used like any, that trains alike on one device and on many.

    `fit`, `evaluate`, `train_on_batch` and `test_on_batch` give the weights and metrics of one device on the same
    global batch, under no strategy, OneDevice, Mirrored, MultiWorkerMirrored and TPU strategies; with XLA, gradient
    accumulation, steps_per_execution, mixed precision and loss scaling. In contrast to Keras 3:

    - A mean loss is divided by its terms in the whole batch (and in all batches of an accumulation), also where
      token weights, masks or a short last batch give replicas different numbers of them.
    - Gradients are clipped once, after they are summed over replicas.
    - The optimizer gets an embedding's gradient as a dense matrix; rows of one id are summed before anything else.
    - An accumulation (`gradient_accumulation_steps` of the optimizer) counts as one update: `optimizer.iterations`
      and learning-rate schedules count updates.
    - Replicas draw different random numbers; the state of seed generators stays the same on all.

    Where Keras' own step is right already (one device, no accumulation, one output), it is what runs.

    A subclass may override `compute_loss` and `compute_metrics`. `compute_loss` returns the mean over the samples it is
    given; Keras' loss objects, called there, divide by the number of replicas: call loss functions or
    `super().compute_loss`. Where its parts are means over different things (samples, tokens of several kinds), it says
    them one by one in `objectives(x, y, y_pred, sample_weight, samples, records)` too, a list of
    `loss_terms.Objective`; `records` are those of the compiled loss, once it is called there. A subclass whose loss
    compares samples with each other (contrastive losses) says `compares_samples = True`: its `compute_loss` and
    `compute_metrics` then get the outputs, targets and weights of all replicas (and x=None), and return the loss of
    the whole batch. A `train_step` or `test_step` of its own runs on one device only.

    Not supported: synchronized BatchNormalization, asynchronous strategies (ParameterServerStrategy).
    """

    compares_samples = False
    keras_keywords = ("inputs", "outputs", *SUBCLASSED)

    def __new__(cls, *args, **kwargs):
        if "inputs" in kwargs:
            refuse_unknown(kwargs, ("inputs", "outputs", *FUNCTIONAL), cls.__name__)
        return super().__new__(cls, *args, **kwargs)

    # ---- compile ----------------------------------------------------------------------------------------------

    def compile(self, *args, **kwargs):
        """Keras' compile; an accumulation that the optimizer asks for is the model's from here on."""
        super().compile(*args, **kwargs)
        self.take_over_accumulation()
        if self.jit_compile and only_cpus():
            warn(SLOW_XLA)

    def take_over_accumulation(self) -> None:
        """Makes the accumulation that the optimizer asks for the model's, and begins it anew."""
        object.__setattr__(self, "_accumulation", _Accumulation())
        self.forget_sums()
        optimizer = updating_optimizer(self.optimizer)
        if optimizer is None or not optimizer.gradient_accumulation_steps or self._has_own("train_step"):
            return
        if optimizer.built:
            raise ValueError(
                f"The optimizer, with gradient_accumulation_steps={optimizer.gradient_accumulation_steps}, was built "
                "before compile(), and has its own sums. A DistributedModel sums itself: compile with a new optimizer."
            )
        # Kept with the optimizer: it may be compiled again.
        optimizer.accumulated_by_model = int(optimizer.gradient_accumulation_steps)
        optimizer.gradient_accumulation_steps = None

    @property
    def gradient_accumulation_steps(self) -> int:
        """Batches per update of the optimizer."""
        optimizer = updating_optimizer(self.optimizer)
        own = getattr(optimizer, "gradient_accumulation_steps", None)  # left to a train_step of the user's
        return own or getattr(optimizer, "accumulated_by_model", 1)

    def get_compile_config(self):
        config = super().get_compile_config()
        if config and self.optimizer is not None:  # this one: Keras has written down that of compile()
            config = {**config, "optimizer": self.serialize_optimizer()}
        return config

    def serialize_optimizer(self) -> dict:
        """The optimizer's config as Keras saves it, with the accumulation that compile() took over."""
        optimizer, steps = updating_optimizer(self.optimizer), self.gradient_accumulation_steps
        before = optimizer.gradient_accumulation_steps
        optimizer.gradient_accumulation_steps = steps if steps > 1 else None
        try:
            return keras.saving.serialize_keras_object(self.optimizer)
        finally:
            optimizer.gradient_accumulation_steps = before

    def compile_from_config(self, config):
        # Keras' own version refuses every model whose compile() is not Keras'.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    # ---- fit --------------------------------------------------------------------------------------------------

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
    ):
        """Keras' `fit`. With a `Resume` among the callbacks it goes on where that one's folder says.

        `x` may be `Epochs` too. Workers of a cluster are compared first.

        Raises:
            ValueError: for workers that would not train the same, and what Keras raises.
            LostWorkerError: where another worker ends, or does not come.
        """
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self._assert_compile_called("fit")
        check_batch_size(strategy_of(self), x, batch_size)
        check_rate_callbacks(callbacks, self.optimizer)
        if resume_among(callbacks) is not None or isinstance(x, Epochs):
            return resumable_fit(self, **arguments)
        data = describe(x, y, sample_weight, batch_size) if is_cluster(strategy_of(self)) else {}
        check_workers(self, {"epochs": epochs, "steps": steps_per_epoch, "data": data})
        with naming_lost_workers(strategy_of(self)), batches_of(replica_rows(strategy_of(self), x, batch_size)):
            return super().fit(**arguments)

    def prepare_training(self, element_spec) -> None:
        """Makes all variables and the train function, from the spec of a strategy's batches: no batch is read."""
        if not self._keras_step_is_right(True):
            self._check_strategy()
        spec = local_spec(element_spec)
        with strategy_of(self).scope():
            self._symbolic_build(data_batch=tree.map_structure(symbolic, spec))
        self.make_train_function()
        if isinstance(self.train_function, _Execution):
            self.train_function.prepare(spec)

    # ---- which step -------------------------------------------------------------------------------------------

    def _has_own(self, method: str) -> bool:
        return getattr(type(self), method) is not getattr(DistributedModel, method)

    def _keras_step_is_right(self, training: bool) -> bool:
        if not on_tensorflow():
            return True
        strategy, method = strategy_of(self), "train_step" if training else "test_step"
        distributed = _is_among(strategy, (*_DISTRIBUTED, *_REFUSED))
        if self._has_own(method):
            if distributed:
                raise ValueError(
                    f"{type(self).__name__} has its own {method}, which cannot run right under "
                    f"{type(strategy).__name__}: override compute_loss and compute_metrics instead."
                )
            return True
        several_losses = len(getattr(self._compile_loss, "_flat_losses", None) or tree.flatten(self.loss)) > 1
        if distributed or several_losses or len(getattr(self, "outputs", ())) > 1:
            return False
        return not (training and (self.gradient_accumulation_steps > 1 or pass_changes(self)))

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Builds losses, metrics and optimizer before the first step, from shapes alone: no batch is lost."""
        if self._keras_step_is_right(True) and self._keras_step_is_right(False):
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)
            return
        self._check_strategy()
        if iterator is not None:
            data_batch = tree.map_structure(symbolic, local_spec(iterator._distributed_dataset.element_spec))
        with strategy_of(self).scope():
            self._symbolic_build(data_batch=data_batch)

    def _check_strategy(self) -> None:
        """Refuses what cannot give the weights of one device."""
        if _is_among(strategy_of(self), _REFUSED):
            raise ValueError(
                f"A DistributedModel does not train under {type(strategy_of(self)).__name__}: the replicas have "
                "no step in common. Use MirroredStrategy, MultiWorkerMirroredStrategy or TPUStrategy."
            )
        for layer in self._flatten_layers():
            if getattr(layer, "synchronized", False) and strategy_of(self).num_replicas_in_sync > 1:
                raise ValueError(
                    f"Layer {layer.path} is a synchronized BatchNormalization, which waits for other replicas inside "
                    "the compiled step. Use synchronized=False, or LayerNormalization."
                )

    def train_step(self, *given):
        """Keras' step on one device, but that the optimizer gets an embedding's gradient as a dense matrix.

        Keras squares the rows of one id before it sums them: in a norm to clip by, and in Adam's second moment. On JAX
        the gradient is dense, and a step takes state and data.
        """
        if not on_tensorflow() or not self.trainable_weights:
            return super().train_step(*given)
        with compiled_ahead(not self.jit_compile):
            return self._step_of_dense_gradients(*given)

    def _step_of_dense_gradients(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = call(self, x, training=True)
            loss = self._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
            self._loss_tracker.update_state(loss, sample_weight=batch_size(x))
            loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(loss, self.trainable_weights)
        gradients = [None if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients]
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def make_train_function(self, force=False):
        """Keras calls it before training; `train_function` runs `steps_per_execution` steps."""
        if self._keras_step_is_right(True):
            super().make_train_function(force)
        elif self.train_function is None or force:
            self.train_function = _Execution(self, self._make_train_step)

    def make_test_function(self, force=False):
        """The same for `evaluate`."""
        if self._keras_step_is_right(False):
            super().make_test_function(force)
        elif self.test_function is None or force:
            self.test_function = _Execution(self, lambda spec: TestStep(self, spec))

    def _make_train_step(self, batch_spec) -> TrainStep:
        if self._compile_loss is not None and not self._compile_loss.built:  # what began as Keras' step is ours now
            self._symbolic_build(data_batch=tree.map_structure(symbolic, batch_spec))
        step, state = TrainStep(self, batch_spec), self._accumulation
        if self.gradient_accumulation_steps > 1:
            if state.accumulator is None:
                objectives = step.replica_step.count_objectives()
                state.accumulator = Accumulator(self.trainable_variables, self.gradient_accumulation_steps, objectives)
            step.accumulator = state.accumulator
        return step

    # ---- predict ----------------------------------------------------------------------------------------------

    def make_predict_function(self, force=False):
        """The same for `predict`: under a strategy XLA compiles the model's call, not what reads its variables."""
        if self.predict_function is not None and not force:
            return
        if not _is_among(strategy_of(self), _DISTRIBUTED):
            super().make_predict_function(force)
            return
        jit, self.jit_compile = self.jit_compile, False
        try:
            super().make_predict_function(force=True)
        finally:
            self.jit_compile = jit

    def predict_step(self, *given):
        if not _is_among(strategy_of(self), _DISTRIBUTED):
            return super().predict_step(*given)
        (data,) = given
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        variables = [*self.trainable_variables, *self.non_trainable_variables]

        def forward(held, x):
            with keras.StatelessScope(list(zip(variables, held, strict=True))):
                return call(self, x, training=False)

        return compiled(forward, self)(values(variables), x)


class _Execution:
    """What Keras calls once for `steps_per_execution` steps: with an iterator, or with a list of one batch.

    Args:
        model: `DistributedModel`.
        make_step: makes the step from the spec of a replica's batch; called once, when all is built.
    """

    def __init__(self, model, make_step):
        self.model, self.make_step = model, make_step
        self.step = None
        graph = {"autograph": False, "reduce_retracing": True}
        self.on_batch = self._on_batch if model.run_eagerly else tf.function(self._on_batch, **graph)
        self.on_iterator = self._on_iterator if model.run_eagerly else tf.function(self._on_iterator, **graph)

    def __call__(self, iterator):
        """Runs the steps; returns the logs.

        Raises:
            StopIteration, tf.errors.OutOfRangeError: at the end of the data; Keras ends the epoch.
        """
        strategy = strategy_of(self.model)
        whole = not isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator))
        batch = to_tensors(next(iter(iterator))) if whole else None
        with strategy.scope():
            if self.step is None:
                self.step = self.make_step(spec_of_whole(batch) if whole else local_spec(iterator.element_spec))
            if whole:
                self.step.expect(spec_of_whole(batch))
                return self.on_batch(split(batch, strategy))
            found, logs = self.on_iterator(iterator)
            if not found:
                raise StopIteration
            return logs

    def prepare(self, spec) -> None:
        """Makes the step, and with it what it accumulates in, before there is a batch."""
        with strategy_of(self.model).scope():
            if self.step is None:
                self.step = self.make_step(spec)

    def _on_batch(self, batch):
        self.step(batch)
        return self.model.get_metrics_result()

    def _on_iterator(self, iterator):
        """(whether there was a batch, logs)."""
        self.step.expect(local_spec(iterator.element_spec))  # another fit may have another batch size
        steps = self.model.steps_per_execution
        if steps == 1:
            return True, self._on_batch(iterator.get_next())

        def one_more(done, _):
            batch = iterator.get_next_as_optional()
            found = batch.has_value()
            tf.cond(found, lambda: self._step_in_branch(batch), lambda: tf.constant(0))
            return done + tf.cast(found, "int32"), found

        done, _ = tf.while_loop(
            lambda done, more: tf.logical_and(done < steps, more),
            one_more,
            [tf.constant(0), tf.constant(True)],
            parallel_iterations=1,
        )
        return done > 0, self.model.get_metrics_result()

    def _step_in_branch(self, batch) -> tf.Tensor:
        self.step(batch.get_value())
        return tf.constant(0)
