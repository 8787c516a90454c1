"""The functional encoder-decoder: against transformers' stored results, its cached step, files, and what it refuses."""

import json

import batteries
import keras
import numpy as np
import pytest
import seq2seq_cases as cases
import tiny
from optional_tensorflow import tf

import tfxformer
from tfxformer import tasks
from tfxformer.layers import Rotary
from tfxformer.models import Encoder, EncoderDecoder, FeedForwardConfig, NormConfig, StackConfig, TransformerConfig

CHUNKS = ((5, 3, 1), (1, 8))


def config(**changes):
    """Two stacks of different widths inside, without dropout."""
    encoder = StackConfig(2, 24, 4, 30, dropout=0.0, attention_dropout=0.0)
    decoder = StackConfig(
        3, 24, 2, FeedForwardConfig(40, "relu"), NormConfig("pre", final=True), dropout=0.0, attention_dropout=0.0
    )
    return TransformerConfig("bart", 90, encoder, decoder).replace(**changes)


SHAPES = {
    "learned": {},
    "sinusoidal": {"encoder__positions": "sinusoidal", "decoder__positions": "sinusoidal"},
    "rotary": {
        "encoder__attention__rotary": Rotary(),
        "decoder__attention__rotary": Rotary(),
        "decoder__attention__key_value_heads": 1,
    },
    "window": {"decoder__attention__window": 3, "decoder__norm__placement": "post", "decoder__norm__final": False},
}


@pytest.fixture(scope="module")
def model():
    return tiny.perturb(tfxformer.build(config()))


def stored(name):
    folder = cases.FIXTURES / f"seq2seq-{name}"
    expected = dict(np.load(folder / "expected.npz"))
    return folder, {key: expected[f"input_{key}"] for key in cases.batch(0)}, expected


@pytest.mark.parametrize("name", cases.STORED)
def test_equals_transformers(name):
    folder, inputs, expected = stored(name)
    outputs = tfxformer.from_pretrained(folder)(inputs)
    real = inputs["encoder_padding_mask"] == 1
    np.testing.assert_allclose(np.asarray(outputs["encoder_output"])[real], expected["encoder_output"][real], atol=1e-5)
    logits = np.asarray(tasks.Seq2SeqLM.from_pretrained(folder, tokenizer=None)(inputs))
    np.testing.assert_allclose(logits, expected["logits"], atol=2e-5 * max(1.0, np.abs(expected["logits"]).max() / 5))


@pytest.mark.parametrize("shape", SHAPES)
def test_cached_equals_whole(shape):
    model, inputs = tiny.perturb(tfxformer.build(config(**SHAPES[shape]))), cases.batch(0)
    whole = np.asarray(model(inputs)["sequence_output"])
    source = {name: inputs[name] for name in ("encoder_token_ids", "encoder_padding_mask")}
    for chunks in CHUNKS:
        cache, parts, start = model.new_cache(3, 12, source), [], 0
        for length in chunks:
            step = {
                "token_ids": inputs["decoder_token_ids"][:, start : start + length],
                "cache_positions": np.arange(start, start + length, dtype="int32"),
            }
            outputs = model.step(step, cache)
            cache, start = outputs["cache"], start + length
            parts.append(np.asarray(outputs["sequence_output"]))
        np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)


def test_padding_of_the_source_is_not_read(model):
    inputs = cases.batch(0)
    wanted = np.asarray(model(inputs)["sequence_output"])
    inputs["encoder_token_ids"] = np.where(inputs["encoder_padding_mask"], inputs["encoder_token_ids"], 7)
    np.testing.assert_allclose(np.asarray(model(inputs)["sequence_output"]), wanted, atol=1e-6)
    inputs["encoder_token_ids"][0, 3] = 89 - inputs["encoder_token_ids"][0, 3]
    changed = np.abs(np.asarray(model(inputs)["sequence_output"]) - wanted).max(axis=(1, 2))
    assert changed[0] > 1e-3 and changed[1:].max() < 1e-6


def test_later_tokens_are_not_seen(model):
    inputs = cases.batch(0)
    wanted = np.asarray(model(inputs)["sequence_output"])
    inputs["decoder_token_ids"][:, 5] = 89 - inputs["decoder_token_ids"][:, 5]
    changed = np.abs(np.asarray(model(inputs)["sequence_output"]) - wanted).max(axis=(0, 2))
    assert changed[:5].max() == 0 and changed[5:].min() > 1e-4


def test_files_configs_and_xla(model, tmp_path):
    inputs = cases.batch(0)
    wanted = batteries.numpy_of(model(inputs))
    with batteries.steps(eager=False):
        compiled = tf.function(model, jit_compile=True)({name: tf.constant(x) for name, x in inputs.items()})
    batteries.assert_close(batteries.numpy_of(compiled), wanted, 2e-5)
    model.save(tmp_path / "model.keras")
    batteries.assert_close(batteries.numpy_of(keras.saving.load_model(tmp_path / "model.keras")(inputs)), wanted, 0.0)
    assert TransformerConfig.from_dict(json.loads(json.dumps(model.config.to_dict()))) == model.config


def test_transformers_names_of_inputs(model):
    inputs = cases.batch(0)
    theirs = dict(
        zip(
            ("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask"), inputs.values(), strict=True
        )
    )
    np.testing.assert_array_equal(model(theirs)["sequence_output"], model(inputs)["sequence_output"])
    with pytest.raises(ValueError, match="lacks decoder_token_ids, decoder_padding_mask"):
        model({"input_ids": inputs["encoder_token_ids"], "attention_mask": inputs["encoder_padding_mask"]})


def test_gradients_reach_every_variable_with_checkpointing_too(plain_kernels):
    """The encoder learns through cross-attention; a recomputed block gives the source its gradient."""
    inputs, found = cases.batch(0), []
    for checkpointing in (False, True):
        model = tiny.perturb(tfxformer.build(config(), gradient_checkpointing=checkpointing))
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)["sequence_output"]
            loss = tf.reduce_sum(outputs * np.cos(np.arange(24, dtype="float32")))
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        assert all(gradient is not None for gradient in gradients)
        found.append([np.asarray(tf.convert_to_tensor(gradient)) for gradient in gradients])
    for plain, recomputed in zip(*found, strict=True):
        assert np.abs(plain).max() > 0
        np.testing.assert_allclose(recomputed, plain, atol=1e-4 * max(1.0, np.abs(plain).max()))


def test_what_is_refused(model):
    with pytest.raises(ValueError, match="has an encoder and a decoder, which the EncoderDecoder computes"):
        Encoder(config())
    with pytest.raises(ValueError, match="The EncoderDecoder does not compute token_types=2"):
        EncoderDecoder(config(token_types=2))
    for task in (tasks.CausalLM, tasks.MaskedLM, tasks.TextEmbedder):
        with pytest.raises(ValueError, match=f"{task.__name__} stands on an encoder or a decoder; this model has both"):
            task(model)
    with pytest.raises(ValueError, match="Seq2SeqLM writes a target for a source"):
        tasks.Seq2SeqLM(tiny.backbone("gpt2"))
