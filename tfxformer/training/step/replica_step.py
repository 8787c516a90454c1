"""The forward and backward pass of one replica, a function of values: XLA compiles it on any device.

A mirrored variable captured by a compiled function is read on the wrong device. So weights, state and metrics go in
as tensors (`keras.StatelessScope`) and come out as tensors; only what stands around the function touches variables.
"""

from __future__ import annotations

import keras

from tfxformer.backend import compiled_ahead, strategy_of
from tfxformer.backend import tensorflow as tf
from tfxformer.training.step.hooks import see_batch
from tfxformer.training.step.loss_terms import Objective, recorded
from tfxformer.training.step.passes import Batch, call, pass_of

SEED_NAME = "seed_generator_state"  # the variable of every keras.random.SeedGenerator: int [2], (seed, counter)
_SEED_STRIDE = 0x3C6EF35F  # from one replica's seed to the next


def compiled(function, model):
    """`function` as the model's compile() wants its steps: eager, a graph, or an XLA cluster."""
    if model.run_eagerly:
        return function
    # On a TPU the whole step is one XLA program already.
    jit = bool(model.jit_compile) and not isinstance(strategy_of(model), tf.distribute.TPUStrategy)
    return tf.function(function, jit_compile=jit or None, autograph=False, reduce_retracing=True)


def values(variables) -> list[tf.Tensor]:
    """What Keras variables hold on this replica."""
    return [tf.convert_to_tensor(variable.value) for variable in variables]


def batch_size(x) -> tf.Tensor:
    """Samples in a batch: int32 scalar."""
    return tf.shape(next(leaf for leaf in tf.nest.flatten(x) if leaf is not None))[0]


