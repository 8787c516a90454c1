"""The table of what is trained, counted here a second way."""

import json

import keras
import numpy as np
import pytest
from adapter_cases import adapted, classifier

from tfxformer.compression import trainable_table


def test_counts_parameters_and_bytes():
    model = classifier()
    adapted(model, rank=3)
    table = trainable_table(model)
    total = table.total
    factors = 2 * 2 * (32 * 3 + 3 * 32)  # two blocks, query and value
    head = 32 * 2 + 2
    assert total.trainable == factors + head
    assert total.parameters == model.count_params()
    assert total.weight_bytes == 4 * total.parameters
    assert total.gradient_bytes == 4 * total.trainable and total.optimizer_bytes == 8 * total.trainable
    assert total.bytes == 4 * total.parameters + 12 * total.trainable
    rows = {row.name: row for row in table.rows}
    assert sum(row.parameters for row in table.rows) == total.parameters
    assert (rows["classifier"].share, rows["token_embedding"].share) == (1.0, 0.0)
    assert rows["encoder_block_0"].trainable == factors // 2
    assert trainable_table(model, moments=1).total.optimizer_bytes == 4 * total.trainable


def test_shows_itself():
    model = classifier()
    table = trainable_table(model)
    lines = str(table).splitlines()
    assert lines[0].split()[:3] == ["part", "parameters", "trainable"]
    assert len({len(line) for line in lines}) == 1
    assert lines[-1].split()[1] == f"{model.count_params():,}"
    described = json.loads(json.dumps(table.to_dict()))
    assert described["total"]["parameters"] == model.count_params() and described["rows"][0]["share"] == 1.0


def test_half_precision_and_no_weights():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5, dtype="bfloat16")])
    assert trainable_table(model).total.weight_bytes == 2 * 20
    with pytest.raises(ValueError, match="no weights yet"):
        trainable_table(keras.Sequential([keras.layers.Dense(2)]))
    assert np.isclose(trainable_table(model).total.share, 1.0)
