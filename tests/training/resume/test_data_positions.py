"""Data read from a position: the same batches as reading all from the beginning."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfxformer import data, training
from tfxformer.training.devices.workers import check_batch_size
from tfxformer.training.resume.data_positions import describe, positioned, split_validation


def listed(dataset):
    return [tf.nest.map_structure(lambda leaf: leaf if leaf is None else leaf.numpy(), batch) for batch in dataset]


def assert_same(one, other):
    tf.nest.assert_same_structure(one, other)
    for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
        np.testing.assert_array_equal(a, b)


class Growing(keras.utils.PyDataset):
    """Batches of other lengths, that change with the epoch, read in threads."""

    def __init__(self):
        super().__init__(workers=3)
        self.epoch, self.calls = 0, []

    @property
    def num_batches(self):
        return 5

    def __getitem__(self, index):
        ids = np.full((2, 3 + index), self.epoch * 10 + index)
        return {"ids": ids}, None, np.ones(2, "float64")

    def on_epoch_begin(self):
        self.calls.append("begin")

    def on_epoch_end(self):
        self.calls.append("end")
        self.epoch += 1


def records(tmp_path):
    rows = [{"ids": np.full(4, row, "int32"), "label": np.array(row % 3, "int32")} for row in range(23)]
    folder = tmp_path / "set"
    found = data.Records(folder) if folder.exists() else data.write_records(rows, folder, shards=3)

    def batches(epoch, first):
        return found.dataset(4, seed=7, epoch=epoch, position=4 * first).map(lambda row: (row["ids"], row["label"]))

    return training.Epochs(batches, found.count // 4, found.fingerprint)


def makers(tmp_path):
    x, y = np.arange(22).reshape(11, 2), np.arange(11.0)
    rows = tf.data.Dataset.range(11)
    return {
        "arrays": lambda: positioned({"a": x}, y, y[:, None], batch_size=4, seed=3),
        "python": lambda: positioned(Growing(), seed=3),
        "records": lambda: positioned(records(tmp_path)),
        "shuffled": lambda: positioned(rows.shuffle(5, seed=1).batch(3)),
    }


@pytest.mark.parametrize("kind", ["arrays", "python", "records", "shuffled"])
def test_every_position_is_where_reading_comes_to(kind, tmp_path):
    make = makers(tmp_path)[kind]
    source, epochs = make(), []
    for epoch in range(3):
        epochs.append(listed(source.first_epoch(0, 0) if epoch == 0 else source.next_epoch(epoch)))
        source.end_epoch()
    assert len(epochs[0]) == source.num_batches
    for epoch, first in ((0, 2), (1, 0), (1, 1), (2, source.num_batches)):
        again = make()
        assert again.signature == source.signature
        assert_same(listed(again.first_epoch(epoch, first)), epochs[epoch][first:])
        again.end_epoch()
        if (epoch, first) == (1, 1):
            assert_same(listed(again.next_epoch(2)), epochs[2])


def test_the_hooks_of_a_pydataset_are_called_as_keras_calls_them(tmp_path):
    dataset = Growing()
    source = positioned(dataset)
    listed(source.first_epoch(2, 1))
    source.end_epoch()
    resumed = list(dataset.calls)
    keras_own, seen = Growing(), []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(list(keras_own.calls))

    inputs = keras.Input((None,), name="ids", dtype="int32")
    model = training.DistributedModel(
        {"ids": inputs}, keras.ops.mean(keras.layers.Embedding(99, 1)(inputs), axis=(1, 2))
    )
    model.compile("sgd", lambda _, outputs: outputs)
    keras_own.__class__ = type("WithTargets", (Growing,), {"__getitem__": lambda self, i: (
        Growing.__getitem__(self, 0)[0], np.zeros(2))})  # fmt: skip
    model.fit(keras_own, epochs=3, verbose=0, shuffle=False, callbacks=[Watch()])
    assert resumed == seen[-1]


def test_other_data_has_another_signature():
    x = np.arange(5000.0).reshape(2500, 2)
    plain = positioned(x, batch_size=4).signature
    assert positioned(x.copy(), batch_size=4).signature == plain
    changed = x.copy()
    changed[-1] += 1
    for other in (positioned(changed, batch_size=4), positioned(x, batch_size=5), positioned(x, x, batch_size=4)):
        assert other.signature != plain
    assert positioned(x, batch_size=4, shuffle=False).signature != plain
    assert describe(x)["fingerprint"] != describe(changed)["fingerprint"]
    assert describe(tf.data.Dataset.range(3))["batches"] == 3


def test_the_last_share_of_the_rows_validates():
    x = {"a": np.arange(10), "b": np.arange(10) * 2}
    (trained, _, _), (held, y, weight) = split_validation((x, np.arange(10), None), 0.25)
    assert trained["a"].tolist() == list(range(7)) and held["b"].tolist() == [14, 16, 18]
    assert y.tolist() == [7, 8, 9] and weight is None
    with pytest.raises(ValueError, match=r"validation_split=0\.99"):
        split_validation((x, None, None), 0.99)
    with pytest.raises(ValueError, match="needs arrays"):
        split_validation((tf.data.Dataset.range(3), None, None), 0.5)


def test_a_tpu_needs_batches_that_its_replicas_can_share():
    class Pretended(tf.distribute.TPUStrategy):
        num_replicas_in_sync = 8

        def __init__(self):
            """No TPU is asked for."""

    check_batch_size(Pretended(), np.zeros(3), 64)
    with pytest.raises(ValueError, match=r"batch of 30 does not divide by the TPU's 8 replicas.*24 or 32"):
        check_batch_size(Pretended(), np.zeros(3), 30)
    with pytest.raises(ValueError, match=r"batch of 4 .* take 8\."):
        check_batch_size(Pretended(), tf.data.Dataset.range(9).batch(4, drop_remainder=True), None)
    with pytest.raises(ValueError, match="drop_remainder=True"):
        check_batch_size(Pretended(), tf.data.Dataset.range(9).batch(8), None)
    check_batch_size(tf.distribute.get_strategy(), np.zeros(3), 30)
