"""The teacher's side of a distillation: what it answers to a batch, and to a whole training set."""

from __future__ import annotations

import keras
import numpy as np
from keras import tree

from tfxformer.backend import strategy_of
from tfxformer.training import DistributedModel

BATCH, ANSWERS = "batch", "answers"  # what an input has where the teacher's answers come with it


class TeacherAnswers(DistributedModel):
    """The teacher as Keras predicts with it: a batch -> dict of what the losses read of it, without dropout."""

    def __init__(self, teacher: keras.Model, read):
        with strategy_of(teacher).scope():
            super().__init__(inputs=teacher.input, outputs=teacher.output, name="teacher_answers")
            self.__dict__["_read"] = read

    input_spec = None  # the student's batch may have more inputs

    def call(self, batch, training=None):
        if isinstance(self.input, dict):
            batch = {name: batch[name] for name in self.input}
        return self._read(batch, training=False)

    def with_answers(self, x, cache_bytes: int):
        """Arrays with the answers to them, {"batch": x, "answers": ...}.

        `x` alone where it is no arrays but a dataset, or the answers need more memory than `cache_bytes`.
        """
        if not is_arrays(x):
            return x
        if isinstance(x, dict) and any(len(np.shape(ids)) == 3 for ids in x.values()):
            raise ValueError("Distiller learns from single texts; these are pairs for an embedder: give their texts.")
        few = strategy_of(self).num_replicas_in_sync  # a row for each: a replica without one cannot answer
        first = self.predict(tree.map_structure(lambda array: array[:few], x), verbose=0)
        rows = len(tree.flatten(x)[0])
        if rows / few * sum(array.nbytes for array in tree.flatten(first)) > cache_bytes:
            return x
        return {BATCH: x, ANSWERS: self.predict(x, verbose=0)}


def has_answers(inputs) -> bool:
    """Whether an input is what `with_answers` makes."""
    return isinstance(inputs, dict) and set(inputs) == {BATCH, ANSWERS}


def batch_of(inputs):
    """The student's batch, of an input with or without the teacher's answers."""
    return inputs[BATCH] if has_answers(inputs) else inputs


def is_arrays(x) -> bool:
    """Whether `x` is in memory as a whole, so that what belongs to it can be kept."""
    leaves = tree.flatten(x)
    return bool(leaves) and all(isinstance(leaf, np.ndarray) or keras.ops.is_tensor(leaf) for leaf in leaves)
