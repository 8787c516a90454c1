"""What the optimizers share, by what it does to real models: masks, rates by layer, norms of dense gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from tfxformer.training import optimizer
from tfxformer.training.optimizers.variable_rules import layer_depths

NAMES = ("adamw", "lamb", "lion", "adafactor", "sgd")


def test_depths_of_an_encoder_with_its_head():
    paths = [
        "token_embedding/embeddings",
        "embedding_norm/gamma",
        "encoder_block_0/self_attention/query/kernel",
        "bert/encoder_block_1/feed_forward/expand/bias",
        "encoder_block_10/attention_norm/beta",
        "final_norm/gamma",
        "pooler/kernel",
        "head/output/bias",
    ]
    assert layer_depths(paths) == ([0, 0, 1, 2, 3, 4, 4, 4], 4)


def test_depths_of_an_encoder_decoder_go_on_in_the_decoder():
    paths = ["decoder_block_0/a", "encoder_block_1/a", "encoder_block_0/a", "decoder_block_1/a", "token_embedding/a"]
    assert layer_depths(paths) == ([3, 2, 1, 4, 0], 5)
    beside = ["encoder_token_embedding/a", "decoder_position_embedding/a", "encoder_embedding_norm/a", "decoder_norm/a"]
    assert layer_depths([*paths, *beside]) == ([3, 2, 1, 4, 0, 0, 0, 0, 5], 5)


@pytest.mark.parametrize("family", ["bert", "albert", "gpt2", "llama"])
def test_every_layer_of_a_model_has_its_rate(family):
    """One plain step with gradients of one: what a variable moves by is its rate."""
    model = tiny.backbone(family)
    before = [variable.numpy() for variable in model.trainable_variables]
    made = optimizer("sgd", 0.5, momentum=0.0, layer_decay=0.5, global_clipnorm=None)
    made.apply([tf.ones(variable.shape) for variable in model.trainable_variables], model.trainable_variables)
    blocks = 1 if family == "albert" else 2  # ALBERT's layers share one
    expected = {"token_embedding": 0.5 ** (blocks + 2), "position_embedding": 0.5 ** (blocks + 2)}
    expected |= {"embedding_norm": 0.5 ** (blocks + 2), "embedding_projection": 0.5 ** (blocks + 2)}
    expected |= {f"{kind}_block_{i}": 0.5 ** (blocks - i + 1) for kind in ("encoder", "decoder") for i in range(2)}
    expected |= {"pooler": 0.5, "final_norm": 0.5, "segment_embedding": 0.5 ** (blocks + 2)}
    seen = set()
    for variable, value in zip(model.trainable_variables, before, strict=True):
        layer = variable.path.split("/")[0]
        seen.add(layer)
        np.testing.assert_allclose(value - variable.numpy(), expected[layer], rtol=1e-3, err_msg=variable.path)
    assert "token_embedding" in seen and seen & {"pooler", "final_norm"} and any("_block_0" in name for name in seen)


@pytest.fixture(scope="module")
def bert():
    return tiny.backbone("bert")


@pytest.mark.parametrize("name", NAMES)
def test_decay_goes_with_the_layer_and_spares_norms_and_biases(name, bert):
    """With zero gradients nothing but decay moves a variable, and the lower the layer the less."""
    model = tiny.perturb(bert)
    before = {variable.path: variable.numpy() for variable in model.trainable_variables}
    made = optimizer(name, 0.1, weight_decay=0.5, layer_decay=0.5)
    made.apply([tf.zeros(variable.shape) for variable in model.trainable_variables], model.trainable_variables)
    moved = {}
    for variable in model.trainable_variables:
        change = np.abs(variable.numpy() / before[variable.path] - 1).max()
        if variable.path.rpartition("/")[2] in ("bias", "gamma", "beta"):
            assert change == 0, variable.path
        else:
            moved[variable.path] = change
    if name in ("adamw", "lion", "sgd"):
        assert moved["pooler/kernel"] == pytest.approx(0.05, rel=1e-3)
        assert moved["encoder_block_1/self_attention/key/kernel"] == pytest.approx(0.025, rel=1e-3)
        assert moved["token_embedding/embeddings"] == pytest.approx(0.05 / 8, rel=1e-3)
    elif name == "lamb":  # an update of the variable itself has the ratio 1 / decay
        assert moved["pooler/kernel"] == pytest.approx(0.1, rel=1e-3)
        assert moved["token_embedding/embeddings"] == pytest.approx(0.1 / 8, rel=1e-3)
    else:
        scale = np.sqrt(np.mean(before["token_embedding/embeddings"] ** 2))
        assert moved["token_embedding/embeddings"] == pytest.approx(0.05 / 8 * scale, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_repeated_rows_of_an_embedding_are_summed_before_the_norm(name):
    slices = tf.IndexedSlices(tf.constant([[1.0] * 4] * 3), tf.constant([2, 2, 0]), tf.constant([5, 4]))
    dense = np.zeros((5, 4), "float32")
    np.add.at(dense, [2, 2, 0], np.ones((3, 4), "float32"))
    found = []
    for gradient in (slices, tf.constant(dense)):
        variable = keras.Variable(np.ones((5, 4)), name="embeddings")
        made = optimizer(name, 0.1, global_clipnorm=0.5)
        for _ in range(2):
            made.apply([gradient], [variable])
        found.append(variable.numpy())
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.road) if name in ("adamw", "lion") else name for name in NAMES]
)
def test_trains_and_goes_on_from_a_file(name, tmp_path):
    """A model of our layers' names is fitted, saved, loaded and fitted: as without the file."""

    def made():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,), dtype="int32")
        x = keras.layers.Embedding(20, 8, name="token_embedding")(inputs)
        x = keras.layers.LayerNormalization(name="embedding_norm")(x)
        x = keras.layers.Dense(8, activation="relu", name="encoder_block_0")(keras.layers.Flatten()(x))
        model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
        rate = {"adamw": 0.02, "lamb": 0.05, "lion": 0.005, "adafactor": 0.1, "sgd": 0.3}[name]
        model.compile(
            optimizer(name, rate, layer_decay=0.9, weight_decay=0.01),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        return model

    ids = np.random.default_rng(0).integers(0, 20, (64, 6))
    labels = (ids[:, 0] > ids[:, 1]).astype("int32")
    fit = {"batch_size": 16, "shuffle": False, "verbose": 0}
    model = made()
    losses = model.fit(ids, labels, epochs=10, **fit).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.optimizer.get_config() == model.optimizer.get_config()
    for one in (model, again):
        one.fit(ids, labels, epochs=1, **fit)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_cannot_be():
    with pytest.raises(ValueError, match="above 0; got 0"):
        optimizer("adamw", 0.1, layer_decay=0)
    with pytest.raises(ValueError, match="no layer named encoder_block_0 or decoder_block_0 in the variables kernel"):
        optimizer("lion", 0.1, layer_decay=0.9).build([keras.Variable(np.ones(2), name="kernel")])
