"""Decoders with other mixers than attention, beyond their pages: gradients, files, and what makes models smaller."""

import keras
import make_fixtures
import numpy as np
import pytest

from tfxformer import compression, tasks
from tfxformer.generation import generate

CASES = {"lfm2": "lfm2-lm", "qwen3_5_text": "qwen3_5-lm"}  # by family


@pytest.fixture(scope="module")
def model(request, tiny_tokenizer):
    return tasks.CausalLM.from_pretrained(make_fixtures.FOLDER / CASES[request.param], tokenizer=tiny_tokenizer)


@pytest.mark.reference
@pytest.mark.parametrize("model", CASES, indirect=True)
def test_gradients_equal_transformers(model, plain_kernels):
    """Of the sum of all real tokens' losses, in training's own graph, on rows padded on either side and inside."""
    import torch
    import transformers
    from optional_tensorflow import tf

    name = model.backbone.config.family
    reference = transformers.AutoModelForCausalLM.from_pretrained(make_fixtures.FOLDER / CASES[name]).train()
    inputs = make_fixtures.make_inputs(make_fixtures.CASES[CASES[name]])
    ids, mask = inputs["token_ids"], inputs["padding_mask"]
    weights = np.random.default_rng(0).normal(size=(*ids.shape, 96)).astype("float32") * mask[..., None]
    positions = torch.tensor(np.maximum(mask.cumsum(-1) - 1, 0))
    ours_of = {"token_ids": tf.constant(ids), "padding_mask": tf.constant(mask)}
    logits = reference(torch.tensor(ids).long(), attention_mask=torch.tensor(mask), position_ids=positions).logits
    (logits * torch.tensor(weights)).sum().backward()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(ours_of, training=True) * weights)
    variables = {variable.path: variable for variable in model.trainable_variables}
    found = dict(zip(variables, tape.gradient(loss, [one.value for one in variables.values()]), strict=True))
    found = {path: np.asarray(tf.convert_to_tensor(array)) for path, array in found.items()}
    from tfxformer.checkpoints.families import family_of
    from tfxformer.checkpoints.layout import tensors_of

    family = family_of(name)
    tensors = tensors_of(found, family.places(found, model.backbone.config, "causal-lm"))
    wanted = {key: one.grad.numpy() for key, one in reference.named_parameters()}
    assert {f"model.{key}" for key in tensors if not family.is_head(key)} <= wanted.keys() | {"model.lm_head.weight"}
    for key, array in tensors.items():
        other = wanted.get(f"model.{key}", wanted.get(key))
        np.testing.assert_allclose(array, other, atol=2e-5 * max(1.0, np.abs(other).max()), err_msg=key)


@pytest.mark.parametrize("model", CASES, indirect=True)
def test_file_adapters_and_smaller_models(model, tmp_path, eager):
    inputs = make_fixtures.make_inputs(make_fixtures.CASES[CASES[model.backbone.config.family]])
    whole, real = np.asarray(model(inputs)), inputs["padding_mask"] == 1
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(again(inputs)), whole)
    mixing = [index for index, block in enumerate(model.backbone.blocks) if block.mixer is not None]
    attending = [index for index in range(len(model.backbone.blocks)) if index not in mixing]
    left = compression.remove_layers(model, [mixing[0], attending[0]] if mixing[0] < attending[0] else [0, mixing[0]])
    kinds = model.backbone.config.decoder.kinds
    assert left.backbone.config.decoder.kinds == tuple(kinds[i] for i in sorted([mixing[0], attending[0]]))
    fewer = compression.remove_neurons(model, model.backbone.config.decoder.feed_forward.size // 2)
    assert np.isfinite(np.asarray(fewer(inputs))[real]).all()
    assert len(compression.layer_importance(model, "magnitude")) == len(model.backbone.blocks)
    adapters = compression.Adapters(again)
    adapters.add("films", compression.LoRA(rank=2, targets=("mixer/input", "mixer/output", "query")))
    adapted = [layer for layer in again._flatten_layers() if getattr(layer, "adapter", None) is not None]
    assert len(adapted) == 2 * len(mixing) + len(attending)
    again.compile(learning_rate=1e-2, warmup=0.0)
    again.fit(inputs, np.roll(inputs["token_ids"], -1, axis=1), epochs=1, verbose=0)
    trained = np.asarray(again(inputs))
    adapters.merge()
    assert np.abs(trained - whole)[real].max() > 1e-3
    np.testing.assert_allclose(np.asarray(again(inputs))[real], trained[real], atol=1e-4)


@pytest.mark.parametrize("model", CASES, indirect=True)
def test_what_needs_attention_in_every_layer_says_so(model):
    for function in (compression.head_importance, lambda one: compression.remove_heads(one, 1)):
        with pytest.raises(ValueError, match=r"have no heads, and all layers keep as many\. remove_neurons"):
            function(model)
    with pytest.raises(ValueError, match="attention in all layers, no ALiBi"):
        compression.Adapters(model).add("prefix", compression.PrefixTuning(2))


# The delta rule's graphs take long; tests/models/test_decoder.py reads with them in pieces, too.
@pytest.mark.parametrize("model", ["lfm2", pytest.param("qwen3_5_text", marks=pytest.mark.slow)], indirect=True)
def test_a_prompt_in_pieces_is_the_prompt(model, monkeypatch):
    """Chunks of every kind, as TensorFlow has them and as JAX does, whose states must read no filling."""
    prompts = [list(range(5, 20)), [7, 8, 9]]
    wanted = generate(model, prompts, 3, jit_compile=False, cache_length=20)
    for chunk, tensorflow in ((4, True), (4, False)):
        monkeypatch.setattr("tfxformer.generation.engine.PREFILL_CHUNK", chunk)
        monkeypatch.setattr("tfxformer.generation.engine.on_tensorflow", lambda tensorflow=tensorflow: tensorflow)
        assert generate(model, prompts, 3, jit_compile=False, cache_length=20) == wanted
