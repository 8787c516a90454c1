"""R-Drop: what dropout leaves of a model twice shall answer alike."""

from __future__ import annotations

import keras
from keras import ops, tree
from keras.src.backend import set_keras_mask

from tfxformer.training.callbacks.robust.changed_pass import ChangedPass, check_positive
from tfxformer.training.compiling.outputs import KINDS, Output, arranged
from tfxformer.training.step.loss_terms import value_and_count
from tfxformer.training.step.passes import Batch


class RDrop(ChangedPass):
    """Lets each example through the model twice, with other elements dropped, and holds both answers together.

    The loss is the mean of both passes' losses plus `alpha` times the divergence of their answers: of labels
    `(KL(P1 || P2) + KL(P2 || P1)) / 2`, of several labels the mean of that over the labels, of scores the mean squared
    difference. It weighs rows and tokens as the loss does. Metrics are of the first pass. A step computes a batch of
    twice the size.

    Args:
        alpha: float, weight of the divergence: the paper has 0.1 to 5, and 1 where nothing is known.

    Raises:
        ValueError: for an alpha that is not above 0; in `fit`, for a model in which nothing is dropped, and one with
            several outputs or another loss than of labels, tokens, spans or scores.

    Source: Liang et al., 2021 (arXiv:2106.14448), algorithm 1.

    Example:
        classifier.fit(texts, labels, callbacks=[training.RDrop(alpha=1.0)])
    """

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        check_positive(alpha=alpha)
        self.alpha = alpha

    def check(self, model) -> None:
        kinds = getattr(model, "output_kinds", None)
        losses = getattr(model._compile_loss, "_flat_losses", None) or tree.flatten(model.loss)  # once built, or before
        one = model._compile_loss is not None and len(losses) == 1
        if not isinstance(kinds, Output) or kinds.kind == "replaced" or model.compares_samples or not one:
            raise ValueError(
                f"RDrop compares two answers to each text, and {type(model).__name__} has several losses, or one that "
                "is not of labels, tokens, spans or scores: see TextClassifier, TokenClassifier, QuestionAnswering and "
                "the language models."
            )
        if hasattr(model, "objectives"):
            raise ValueError(f"RDrop has no part in the loss of a {type(model).__name__}: train without it.")
        if not any(map(_drops, model._flatten_layers())):
            raise ValueError(
                f"RDrop compares two passes that drop different elements, and nothing in {model.name} is dropped: load "
                "a checkpoint whose config.json has dropout above 0."
            )

    def change(self, passes, model, batch: Batch, records: list):
        """The loss of a batch in which each row stands twice, with the divergence; the outputs of the first of each."""
        x, y, weights = (tree.map_structure(_twice, part) for part in (batch.x, batch.y, batch.sample_weight))
        y_pred, parts = passes(model, Batch(x, y, weights, 2.0 * batch.samples, batch.scale), records)
        (entry,) = model._compile_loss._flat_losses
        divergence = Divergence(model.output_kinds, entry.loss.entry.loss.reduction)
        value, _, _ = value_and_count(divergence, y, y_pred, weights)
        added = parts[0].value + self.alpha * ops.cast(value, "float32")
        parts = [parts[0]._replace(value=added), *parts[1:]]
        return y_pred[::2], [part if part.count is None else part._replace(count=part.count / 2.0) for part in parts]


def _twice(leaf):
    """Each row beside its copy, so that what is sharded by rows stays where it is."""
    return None if leaf is None else ops.repeat(leaf, 2, axis=0)


def _drops(layer) -> bool:
    rates = (getattr(layer, name, None) for name in ("rate", "dropout", "stochastic_depth"))
    return any(isinstance(rate, (int, float)) and rate > 0 for rate in rates)


class Divergence(keras.losses.Loss):
    """How far two answers are apart, as a loss of rows of which each stands beside its copy: the same for both.

    Args:
        output: `Output`, what the logits are.
        reduction: of the loss that it is added to.
    """

    def __init__(self, output: Output, reduction):
        super().__init__(name="divergence", reduction=reduction)
        self.output = output

    def call(self, y_true, y_pred):
        _, logits, labelled = arranged(self.output, y_true, y_pred)
        terms = divergence(KINDS[self.output.kind], logits[::2], logits[1::2])
        if self.output.kind == "spans":
            terms = ops.mean(terms, axis=-1)
        terms = ops.repeat(terms, 2, axis=0)
        if labelled is not None:
            set_keras_mask(terms, labelled)
        return terms


def divergence(kind: str, first, second):
    """How far two answers are apart: logits [..., C] twice -> [...].

    Args:
        kind: "softmax" or "sigmoid", for the mean of both Kullback-Leibler divergences; or "scores".
    """
    if kind == "scores":
        return ops.mean(ops.square(first - second), axis=-1)
    if kind == "sigmoid":  # log P - log (1 - P) is the logit
        return ops.mean((ops.sigmoid(first) - ops.sigmoid(second)) * (first - second), axis=-1) / 2.0
    first, second = ops.log_softmax(first, axis=-1), ops.log_softmax(second, axis=-1)
    return ops.sum((ops.exp(first) - ops.exp(second)) * (first - second), axis=-1) / 2.0
