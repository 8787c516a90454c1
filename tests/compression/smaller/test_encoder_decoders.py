"""Encoders with decoders made smaller, one stack at a time: against hand-built and masked models, and transformers."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import seq2seq_cases
import tiny

import tfxformer
from tfxformer import compression, tasks
from tfxformer.text import Tokenizer

pytestmark = pytest.mark.usefixtures("plain_kernels", "eager")
PATHS = {"encoder": ("self_attention",), "decoder": ("self_attention", "cross_attention")}
SOURCES, TARGETS = tiny.TEXTS[:4], tiny.TEXTS[2:6]


def make(family="marian", **changes):
    layers = {"encoder__num_layers": 3, "decoder__num_layers": 3}
    return tiny.backbone(family, **layers, **changes)


def outputs(model):
    """What a random batch gives at the decoder's real tokens, and at the encoder's."""
    inputs = tiny.inputs_for(model)
    found = {name: np.asarray(x) for name, x in model(inputs).items()}
    return np.concatenate(
        [
            found["sequence_output"][inputs["decoder_padding_mask"] == 1],
            found["encoder_output"][inputs["encoder_padding_mask"] == 1],
        ]
    )


def own_tables():
    """A T5 with a table of distances for each layer, as UMT5 has them."""
    (kind,) = tiny.config("t5").decoder.attention.values()
    scores = dataclasses.replace(kind.scores, shared=False)
    return {f"{stack}__attention__scores": scores for stack in ("encoder", "decoder")}


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
@pytest.mark.parametrize("family", ["marian", "t5", "own tables"])
def test_fewer_layers_equal_the_model_of_these_layers(family, stack):
    big = make("t5", **own_tables()) if family == "own tables" else make(family)
    small = compression.remove_layers(big, (1, 2), stack=stack)
    assert {name: one.num_layers for name, one in small.config.stacks.items()} == {
        **{"encoder": 3, "decoder": 3},
        stack: 2,
    }
    wanted, values = tfxformer.build(small.config), tiny.weights(big)
    for variable in wanted.weights:
        first, slash, rest = variable.path.partition("/")
        name, _, index = first.rpartition("_")
        if name in (f"{stack}_block", f"{stack}_position_scores") and index.isdecimal():
            first = f"{name}_{int(index) + 1}"
        variable.assign(values[first + slash + rest])
    np.testing.assert_array_equal(outputs(small), outputs(wanted))
    assert np.abs(outputs(small) - outputs(big)).max() > 1e-2


def masked(big, stack, halves, kept):
    """Outputs of a model where the output rows of all but `kept` parts [halves, blocks, ...] are zeros."""
    before = big.get_weights()
    for half, rows in zip(halves, kept, strict=True):
        for block, parts in enumerate(rows):
            path = f"{stack}_block_{block}/{half}/output/kernel"
            (variable,) = [one for one in big.weights if one.path == path]
            count = big.config.stacks[stack].feed_forward.size if half == "feed_forward" else 4
            values = variable.numpy().reshape(count, -1, variable.shape[-1])
            values[[part for part in range(count) if part not in parts]] = 0.0
            variable.assign(values.reshape(variable.shape))
    found = outputs(big)
    big.set_weights(before)
    return found


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_fewer_heads_and_neurons_equal_the_masked_model(stack):
    big = make("bart")
    scores = compression.head_importance(big, stack=stack)
    assert scores.shape == ((3, 4) if stack == "encoder" else (2, 3, 4))
    best = np.argsort(-scores, axis=-1)[..., :2].reshape(-1, 3, 2)
    small = compression.remove_heads(big, 2, stack=stack)
    assert small.config.stacks[stack].heads == 2
    np.testing.assert_allclose(outputs(small), masked(big, stack, PATHS[stack], best), rtol=0, atol=1e-5)
    scores = compression.neuron_importance(big, stack=stack)
    best = np.argsort(-scores, axis=-1)[None, :, :16]
    small = compression.remove_neurons(big, 16, stack=stack)
    np.testing.assert_allclose(outputs(small), masked(big, stack, ("feed_forward",), best), rtol=0, atol=1e-5)
    assert np.abs(outputs(small) - outputs(big)).max() > 1e-2


def written(**arguments):
    """A task that reads texts."""
    tokenizer = Tokenizer.train_byte_level_bpe(tiny.TEXTS, 300)
    backbone = make("bart", vocabulary_size=tokenizer.vocabulary_size)
    return tiny.perturb(tasks.Seq2SeqLM(backbone, tokenizer=tokenizer, **arguments))


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_a_layer_that_adds_nothing_goes_first_and_changes_nothing(stack):
    big = written()
    for variable in big.weights:
        if variable.path.startswith(f"{stack}_block_1/") and "/output/" in variable.path:
            variable.assign(np.zeros(variable.shape, "float32"))
    # Norms behind each half would still change what goes through.
    data = (SOURCES, TARGETS)
    for importance in ("magnitude", "taylor"):
        assert compression.layer_importance(big, importance, data, stack=stack).argmin() == 1
    turns = compression.layer_importance(big, "activation", data, stack=stack)
    batch = big.encode(*data)
    states = big.backbone.forward(batch)["hidden_states" if stack == "decoder" else "encoder_hidden_states"]
    real = batch[f"{stack}_padding_mask"] == 1
    unit = [np.asarray(x)[real] / np.linalg.norm(np.asarray(x)[real], axis=-1, keepdims=True) for x in states]
    np.testing.assert_allclose(turns, [1 - (a * b).sum(-1).mean() for a, b in itertools.pairwise(unit)], rtol=1e-4)
    adds = compression.head_importance(big, "activation", data, stack=stack)
    assert (adds.reshape(-1, 3, 4).sum(axis=-1).argmin(axis=-1) == 1).all()


def test_a_smaller_vocabulary_writes_the_same():
    texts = [*SOURCES[:2], *TARGETS[:2]]
    tokenizer, ids = written().tokenizer.trimmed(texts)
    last = int(ids[-1])
    assert last > len(ids)  # it gets another number
    settings = {"forced_bos_token_id": last, "decoder_start_token_id": last}
    big = written(decoder_start_token_id=last, generation_config=settings)
    small = compression.trim_vocabulary(big, texts)
    assert small.tokenizer.vocabulary() == tokenizer.vocabulary()
    old, new = big.encode(SOURCES[:2], TARGETS[:2]), small.encode(SOURCES[:2], TARGETS[:2])
    np.testing.assert_array_equal(ids[new["decoder_token_ids"]], old["decoder_token_ids"])
    np.testing.assert_allclose(small(new), np.asarray(big(old))[..., ids], rtol=0, atol=1e-5)
    settings = small.generation_config
    assert small.decoder_start_token_id == settings.forced_bos_token_id == len(ids) - 1
    assert settings.to_dict()["decoder_start_token_id"] == len(ids) - 1
    with pytest.raises(ValueError, match="the token that targets begin behind, id 5, must be among"):
        compression.keep_tokens(tasks.Seq2SeqLM(make(), decoder_start_token_id=5), [0, 1, 2, 3])


def test_a_token_table_of_low_rank():
    big = make("t5")
    small = compression.factorize_embeddings(big, 8)
    (table,) = [one for one in big.weights if one.path == "token_embedding/embeddings"]
    left, scale, right = np.linalg.svd(table.numpy().astype("float64"), full_matrices=False)
    table.assign((left[:, :8] * scale[:8]) @ right[:8])
    np.testing.assert_allclose(outputs(small), outputs(big), rtol=0, atol=1e-5)


def test_a_smaller_task_goes_on(tmp_path):
    big = written()
    small = compression.remove_layers(compression.student_from(big, keep=1, stack="decoder"), (0, 2), stack="encoder")
    assert [one.num_layers for one in small.backbone.config.stacks.values()] == [2, 1]
    small.save_pretrained(tmp_path / "small")
    opened = tasks.Seq2SeqLM.from_pretrained(tmp_path / "small")
    batch = small.encode(SOURCES, TARGETS)
    np.testing.assert_array_equal(opened(batch), small(batch))
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    assert (config["encoder_layers"], config["decoder_layers"]) == (2, 1)
    small.compile(learning_rate=1e-2)
    history = small.fit(SOURCES, TARGETS, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]
    distiller = compression.Distiller(small, big)
    assert np.isfinite(distiller.evaluate(SOURCES, TARGETS, verbose=0)).all()


def test_what_it_refuses():
    model = make("t5")
    with pytest.raises(ValueError, match=r'EncoderDecoder has an encoder and a decoder, .*stack="encoder"'):
        compression.remove_layers(model, (0,))
    with pytest.raises(ValueError, match="stack='head' is not there; EncoderDecoder has encoder and decoder"):
        compression.remove_neurons(model, 16, stack="head")
    with pytest.raises(ValueError, match="stack='encoder' is not there; Decoder has decoder"):
        compression.student_from(tiny.backbone("gpt2"), 1, stack="encoder")
    with pytest.raises(ValueError, match="a table of distances is one for all layers"):
        compression.remove_heads(model, 2, stack="encoder")
    with pytest.raises(ValueError, match=r"finite numbers of shape \(2, 3, 4\)"):
        compression.remove_heads(make(), 2, np.ones((3, 4)), stack="decoder")


@pytest.mark.reference
@pytest.mark.parametrize("stack", ["encoder", "decoder"])
@pytest.mark.parametrize("name", ["t5-gated", "umt5", "bart", "pegasus"])
def test_layers_go_as_those_of_transformers_do(name, stack, tmp_path):
    import torch
    import transformers

    reference = seq2seq_cases.reference(name)
    reference.save_pretrained(tmp_path / "big")
    big = tasks.Seq2SeqLM.from_pretrained(tmp_path / "big")
    small = compression.remove_layers(big, (1,), stack=stack)
    small.save_pretrained(tmp_path / "small")
    batch = seq2seq_cases.batch(big.backbone.config.padding_id)
    side = getattr(reference, stack, None) or getattr(reference.model, stack)
    if "t5" in name:
        table = side.block[0].layer[0].SelfAttention
        if name != "umt5":  # the first layer has the table of all
            side.block[1].layer[0].SelfAttention.relative_attention_bias = table.relative_attention_bias
            side.block[1].layer[0].SelfAttention.has_relative_attention_bias = True
        side.block = torch.nn.ModuleList([side.block[1]])
        layers = [side.block[0]]
    else:
        side.layers = torch.nn.ModuleList([side.layers[1]])
        layers = [side.layers[0]]
    for module in layers[0].modules():
        if hasattr(module, "layer_idx"):
            module.layer_idx = 0
    wanted = seq2seq_cases.results(reference, batch)["logits"]
    np.testing.assert_allclose(small(batch), wanted, rtol=1e-5, atol=2e-5)
    opened = getattr(transformers, seq2seq_cases.CASES[name][1]).from_pretrained(tmp_path / "small")
    np.testing.assert_allclose(seq2seq_cases.results(opened.eval(), batch)["logits"], wanted, rtol=1e-5, atol=2e-5)
