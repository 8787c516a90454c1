"""How much a model would miss its heads, neurons and layers: by their weights, by its loss, by what they add."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np
from keras import ops

from tfxformer.backend import on_jax
from tfxformer.backend import tensorflow as tf
from tfxformer.compression.smaller.one_stack import OneStack, stack_of
from tfxformer.compression.smaller.structures import NEURONS, RemovableParts, attentions

IMPORTANCES = ("magnitude", "taylor", "activation")


def head_importance(model, importance="magnitude", data=None, batch_size=32, *, stack: str | None = None) -> np.ndarray:
    """The importance of attention heads, or of groups of heads that share keys and values.

    - "magnitude": the L2 norm of all weights that are a head's own (after Li et al., 2017, arXiv:1608.08710).
    - "taylor": the first-order change of the loss without it, |d loss / d gate| for a gate that multiplies what the
      head adds, mean over examples (Michel et al., 2019, arXiv:1905.10650; Molchanov et al., 2019, arXiv:1906.10771).
    - "activation": the root mean square, over real tokens, of what it adds to the stream: its activations and its
      output weights together (after Sun et al., 2023, arXiv:2306.11695). It needs no labels.

    Args:
        model: a task of ours, or a bare encoder or decoder ("taylor" wants a task, which has a loss: that of `compile`,
            or its own, with which it is compiled then).
        importance: one of the three.
        data: "taylor": what the task's `evaluate` takes, with a tuple for several arguments: (texts, labels), a
            dataset, or texts alone for language models. "activation": the same, texts without labels, or a batch of
            arrays (dict of int32 [B, S]); a bare model takes arrays, or a dataset of them. An encoder with a decoder
            reads (sources, targets) for both.
        batch_size: int, examples at a time.
        stack: "encoder" or "decoder", of a model that has both.

    Returns:
        float64 [blocks, groups]; a block whose weights serve several layers (ALBERT) has one row. Of a decoder that
        reads a source [2, blocks, groups]: its own attention, and that on the source.

    Raises:
        ValueError: for an unknown importance, data that are missing, empty or of another kind, and for layers without
            attention. TypeError: for a model that is not ours.
    """
    part = stack_of(model, stack, "head_importance")
    check_all_have_heads(part, "head_importance")
    found = [_importance(model, part, heads, importance, data, batch_size) for heads in attentions(part)]
    return np.stack(found) if len(found) > 1 else found[0]


def check_all_have_heads(part: OneStack, function: str) -> None:
    """Refuses a stack of which some layers have no attention; `function` is what was called.

    Raises:
        ValueError: naming what they have.
    """
    if others := sorted(set(part.config.kinds) - part.config.attention.keys()):
        raise ValueError(
            f"{function}: layers of the kind {', '.join(others)} have no heads, and all layers keep as many. "
            "remove_neurons and remove_layers make such a model smaller."
        )


def neuron_importance(
    model, importance="magnitude", data=None, batch_size=32, *, stack: str | None = None
) -> np.ndarray:
    """The importance of feed-forward neurons, float64 [blocks, F]; all else as `head_importance` has it."""
    return _importance(model, stack_of(model, stack, "neuron_importance"), NEURONS, importance, data, batch_size)


def layer_importance(
    model, importance="activation", data=None, batch_size=32, *, stack: str | None = None
) -> np.ndarray:
    """The importance of whole layers.

    - "magnitude": the L2 norm of the output projections of all its halves.
    - "taylor": as for heads, with a gate on all that the halves of the layer add to the stream.
    - "activation": how far a layer turns the stream, 1 - cosine of what goes in and what comes out, mean over real
      tokens (Men et al., 2024, arXiv:2403.03853).

    Arguments and errors as `head_importance` has them.

    Returns:
        float64 [layers].
    """
    part = stack_of(model, stack, "layer_importance")
    _check(importance)
    if importance == "activation":
        return _turns(part, _input_batches(model, part, data, batch_size))
    halves = [structure.readers(part) for structure in (*attentions(part), NEURONS)]
    if importance == "magnitude":
        squares = [[float(ops.sum(ops.square(reader.kernel))) for reader in readers] for readers in halves]
        return np.sqrt(np.sum(squares, axis=0))

    def gate(call, inputs, gates):
        outputs = call(inputs)
        return outputs * ops.cast(gates(1), outputs.dtype)

    return _taylor(model, halves, gate, _labelled_batches(model, data, batch_size))[:, 0]


def _importance(model, part: OneStack, structure: RemovableParts, importance: str, data, batch_size) -> np.ndarray:
    _check(importance)
    count, readers = structure.count(part), structure.readers(part)
    if importance == "magnitude":
        return np.stack([_magnitudes(structure.weights(part, block), count) for block in range(len(readers))])
    if importance == "activation":
        return _contributions(model, part, readers, count, _input_batches(model, part, data, batch_size))

    def gate(call, inputs, gates):
        shape = (-1, inputs.shape[1], count, inputs.shape[2] // count)  # [B, S, parts, width]
        gated = ops.reshape(inputs, shape) * ops.cast(gates(count)[..., None], inputs.dtype)
        return call(ops.reshape(gated, ops.shape(inputs)))

    return _taylor(model, [readers], gate, _labelled_batches(model, data, batch_size))


def _check(importance) -> None:
    if importance not in IMPORTANCES:
        raise ValueError(f"Unknown importance {importance!r}; known: {', '.join(IMPORTANCES)}.")


def _magnitudes(weights: list[tuple], count: int) -> np.ndarray:
    """The L2 norm of each part's share of some (variable, axis)."""
    squares = np.zeros(count)
    for variable, axis in weights:
        values = np.moveaxis(np.asarray(variable.value, "float64"), axis, 0)
        squares += np.square(values).reshape(count, -1).sum(axis=1)  # [parts * width, ...] -> [parts]
    return np.sqrt(squares)


