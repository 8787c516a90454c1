"""Smaller models equal the masked big ones, stay what they were, and go on: fit, save, export."""

import keras
import numpy as np
import pytest
import tiny
from structured_cases import ENCODERS, best, made_task, masked_outputs, model, outputs, shared

import tfxformer
from tfxformer import compression, export, generation, tasks
from tfxformer.checkpoints.files.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("plain_kernels", "eager")
NAMES = (
    "TextClassifier",
    "TextEmbedder",
    "ContrastiveEmbedder",
    "MaskedLM",
    "CausalLM",
    "MultiTask",  # of a text and a token classifier
)


@pytest.mark.parametrize("family", ["bert", "albert", "deberta", "xlnet", "gpt2", "gpt_neox", "qwen2"])
def test_fewer_heads_equal_the_masked_model(family):
    """Layers of their own and shared ones, norms before, after and beside, groups of heads with biases, distances."""
    big = shared(family)
    before, stack = big.get_weights(), big.stack
    group = stack.heads // stack.key_value_heads
    importance = compression.head_importance(big)
    small = compression.remove_heads(big, 2)
    masked = masked_outputs(big, ("self_attention", best(importance, 2 // group), stack.key_value_heads))
    assert (small.stack.heads, small.stack.head_width) == (2, stack.head_width)
    assert small.stack.key_value_heads == 2 // group
    np.testing.assert_allclose(outputs(small), masked, rtol=0, atol=1e-5)
    assert np.abs(outputs(small) - outputs(big)).max() > 1e-2  # the heads that went had something to say
    kernels = {v.path: v.shape for v in small.weights if v.path.endswith("_block_0/self_attention/query/kernel")}
    assert list(kernels.values()) == [(32, 16)]
    for one, other in zip(before, big.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("family", ["bert", "albert", "llama"])
def test_fewer_neurons_equal_the_masked_model(family):
    """Layers of their own and shared ones, with a gate and without."""
    big = shared(family)
    count = big.stack.feed_forward.size
    importance = compression.neuron_importance(big)
    small = compression.remove_neurons(big, 16)
    masked = masked_outputs(big, ("feed_forward", best(importance, 16), count))
    np.testing.assert_allclose(outputs(small), masked, rtol=0, atol=1e-5)
    assert np.abs(outputs(small) - outputs(big)).max() > 1e-2
    assert {v.shape for v in small.weights if v.path.endswith("feed_forward/output/kernel")} == {(16, 32)}


@pytest.mark.parametrize("family", ["bert", "llama", "bloom"])
def test_fewer_layers_equal_the_model_of_these_layers(family):
    big = shared(family)
    small = compression.remove_layers(big, (0, 2))
    wanted = tfxformer.build(small.config)
    values, block = tiny.weights(big), "encoder_block_" if family in ENCODERS else "decoder_block_"
    for variable in wanted.weights:
        variable.assign(values[variable.path.replace(f"{block}1/", f"{block}2/")])
    np.testing.assert_array_equal(outputs(small), outputs(wanted))
    assert small.stack.num_layers == 2


def test_a_layer_that_adds_nothing_goes_first_and_changes_nothing():
    big = model("gpt2")
    for variable in big.weights:
        if variable.path.startswith("decoder_block_1/") and "/output/" in variable.path:
            variable.assign(keras.ops.zeros_like(variable))
    batch = tiny.inputs_for(big)
    assert compression.layer_importance(big, "activation", batch).argmin() == 1
    assert compression.layer_importance(big, "magnitude").argmin() == 1
    small = compression.remove_layers(big, 2, data=batch)
    np.testing.assert_array_equal(outputs(small), outputs(big))


@pytest.mark.parametrize("name", NAMES)
def test_every_task_becomes_a_smaller_one(name, tiny_tokenizer):
    big, data = made_task(name, tiny_tokenizer)
    stack, group = big.backbone.stack, 2 if name == "CausalLM" else 1
    heads = compression.head_importance(big, "taylor", data)
    small = compression.remove_heads(big, 2, heads)
    neurons = compression.neuron_importance(small)
    small = compression.remove_neurons(small, 16, neurons)
    masks = ("self_attention", best(heads, 2 // group), stack.key_value_heads), ("feed_forward", best(neurons, 16), 48)
    masked = masked_outputs(big, *masks)
    assert type(small) is type(big)
    assert small.tokenizer == big.tokenizer
    assert small.count_params() < big.count_params()
    np.testing.assert_allclose(outputs(small), masked, rtol=0, atol=1e-5)
    assert compression.remove_layers(small, 1, "magnitude").backbone.stack.num_layers == 1


@pytest.mark.parametrize("make", [tasks.QuestionAnswering, tasks.BertPretraining, tasks.ReplacedTokenDetection])
def test_tasks_with_other_heads_become_smaller_ones(make):
    arguments = {"generator_size": None} if make is tasks.ReplacedTokenDetection else {}
    big = tiny.perturb(make(tiny.backbone(), **arguments))
    importance = compression.neuron_importance(big)
    small = compression.remove_neurons(big, 16, importance)
    masked = masked_outputs(big, ("feed_forward", best(importance, 16), 48))
    np.testing.assert_allclose(outputs(small), masked, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_smaller_classifier_fits_saves_and_is_exported(tiny_tokenizer, tmp_path):
    big, (texts, labels) = made_task("TextClassifier", tiny_tokenizer)
    small = compression.remove_neurons(compression.remove_heads(big, 2), 16)
    assert small.labels == big.labels
    assert np.isfinite(small.fit(texts, labels, verbose=0).history["loss"]).all()
    wanted = small.predict(tiny.TEXTS[:4], verbose=0)

    small.save(tmp_path / "small.keras")
    opened = keras.saving.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(opened.predict(tiny.TEXTS[:4], verbose=0), wanted)

    export.export_litert(small, tmp_path / "small.tflite", quantization="float32", sequence_length=16)
    predicted = export.LiteRTModel(tmp_path / "small.tflite").predict(tiny.TEXTS[:4])
    np.testing.assert_allclose(predicted, wanted, rtol=0, atol=1e-5)


def test_checkpoints_open_where_the_family_can_say_the_sizes(tiny_tokenizer, tmp_path):
    """Llama says the width of a head; BERT takes it for D / N, and is told where to go."""
    lm, _ = made_task("CausalLM", tiny_tokenizer)
    small = compression.remove_layers(compression.remove_neurons(compression.remove_heads(lm, 2), 16), (1,))
    again = tasks.CausalLM.from_pretrained(small.save_pretrained(tmp_path / "lm"))
    np.testing.assert_array_equal(outputs(again), outputs(small))

    classifier, _ = made_task("TextClassifier", tiny_tokenizer)
    small = compression.remove_layers(compression.remove_neurons(classifier, 16), (1,))
    again = tasks.TextClassifier.from_pretrained(small.save_pretrained(tmp_path / "classifier"))
    np.testing.assert_array_equal(outputs(again), outputs(small))
    with pytest.raises(CheckpointError, match=r"attention\.width.*model.save\('model.keras'\)"):
        compression.remove_heads(small, 2).save_pretrained(tmp_path / "no")


@pytest.mark.reference
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_transformers_opens_a_smaller_model_with_the_same_outputs(family, tmp_path):
    import torch
    import transformers

    small = compression.remove_layers(compression.remove_neurons(model(family), 16), (0, 2))
    small = small if family == "bert" else compression.remove_heads(small, 2)
    tfxformer.checkpoints.save_pretrained(tmp_path, small, small.config)
    reference = transformers.AutoModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    inputs = tiny.inputs_for(small)
    names = {"token_ids": "input_ids", "padding_mask": "attention_mask", "segment_ids": "token_type_ids"}
    with torch.inference_mode():
        wanted = reference(**{names[name]: torch.tensor(ids) for name, ids in inputs.items()}).last_hidden_state
    real = inputs["padding_mask"] == 1
    actual = np.asarray(small(inputs)["sequence_output"])
    np.testing.assert_allclose(actual[real], wanted.numpy()[real], rtol=0, atol=1e-5)


def test_a_cached_step_of_a_smaller_decoder_is_the_whole_sequence(tiny_tokenizer):
    lm, _ = made_task("CausalLM", tiny_tokenizer)
    small = compression.remove_heads(lm, 2)
    ids = np.arange(5, 13, dtype="int32")[None]
    cache = small.new_cache(1, 8)
    assert cache.self_attention[0][0].shape[1] == 1  # one group is left
    logits, _ = small.step({"token_ids": ids, "cache_positions": np.arange(8, dtype="int32")}, cache, logits="all")
    whole = small({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    np.testing.assert_allclose(np.asarray(logits), np.asarray(whole), rtol=0, atol=1e-5)
    (found,) = generation.generate(small, [ids[0]], max_new_tokens=1, jit_compile=False)
    assert list(found) == [np.asarray(whole)[0, -1].argmax()]


@pytest.mark.road
def test_gradual_shrinking_trains_between_equal_steps(tiny_tokenizer):
    big, data = made_task("TextClassifier", tiny_tokenizer)
    seen = []

    def recover(model):
        stack = model.backbone.stack
        seen.append((stack.heads, stack.feed_forward.size))
        model.fit(*data, verbose=0)

    small = compression.shrink_gradually(big, recover, heads=2, neurons=16, rounds=2, data=data)
    assert seen == [(3, 32), (2, 16)]
    assert small.backbone.stack.heads == 2
    grouped, _ = made_task("CausalLM", tiny_tokenizer)
    compression.shrink_gradually(grouped, seen.append, heads=2, rounds=2, importance="magnitude")
    assert [m.backbone.stack.heads for m in seen[2:]] == [2, 2]  # one group goes, and is not split


def test_windows_and_dtypes_stay_with_their_layers():
    window = {"decoder__attention": {"sliding": {"window": 4}, "full": {}}, "decoder__pattern": ("sliding", "full")}
    big = model("qwen2", dtype="mixed_bfloat16", **window)
    small = compression.remove_layers(big, (1, 2))
    assert small.config.decoder.kinds == ("full", "sliding")
    assert small.dtype_policy.name == "mixed_bfloat16"
    assert compression.remove_layers(big, (0, 2)).config.decoder.pattern is None  # all have it


@pytest.mark.parametrize(
    ("family", "remove", "keep", "error", "message"),
    [
        ("bert", "remove_heads", 0, ValueError, "leave none of the 4 heads of a layer; keep at least 1"),
        ("bert", "remove_heads", 5, ValueError, "there are 4 heads of a layer, keep=5 is more"),
        ("bert", "remove_heads", 2.0, TypeError, "keep is an int"),
        ("bert", "remove_heads", True, TypeError, "keep is an int"),
        ("llama", "remove_heads", 3, ValueError, "split a group of 2 heads"),
        ("bloom", "remove_heads", 2, ValueError, "ALiBi"),
        ("olmo2", "remove_heads", 2, ValueError, "by their mean together"),
        ("bert", "remove_neurons", 0, ValueError, "leave none of the 48"),
        ("bert", "remove_neurons", 49, ValueError, "keep=49 is more"),
        ("bert", "remove_layers", 0, ValueError, "leave none of the 3 layers"),
        ("bert", "remove_layers", 4, ValueError, "keep=4 is more"),
        ("bert", "remove_layers", (), ValueError, "at least one"),
        ("bert", "remove_layers", (0, 3), ValueError, "0 to 2"),
        ("bert", "remove_layers", (2, 0), ValueError, "ascending"),
        ("bert", "remove_layers", (1, 1), ValueError, "each once"),
        ("bert", "remove_layers", 1.5, TypeError, "the numbers of layers"),
        ("albert", "remove_layers", 1, ValueError, "share their weights"),
    ],
)
def test_what_cannot_be_removed_is_refused(family, remove, keep, error, message):
    with pytest.raises(error, match=message):
        getattr(compression, remove)(shared(family), keep)


def test_layers_scaled_by_their_number_go_from_the_end_only():
    big = model("gpt2", decoder__attention__scale_by_layer=True)
    assert compression.remove_layers(big, (0, 1)).stack.num_layers == 2
    with pytest.raises(ValueError, match=r"keep=\(0, 1\)"):
        compression.remove_layers(big, (0, 2))


def test_other_models_are_refused(tiny_tokenizer):
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    for remove in (compression.remove_heads, compression.remove_neurons, compression.remove_layers):
        with pytest.raises(TypeError, match=r"tfxformer's models.*Sequential"):
            remove(plain, 1)
    pair = tasks.ReplacedTokenDetection(tiny.backbone("electra"), tokenizer=tiny_tokenizer, generator_size=0.5)
    with pytest.raises(ValueError, match="trains 2 encoders together"):
        compression.remove_heads(pair, 2)
    with pytest.raises(ValueError, match=r"shape \(3, 4\); got shape \(2, 4\)"):
        compression.remove_heads(shared(), 2, np.ones((2, 4)))
    with pytest.raises(ValueError, match="finite"):
        compression.remove_heads(shared(), 2, np.full((3, 4), np.nan))
    with pytest.raises(ValueError, match="say what is left"):
        compression.shrink_gradually(shared(), print)


def test_weights_that_no_config_describes_are_refused():
    big = model()
    big.blocks[0].feed_forward.expand.enable_lora(2)
    with pytest.raises(ValueError, match=r"other weights than its config describes.*lora"):
        compression.remove_heads(big, 2)


def test_neurons_of_several_halves_are_refused():
    with pytest.raises(ValueError, match="has 4 feed-forward halves, each with neurons of its own; remove_heads"):
        compression.remove_neurons(tiny.backbone("mobilebert", encoder__num_layers=1), 16)
