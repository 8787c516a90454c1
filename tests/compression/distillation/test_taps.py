"""What is read on the way through a model: hidden states and attention, against the model itself and transformers."""

import keras
import numpy as np
import pytest
import tiny

from tfxformer import checkpoints, tasks
from tfxformer.compression.distillation import taps as module
from tfxformer.compression.distillation.taps import Taps, bias_key, projection_key, state_key

FAMILIES = ["bert", "albert", "gpt2", "llama", "bloom"]


def as_functional(backbone):
    """The backbone's own functional graph with one output, as a task has it."""
    return keras.Model(backbone.input, backbone.output["sequence_output"])


def probabilities(backbone, batch, number):
    """Softmax of what `Taps` reads of a block, with its bias: numpy [B, N, S, T]."""
    taps = Taps(as_functional(backbone))
    found = taps.reader(projections=[(number, "query"), (number, "key")])(batch)
    attention = taps.attention(number)
    query, key = (np.asarray(found[projection_key(number, name)], "float64") for name in ("query", "key"))
    rows, length = query.shape[:2]
    query = query.reshape(rows, length, attention.num_heads, -1).transpose(0, 2, 1, 3)
    key = key.reshape(rows, length, attention.num_key_value_heads, -1).transpose(0, 2, 1, 3)
    key = np.repeat(key, attention.num_heads // attention.num_key_value_heads, axis=1)
    scores = query @ key.swapaxes(2, 3) * attention.scale + np.asarray(found[bias_key(number)])
    exponents = np.exp(scores - scores.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_are_the_models(family):
    backbone = tiny.backbone(family)
    batch = tiny.inputs_for(backbone)
    taps = Taps(as_functional(backbone))
    assert len(taps) == 2
    wanted = backbone.forward(batch)["hidden_states"]
    found = taps.reader([0, 1, 2])(batch)
    for number, state in enumerate(wanted):
        np.testing.assert_allclose(np.asarray(found[state_key(number)]), np.asarray(state), atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_queries_keys_and_values_give_the_attention_of_the_block(family):
    """Put together in numpy, they are what the layer itself computes in inference."""
    backbone = tiny.backbone(family)
    batch = tiny.inputs_for(backbone)
    taps = Taps(as_functional(backbone))
    found = taps.reader([1], [(1, "value")])(batch)
    block, attention = taps.blocks[1].operation, taps.attention(1)
    seen = probabilities(backbone, batch, 1)
    value = np.asarray(found[projection_key(1, "value")], "float64")
    value = value.reshape(*value.shape[:2], attention.num_key_value_heads, -1).transpose(0, 2, 1, 3)
    value = np.repeat(value, attention.num_heads // attention.num_key_value_heads, axis=1)
    context = (seen @ value).transpose(0, 2, 1, 3).reshape(*batch["token_ids"].shape, -1)
    projected = context @ np.asarray(attention.output_projection.kernel)
    if attention.output_projection.use_bias:
        projected = projected + np.asarray(attention.output_projection.bias)

    whole = taps.reader(projections=[(1, "query")])(batch)
    function = keras.Model(taps.model.input, taps.blocks[1].arguments.kwargs["rotary"]) if family == "llama" else None
    rotary = {"rotary": function(batch)} if function else {}
    x = found[state_key(1)] if block.norm_placement == "post" else block.attention_norm(found[state_key(1)])
    wanted = np.asarray(attention(x, bias=whole[bias_key(1)], **rotary))
    np.testing.assert_allclose(projected, wanted, atol=2e-5)


@pytest.mark.reference
@pytest.mark.parametrize("family", ["bert", "albert", "gpt2", "llama"])
def test_attention_probabilities_are_transformers(family, tmp_path):
    import torch
    import transformers

    backbone = tiny.backbone(family)
    folder = checkpoints.save_pretrained(tmp_path / family, backbone, backbone.config)
    reference = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    batch = tiny.inputs_for(backbone)
    names = {"token_ids": "input_ids", "padding_mask": "attention_mask", "segment_ids": "token_type_ids"}
    inputs = {names[name]: torch.tensor(array).long() for name, array in batch.items()}
    with torch.inference_mode():
        outputs = reference(**inputs, output_attentions=True, output_hidden_states=True)
    real = batch["padding_mask"] == 1
    states = Taps(as_functional(backbone)).reader([0, 1])(batch)
    for number in (0, 1):
        found = probabilities(backbone, batch, number).transpose(0, 2, 1, 3)[real]
        wanted = outputs.attentions[number].numpy().transpose(0, 2, 1, 3)[real]
        np.testing.assert_allclose(found, wanted, atol=2e-5)
        state = np.asarray(states[state_key(number)])[real]
        np.testing.assert_allclose(state, outputs.hidden_states[number].numpy()[real], atol=2e-4)


def test_a_classifiers_last_state_is_its_first_token():
    classifier = tasks.TextClassifier(tiny.backbone(), ["a", "b"])
    batch = tiny.inputs_for(classifier)
    found = Taps(classifier).reader([1, 2], [(1, "query"), (1, "key")])(batch)
    whole = classifier.backbone.forward(batch)["hidden_states"]
    assert found[state_key(2)].shape == (3, 1, 32)
    np.testing.assert_allclose(np.asarray(found[state_key(2)]), np.asarray(whole[2])[:, :1], atol=2e-6)
    assert found[projection_key(1, "query")].shape == (3, 12, 32)  # of all tokens


def test_what_is_read_is_of_the_pass_that_gives_the_outputs():
    """With dropout: the head, on the state that was read, gives the logits that were read."""
    backbone = tiny.backbone(encoder__dropout=0.3)
    tagger = tasks.TokenClassifier(backbone, ["a", "b"])
    batch = tiny.inputs_for(tagger)
    read = Taps(tagger).reader([2])
    found, again = read(batch, training=True), read(batch, training=True)
    assert np.abs(np.asarray(found["output"]) - np.asarray(again["output"])).max() > 1e-3
    logits = tagger.heads["classifier"](found[state_key(2)])
    np.testing.assert_allclose(np.asarray(found["output"]), np.asarray(logits), atol=1e-6)


def test_layers_by_name_and_what_is_not_there():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(3, name="inner")(inputs)), name="plain")
    taps = Taps(model)
    assert taps.state("inner").shape == (None, 3)
    with pytest.raises(ValueError, match=r"plain has 0 layers 'outer'.*inner"):
        taps.state("outer")
    with pytest.raises(ValueError, match="plain has no Transformer block"):
        taps.state(1)
    of_bert = Taps(as_functional(tiny.backbone()))
    with pytest.raises(ValueError, match=r"hidden states 0 to 2 \(0: the embeddings\); the layer map names 3"):
        of_bert.state(3)
    with pytest.raises(ValueError, match="layers 0 to 1; the layer map names 2"):
        of_bert.attention(2)


def test_token_mask():
    assert module.token_mask(np.zeros((2, 3))) is None
    mask = module.token_mask({"padding_mask": np.array([[1, 2, 0]])})  # numbers of documents packed into a row
    np.testing.assert_array_equal(np.asarray(mask), [[1, 1, 0]])