def _contributions(model, part: OneStack, readers: list, count: int, batches: list[dict]) -> np.ndarray:
    """The root mean square of what each part adds, through its rows of the reader's kernel: float64 [blocks, parts].

    The squares of what a part adds are those of its activations a [width] times its rows W: a (W W') a'.
    """
    width = readers[0].kernel.shape[0] // count
    products = []
    for reader in readers:
        rows = np.asarray(reader.kernel, "float64").reshape(count, width, -1)
        products.append(rows @ rows.transpose(0, 2, 1))  # [parts, width, width]
    squares, tokens, mask = np.zeros((len(readers), count)), np.zeros(len(readers)), None

    def see(index, call, inputs):
        real = mask[:, : inputs.shape[1]]  # a classifier's last block may compute the first position alone
        a = np.asarray(ops.cast(inputs, "float32"))[real].reshape(-1, count, width)  # [tokens, parts, width]
        moments = np.einsum("tpi,tpj->pij", a, a, optimize=True)
        squares[index] += (moments * products[index]).sum(axis=(1, 2))
        tokens[index] += len(a)
        return call(inputs)

    with _around(readers, see):
        for batch in batches:
            mask = np.asarray(batch[part.mask_name]) != 0
            model.forward(batch)
    return np.sqrt(squares / tokens[:, None])


def _turns(part: OneStack, batches: list[dict]) -> np.ndarray:
    """1 - cosine of what goes into each layer and what comes out, mean over real tokens: float64 [layers]."""
    turned, tokens = 0.0, 0
    for batch in batches:
        real, found = np.asarray(batch[part.mask_name]) != 0, part.backbone.forward(batch)[part.states_name]
        states = [np.asarray(ops.cast(x, "float32"))[real] for x in found]
        states = [x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12) for x in states]
        turned += np.array([(1.0 - (a * b).sum(-1, dtype="float64")).sum() for a, b in itertools.pairwise(states)])
        tokens += int(real.sum())
    return turned / tokens


def _taylor(model, halves: list[list], gate: Callable, batches: list[tuple]) -> np.ndarray:
    """The mean over examples of |d loss / d gate|: float64 [blocks, gates of a block].

    Args:
        halves: layers by block, the layers of one block having its gates in common.
        gate: (call of a layer, its inputs, count -> gates [B, 1, count]) -> the layer's outputs with the gates, all at
            one, in their place.
    """
    blocks, layers = len(halves[0]), [layer for half in halves for layer in half]

    def loss(batch: tuple, gates_of: Callable):
        """A batch's loss, of (block, shape) -> the gates of a block, which serve all its layers."""
        x, y, weights = batch

        def see(index, call, inputs):
            return gate(call, inputs, lambda count: gates_of(index % blocks, (inputs.shape[0], 1, count)))

        with _around(layers, see):
            outputs = model(x, training=False)
        return model.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=weights, training=False)

    gradients_of = (_gradients_on_jax if on_jax() else _gradients)(model, loss, blocks)
    total, examples = 0.0, 0
    for batch in batches:
        gradients = gradients_of(batch)
        rows = len(gradients[0])
        # The loss is the batch's mean: times its examples, each gradient is that of an example's own loss.
        total += rows * np.stack([np.abs(np.asarray(one, "float64")).sum(axis=(0, 1)) for one in gradients])
        examples += rows
    return total / examples


def _gradients(model, loss: Callable, blocks: int) -> Callable:
    """(batch -> the gradients of its loss by the gates of each block, all of which are one)."""

    def gradients(batch) -> list:
        gates = {}
        with tf.GradientTape() as tape:

            def gates_of(block, shape):
                if block not in gates:
                    gates[block] = ops.ones(shape)
                    tape.watch(gates[block])
                return gates[block]

            value = loss(batch, gates_of)
        return tape.gradient(value, [gates[block] for block in range(blocks)])

    return gradients


