"""The functional encoder: the battery for every family and for switches that no family has yet."""

import functools
import json

import batteries
import keras
import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

import tfxformer
from tfxformer.layers import Rotary, Scores
from tfxformer.models import Encoder, encoder

SWITCHES = {
    "bert": {},
    "roberta": {},
    "distilbert": {},
    "albert": {"encoder__num_layers": 4, "encoder__layer_groups": 2, "encoder__layers_per_group": 2},
    "electra": {},
    "pre-norm, gated, grouped heads": {
        "encoder__norm__placement": "pre",
        "encoder__norm__final": True,
        "encoder__norm__embedding": False,
        "encoder__feed_forward__gated": True,
        "encoder__feed_forward__activation": "silu",
        "encoder__attention__key_value_heads": 2,
        "encoder__attention__bias": False,
        "encoder__feed_forward__bias": False,
        "encoder__attention__width": 6,
    },
    "rotary, local, normed heads, output norms": {
        "encoder__attention__rotary": Rotary(fraction=0.5),
        "encoder__attention__window": 3,
        "encoder__attention__query_key_norm": "head",
        "encoder__norm__placement": "output",
    },
    "relative scores, sandwich, causal": {
        "encoder__attention__scores": Scores("relative", 8, 10),
        "encoder__attention__causal": True,
        "encoder__norm__placement": "sandwich",
        "encoder__embedding_scale": 2.0,
    },
}


# Whose layers have batteries of their own in tests/layers.
ROADS = ("pre-norm, gated, grouped heads", "rotary, local, normed heads, output norms")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.road) if name in ROADS else name for name in SWITCHES]
)
def test_battery(name, tmp_path):
    family = name if name.isalpha() else "bert"
    make = functools.partial(tiny.backbone, family, **SWITCHES[name])
    half = name == "bert" or family != name  # the other families have the layers of these
    model = batteries.check_model(make, tmp_path, half=half)
    assert list(model.input) == [
        "token_ids",
        "padding_mask",
        *(["segment_ids"] if model.config.token_types > 1 else []),
    ]
    assert ("pooled_output" in model.output) == model.config.heads.pooler


def test_shapes_and_names():
    model = tiny.backbone()
    outputs = model(tiny.inputs_for(model))
    assert {name: tuple(x.shape) for name, x in outputs.items()} == {
        "sequence_output": (3, 12, 32),
        "pooled_output": (3, 32),
    }
    states = model.forward(tiny.inputs_for(model))["hidden_states"]
    assert len(states) == 3
    np.testing.assert_array_equal(np.asarray(states[-1]), np.asarray(outputs["sequence_output"]))
    assert {path.split("/")[0] for path in tiny.weights(model)} == {
        "token_embedding",
        "position_embedding",
        "segment_embedding",
        "embedding_norm",
        "encoder_block_0",
        "encoder_block_1",
        "pooler",
    }


