"""`class_weight` of a `fit`, as the weights of rows or tokens: by label name or id, beside weights of their own."""

from __future__ import annotations

from collections.abc import Iterator

from tfxformer.data.batches import is_dataset
from tfxformer.data.targets.weights import class_weight_table, class_weights
from tfxformer.training.inputs.checked_batches import each_batch
from tfxformer.training.resume.data_positions import Epochs


def weigh_classes(task, class_weight, x, y=None, sample_weight=None) -> tuple:
    """What Keras trains on, each row or token times the weight of its class.

    Args:
        task: its `class_names` are the labels of which each row or token has one; None where rows have no class.
        class_weight: label name or id -> weight; 1 for those that are not there.
        x, y, sample_weight: arrays; or a dataset, a `keras.utils.PyDataset` or an iterator of batches with labels.

    Returns:
        (x, y, sample_weight).

    Raises:
        TypeError: where rows have no class.
        ValueError: for names and ids that are no labels, and rows without labels.
    """
    if task.class_names is None:
        raise TypeError(
            f"class_weight={class_weight!r}: the rows of {_described(task)} have no class. Give each row its weight: "
            "sample_weight=[...]."
        )
    table = class_weight_table(class_weight, task.class_names)
    rank = 2 if task.output_kinds.tokens else 1  # of labels as ids

    def weigh(x, y=None, sample_weight=None):
        if y is None:
            raise ValueError("class_weight needs labels, and there are none beside these inputs.")
        return x, y, class_weights(table, rank, y, sample_weight)

    if isinstance(x, Epochs):
        return x.through(lambda dataset: weigh_classes(task, class_weight, dataset)[0]), None, None
    if is_dataset(x):
        return x.map(lambda *batch: _weigh_tensors(weigh, rank, *batch)), None, None
    if hasattr(x, "num_batches") or isinstance(x, Iterator):
        return each_batch(x, lambda index, batch: weigh(*batch)), None, None
    return weigh(x, y, sample_weight)


def _described(task) -> str:
    problem_type = getattr(task, "problem_type", None)
    return f"a {type(task).__name__}" + (f" for {problem_type}" if problem_type else "")


def _weigh_tensors(weigh, rank, x, y=None, sample_weight=None):
    import tensorflow as tf

    if y is None:
        return weigh(x)
    given = [] if sample_weight is None else [sample_weight]
    weights = tf.numpy_function(lambda *arrays: weigh(x, *arrays)[2], [y, *given], tf.float32)
    weights.set_shape(y.shape[:rank])
    return x, y, weights
