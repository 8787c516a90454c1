"""How the kernels of a training step are run on a CPU: as small clusters, compiled by XLA, with gradients of their own.

TensorFlow compiles a cluster where a step first comes to it, one after the other, a tenth of a second each, while the
other cores wait. Inside of `backend.compiled_ahead` other threads compile them while the step is traced.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
from concurrent.futures import ThreadPoolExecutor

from keras import ops

from tfxformer.backend import BATCH_ROWS, COMPILED_AHEAD, only_cpus

# Of the largest tensor: TensorFlow's operators take microseconds for as many, and XLA a tenth of a second to compile.
FEW_ELEMENTS = 2**16
# Of a cluster that is compiled ahead, which runs once on zeros: half a gigabyte of them, more is not worth it.
MOST_ELEMENTS = 2**27

_plain = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain_operations():
    """What is traced inside is what GPUs and TPUs run: no clusters, though this machine may have CPUs only."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def use_clusters() -> bool:
    """Whether small XLA clusters pay here: TensorFlow, and nothing but CPUs."""
    return not _plain.get() and only_cpus()


@functools.cache
def clustered(formula, *static, compiled=True):
    """A formula of tensors as one function for each of its Python arguments, traced once for each shape.

    Made anew at each call, eager mode would trace and compile each time; and a step that calls it at every layer is
    traced in less time than one that has its operators at every layer.

    Args:
        compiled: whether XLA makes one kernel of it, unless it has few elements; without, TensorFlow runs its operators
            where it is called.
    """
    import tensorflow as tf

    formula = functools.partial(formula, *static)
    plain = tf.function(formula, autograph=False)
    if not compiled:
        return plain
    cluster = tf.function(formula, autograph=False, jit_compile=True)
    begun = set()  # the shapes for which it is compiled already, or about to be

    def call(*tensors):
        specs = _specs(tensors)
        sizes = [spec.shape.num_elements() for spec in specs if spec is not None]
        if None in sizes:
            return cluster(*tensors)
        if max(sizes) <= FEW_ELEMENTS:
            return plain(*tensors)
        result = cluster(*tensors)
        if COMPILED_AHEAD.get() and specs not in begun and sum(sizes) <= MOST_ELEMENTS and not tf.executing_eagerly():
            begun.add(specs)
            _threads().submit(_run_on_zeros, cluster, specs)
        return result

    return call


def _specs(tensors) -> tuple:
    """What will be given, None for None; an open number of rows is that of `backend.batches_of`."""
    import tensorflow as tf

    rows = BATCH_ROWS.get()
    shapes = [None if x is None else tuple(x.shape) for x in tensors]
    return tuple(
        None if x is None else tf.TensorSpec((rows, *shape[1:]) if shape and shape[0] is None else shape, x.dtype)
        for x, shape in zip(tensors, shapes, strict=True)
    )


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """One core is left to whatever traces the step."""
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1), "tfxformer-clusters")


def _run_on_zeros(function, specs) -> None:
    """Runs a cluster once, so that it is compiled. Should it fail, the step will, and say why.

    Inside a function of its own: what TensorFlow has compiled it finds again by the operator that calls it, and that
    of a call inside a function is not that of an eager call.
    """
    import tensorflow as tf

    given = [spec for spec in specs if spec is not None]

    @tf.function(autograph=False, input_signature=given)
    def caller(*tensors):
        tensors = iter(tensors)
        return function(*(None if spec is None else next(tensors) for spec in specs))

    # As a concrete function: of many functions that are called once TensorFlow warns.
    caller.get_concrete_function()(*(tf.zeros(spec.shape, spec.dtype) for spec in given))


def with_gradient(forward, backward, constants, tensors):
    """Calls `forward` with a gradient of its own.

    Args:
        forward: (*constants, *tensors) -> (result, values kept for the gradient).
        backward: (constants, kept, *upstream) -> gradients of `tensors`, None where the tensor is None.
        constants: tensors without gradient (seeds, masks), or None.
        tensors: differentiated tensors, or None.
    """
    import tensorflow as tf

    # As tensors: a variable given as an argument would be asked for a gradient of its own.
    every = [x if x is None else ops.convert_to_tensor(x) for x in (*constants, *tensors)]

    # The constants are arguments too: `tf.custom_gradient` follows a captured seed back to its generator's
    # variable, and then wants a gradient for that.
    @tf.custom_gradient
    def call(*given):
        given = iter(given)
        arguments = [None if argument is None else next(given) for argument in every]
        result, kept = forward(*arguments)

        def gradient(*upstream):
            gradients = backward(arguments[: len(constants)], kept, *upstream)
            held = [None for constant in every[: len(constants)] if constant is not None]
            return (*held, *(gradient for gradient in gradients if gradient is not None))

        return result, gradient

    # Tensors, not variables: `tf.custom_gradient` takes a variable among its arguments for a captured one.
    return call(*[tf.convert_to_tensor(argument) for argument in every if argument is not None])