@pytest.mark.parametrize("name", [name for name in SWITCHES if not name.isalpha()])
def test_the_first_token_alone_and_training_are_the_same(name, plain_kernels):
    model = tiny.backbone("bert", **SWITCHES[name])
    inputs = tiny.inputs_for(model)
    whole = np.asarray(model.forward(inputs)["sequence_output"])
    first = np.asarray(model.forward(inputs, first_only=True)["sequence_output"])
    np.testing.assert_allclose(first[:, 0], whole[:, 0], atol=1e-5)
    real = inputs["padding_mask"] == 1
    trained = np.asarray(model(inputs, training=True)["sequence_output"])
    np.testing.assert_allclose(trained[real], whole[real], atol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_learned_scores_get_their_gradient(checkpointing, plain_kernels):
    """Recomputed or not, by what the loss does when the table moves a little."""
    scores = {"encoder__attention__scores": Scores("relative", 8, 10), "encoder__dropout": 0.0}
    model = tiny.backbone(gradient_checkpointing=checkpointing, **scores)
    inputs = {name: tf.constant(array) for name, array in tiny.inputs_for(model).items()}
    (table,) = [v for v in model.trainable_variables if "position_scores" in v.path]

    def loss():
        return tf.reduce_sum(model(inputs, training=True)["pooled_output"] ** 2)

    with tf.GradientTape() as tape:
        value = loss()
    gradient = tf.convert_to_tensor(tape.gradient(value, table.value))
    direction = np.random.default_rng(0).normal(size=table.shape).astype("float32")
    before, step = np.asarray(table), 1e-2
    table.assign(before + step * direction)
    after = loss()
    table.assign(before - step * direction)
    wanted = float(after - loss()) / (2 * step)
    assert abs(wanted) > 1e-3
    assert float(tf.reduce_sum(gradient * direction)) == pytest.approx(wanted, rel=2e-2)


def test_shared_layers_have_one_set_of_weights():
    model = tiny.backbone("albert", encoder__num_layers=6)
    assert sum("encoder_block" in path for path in tiny.weights(model)) == 16
    assert len(model.forward(tiny.inputs_for(model))["hidden_states"]) == 7


def test_first_row_alone():
    model = tiny.backbone()
    inputs = tiny.inputs_for(model)
    whole, first = model.forward(inputs), model.forward(inputs, first_only=True)
    assert first["sequence_output"].shape == (3, 1, 32)
    np.testing.assert_allclose(np.asarray(first["pooled_output"]), np.asarray(whole["pooled_output"]), atol=2e-6)


def test_build_takes_presets_configs_and_dicts():
    config = tiny.config("distilbert")
    for given in (config, config.to_dict()):
        model = tfxformer.build(given, encoder__num_layers=1)
        assert isinstance(model, Encoder) and model.config.encoder.num_layers == 1
    model = tfxformer.build("bert-tiny", vocabulary_size=20, encoder__max_positions=8)
    assert model.config.encoder.hidden_size == 128
    kernel = tiny.weights(model)["encoder_block_0/self_attention/query/kernel"]
    assert 0.015 < kernel.std() < 0.02  # the truncated normal of initializer_range
    assert (tiny.weights(model)["encoder_block_0/self_attention/query/bias"] == 0).all()


def test_two_builds_draw_other_weights_and_a_seed_the_same():
    def draw():
        return tiny.weights(tfxformer.build(tiny.config()))["encoder_block_0/self_attention/query/kernel"]

    assert (draw() != draw()).any()
    keras.utils.set_random_seed(3)
    first = draw()
    keras.utils.set_random_seed(3)
    np.testing.assert_array_equal(draw(), first)


def test_stochastic_depth_grows_with_depth():
    model = tiny.backbone(encoder__num_layers=4, encoder__stochastic_depth=0.4)
    rates = [model.get_layer(f"encoder_block_{i}").stochastic_depth for i in range(4)]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.4])


def test_config_round_trip_keeps_switches_and_reference():
    reference = {"model_type": "bert", "note": "kept"}
    model = Encoder(
        tiny.config(), gradient_checkpointing=True, reference_config=reference, dtype="mixed_bfloat16", name="backbone"
    )
    described = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    again = keras.saving.deserialize_keras_object(described)
    assert (again.config, again.name) == (model.config, "backbone")
    assert again.gradient_checkpointing and again.reference_config == reference
    assert again.dtype_policy.name == "mixed_bfloat16"
    assert again.get_layer("encoder_block_0").gradient_checkpointing
    assert json.loads(json.dumps(keras.saving.serialize_keras_object(again))) == described


def test_global_dtype_policy_is_followed():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = tiny.backbone()
    assert model(tiny.inputs_for(model))["sequence_output"].dtype == "bfloat16"
    assert {v.dtype for v in model.trainable_variables} == {"float32"}


def test_gradient_checkpointing_of_the_whole_model(plain_kernels):
    def gradients(flag):
        model = tiny.backbone(
            gradient_checkpointing=flag, encoder__num_layers=1, encoder__dropout=0.2, encoder__attention_dropout=0.2
        )
        for variable in model.variables:
            if variable.name == "seed_generator_state":
                variable.assign([5, 2])
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(tiny.inputs_for(model), training=True)["pooled_output"] ** 2)
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    for ours, theirs in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=2e-5)


def test_too_long_sequence():
    model = tiny.backbone()
    with pytest.raises(ValueError, match="65 tokens long, but the model has 64 positions"):
        model(tiny.inputs_for(model, length=65))


def test_static_shapes_stay_static():
    model = tiny.backbone("roberta")
    inputs = {name: keras.KerasTensor((2, 8), "int32") for name in ("token_ids", "padding_mask")}
    outputs = encoder.encode(model.config, model._parts, inputs)
    assert outputs["sequence_output"].shape == (2, 8, 32)


def test_no_two_kernels_begin_alike():
    model = tfxformer.build("bert-tiny", vocabulary_size=128, token_types=2, encoder__max_positions=128)
    kernels = [v for v in model.variables if v.path.endswith(("kernel", "embeddings"))]
    heads = [np.asarray(v.value).ravel()[:16] for v in kernels]
    for i, one in enumerate(heads):
        for other in heads[:i]:
            assert np.abs(one - other).max() > 1e-4