def _gradients_on_jax(model, loss: Callable, blocks: int) -> Callable:
    """The same on JAX, compiled once for batches of a size."""
    import jax

    def of(gates_of, held, batch):
        # Metrics of several losses are written while a loss is computed: into the scope.
        with keras.StatelessScope(zip(model.variables, held, strict=True)):
            return loss(batch, gates_of)

    @jax.jit
    def gradients(gates, held, batch) -> list:
        return jax.grad(lambda gates: of(lambda block, _: gates[block], held, batch))(gates)

    def of_batch(batch) -> list:
        held, shapes = [variable.value for variable in model.variables], {}
        jax.eval_shape(lambda *given: of(lambda b, shape: ops.ones(shapes.setdefault(b, shape)), *given), held, batch)
        return gradients([ops.ones(shapes[block]) for block in range(blocks)], held, batch)

    return of_batch


@contextlib.contextmanager
def _around(layers: list, see: Callable) -> Iterator[None]:
    """While it lasts, calling layer `index` is `see(index, its own call, inputs)`.

    Gates and moments are needed here alone, so no layer has code for them.
    """

    def replaced(index, layer):
        def call(inputs, training=None):
            return see(index, lambda x: type(layer).call(layer, x, training=training), inputs)

        return call

    try:
        for index, layer in enumerate(layers):
            layer.call = replaced(index, layer)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("call", None)


def _labelled_batches(model, data, batch_size: int) -> list[tuple]:
    """(inputs, targets, weights) as the task's own `evaluate` makes them of the data, whatever the task.

    Raises:
        ValueError: for a model without a loss, no data, or empty ones.
    """
    if not hasattr(model, "backbone"):
        raise ValueError(
            f'importance="taylor" asks the loss, and a bare {type(model).__name__} has none: give the task that it '
            'serves (tasks.TextClassifier(backbone, ...)), or take "activation" or "magnitude".'
        )
    if data is None:
        raise ValueError('importance="taylor" needs data=(texts, labels), or what else the task\'s evaluate takes.')
    x, y, weights = (*data, None, None)[:3] if isinstance(data, tuple) else (data, None, None)
    dataset, found = _is_finite_dataset(x), []

    def collect(*given):
        *state, iterator = given
        found.extend(map(keras.utils.unpack_x_y_sample_weight, iterator))
        if state:  # on JAX each step has its own iterator, and returns what it has measured
            return {"loss": 0.0}, *state
        raise _AllCollectedError

    if not model.compiled:
        model.compile()
    before, model.test_function = model.test_function, collect
    arguments = {} if weights is None else {"sample_weight": weights}
    try:
        with contextlib.suppress(_AllCollectedError):
            model.evaluate(x, y, batch_size=None if dataset else batch_size, verbose=0, **arguments)
    finally:
        model.test_function = before
    if not found:
        raise ValueError("The data are empty: give examples of what the model will meet.")
    return found


def _is_finite_dataset(data) -> bool:
    """Whether this is a `tf.data.Dataset`; ValueError for one without an end."""
    if not hasattr(data, "element_spec"):
        return False
    if int(data.cardinality()) == -1:
        raise ValueError("The dataset never ends (repeat()?): give a finite one, such as dataset.take(100).")
    return True


class _AllCollectedError(Exception):
    """Ends an `evaluate` whose batches are all that is wanted."""


def _input_batches(model, part: OneStack, data, batch_size: int) -> list[dict]:
    """Dicts of int32 [B, S] of texts, arrays or a dataset of arrays; labels beside them are passed over, but targets.

    Raises:
        ValueError: for no data or empty ones. TypeError: for data of another kind.
    """
    if data is None:
        raise ValueError('importance="activation" needs data: texts, or a batch of arrays (dict of int32 [B, S]).')
    names = part.backbone.input.keys()
    pairs = part.mask_name != "padding_mask" and isinstance(data, tuple) and not isinstance(data[0], Mapping)
    data = data[0] if isinstance(data, tuple) and not pairs else data
    if _is_finite_dataset(data):
        batches = [batch[0] if isinstance(batch, tuple) else batch for batch in data.as_numpy_iterator()]
    elif isinstance(data, Mapping) or not hasattr(model, "encode"):
        batches = [data]
    else:
        batches = [model.encode(*data) if pairs else model.encode(data)]
    found = []
    for batch in batches:
        if not isinstance(batch, Mapping) or not names <= batch.keys():
            raise TypeError(
                f'importance="activation" reads batches with {", ".join(names)}, int32 [B, S]; got '
                f"{', '.join(batch) if isinstance(batch, Mapping) else type(batch).__name__}."
                + ("" if hasattr(model, "encode") else " Texts are read by a task, which has a tokenizer.")
            )
        # Pairs [B, 2, S] -> [2 * B, S].
        flat = {name: np.reshape(batch[name], (-1, np.shape(batch[name])[-1])) for name in names}
        for first in range(0, len(flat[part.mask_name]), batch_size):
            found.append({name: array[first : first + batch_size] for name, array in flat.items()})
    if not found:
        raise ValueError("The data are empty: give examples of what the model will meet.")
    return found
