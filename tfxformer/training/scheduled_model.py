"""A model whose `compile` has a default optimizer, with a schedule that ends where each `fit` ends."""

from __future__ import annotations

import math

import keras
from keras import tree

from tfxformer.arguments.keywords import checked
from tfxformer.backend import strategy_of
from tfxformer.training.compiling.losses_and_metrics import compile_arguments
from tfxformer.training.distributed_model import DistributedModel
from tfxformer.training.inputs.array_checks import check_loss
from tfxformer.training.inputs.checked_batches import refusals
from tfxformer.training.inputs.given import Given, check_counts
from tfxformer.training.optimizers.chosen import AUTO, KERAS_COMPILE, choose_optimizer, planned_optimizer


class ScheduledModel(DistributedModel):
    """A `DistributedModel` that knows how Transformers are tuned: what tasks and the Distiller have in common.

    A subclass says its default loss and metrics, and what arrays it makes of the texts that `fit` is given.
    """

    learns_from_labels = True  # as a plain Keras model does; a task says whether it does
    _plan = None  # of an optimizer whose schedule ends where a fit ends; see `choose_optimizer`

    # ---- what a subclass says ---------------------------------------------------------------------------------

    @property
    def output_kinds(self):
        """What the logits are: an `outputs.Output`, a dict of them by name, or None for what is no task's."""
        return

    def weigh_classes(self, class_weight, data: Given) -> Given:
        """The same data with the weights of its classes; models with `output_kinds` define it."""
        raise NotImplementedError("A model with output_kinds defines weigh_classes.")

    def default_loss(self):
        """The loss of compile(loss="auto")."""
        return

    def default_metrics(self):
        """The metrics of compile(metrics="auto")."""
        return

    def default_weighted_metrics(self):
        """The metrics of compile(weighted_metrics="auto")."""
        return

    def read_given(self, x, y=None, sample_weight=None, *, batch_size=None, steps=None, epochs=1) -> Given:
        """What `fit` is given, its streams of texts read as lists: see `tasks.streams.read_given`."""
        return Given(x, y, sample_weight, batch_size)

    def want_labels(self, given: Given) -> None:
        """Refuses what has no labels, where the model learns from them."""

    def is_splittable(self, given: Given) -> bool:
        """Whether `validation_split` is taken of examples, by `split`, and not of arrays, by Keras."""
        return False

    def split(self, given: Given, share: float) -> tuple[Given, Given]:
        """(training, validation): the last `share` of the examples validates, as Keras has it."""
        raise NotImplementedError("A model whose examples can be split says how.")

    def arrays(self, given: Given, *, fitting=False) -> Given:
        """What Keras trains on, of what was read; batches stay as they are."""
        return given

    def to_arrays(self, x, y=None, sample_weight=None, *, fitting=False) -> tuple:
        """What Keras trains on, (inputs, targets, sample weights), of what `fit` takes; batches stay as they are."""
        data = self.fixed_arrays(self.read_given(x, y, sample_weight), fitting=fitting)
        return data.x, data.y, data.sample_weight

    def fixed_arrays(self, given: Given, *, fitting=False) -> Given:
        """`arrays` that are the same in every epoch, such as a `Distiller` needs, whose teacher answers once."""
        return self.arrays(given, fitting=fitting)

    # ---- training ---------------------------------------------------------------------------------------------

    def compile(self, optimizer=AUTO, loss=AUTO, metrics=AUTO, weighted_metrics=AUTO, **kwargs):
        """Keras' compile, with the model's own defaults.

        Args:
            optimizer: "auto" is AdamW without decay on norms and biases, its rate warming up and then falling
                linearly to zero at the end of each `fit`. Or the name of any Keras optimizer, which then is Keras',
                or an optimizer.
            loss, metrics, weighted_metrics: "auto" are the model's own (weighted metrics: beside metrics="auto" only);
                None is none. Losses and metrics of Keras, by name or as objects, compare what a task's `predict`
                gives, such as probabilities; functions and classes of yours get the logits, unless a `from_logits`
                attribute says False. Where tokens have labels, metrics count the labelled ones, weighted metrics by
                their weights; see `training.compiling`.
            kwargs: Keras' further arguments (jit_compile, steps_per_execution, ...), and beside "auto" or a name those
                of the optimizer: learning_rate (5e-5), weight_decay (0.01) and global_clipnorm (1.0; None for no
                limit) of "auto", for a name Keras' defaults; no_decay, layer_decay, beta_1,
                gradient_accumulation_steps, ...; and warmup (0.1), the share of the steps in which the rate rises
                (or an int, their number), with which a name's rate follows the same schedule to the end of each fit.

        Raises:
            TypeError: for an argument that neither Keras nor the optimizer takes, and for any of the optimizer's
                beside an optimizer that is made already.
            ValueError: for a value that cannot be used, such as a learning rate below 0.
        """
        arguments = {name: kwargs.pop(name) for name in list(kwargs) if name not in KERAS_COMPILE}
        optimizer, plan = choose_optimizer(optimizer, arguments, f"{type(self).__name__}.compile")
        if _is_auto(weighted_metrics):
            weighted_metrics = self.default_weighted_metrics() if _is_auto(metrics) else None
        given = {
            "loss": self.default_loss() if _is_auto(loss) else loss,
            "metrics": self.default_metrics() if _is_auto(metrics) else metrics,
            "weighted_metrics": weighted_metrics,
        }
        if self.output_kinds is not None:
            given = compile_arguments(self.output_kinds, **given)
        if not all(map(math.isfinite, tree.flatten(kwargs.get("loss_weights") or ()))):
            raise ValueError(f"loss_weights={kwargs['loss_weights']!r}: wanted finite numbers.")
        check_counts(steps_per_execution=kwargs.get("steps_per_execution"))
        super().compile(optimizer=optimizer, **given, **kwargs)
        self._plan = plan

    def get_compile_config(self):
        config = super().get_compile_config()
        return {**config, "default_optimizer": self._plan} if config else config

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        plan = config.pop("default_optimizer", None)
        self.compile(**config)
        self._plan = plan
        self.optimizer.build(self.trainable_variables)

    @checked
    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        *,
        validation_split=0.0,
        validation_data=None,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        **kwargs,
    ):
        """Keras' `fit`, on texts and labels, arrays, or streams of either (datasets, generators, PyDatasets).

        Where the rate follows a schedule of the fit's steps, every fit from epoch 0 has one of its own;
        `initial_epoch` > 0 goes on with the one that an interrupted fit left. With a `training.Resume` among the
        callbacks the same call goes on where it was, with the same schedule.

        A task's `class_weight` is by label name or id, and multiplies `sample_weight`.

        Returns:
            keras.callbacks.History.
        """
        if not self.compiled:
            self.compile()
        check_counts(batch_size=batch_size, epochs=epochs, initial_epoch=initial_epoch, steps_per_epoch=steps_per_epoch)
        given = self.read_given(x, y, sample_weight, batch_size=batch_size, steps=steps_per_epoch, epochs=epochs)
        data, held, validation_split = self._divided(given, validation_data, validation_split, kwargs)
        if class_weight is not None and self.output_kinds is not None:
            if validation_split and held is None and hasattr(tree.flatten(data.x)[0], "shape"):
                # Validation is not weighed by class.
                first, last = _hold_out(validation_split, data.x, data.y, data.sample_weight)
                data, held, validation_split = data.with_arrays(*first), data.with_arrays(*last), 0.0
            data, class_weight = self.weigh_classes(class_weight, data), None
        if self._plan and (initial_epoch == 0 or not int(self.optimizer.iterations)):
            steps = steps_per_epoch or count_steps(data.x, data.batch_size, validation_split)
            self._restart_optimizer(steps * epochs)
        if not self.optimizer.built:  # built while the step is traced, it would have it traced twice
            with strategy_of(self).scope():
                self.optimizer.build(self.trainable_variables)
        with refusals():
            return super().fit(
                data.x,
                data.y,
                batch_size=data.batch_size,
                epochs=epochs,
                validation_split=validation_split,
                validation_data=held and held.for_keras(),
                class_weight=class_weight,
                sample_weight=data.sample_weight,
                initial_epoch=initial_epoch,
                steps_per_epoch=steps_per_epoch,
                **kwargs,
            )

    def _divided(self, given: Given, validation_data, validation_split: float, arguments: dict) -> tuple:
        """(what to train on, what to validate on or None, the share that is left to Keras)."""
        self.want_labels(given)
        held = self._held_out(validation_data, arguments)
        if held is None and validation_split and self.is_splittable(given):
            (given, held), validation_split = self.split(given, validation_split), 0.0
        data = self.arrays(given, fitting=True)
        if data.in_order:
            arguments["shuffle"] = False
        if held is not None:
            held = self.arrays(held)
            arguments["validation_batch_size"] = arguments.get("validation_batch_size") or held.batch_size
        return data, held, validation_split

    def _held_out(self, validation_data, arguments: dict) -> Given | None:
        """The validation data of a fit, read."""
        check_counts(**{name: arguments.get(name) for name in ("validation_steps", "validation_batch_size")})
        if validation_data is None:
            return None
        parts = validation_data if self._are_parts(validation_data) else (validation_data,)
        if not 1 <= len(parts) <= 3:
            raise ValueError(f"validation_data has {len(parts)} parts; wanted x, (x, y) or (x, y, sample_weight).")
        held = self.read_given(*parts, steps=arguments.get("validation_steps"))
        if held.steps:
            arguments["validation_steps"] = None  # all that was read for them
        self.want_labels(held)
        return held

    def _are_parts(self, data) -> bool:
        """Whether validation data is (x, y, ...) and not x alone; Keras takes a list of them too."""
        if not isinstance(data, list) or not 2 <= len(data) <= 3 or isinstance(data[0], str):
            return isinstance(data, tuple)
        return self.learns_from_labels or all(hasattr(array, "shape") for array in tree.flatten(data[0]))

    @checked
    def evaluate(self, x=None, y=None, batch_size=None, *, sample_weight=None, **kwargs):
        """Keras' `evaluate`, on what `fit` takes.

        Raises:
            ValueError: where the loss is not finite.
        """
        if not self.compiled:
            self.compile()
        if kwargs.get("_use_cached_eval_dataset"):  # Keras' own, in `fit`: all is read and checked
            return super().evaluate(x, y, batch_size=batch_size, sample_weight=sample_weight, **kwargs)
        check_counts(batch_size=batch_size, steps=kwargs.get("steps"))
        given = self.read_given(x, y, sample_weight, batch_size=batch_size, steps=kwargs.get("steps"))
        if given.steps:
            kwargs["steps"] = None  # all that was read for them
        self.want_labels(given)
        data = self.arrays(given)
        with refusals():
            results = super().evaluate(
                data.x, data.y, batch_size=data.batch_size, sample_weight=data.sample_weight, **kwargs
            )
        check_loss(results)
        return results

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        """Keras' `train_on_batch`, on what `fit` takes."""
        data = self._one_batch(x, y, sample_weight, fitting=True)
        if class_weight is not None and self.output_kinds is not None:
            data, class_weight = self.weigh_classes(class_weight, data), None
        return super().train_on_batch(data.x, data.y, data.sample_weight, class_weight, return_dict=return_dict)

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Keras' `test_on_batch`, on what `evaluate` takes."""
        data = self._one_batch(x, y, sample_weight)
        return super().test_on_batch(data.x, data.y, data.sample_weight, return_dict=return_dict)

    def _one_batch(self, x, y, sample_weight, *, fitting=False) -> Given:
        data = self.fixed_arrays(self.read_given(x, y, sample_weight), fitting=fitting)
        if any(hasattr(data.x, name) for name in ("num_batches", "element_spec", "__next__")):
            raise ValueError(
                f"One batch was wanted, and this is a {type(data.x).__name__} of several: give fit or evaluate all, or "
                "one of its batches here."
            )
        return data

    def _restart_optimizer(self, total_steps: int) -> None:
        """Makes the planned optimizer for a number of batches."""
        updates = max(1, total_steps // self.gradient_accumulation_steps)
        with strategy_of(self).scope():
            optimizer = planned_optimizer(self._plan, updates)
            if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            self.optimizer = optimizer
        self.take_over_accumulation()
        self.train_function = None  # the traced step holds the old optimizer; the fit makes its own, once that is built


def _is_auto(value) -> bool:
    return isinstance(value, str) and value == AUTO


def count_steps(x, batch_size: int | None, validation_split: float = 0.0) -> int:
    """The batches of one epoch, as Keras counts them.

    Args:
        x: arrays or any nest of them, a `tf.data.Dataset` or a `keras.utils.PyDataset`.

    Raises:
        ValueError: where a dataset does not know its length.
    """
    loader = hasattr(x, "batch_sampler") and hasattr(x, "__len__")  # PyTorch's
    if hasattr(x, "num_batches") or hasattr(x, "cardinality") or hasattr(x, "__next__") or loader:
        if hasattr(x, "num_batches"):
            steps = int(x.num_batches or 0)
        elif loader:
            steps = len(x)
        else:
            steps = int(x.cardinality()) if hasattr(x, "cardinality") else 0
        if steps < 1:
            raise ValueError(
                f"The {type(x).__name__} does not know its length (or is empty), and the default learning rate falls "
                "over the steps of the fit: pass steps_per_epoch, apply tf.data.experimental.assert_cardinality(n), or "
                "compile with an optimizer of your own."
            )
        return steps
    rows = len(tree.flatten(x)[0])
    return max(1, math.ceil(math.floor(rows * (1.0 - validation_split)) / (batch_size or 32)))


def _hold_out(validation_split: float, x, y, sample_weight) -> tuple:
    """The rows to train on and the last ones, which Keras' `validation_split` validates on: two (x, y, weights)."""
    rows = len(tree.flatten(x)[0])
    split = math.floor(rows * (1.0 - validation_split))
    if not 0 < split < rows:
        raise ValueError(f"validation_split={validation_split} of {rows} rows leaves none for one of the two sides.")
    whole = (x, y, sample_weight)
    return tuple(
        tree.map_structure(lambda array, part=part: None if array is None else array[part], whole)
        for part in (slice(0, split), slice(split, None))
    )
