"""Losses and metrics of Keras on models whose call returns logits.

Keras' losses and metrics compare labels with what a model says of them: probabilities, or scores. A task returns
logits, so each loss and metric of Keras is compiled inside a thin object that hands it what the task's `predict`
would give. Cross-entropies get the logits themselves and `from_logits`, which is the same number and does not round;
hinge losses are made for logits, and get them too. Functions and classes that are not Keras' own get what the call
returns, unless a `from_logits` attribute of theirs says that they want probabilities.

Shape letters: B rows, S tokens, C labels.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import keras
from keras import ops, tree

IGNORED = -100  # the label of a token that has none, as torch and transformers write it

# Classes of Keras, by name, that take something else than rows of probabilities [B, C] and of labels [B, C].
TAKE_IDS = ("SparseCategoricalCrossentropy", "SparseCategoricalAccuracy", "SparseTopKCategoricalAccuracy")
TAKE_THE_ORDER = (*TAKE_IDS[1:], "CategoricalAccuracy", "TopKCategoricalAccuracy")  # logits have the same one
TAKE_MARGINS = ("Hinge", "SquaredHinge", "CategoricalHinge")
TAKE_CHOICES = ("Accuracy", "MeanIoU", "IoU")
CROSS_ENTROPIES = {
    "softmax": ("SparseCategoricalCrossentropy", "CategoricalCrossentropy", "CategoricalFocalCrossentropy"),
    "sigmoid": ("BinaryCrossentropy", "BinaryFocalCrossentropy"),
}
OF_ONE_CLASS = (  # of two labels they are asked about the second, as scikit-learn asks them
    *CROSS_ENTROPIES["sigmoid"],
    *("BinaryAccuracy", "BinaryIoU", "AUC", "Precision", "Recall"),
    *("TruePositives", "TrueNegatives", "FalsePositives", "FalseNegatives"),
    *("PrecisionAtRecall", "RecallAtPrecision", "SensitivityAtSpecificity", "SpecificityAtSensitivity"),
)
OF_A_BATCH = ("PearsonCorrelation", "ConcordanceCorrelation")  # a statistic of all scores of a batch
BASES = ("Loss", "LossFunctionWrapper", "Metric", "Mean", "Sum", "MeanMetricWrapper")
# What a kind of logits is, once its labels and logits stand in rows.
KINDS = {"softmax": "softmax", "spans": "softmax", "sigmoid": "sigmoid", "replaced": "sigmoid", "scores": "scores"}


class Output(NamedTuple):
    """What the logits of one output are.

    Attributes:
        kind: "softmax" over labels, "sigmoid" of each label, "scores" as they are, "spans" (softmax over tokens, of
            first and last: logits [B, S, 2], labels [B, 2]) or "replaced" (logits and ids [B, S, 2], original ids).
        tokens: whether each token has a label of its own, or none (`IGNORED`).
        partial: whether weights of 0 say which rows or tokens have no label.
        reduction: of a loss that is given by its name.
    """

    kind: str
    tokens: bool = False
    partial: bool = False
    reduction: str = "sum_over_batch_size"


OF_TOKENS = Output("softmax", tokens=True, partial=True, reduction="mean_with_sample_weight")


def keras_name(thing: Any) -> str | None:
    """The class of Keras' losses or metrics that this object or function is; None for one of the user's."""
    if inspect.isfunction(thing) or inspect.isbuiltin(thing):
        ours = (thing.__module__ or "").startswith("keras.")
        return "".join(part[:1].upper() + part[1:] for part in thing.__name__.split("_")) if ours else None
    if type(thing) is keras.metrics.MeanMetricWrapper:
        return keras_name(thing._fn)
    for known in type(thing).__mro__:
        if known.__module__.startswith("keras."):
            return None if known.__name__ in BASES else known.__name__
    return None


def wants_logits(thing) -> bool | None:
    """What its `from_logits` says, or a threshold that no probability has; None where nothing is said."""
    said = getattr(thing, "from_logits", getattr(thing, "_from_logits", None))
    thresholds = tree.flatten([getattr(thing, "thresholds", None), getattr(thing, "threshold", None)])
    thresholds = [one for one in thresholds if isinstance(one, (int, float))]
    return True if thresholds == [0.0] else said


# ---- what is compared ------------------------------------------------------------------------------------------


def arranged(output: Output, y_true, logits):
    """(labels, logits [..., C], whether each has a label or None)."""
    if output.kind == "spans":
        return y_true, ops.transpose(logits, (0, 2, 1)), None  # [B, S, 2] -> [B, 2, S]
    if output.kind == "replaced":
        seen = ops.cast(logits[..., 1:], "float32")
        y_true = ops.cast(ops.not_equal(seen, ops.cast(ops.expand_dims(y_true, -1), "float32")), "float32")
        return y_true, logits[..., :1], None
    if not output.tokens:
        return y_true, logits, None
    ids = are_ids(y_true, logits)
    labelled = ops.not_equal(y_true if ids else y_true[..., :1], ops.cast(IGNORED, y_true.dtype))
    y_true = ops.where(labelled, y_true, ops.zeros_like(y_true))
    return y_true, logits, labelled if len(y_true.shape) < len(logits.shape) else labelled[..., 0]


def are_ids(y_true, logits) -> bool:
    """Whether labels are ids, [...] or [..., 1], beside logits [..., C]; else they are rows."""
    return len(y_true.shape) < len(logits.shape) or (y_true.shape[-1] == 1 and logits.shape[-1] != 1)


def as_ids(y_true, logits):
    """Labels as ids [...], of ids [...], [..., 1] or rows [..., C]."""
    if not are_ids(y_true, logits):
        return ops.argmax(y_true, axis=-1)
    return ops.squeeze(y_true, -1) if len(y_true.shape) == len(logits.shape) else y_true


def _as_rows(y_true, logits, kind: str):
    """Labels as rows [..., C]."""
    if not are_ids(y_true, logits):
        return y_true
    if kind == "softmax":
        return ops.one_hot(ops.cast(as_ids(y_true, logits), "int32"), ops.shape(logits)[-1], dtype="float32")
    return ops.expand_dims(y_true, -1) if len(y_true.shape) < len(logits.shape) else y_true


def to_predictions(kind: str, logits):
    """What `predict` returns for logits in rows: probabilities, or scores; `kind` is a value of `KINDS`."""
    logits = ops.cast(logits, "float32")
    if kind == "softmax":
        return ops.softmax(logits, axis=-1)
    return logits if kind == "scores" else ops.sigmoid(logits)


def compared(thing, name: str, output: Output, y_true, logits):
    """(labels, what stands for the predictions, as logits [..., C], their kind): as a thing of this name takes them."""
    kind = KINDS[output.kind]
    if name in TAKE_IDS and kind == "softmax":
        return as_ids(y_true, logits), logits, kind
    if kind == "scores" and name in OF_A_BATCH and (len(logits.shape) == 1 or logits.shape[-1] == 1):
        return ops.reshape(y_true, (-1,)), ops.reshape(logits, (-1,)), kind
    if len(logits.shape) == 1:  # one score a row, so that each row has a weight of its own
        logits = ops.expand_dims(logits, -1)
    y_true = _as_rows(y_true, logits, kind)
    whole = any(getattr(thing, wish, None) is not None for wish in ("class_id", "top_k", "num_labels"))
    whole = whole or getattr(thing, "multi_label", False)
    if kind == "softmax" and logits.shape[-1] == 2 and name in OF_ONE_CLASS and not whole:
        return y_true[..., 1:], logits[..., 1:] - logits[..., :1], "sigmoid"
    return y_true, logits, kind


def broadcast_weights(weights, values):
    """Weights [B] or [B, S] in the shape of values [B], [B, S] or [B, 2]."""
    for _ in range(len(values.shape) - len(weights.shape)):
        weights = ops.expand_dims(weights, -1)
    if len(weights.shape) > len(values.shape) and weights.shape[-1] == 1:
        weights = ops.squeeze(weights, -1)
    return ops.broadcast_to(weights, ops.shape(values))
