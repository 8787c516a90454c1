"""The floating-point operations that a training step needs, counted before it runs, and what devices can do."""

from __future__ import annotations

import math
import os
import time

import keras

from tfxformer.backend import on_jax, plain_attention
from tfxformer.backend import tensorflow as tf
from tfxformer.training.callbacks.jax_flops import count_products
from tfxformer.training.step.passes import call

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_BRANCHES = ("If", "StatelessIf", "While", "StatelessWhile", "Case", "StatelessCase")
_NO_GRADIENT = ("StopGradient", "PreventGradient")
# Dense bfloat16 FLOP/s of a chip (float16 where it has no bfloat16), without sparsity: the makers' data sheets,
# https://cloud.google.com/tpu/docs/v6e (and v5p, v5e, v4, v3), https://www.nvidia.com/en-us/data-center/ (h100, a100,
# l4, tesla-t4, v100). The first name that is part of the device's decides.
_PEAKS = {
    "v6e": 918e12,
    "v6 lite": 918e12,  # as JAX calls it
    "v5litepod": 197e12,
    "v5 lite": 197e12,
    "v5e": 197e12,
    "v5p": 459e12,
    "tpu v5": 459e12,
    "v4": 275e12,
    "v3": 123e12,
    "h100 nvl": 835e12,
    "h100 pcie": 756e12,
    "h100": 989e12,
    "a100": 312e12,
    "l40": 362e12,
    "l4": 121e12,
    "t4": 65e12,
    "v100": 125e12,
}


class UncountableError(ValueError):
    """A graph has products whose number or sizes are not known before it runs."""


def training_flops(model, data) -> float:
    """Operations of the matrix products and convolutions of one training step: "model FLOPs" of one sample.

    A product of [M, K] and [K, N] is 2 M N K operations, once forward, and once more for each of its two sides that
    needs a gradient: three times in all where both depend on a trainable weight, as in PaLM's 6 N D + 12 L H Q T a
    token (Chowdhery et al., 2022, arXiv:2204.02311, appendix B), less below what is frozen. What is computed again to
    save memory, what is not a product, and the optimizer are not counted.

    Args:
        model: a built and compiled Keras model.
        data: (x, y, sample weights), of tensors or specs whose shapes are known but for the first dimension.

    Raises:
        UncountableError: where a length is not static, or products stand in a loop or a branch.
    """
    trainable = model.trainable_variables
    others = [variable for variable in model.variables if all(variable is not one for one in trainable)]

    def forward(held, given, data):
        x, y, sample_weight = data
        mapping = [*zip(trainable, held, strict=True), *zip(others, given, strict=True)]
        with keras.StatelessScope(mapping, collect_losses=True), plain_attention():
            y_pred = call(model, x, True)
            return model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)

    return _on_jax(forward, trainable, others, data) if on_jax() else _in_graph(forward, trainable, others, data)


def _on_jax(forward, trainable, others, data) -> float:
    import jax

    shapes = [[jax.ShapeDtypeStruct(one.shape, one.dtype) for one in kind] for kind in (trainable, others)]
    batch, structure = jax.tree.flatten(data)

    def function(held, given):
        own = len(others)
        return forward(held, given[:own], jax.tree.unflatten(structure, given[own:]))

    def refuse(sentence):
        return UncountableError(f"{sentence}.")

    return count_products(function, shapes[0], [*shapes[1], *batch], refuse) / jax.tree.leaves(data[0])[0].shape[0]


def _in_graph(forward, trainable, others, data) -> float:
    rows, specs = 1, tf.nest.map_structure(lambda leaf: leaf if leaf is None else _spec(leaf), data)
    for leaf in tf.nest.flatten(specs[0]):
        rows = leaf.shape[0]
        break

    def function(held, data):
        return forward(held, [tf.zeros(one.shape, one.dtype) for one in others], data)

    held = [tf.TensorSpec(variable.shape, variable.dtype) for variable in trainable]
    graph = tf.function(function, autograph=False).get_concrete_function(held, specs).graph
    weights = {id(placeholder) for placeholder in graph.inputs[: len(held)]}
    found, _ = _count(graph, [id(placeholder) in weights for placeholder in graph.inputs])
    return found / rows


def _spec(leaf):
    shape = tf.TensorShape(leaf.shape)
    return tf.TensorSpec([1 if size is None and index == 0 else size for index, size in enumerate(shape)], leaf.dtype)


