"""Keras' loop over epochs, begun at any batch of any epoch."""

from __future__ import annotations

import contextlib
import itertools

import keras
import numpy as np
from keras import tree

from tfxformer.backend import on_jax, strategy_of
from tfxformer.backend import tensorflow as tf
from tfxformer.training.devices.keras_distribution import on_devices
from tfxformer.training.devices.workers import check_workers, naming_lost_workers
from tfxformer.training.resume.checkpoint_state import (
    check_data,
    check_model,
    restore_arrays,
    restore_callbacks,
    restore_rate_factor,
    warn_of_replicas,
)
from tfxformer.training.resume.data_positions import positioned, split_validation
from tfxformer.training.resume.resume import Checkpoint, Resume

# What a step on JAX is given and returns, by the names that Keras has for them.
_STATE = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")


def resume_among(callbacks) -> Resume | None:
    """The `Resume` of a fit's callbacks.

    Raises:
        ValueError: for more than one.
    """
    listed = callbacks.callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else tree.flatten(callbacks)
    found = [callback for callback in listed if isinstance(callback, Resume)]
    if len(found) > 1:
        raise ValueError(f"One Resume per fit, got {len(found)}: give keep=... for more checkpoints.")
    return found[0] if found else None


class ResumableFit:
    """One call of `fit`.

    Args:
        model: `DistributedModel`, compiled.
        source: of `positions.positioned`.
        resume: `Resume`, or None to begin at the beginning and save nothing.
        epochs, initial_epoch, verbose, callbacks: as Keras' `fit` has them.
        evaluate: function (epoch, callbacks) -> logs of the validation, {} where there is none in this epoch.
    """

    def __init__(self, model, source, resume, *, epochs, initial_epoch, verbose, callbacks, evaluate):
        self.model, self.source, self.resume = model, source, resume
        self.epochs, self.verbose, self.evaluate = epochs, verbose, evaluate
        self.begun: Checkpoint | None = resume and resume.find(strategy_of(model))
        self.epoch, self.batch, stopped = initial_epoch, 0, False
        if self.begun is not None:
            manifest = self.begun.manifest
            check_data(self.begun.path, manifest, source)
            self.epoch, self.batch, stopped = manifest["epoch"], manifest["batch"], manifest["stopped"]
        self.ended = stopped or self.epoch >= epochs
        if source.num_batches and source.num_batches % model.steps_per_execution and getattr(source, "steps", None):
            raise ValueError(
                f"steps_per_epoch={source.num_batches} must be divided by steps_per_execution="
                f"{model.steps_per_execution} where training can be resumed."
            )
        self.callbacks = callbacks

    def run(self) -> keras.callbacks.History:
        """Trains to the end."""
        model = self.model
        at = (0, 0) if self.ended else (self.epoch, self.batch)
        self._read(self.source.first_epoch(*at))
        self._prepare()
        check_workers(
            model,
            {
                "epochs": self.epochs,
                "batches": self.source.num_batches,
                "data": self.source.signature,
                "checkpoint": str(self.begun and self.begun.path.name),
            },
        )
        if self.begun is not None:
            check_model(self.begun.path, self.begun.manifest, self.begun.arrays, model)
            warn_of_replicas(self.begun.manifest, model)
            restore_rate_factor(self.begun.manifest, model)
            restore_arrays(self.begun.arrays, self.begun.manifest, model)
        callbacks = self._callback_list()
        self._say()
        running = contextlib.nullcontext()
        if self.resume is not None:
            told = (self.begun.path, self.begun.manifest["best"]) if self.begun else (None, None)
            running = self.resume.running(model, self.source, callbacks.callbacks, model.history, *told)
        with running, naming_lost_workers(strategy_of(model), " The training goes on from the last checkpoint."):
            callbacks.on_train_begin()
            self._restore_callbacks(callbacks)
            logs = self._epochs(callbacks)
            if isinstance(model.optimizer, keras.optimizers.Optimizer) and self.epochs > 0:
                model.optimizer.finalize_variable_values(model.trainable_weights)
            callbacks.on_train_end(logs=logs)
        return model.history

    # ---- before the first step --------------------------------------------------------------------------------

    def _read(self, dataset) -> None:
        distributed = strategy_of(self.model).experimental_distribute_dataset(dataset)
        self.iterator = iter(distributed)

    def _prepare(self) -> None:
        """Makes all variables, so that they can be given their values."""
        model = self.model
        model.prepare_training(self.iterator.element_spec)
        if not model.optimizer.built:
            with strategy_of(model).scope():
                model.optimizer.build(model.trainable_variables)

    def _callback_list(self):
        if isinstance(self.callbacks, keras.callbacks.CallbackList):
            return self.callbacks
        return keras.callbacks.CallbackList(
            self.callbacks,
            add_history=True,
            add_progbar=self.verbose != 0,
            verbose=self.verbose,
            epochs=self.epochs,
            steps=self.source.num_batches,
            model=self.model,
        )

    def _say(self) -> None:
        if self.begun is None:
            return
        if self.ended:
            print(f"Resume: the training of {self.begun.path} has ended; nothing is left to train.", flush=True)
        elif self.verbose != 0:
            print(f"Resume: on from epoch {self.epoch + 1}, batch {self.batch} ({self.begun.path}).", flush=True)

    def _restore_callbacks(self, callbacks) -> None:
        if self.begun is None:
            return
        restore_callbacks(self.begun.arrays, self.begun.manifest, callbacks.callbacks)
        told, history = self.begun.manifest["history"], self.model.history
        history.epoch = list(told["epoch"])
        history.history = {name: list(values) for name, values in told["history"].items()}

    # ---- steps: what JAX does otherwise -----------------------------------------------------------------------

    @property
    def ends_of_data(self) -> tuple:
        """What a step raises at the end of an epoch."""
        return StopIteration, tf.errors.OutOfRangeError

    def _step(self) -> dict:
        return self.model.train_function(self.iterator)

    def _end_steps(self) -> None:
        """Nothing: a step writes to the variables."""

    # ---- epochs -----------------------------------------------------------------------------------------------

    def _epochs(self, callbacks):
        model, logs = self.model, None
        model.stop_training = False
        for epoch in range(self.epoch, self.epochs if not self.ended else self.epoch):
            first = self.batch if epoch == self.epoch else 0
            if epoch > self.epoch:
                dataset = self.source.next_epoch(epoch)
                if dataset is not None:
                    self._read(dataset)
            model.reset_metrics()
            callbacks.on_epoch_begin(epoch)
            known = None
            if first:  # the epoch had begun: what its beginning has reset is put back
                restore_arrays(self.begun.arrays, self.begun.manifest, model)
                self._restore_callbacks(callbacks)
                known = self.begun.manifest["logs"]
            self.begun = None  # as large as the model
            self.done = first
            logs = self._one_epoch(callbacks, epoch, first) if known is None else known
            self.source.end_epoch()
            if self.resume is not None:
                self.resume.before_evaluation(epoch, self.done, logs)
            logs = {**logs, **self.evaluate(epoch, callbacks)}
            callbacks.on_epoch_end(epoch, logs)
            if self.resume is not None:
                self.resume.after_epoch(epoch)
            if model.stop_training:
                break
        return logs

    def _one_epoch(self, callbacks, epoch: int, first: int) -> dict:
        """Trains from a batch on; returns the logs of the whole epoch."""
        model, batches, logs = self.model, self.source.num_batches, {}
        size, step = model.steps_per_execution, first
        while (batches is None or step < batches) and not model.stop_training:
            callbacks.on_train_batch_begin(step)
            try:
                logs = self._step()
            except self.ends_of_data:
                if batches is not None:
                    raise ValueError(
                        f"The data of epoch {epoch} ended after {step} batches; it says that it has {batches}."
                    ) from None
                break
            callbacks.on_train_batch_end(step + size - 1, logs)
            before, step = step, step + size
            if batches is not None:
                step = min(step, batches)
            if self.resume is not None:
                self.resume.after_batch(epoch, step, step - before)
        self.done = step
        self._end_steps()
        measured = model.get_metrics_result()
        logs = measured if not logs or set(logs) == set(measured) else logs  # a train_step of one's own
        return {name: np.asarray(value).tolist() for name, value in logs.items()}


