"""Adapters on layers that are not ours: Keras' Dense and EinsumDense, KerasHub's backbones."""

import keras
import numpy as np
import pytest
import tiny
from adapter_cases import adapted, hub_model, randomize

from tfxformer.compression import Adapters, LoRA
from tfxformer.compression.weights.matrices import all_kernels
from tfxformer.layers.adapters.base import adapted_layers

pytestmark = pytest.mark.usefixtures("eager")
RANDOM = np.random.default_rng(2)


def as_matrix(kernel):
    """[in, out] of a kernel in numpy."""
    array = np.transpose(np.asarray(kernel.variable), kernel.permutation)
    rows = np.prod([kernel.variable.shape[axis] for axis in kernel.summed_axes])
    return array.reshape(rows, -1)


@pytest.mark.parametrize(
    ("equation", "output", "inputs"),
    [
        ("btd,dnh->btnh", (None, 2, 3), (5, 4)),
        ("btnh,nhd->btd", (None, 4), (5, 2, 3)),
        ("btd,ed->bte", (None, 3), (5, 4)),
        (None, None, (5, 4)),
    ],
)
def test_the_kernel_as_a_matrix_gets_a_product_of_low_rank(equation, output, inputs):
    layer = keras.layers.EinsumDense(equation, output, name="one") if equation else keras.layers.Dense(3, name="one")
    model = tiny.perturb(keras.Sequential([keras.Input(inputs), layer]))
    x = RANDOM.normal(size=(2, *inputs)).astype("float32")
    before, plain = np.asarray(model(x)), type(layer)
    kernel = all_kernels(model)[0]
    matrix = as_matrix(kernel)
    adapters = adapted(model, rank=1, alpha=2, targets="one", also_train=())
    a, b = np.asarray(layer.adapter.a), np.asarray(layer.adapter.b)
    assert a.shape == (len(matrix), 1) and b.shape == (1, matrix.shape[1])
    changed = np.asarray(model(x))
    assert np.abs(changed - before).max() > 0.01
    adapters.merge()
    assert type(layer) is plain
    np.testing.assert_allclose(as_matrix(kernel), matrix + 2 * a @ b, atol=1e-6)
    np.testing.assert_allclose(model(x), changed, atol=1e-6)
    adapters.unmerge()
    np.testing.assert_array_equal(model(x), changed)
    adapters.activate(None)
    np.testing.assert_array_equal(model(x), before)


def test_what_such_layers_cannot_do(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="one")])
    adapters = Adapters(model)
    with pytest.raises(ValueError, match=r"dropout=0.1 needs tfxformer's layers; .*one is a keras"):
        adapters.add("films", LoRA(targets="one", dropout=0.1))
    assert adapters.active is None and not adapters.names and not hasattr(model.layers[0], "adapter")
    adapters = adapted(model, targets="one")
    with pytest.raises(ValueError, match="has an adapter already: go on with the Adapters that added it"):
        Adapters(model)
    for save in (lambda: model.save(tmp_path / "a.keras"), lambda: model.save_weights(tmp_path / "a.weights.h5")):
        with pytest.raises(ValueError, match="/one has the adapter 'films', which a Keras file of a Dense"):
            save()


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_keras_hub(name, tmp_path):
    model = tiny.perturb(hub_model(name))
    x = {"token_ids": RANDOM.integers(1, 60, (8, 6)).astype("int32"), "padding_mask": np.ones((8, 6), "int32")}
    if name == "bert":
        x["segment_ids"] = np.zeros((8, 6), "int32")
    before, weights = np.asarray(model(x)), tiny.weights(model)
    adapters = Adapters(model)
    adapters.add("films", LoRA(rank=2, also_train="logits" if name == "bert" else ()))
    targets = [layer.path for layer in adapted_layers(model)]
    assert len(targets) == 6 + (name == "bert") and "logits" not in targets  # six a block, and the pooler
    np.testing.assert_array_equal(model(x), before)
    randomize(model)
    y = np.arange(8) % 2 if name == "bert" else np.zeros((8, 6, 8), "float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if name == "bert" else "mse"
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=[], weighted_metrics=[])
    history = keras.Model.fit(model, x, y, batch_size=8, epochs=3, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    after = tiny.weights(model)
    changed = {path for path in after if path not in weights or (after[path] != weights[path]).any()}
    assert changed == {p for p in after if "lora_" in p} | (
        {"logits/kernel", "logits/bias"} if name == "bert" else set()
    )
    wanted = np.asarray(model(x))
    adapters.save(tmp_path / "films")
    adapters.activate(None)
    np.testing.assert_array_equal(model(x), before)
    again = Adapters(model)
    again.load(tmp_path / "films", "again")
    np.testing.assert_array_equal(model(x), wanted)
    again.merge()
    np.testing.assert_allclose(model(x), wanted, atol=1e-5)
