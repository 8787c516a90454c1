"""Adversarial training: a second pass with embeddings moved to where the loss rises fastest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import keras
from keras import ops
from keras.src.backend.common.stateless_scope import get_stateless_scope

from tfxformer.backend import on_jax, strategy_of
from tfxformer.backend import tensorflow as tf
from tfxformer.training.callbacks.robust.changed_pass import ChangedPass, check_positive
from tfxformer.training.step.loss_terms import Objective, OutputLoss
from tfxformer.training.step.passes import Batch, second_pass


class AdversarialTraining(ChangedPass):
    """Trains on each batch twice: as it is, and with the embeddings of its tokens moved against the model (FGM).

    Each example's embeddings [S, D] are moved by `epsilon * g / ||g||`, g the gradient of the loss by them; no gradient
    goes through the move itself. The loss of training, also the one that is shown, is the sum of both. A step takes
    about two and a half times as long.

    Args:
        epsilon: float, L2 norm of the move of an example, all of its tokens together. The embedding of one token of a
            BERT has a norm of about 1; moved by as much, MiniLM learned nothing of 200 texts.
        layer: the embedding layer (or its name) whose output is moved; None for the token table of a task, or the only
            `keras.layers.Embedding` of another model.

    Raises:
        ValueError: for an epsilon that is not above 0; in `fit`, for a model without such a layer or with several, and
            for a contrastive task under several replicas.

    Source: Miyato et al., 2017 (arXiv:1605.07725), equation 5; with the weight 1 for the second loss.

    Example:
        classifier.fit(texts, labels, callbacks=[training.AdversarialTraining(epsilon=0.2)])
    """

    def __init__(self, epsilon: float = 0.2, layer=None):
        super().__init__()
        check_positive(epsilon=epsilon)
        self.epsilon, self.layer = epsilon, layer

    def check(self, model) -> None:
        embedding_layer(model, self.layer)
        if model.compares_samples and strategy_of(model).num_replicas_in_sync > 1:
            raise ValueError(
                f"AdversarialTraining under several replicas is for losses of single examples, and {model.name} "
                "compares the examples of all replicas: train it on one device."
            )

    def change(self, passes, model, batch: Batch, records: list):
        """The sum of the losses of a batch and of one with moved embeddings; outputs and records of the first."""
        layer = embedding_layer(model, self.layer)

        def plain(see):
            with seen(layer, see):
                return passes(model, batch, records)

        def total(found):
            return batch.scale * sum(part.value for part in found[1])

        if on_jax():
            (y_pred, parts), gradients = _jax_gradients(plain, total, records)
        else:
            (y_pred, parts), gradients = _tensorflow_gradients(plain, total)
        if not gradients or any(gradient is None for gradient in gradients):
            raise ValueError(f"AdversarialTraining: the loss does not depend on the embeddings of {layer.path}.")
        moves = iter([ops.stop_gradient(move(gradient, self.epsilon)) for gradient in gradients])
        with seen(layer, lambda rows: rows + ops.cast(next(moves), rows.dtype)):
            _, others = second_pass(passes, model, batch, records)
        parts = [Objective(one.value + other.value, one.count) for one, other in zip(parts, others, strict=True)]
        return y_pred, parts


def move(gradient, epsilon: float):
    """`epsilon * g / ||g||` of each example: [B, ...] -> float32 [B, ...]; zeros where the gradient is zero.

    What has overflown counts as zero: loss scaling leaves out the update of such a batch.
    """
    gradient = ops.cast(gradient, "float32")
    gradient = ops.where(ops.isfinite(gradient), gradient, 0.0)
    axes = tuple(range(1, len(gradient.shape)))
    largest = ops.max(ops.abs(gradient), axis=axes, keepdims=True)
    gradient = ops.divide_no_nan(gradient, largest)  # whose squares neither overflow nor vanish
    return ops.divide_no_nan(epsilon * gradient, ops.sqrt(ops.sum(ops.square(gradient), axis=axes, keepdims=True)))


def _tensorflow_gradients(plain: Callable, total: Callable) -> tuple:
    """(what a pass gives, the gradients of its total by what a layer gave in it)."""
    rows = []
    with tf.GradientTape(watch_accessed_variables=False) as tape:

        def see(found):
            tape.watch(found)
            rows.append(found)
            return found

        given = plain(see)
        loss = total(given)
    gradients = tape.gradient(loss, rows)
    return given, [gradient if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients]


def _jax_gradients(plain: Callable, total: Callable, records: list) -> tuple:
    """The same on JAX: the gradients by zeros that are added to what the layer gives.

    What the pass writes to variables and `records` is written again outside, where its values can be used.
    """
    import jax

    shapes, scope = [], get_stateless_scope()
    begun = dict(scope.state_mapping), list(scope.losses), list(records)

    def restore(mapping, losses, recorded):
        scope.state_mapping, scope.losses = dict(mapping), list(losses)
        records[:] = recorded

    def see(found):
        shapes.append((found.shape, found.dtype))
        return found

    jax.eval_shape(lambda: total(plain(see)))
    restore(*begun)
    names = []

    def moved(zeros):
        remaining = iter(zeros)
        given = plain(lambda rows: rows + next(remaining))
        names[:] = [(record.name, record.per_sample, record.weight) for record in records]
        losses = [value for _, value in scope.losses]
        return total(given), (given, scope.state_mapping, losses, [(one.value, one.count) for one in records])

    zeros = [ops.zeros(*shape) for shape in shapes]
    _, pull_back, (given, mapping, losses, values) = jax.vjp(moved, zeros, has_aux=True)
    losses = [(owner, value) for (owner, _), value in zip(scope.losses, losses, strict=True)]
    restore(
        mapping,
        losses,
        [
            OutputLoss(name, value, count, per_sample, weight)
            for (name, per_sample, weight), (value, count) in zip(names, values, strict=True)
        ],
    )
    return given, pull_back(ops.ones(()))[0]


@contextlib.contextmanager
def seen(layer, see: Callable) -> Iterator[None]:
    """While it lasts, what a layer makes of ids is `see` of it; a table that is read in reverse stays as it is."""

    def call(inputs, *args, **kwargs):
        rows = type(layer).call(layer, inputs, *args, **kwargs)
        return see(rows) if keras.backend.is_int_dtype(inputs.dtype) else rows

    layer.call = call
    try:
        yield
    finally:
        del layer.__dict__["call"]


def embedding_layer(model, layer=None) -> keras.layers.Layer:
    """The layer that turns ids into embeddings.

    Args:
        model: a task, or any Keras model.
        layer: it or its name, where there is a choice.

    Raises:
        ValueError: where there is none, or a choice.
    """
    if layer is not None:
        return model.get_layer(layer) if isinstance(layer, str) else layer
    table = getattr(getattr(model, "backbone", None), "token_embedding", None)
    if table is not None:
        return table
    found = [one for one in model._flatten_layers() if isinstance(one, keras.layers.Embedding)]
    if len(found) != 1:
        said = "no Embedding layer" if not found else f"several Embedding layers, {', '.join(x.name for x in found)}"
        raise ValueError(f"AdversarialTraining: {model.name} has {said}: give AdversarialTraining(layer=...) the one.")
    return found[0]