def _count(graph, inputs_need) -> tuple[int, list[bool]]:
    """Operations of a graph, forward and backward, and which of its outputs depend on a weight.

    Args:
        graph: a FuncGraph.
        inputs_need: for each of its inputs, whether it depends on a weight.
    """
    needs = {id(tensor): need for tensor, need in zip(graph.inputs, inputs_need, strict=True)}
    total = 0
    for operation in graph.get_operations():  # in the order of their making: inputs come first
        if operation.type == "Placeholder":
            continue
        given = [needs.get(id(tensor), False) for tensor in operation.inputs]
        if operation.type in _CALLS:
            inner = graph._get_function(operation.get_attr("f").name).graph
            found, made = _count(inner, given)
            made = made[: len(operation.outputs)]  # a gradient of it has added its intermediate results since
            total += found
        else:
            if operation.type in _BRANCHES:
                _refuse_products(graph, operation)
            flops = _product(operation)
            total += flops * (1 + sum(given[:2]))
            made = [any(given) and operation.type not in _NO_GRADIENT] * len(operation.outputs)
        for tensor, need in zip(operation.outputs, made, strict=True):
            needs[id(tensor)] = need and tensor.dtype.is_floating
    return total, [needs[id(tensor)] for tensor in graph.outputs]


def _refuse_products(graph, operation) -> None:
    for name, value in ((one, operation.get_attr(one)) for one in operation.node_def.attr):
        for function in value if isinstance(value, list) else [value]:
            if not hasattr(function, "name") or not name.endswith(("branch", "branches", "body", "cond")):
                continue
            inner = graph._get_function(function.name).graph
            if _count(inner, [False] * len(inner.inputs))[0]:
                raise UncountableError(f"Products stand inside {operation.name}, which runs as often as its data say.")


def _product(operation) -> int:
    """Operations of one node of the graph; 0 of what is no product."""
    kind = operation.type
    if kind in ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        left = operation.inputs[0].shape
        turned = operation.get_attr("transpose_a" if kind == "MatMul" else "adj_x")
        inner = left[-2] if turned else left[-1]
    elif kind == "Einsum":
        inner = _contracted(operation)
    elif kind in ("Conv2D", "Conv3D"):
        inner = math.prod(_known(operation, operation.inputs[1].shape)[:-1])
    elif kind == "DepthwiseConv2dNative":
        inner = math.prod(_known(operation, operation.inputs[1].shape)[:2])
    else:
        return 0
    return 2 * math.prod(_known(operation, [*operation.outputs[0].shape, inner]))


def _contracted(operation) -> int:
    """Of an einsum: the product of the sizes of the letters that its output lacks; 0 where it multiplies nothing."""
    equation = operation.get_attr("equation")
    equation = equation.decode() if isinstance(equation, bytes) else equation
    sides, output = equation.split("->")
    sizes = {}
    for letters, tensor in zip(sides.split(","), operation.inputs, strict=True):
        before, _, after = letters.partition("...")
        shape = list(tensor.shape)
        sizes |= dict(zip(before, shape, strict=False))
        if after:
            sizes |= dict(zip(after, shape[-len(after) :], strict=True))
    inner = [size for letter, size in sizes.items() if letter not in output]
    return math.prod(_known(operation, inner)) if len(operation.inputs) == 2 else 0


def _known(operation, sizes) -> list[int]:
    if any(size is None for size in sizes):
        raise UncountableError(f"The product {operation.name} has no static shape: {list(sizes)}.")
    return list(sizes)


def peak_flops(name: str) -> float | None:
    """Dense bfloat16 FLOP/s of a device by a part of its name ("v5e", "NVIDIA A100-SXM4-40GB"); None if unknown."""
    wanted = name.lower().replace("-", " ")
    return next((peak for known, peak in _PEAKS.items() if known in wanted), None)


def device_name() -> str | None:
    """What the first accelerator is called; None for a CPU, and for a TPU of which the system does not say."""
    if on_jax():
        import jax

        device = jax.devices()[0]
        return None if device.platform == "cpu" else device.device_kind
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return tf.config.experimental.get_device_details(gpus[0]).get("device_name")
    if tf.config.list_logical_devices("TPU"):
        return os.environ.get("TPU_ACCELERATOR_TYPE")  # set on Cloud TPU machines, such as v5litepod-8
    return None


def measured_flops(dtype="float32", size=2048, seconds=0.3) -> float:
    """FLOP/s of the default device in a product of two square matrices, the best of some runs.

    Args:
        dtype: of the factors.
        size: int, their rows.
        seconds: float, how long to try.
    """
    multiply = _squared_on_jax(dtype, size) if on_jax() else _squared(dtype, size)
    multiply()
    best, begin = math.inf, time.perf_counter()
    while time.perf_counter() - begin < seconds or best == math.inf:
        start = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _squared(dtype, size):
    """A function that multiplies a matrix with itself, and reads, so that it is done."""
    factor = tf.cast(tf.random.stateless_uniform((size, size), (0, 1)), dtype)
    multiply = tf.function(lambda x: tf.reduce_sum(tf.cast(tf.matmul(x, x), "float32")))
    return lambda: float(multiply(factor))


def _squared_on_jax(dtype, size):
    import jax

    factor = jax.random.uniform(jax.random.key(0), (size, size)).astype(dtype)
    multiply = jax.jit(lambda x: (x @ x).astype("float32").sum())
    return lambda: float(multiply(factor))
