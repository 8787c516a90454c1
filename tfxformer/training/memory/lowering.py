"""A model's steps as StableHLO, from shapes alone: what `fit` and `evaluate` would run, as one program each."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import tree

from tfxformer.backend import needs_tensorflow, strategy_of
from tfxformer.backend import tensorflow as tf
from tfxformer.training.distributed_model import DistributedModel
from tfxformer.training.step.train_step import TestStep

_UNSUPPORTED = re.compile(r"No registered '(\w+)' OpKernel for \S+ devices compatible with node \{\{node ([^}]+)\}\}")
_WAYS_OUT = {
    "EagerPyFunc": "Python does not run on a TPU: write it in TensorFlow or keras.ops, or do it in the dataset",
    "PyFunc": "Python does not run on a TPU: write it in TensorFlow or keras.ops, or do it in the dataset",
    "StringFormat": "tf.print does not run on a TPU: take it out, or give the value out as a metric",
}
_STRINGS = ("String", "Regex", "Unicode", "Strings", "AsString")


class LoweringError(ValueError):
    """A step that XLA has no program for.

    Attributes:
        operations: list of (operation, where it stands: layers from the outside in).
    """

    def __init__(self, message: str, operations=()):
        super().__init__(message)
        self.operations = list(operations)


class Step(NamedTuple):
    """What is to be lowered.

    Attributes:
        name: str.
        function: of tensors, may read and assign variables.
        specs: tuple of nests of keras.KerasTensor or tf.TensorSpec, its arguments; None as the first size is the batch.
    """

    name: str
    function: Callable
    specs: tuple


class Lowering:
    """A step, traced once, for any batch size.

    Args:
        model: whose step it is.
        step: `Step`.

    Attributes:
        seconds: float, of the trace.
    """

    def __init__(self, model, step: Step):
        needs_tensorflow("What a compiler says of a step (tpu_check, fit_estimate)", "set KERAS_BACKEND=tensorflow")
        self.step = step
        start = time.monotonic()
        with as_on_accelerators(model):
            function = tf.function(step.function, jit_compile=True, autograph=False)
            try:
                self._concrete = function.get_concrete_function(*_tensor_specs(step.specs))
            except (ValueError, TypeError, tf.errors.OpError) as error:
                raise LoweringError(f"The {step.name} step cannot be traced: {short(error)}") from error
        self.seconds = time.monotonic() - start

    @property
    def variable_bytes(self) -> int:
        """Of the variables that the step reads or assigns: weights, optimizer slots, metrics, random states."""
        variables = self._concrete.graph.variables
        return sum(variable.dtype.size * variable.shape.num_elements() for variable in variables)

    def module(self, batch_size: int) -> bytes:
        """The program of a batch size: a serialized StableHLO module, variables among its arguments and results.

        TensorFlow's CPU kernels write it (stock TensorFlow has none for TPUs); both write the same operations.

        Raises:
            LoweringError: naming the operations that have no XLA kernel, and their layers.
        """
        from tensorflow.python.eager.polymorphic_function import compiler_ir

        specs = [
            tf.TensorSpec([batch_size if size is None else size for size in spec.shape], spec.dtype)
            for spec in tf.nest.flatten(self._concrete.structured_input_signature)
            if isinstance(spec, tf.TensorSpec)
        ]
        try:
            lower = compiler_ir.from_concrete_function(self._concrete, specs)
            return lower(stage="stablehlo_serialized", platform_name="CPU")
        except (ValueError, tf.errors.OpError) as error:
            raise _lowering_error(self.step.name, error) from error


def training_steps(model, batch_spec, *, replicated: bool = True) -> dict[str, Step]:
    """The train and the eval step of a compiled Keras model.

    Of a `DistributedModel` the steps of a replica, which a TPUStrategy runs: the gradients are complete before the
    update begins, since they are two programs there. Of any other Keras model its `train_step` and `test_step`.

    Args:
        model: compiled; built by this from the shapes, where it is not.
        batch_spec: (x, y, sample_weight) as `fit` has them; specs as `Step` has them.
        replicated: bool, False for what `fit` runs on one device without a strategy.

    Raises:
        ValueError: for a model that is not compiled.
    """
    if getattr(model, "optimizer", None) is None:
        raise ValueError(f"{model.name} has no optimizer: compile it first; the train step is made of it.")
    batch_spec = _tensor_specs(tuple(batch_spec))
    symbols = tree.map_structure(
        lambda spec: None if spec is None else keras.KerasTensor(tuple(spec.shape), spec.dtype.name), batch_spec
    )
    with strategy_of(model).scope(), as_on_accelerators(model):
        model._symbolic_build(data_batch=symbols)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        ours = isinstance(model, DistributedModel) and not model._has_own("train_step")
        if not ours or (not replicated and model._keras_step_is_right(True)):
            train, evaluate = (lambda *batch: model.train_step(batch)), (lambda *batch: model.test_step(batch))
        else:
            train = _with_logs(model, _two_programs(model._make_train_step(batch_spec)))
            evaluate = _with_logs(model, TestStep(model, batch_spec))
    return {"train": Step("train", train, batch_spec), "eval": Step("eval", evaluate, batch_spec)}


def _tensor_specs(specs):
    """Keras tensors as TensorFlow has them; TensorFlow's own stay."""

    def converted(leaf):
        return tf.TensorSpec(leaf.shape, leaf.dtype) if isinstance(leaf, keras.KerasTensor) else leaf

    return tree.map_structure(converted, specs)


def _with_logs(model, step):
    def run(*batch):
        step(batch)
        return model.get_metrics_result()

    return run


def _two_programs(step):
    """Keeps the compiler from moving the update of a weight to before the last gradient is there."""
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    update = step._update

    def after_all(reduced):
        gradients, finite = reduced
        pairs = zip(step.replica_step.trainable, gradients, strict=True)
        without = [weight.path for weight, gradient in pairs if gradient is None]
        if without:
            raise ValueError(
                f"{len(without)} of {len(gradients)} weights have no gradient under a strategy and would not train: "
                f"{', '.join(without[:3])}, ... Set trainable = False where no output reads a weight; layers that "
                "keras.remat wraps have none in a replica's step (tfxformer's own, with gradient_checkpointing, do)."
            )
        return update((gen_xla_ops.xla_optimization_barrier(list(gradients)), finite))

    step._update = after_all
    return step


def as_on_accelerators(model):
    """A model whose layers choose their operations by device says here how it runs on a TPU or GPU."""
    return getattr(model, "as_on_accelerators", contextlib.nullcontext)()


def _lowering_error(name: str, error: Exception) -> LoweringError:
    operations = list(dict.fromkeys(_UNSUPPORTED.findall(str(error))))
    if not operations:
        return LoweringError(f"The {name} step cannot be lowered: {short(error)}")
    said = "; ".join(f"{operation} in {where} ({_way_out(operation)})" for operation, where in operations)
    return LoweringError(f"The {name} step cannot be lowered, XLA has no kernel for {said}.", operations)


def _way_out(operation: str) -> str:
    if any(part in operation for part in _STRINGS) and operation not in _WAYS_OUT:
        return "strings stay on the host: do it in the dataset"
    return _WAYS_OUT.get(operation, "use other operations there, or do it in the dataset")


def short(error: Exception) -> str:
    """An error's first words, in a line."""
    return " ".join(str(error).split("The op is created at")[0].split())[:500]
