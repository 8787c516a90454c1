"""Models that somebody builds from these layers: masks of Keras, seeds of their own, sublayers as layers."""

import keras
import numpy as np
import pytest
import tiny

from tfxformer import layers

IDS = np.array([[3, 4, 5, 0, 0], [1, 2, 3, 4, 5]], "int32")  # 0 is padding
GENERATOR = np.random.default_rng(0)


def model_of(layer, **arguments):
    """Ids to a mean over what is no padding, by Keras' own layers around one of ours."""
    ids = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, 8, mask_zero=True)(ids)
    x = layer(x, **arguments)
    return tiny.perturb(keras.Model(ids, keras.layers.GlobalAveragePooling1D()(x)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Attention(2, 4),
        lambda: layers.TransformerBlock({"num_heads": 2, "head_size": 4}, {"size": 12}),
        lambda: layers.TransformerBlock({"num_heads": 2, "head_size": 4}, {"size": 12}, norm_placement="sandwich"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_padding_is_not_seen_and_the_mask_goes_on(make, training, tmp_path, plain_kernels):
    model = model_of(make())
    whole = np.asarray(model(IDS, training=training))
    short = np.asarray(model(IDS[:1, :3], training=training))
    np.testing.assert_allclose(whole[:1], short, atol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(np.asarray(again(IDS)), np.asarray(model(IDS)), atol=1e-6)


def test_masks_of_a_source():
    """Cross-attention reads the mask that its source has, self-attention that of its inputs."""
    block = layers.TransformerBlock(
        {"num_heads": 2, "head_size": 4}, {"size": 12}, norm_placement="pre", cross_attention=True
    )
    source, ids = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    table = keras.layers.Embedding(9, 8, mask_zero=True)
    outputs = keras.layers.GlobalAveragePooling1D()(block(table(ids), source=table(source)))
    model = tiny.perturb(keras.Model([ids, source], outputs))
    whole = np.asarray(model([IDS, IDS]))
    np.testing.assert_allclose(whole[:1], np.asarray(model([IDS[:1, :3], IDS[:1, :3]])), atol=1e-5)
    assert np.abs(whole[:1] - np.asarray(model([IDS[:1, :3], IDS[:1]]))).max() < 1e-5


def test_a_bias_goes_before_a_mask():
    layer = layers.Attention(2, 4)
    x, mask = GENERATOR.normal(size=(1, 4, 8)).astype("float32"), np.array([[True, True, False, False]])
    masked, plain = layer(x, mask=mask), layer(x)
    assert np.abs(np.asarray(masked) - np.asarray(plain)).max() > 1e-4
    bias = np.zeros((1, 1, 1, 4), "float32")
    np.testing.assert_array_equal(np.asarray(layer(x, mask=mask, bias=bias)), np.asarray(plain))
    wanted = layer(x, bias=layers.padding_bias(mask, -1e9))
    np.testing.assert_array_equal(np.asarray(masked), np.asarray(wanted))


@pytest.mark.parametrize("make", [layers.Attention, layers.TransformerBlock])
def test_causal(make):
    """A token's output depends on earlier ones alone; one after another on a cache it is the same."""
    arguments = ({"num_heads": 2, "head_size": 4}, {"size": 12}) if make is layers.TransformerBlock else (2, 4)
    layer = make(*arguments)
    x = GENERATOR.normal(size=(2, 5, 8)).astype("float32")
    whole = np.asarray(layer(x, causal=True))
    for length in range(1, 5):
        np.testing.assert_allclose(np.asarray(layer(x[:, :length], causal=True)), whole[:, :length], atol=1e-6)
    cache = (np.zeros((2, 2, 5, 4), "float32"), np.zeros((2, 2, 4, 5), "float32"))
    steps = []
    for begin, end in ((0, 2), (2, 3), (3, 5)):
        outputs, cache = layer(x[:, begin:end], causal=True, cache=cache, position=begin)
        steps.append(np.asarray(outputs))
    np.testing.assert_allclose(np.concatenate(steps, axis=1), whole, atol=1e-6)


def test_dropout_of_attention_needs_no_seed(plain_kernels):
    layer = layers.Attention(2, 4, dropout=0.5)
    model = model_of(layer)
    plain, first, second = (np.asarray(model(IDS, training=flag)) for flag in (False, True, True))
    assert np.abs(first - plain).max() > 1e-4 and np.abs(first - second).max() > 1e-4
    assert [v.name for v in layer.non_trainable_variables] == ["seed_generator_state"]
    seeds = [np.array([7, 1], "uint32")] * 2
    x = GENERATOR.normal(size=(2, 5, 8)).astype("float32")
    one, other = (np.asarray(layer(x, training=True, seed=seed)) for seed in seeds)
    np.testing.assert_array_equal(one, other)
    model.compile("sgd", "mse")
    model.fit(IDS, np.zeros((2, 8), "float32"), verbose=0)
    block = layers.TransformerBlock({"num_heads": 2, "head_size": 4, "dropout": 0.5}, {"size": 12})
    block.build((None, None, 8))
    assert len(block.non_trainable_variables) == 1  # the one seed that it stores for all its layers


def test_sublayers_as_layers(tmp_path):
    """A block of given layers is the block of their arguments; foreign ones are called as Keras calls them."""
    arguments = {"num_heads": 2, "head_size": 4, "soft_cap": 3.0}
    described = layers.TransformerBlock(arguments, {"size": 12}, norm="rms", norm_placement="pre")
    given = layers.TransformerBlock(
        layers.Attention(**arguments),
        layers.FeedForward(12),
        norm=layers.RMSNormalization(epsilon=1e-12),
        norm_placement="pre",
    )
    x = GENERATOR.normal(size=(2, 5, 8)).astype("float32")
    described(x), given(x)
    tiny.perturb(described)
    for name in ("self_attention", "attention_norm", "feed_forward", "feed_forward_norm"):
        getattr(given, name).set_weights(getattr(described, name).get_weights())
    assert len(given.trainable_variables) == len(described.trainable_variables)
    np.testing.assert_allclose(np.asarray(given(x)), np.asarray(described(x)), atol=1e-6)

    foreign = layers.TransformerBlock(
        {"num_heads": 2, "head_size": 4},
        keras.Sequential([keras.layers.Dense(12, "relu"), keras.layers.Dense(8)]),
        norm=keras.layers.UnitNormalization(),
        norm_placement="output",
        cross_attention=True,
    )
    inputs, source = keras.Input((5, 8)), keras.Input((4, 8))
    model = keras.Model([inputs, source], foreign(inputs, source=source))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    batch = [x, GENERATOR.normal(size=(2, 4, 8)).astype("float32")]
    np.testing.assert_allclose(np.asarray(again(batch)), np.asarray(model(batch)), atol=1e-6)
    assert np.isfinite(np.asarray(model(batch, training=True))).all()


def test_wrong_sublayers():
    with pytest.raises(
        TypeError, match="attention is a dict of arguments or a Attention or a Mixer, not <MultiHeadAttention"
    ):
        layers.TransformerBlock(keras.layers.MultiHeadAttention(2, 4), {"size": 12})
    with pytest.raises(ValueError, match="cross-attention cannot have norm_placement='shared'"):
        layers.TransformerBlock(
            {"num_heads": 2, "head_size": 4}, {"size": 12}, norm_placement="shared", cross_attention=True
        )
    with pytest.raises(ValueError, match="Unknown norm placement 'both'; known: post, pre, parallel, shared, sandwich"):
        layers.TransformerBlock({"num_heads": 2, "head_size": 4}, {"size": 12}, norm_placement="both")
    with pytest.raises(ValueError, match="Unknown norm 'batch'; known: layer, plain_layer, rms"):
        layers.TransformerBlock({"num_heads": 2, "head_size": 4}, {"size": 12}, norm="batch")