class JAXResumableFit(ResumableFit):
    """The same where a step is a function of the state that it is given and returns, as Keras' own loop on JAX has it.

    The state is in the variables when they are read: for a checkpoint, an evaluation, a callback that asks for it.
    """

    ends_of_data = (StopIteration,)

    def run(self):
        try:
            return super().run()
        finally:
            self.model.jax_state_sync()
            self.model._jax_state = None

    def _read(self, dataset) -> None:
        if hasattr(dataset, "as_numpy_iterator"):
            dataset = dataset.as_numpy_iterator()
        batches = iter(dataset)
        self.first = next(batches, None)
        read = itertools.chain([] if self.first is None else [self.first], batches)
        self.iterator = (on_devices(batch if isinstance(batch, tuple) else (batch,)) for batch in read)
        self.model._jax_state_synced = True

    def _prepare(self) -> None:
        if self.first is None:
            raise ValueError("There is no batch to train on.")
        first = self.first if isinstance(self.first, tuple) else (self.first,)
        self.model._symbolic_build(data_batch=first)
        self.model.make_train_function()

    def _step(self) -> dict:
        model = self.model
        if model._jax_state_synced:
            self.state = model._get_jax_state(**dict.fromkeys(_STATE, True), purge_model_variables=True)
            model._jax_state_synced = False
        try:
            logs, self.state = model.train_function(self.state, self.iterator)
        finally:
            self._publish()
        return logs

    def _publish(self) -> None:
        """Lets `jax_state_sync` find the state, which it writes to the variables."""
        self.model._jax_state = dict(zip(_STATE, self.state, strict=True))

    def _end_steps(self) -> None:
        self.model.jax_state_sync()