class ReplicaStep:
    """One local batch of one replica: updates its metrics and state, returns its gradients and loss.

    Args:
        model: a built and compiled `DistributedModel`.
        batch_spec: tensor specs of a replica's batch. Its shapes may be static where the iterator's tensors are not.
        training: bool, whether gradients are wanted.
    """

    def __init__(self, model, batch_spec, training: bool):
        self.model, self.training = model, training
        self.batch_spec = batch_spec
        # What the step sets itself, once it knows the loss of all replicas.
        self.loss_metrics = [] if model._compile_loss is None else list(model._compile_loss.metrics)
        trackers = [model._loss_tracker, *self.loss_metrics]
        metrics = [metric for metric in model.metrics if id(metric) not in set(map(id, trackers))]
        self.metric_variables = [variable for metric in metrics for variable in metric.variables]
        self.loss_variables = [variable for metric in trackers for variable in metric.variables]
        self.trainable, self.state = model.trainable_variables, model.non_trainable_variables
        if model.compares_samples and self._replicas > 1:
            self.function, self.forward = self._compute_compared, compiled(self._forward, model)
            self._most_rows = tf.Variable(  # of a replica's batches; each replica has its own, or no loop could set it
                0,
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
        else:
            self.function = compiled(self._compute, model)

    @property
    def _replicas(self) -> int:
        return strategy_of(self.model).num_replicas_in_sync

    def __call__(self, batch, scale):
        """In replica context.

        Args:
            batch: this replica's part, (x, y, sample weights) as Keras' datasets have it.
            scale: float32 scalar that the loss is multiplied by before its gradient is taken.

        Returns:
            dict: "samples" float32 scalar; "parts", pairs (mean, count or None) of each objective; "outputs", the same
            of each output's loss; "gradients", for each objective, for each weight, the gradient of scale times the
            mean times the count, or None.
        """
        batch = tf.nest.map_structure(_with_shape, _without_optionals(batch), self.batch_spec)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if self.training:
            see_batch(self.model, (x, y, sample_weight))
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        variables = (values(self.trainable), values(self.state), values(self.metric_variables))
        with compiled_ahead(self.training and not self.model.jit_compile):
            result = self.function(*variables, x, y, sample_weight, tf.cast(replica, "int32"), scale)
        for variable, value in zip(self.metric_variables, result.pop("metrics"), strict=True):
            variable.assign(value)
        self._assign_state(result.pop("state"), result["samples"])
        return result

    def _compute(self, trainable, state, metrics, x, y, sample_weight, replica, scale):
        """The pure function: tensors to tensors."""
        model = self.model
        state, offset = self._own_seeds(state, replica)
        mapping = self._mapping(trainable, state, metrics)
        samples = tf.cast(batch_size(x), "float32")
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            if self.training:
                tape.watch(trainable)
            with keras.StatelessScope(mapping, collect_losses=True) as scope, recorded(model) as records:
                y_pred, parts = pass_of(model, Batch(x, y, sample_weight, samples, scale), records, self.training)
                model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
            scaled = [part.value * scale for part in parts]
        gradients = [self._gradients(tape, *pair, trainable) for pair in zip(scaled, parts, strict=True)]
        del tape
        return {
            "samples": samples,
            "parts": [tuple(part) for part in parts],
            "outputs": [(record.value, record.count) for record in records],
            "gradients": gradients if self.training else [],
            "state": self._new_state(state, scope, offset),
            "metrics": [scope.get_current_value(variable) for variable in self.metric_variables],
        }

    def _own_seeds(self, state, replica):
        """State from whose seeds each replica draws other random numbers, and what was added: the stored ones stay
        the same on all."""
        offset = tf.stack([tf.cast(replica, "int64") * _SEED_STRIDE % (2**31 - 1), tf.zeros((), "int64")])
        state = [
            value + tf.cast(offset, value.dtype) if SEED_NAME in variable.name else value
            for variable, value in zip(self.state, state, strict=True)
        ]
        return state, offset

    def _mapping(self, trainable, state, metrics) -> list:
        """What every variable of the model holds, as `keras.StatelessScope` takes it."""
        return [
            *zip(self.trainable, trainable, strict=True),
            *zip(self.state, state, strict=True),
            *zip(self.metric_variables, metrics, strict=True),
            *((variable, tf.zeros(variable.shape, variable.dtype)) for variable in self.loss_variables),
        ]

    # ---- losses that compare the samples of all replicas ------------------------------------------------------

    def _forward(self, trainable, state, metrics, x, replica):
        """(outputs, new state) of this replica's samples: what XLA may compile, since it waits for no other."""
        state, offset = self._own_seeds(state, replica)
        with keras.StatelessScope(self._mapping(trainable, state, metrics)) as scope:
            y_pred = call(self.model, x, self.training)
        return y_pred, self._new_state(state, scope, offset)

    def _compute_compared(self, trainable, state, metrics, x, y, sample_weight, replica, scale):
        """As `_compute`, but that the loss sees the outputs of all replicas, and each goes back through its own.

        Every replica computes the whole loss. Its gradient by this replica's outputs holds what they do to all terms,
        so the sum of the replicas' gradients is that of one device.
        """
        model, samples = self.model, tf.cast(batch_size(x), "float32")
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(trainable)
            y_pred, new_state = self.forward(trainable, state, metrics, x, replica)
            y_pred, y, sample_weight = self._gathered((y_pred, y, sample_weight), replica)
            mapping = self._mapping(trainable, state, metrics)
            with keras.StatelessScope(mapping) as scope, recorded(model) as records:
                loss = model.compute_loss(
                    x=None, y=y, y_pred=y_pred, sample_weight=sample_weight, training=self.training
                )
                model.compute_metrics(None, y, y_pred, sample_weight=sample_weight)
            # The step divides by all samples what it multiplies by this replica's own: the gradient needs neither.
            share = tf.math.divide_no_nan(tf.cast(batch_size(y_pred), "float32"), samples)
            value = tf.stop_gradient(loss) + (loss - tf.stop_gradient(loss)) * share
            part = Objective(value, samples)
            scaled = part.value * scale
        gradients = [self._gradients(tape, scaled, part, trainable)]
        del tape
        return {
            "samples": samples,
            "parts": [tuple(part)],
            "outputs": [(record.value, record.count) for record in records],
            "gradients": gradients if self.training else [],
            "state": new_state,
            "metrics": [scope.get_current_value(variable) for variable in self.metric_variables],
        }

    def _gathered(self, nest, replica):
        """The rows of all replicas, in their order; a gradient goes to this replica's alone."""
        context = tf.distribute.get_replica_context()
        with tf.device(self.trainable[0].value.device):  # inside tf.cond tensors carry none, and collectives need one
            size = tf.identity(batch_size(nest))
            sizes = context.all_gather(size[None], axis=0)
            begin = tf.reduce_sum(sizes[: tf.cast(replica, "int32")])
            # One collective in a loop has to have one shape, and the last batch of an epoch may be short.
            most = tf.maximum(self._most_rows, tf.reduce_max(sizes))
            self._most_rows.assign(most)
            present = tf.reshape(tf.sequence_mask(sizes, most), (-1,))

            def gather(own):
                if own is None:
                    return None
                if own.shape[0] is not None:
                    rows = context.all_gather(tf.identity(own), axis=0)
                else:
                    padded = tf.pad(own, [(0, most - size)] + [(0, 0)] * (len(own.shape) - 1))
                    rows = tf.boolean_mask(context.all_gather(padded, axis=0), present)
                return tf.concat([tf.stop_gradient(rows[:begin]), own, tf.stop_gradient(rows[begin + size :])], axis=0)

            return tf.nest.map_structure(gather, nest)

    # ---- the parts --------------------------------------------------------------------------------------------

    def count_objectives(self) -> int:
        """How many losses have a divisor of their own, found by tracing the loss."""
        found = []

        def trace(batch):
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
            mapping = [(variable, tf.zeros(variable.shape, variable.dtype)) for variable in self.model.variables]
            with keras.StatelessScope(mapping, collect_losses=True), recorded(self.model) as records:
                batch = Batch(x, y, sample_weight, tf.cast(batch_size(x), "float32"), tf.ones(()))
                found.append(len(pass_of(self.model, batch, records, self.training)[1]))

        tf.function(trace, autograph=False).get_concrete_function(self.batch_spec)
        return found[0]

    def _gradients(self, tape, scaled, part, trainable):
        """The sum over the replica's terms; of a replica without terms, zero, whatever its mean of nothing is."""
        if not self.training:
            return []
        gradients = tape.gradient(scaled, trainable)
        gradients = [None if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients]
        if part.count is None:
            return gradients
        return [
            None if gradient is None else tf.math.multiply_no_nan(gradient, tf.cast(part.count, gradient.dtype))
            for gradient in gradients
        ]

    def _new_state(self, before, scope, offset):
        """Index -> new value of each state variable that the model wrote."""
        changed = {}
        for index, (variable, value) in enumerate(zip(self.state, before, strict=True)):
            new = scope.get_current_value(variable)
            if new is not value:
                changed[str(index)] = new - tf.cast(offset, new.dtype) if SEED_NAME in variable.name else new
        return changed

    def _assign_state(self, changed: dict, samples) -> None:
        """Writes state back: floats as their mean over the samples of all replicas, counters as they are."""
        context = tf.distribute.get_replica_context()
        variables = {index: self.state[int(index)] for index in changed}
        floats = [index for index, value in changed.items() if value.dtype.is_floating]
        if floats and context.num_replicas_in_sync > 1:
            before = {index: tf.convert_to_tensor(variables[index].value) for index in floats}
            steps = [tf.math.multiply_no_nan(changed[i] - before[i], tf.cast(samples, before[i].dtype)) for i in floats]
            *steps, total = context.all_reduce("SUM", [*steps, samples])
            for index, step in zip(floats, steps, strict=True):
                changed[index] = before[index] + tf.math.divide_no_nan(step, tf.cast(total, step.dtype))
        for index, value in changed.items():
            variables[index].assign(value)


def _without_optionals(batch):
    """Keras' datasets have an Optional where a batch has None."""
    return tf.nest.map_structure(lambda leaf: None if isinstance(leaf, tf.experimental.Optional) else leaf, batch)


def _with_shape(leaf, spec):
    return leaf if leaf is None else tf.ensure_shape(leaf, spec.shape)