def resumable_fit(
    model,
    x,
    y,
    batch_size,
    epochs,
    verbose,
    callbacks,
    validation_split,
    validation_data,
    shuffle,
    class_weight,
    sample_weight,
    initial_epoch,
    steps_per_epoch,
    validation_steps,
    validation_batch_size,
    validation_freq,
) -> keras.callbacks.History:
    """`fit` of a `DistributedModel` on data that has positions; the arguments are Keras'."""
    if class_weight is not None:
        raise ValueError("class_weight does not go with Resume or Epochs: pass sample_weight, a weight for each row.")
    if validation_split and validation_data is None:
        (x, y, sample_weight), validation_data = split_validation((x, y, sample_weight), validation_split)
    resume = resume_among(callbacks)
    source = positioned(
        x,
        y,
        sample_weight,
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        shuffle=shuffle,
        seed=0 if resume is None else resume.seed,
    )

    evaluate = _evaluation(
        model, validation_data, validation_freq, batch_size=validation_batch_size or batch_size, steps=validation_steps
    )
    fitting = (JAXResumableFit if on_jax() else ResumableFit)(
        model,
        source,
        resume,
        epochs=epochs,
        initial_epoch=initial_epoch,
        verbose=verbose,
        callbacks=callbacks,
        evaluate=evaluate,
    )
    return fitting.run()


def _evaluation(model, validation_data, often, **arguments):
    """(epoch, callbacks) -> logs of the validation, in the epochs that have one."""

    def evaluate(epoch, callbacks):
        wanted = (epoch + 1) % often == 0 if isinstance(often, int) else epoch + 1 in often
        if validation_data is None or not wanted:
            return {}
        x, y, weight = keras.utils.unpack_x_y_sample_weight(validation_data)
        logs = model.evaluate(x, y, sample_weight=weight, callbacks=callbacks, return_dict=True, **arguments)
        return {f"val_{name}": value for name, value in logs.items()}

    return evaluate
