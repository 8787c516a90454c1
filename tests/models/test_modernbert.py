"""ModernBERT's shape (Warner et al., 2024, arXiv:2412.13663), built of a config alone, against torch."""

import batteries
import numpy as np
import pytest
import tiny

import tfxformer
from tfxformer import compression, export, tasks
from tfxformer.layers import Rotary
from tfxformer.models import AttentionConfig, FeedForwardConfig, NormConfig, StackConfig, TransformerConfig

LOCAL = 4  # tokens on either side
NAMES = ("query", "key", "value")


def config():
    """Rotary positions of two bases, one layer in three global, no biases, no norm in front of the first attention."""
    attention = AttentionConfig(4, rotary=Rotary(160000.0), bias=False)
    local = AttentionConfig(4, rotary=Rotary(), window=LOCAL, bias=False)
    stack = StackConfig(
        4, 32, {"full": attention, "local": local}, FeedForwardConfig(48, "gelu", gated=True, bias=False),
        NormConfig("pre", epsilon=1e-5, bias=False, final=True, first=False), pattern=("full", "local", "local"),
        max_positions=64, dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    return TransformerConfig("modernbert", tiny.VOCABULARY_SIZE, encoder=stack)


def backbone(dtype=None):
    return tiny.perturb(tfxformer.build(config(), dtype=dtype))


def test_what_it_is_made_of():
    model = backbone()
    assert model.stack.kinds == ("full", "local", "local", "full")
    assert TransformerConfig.from_dict(model.config.to_dict()) == model.config
    paths = set(tiny.weights(model))
    assert not any(path.endswith(("bias", "beta")) for path in paths)
    assert "encoder_block_0/attention_norm/gamma" not in paths and "encoder_block_1/attention_norm/gamma" in paths
    assert not any("position" in path for path in paths)


def test_battery(tmp_path):
    """Padding, graph forms, XLA, half precision, `.keras` files."""
    batteries.check_model(backbone, tmp_path)


def test_training_and_the_first_token_alone(plain_kernels):
    model = backbone()
    inputs = tiny.inputs_for(model, length=20)
    whole = model.forward(inputs)["sequence_output"]
    first = model.forward(inputs, first_only=True)["sequence_output"]
    np.testing.assert_allclose(np.asarray(first)[:, 0], np.asarray(whole)[:, 0], atol=2e-6)
    real = inputs["padding_mask"] == 1
    trained = np.asarray(model(inputs, training=True)["sequence_output"])
    np.testing.assert_allclose(trained[real], np.asarray(whole)[real], atol=1e-5)


def test_far_tokens_are_seen_through_global_layers_only():
    model = backbone()
    local = tfxformer.build(config().replace(encoder__pattern="local"))
    inputs = {"token_ids": np.arange(5, 45)[None].astype("int32"), "padding_mask": np.ones((1, 40), "int32")}
    changed = {**inputs, "token_ids": inputs["token_ids"].copy()}
    changed["token_ids"][0, -1] = 90
    for one, seen in ((model, True), (tiny.perturb(local), False)):
        before, after = (np.asarray(one(batch)["sequence_output"])[0, 0] for batch in (inputs, changed))
        assert (np.abs(before - after).max() > 1e-6) == seen


def test_a_task_learns_on_it(tiny_tokenizer, plain_kernels):
    task = tasks.MaskedLM(backbone(), tokenizer=tiny_tokenizer, sequence_length=8)
    history = task.fit(tiny.TEXTS, epochs=1, batch_size=8, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_fewer_layers_keep_their_kinds_and_the_first_its_place():
    small = compression.remove_layers(backbone(), (0, 2))
    assert small.stack.kinds == ("full", "local")
    with pytest.raises(ValueError, match=r"layer 1 cannot be the first\. Keep layer 0"):
        compression.remove_layers(backbone(), (1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["float32", "int8"])
def test_files_answer_as_keras_does(mode, tiny_tokenizer, tmp_path):
    """Within the tolerance of the mode, or the export would refuse."""
    task = tasks.TextEmbedder(backbone(), tokenizer=tiny_tokenizer, sequence_length=16)
    representative = {"representative": tiny.TEXTS} if mode == "int8" else {}
    report = export.export_litert(task, tmp_path / "m.tflite", quantization=mode, sequence_length=16, **representative)
    assert report.error <= report.tolerance


def classifier(tokenizer, pooling="mean"):
    heads = {"classifier_activation": "gelu", "classifier_pooling": pooling, "transform": True, "transform_bias": False}
    changed = config().replace(**{f"heads__{name}": value for name, value in heads.items()})
    model = tiny.perturb(tfxformer.build(changed))
    return tiny.perturb(tasks.TextClassifier(model, ["a", "b"], tokenizer=tokenizer, sequence_length=16))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_classifier_reads_the_first_token_or_the_mean_of_the_real_ones(pooling, tiny_tokenizer):
    task = classifier(tiny_tokenizer, pooling)
    inputs = tiny.inputs_for(task.backbone)
    states, real = np.asarray(task.backbone(inputs)["sequence_output"]), inputs["padding_mask"] == 1
    rows = zip(states, real, strict=True)
    vectors = np.stack([row[0] if pooling == "cls" else row[seen].mean(0) for row, seen in rows])
    wanted = np.asarray(task.heads["classifier"](vectors))
    np.testing.assert_allclose(np.asarray(task(inputs)), wanted, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["float32", "int8"])
def test_files_of_a_classifier_answer_as_keras_does(mode, tiny_tokenizer, tmp_path):
    representative = {"representative": tiny.TEXTS} if mode == "int8" else {}
    task, options = classifier(tiny_tokenizer), {"quantization": mode, "sequence_length": 16, **representative}
    report = export.export_litert(task, tmp_path / "m.tflite", **options)
    assert report.error <= report.tolerance


@pytest.mark.reference
def test_equals_torch():
    import torch
    import transformers

    described = transformers.ModernBertConfig(
        vocab_size=tiny.VOCABULARY_SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=4,
        num_attention_heads=4, local_attention=2 * LOCAL, max_position_embeddings=64, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, cls_token_id=1, sep_token_id=2, attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.ModernBertModel(described).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    ours = backbone()
    tensors = {name: tensor.detach().numpy() for name, tensor in theirs.state_dict().items()}
    values = {
        "token_embedding/embeddings": tensors["embeddings.tok_embeddings.weight"],
        "embedding_norm/gamma": tensors["embeddings.norm.weight"],
        "final_norm/gamma": tensors["final_norm.weight"],
    }
    for layer in range(4):
        there, here = f"layers.{layer}.", f"encoder_block_{layer}/"
        parts = np.split(tensors[f"{there}attn.Wqkv.weight"], 3)
        values |= {f"{here}self_attention/{name}/kernel": part.T for name, part in zip(NAMES, parts, strict=True)}
        values[f"{here}self_attention/output/kernel"] = tensors[f"{there}attn.Wo.weight"].T
        gate, expand = np.split(tensors[f"{there}mlp.Wi.weight"], 2)
        values |= {f"{here}feed_forward/gate/kernel": gate.T, f"{here}feed_forward/expand/kernel": expand.T}
        values[f"{here}feed_forward/output/kernel"] = tensors[f"{there}mlp.Wo.weight"].T
        values[f"{here}feed_forward_norm/gamma"] = tensors[f"{there}mlp_norm.weight"]
        if layer:
            values[f"{here}attention_norm/gamma"] = tensors[f"{there}attn_norm.weight"]
    for variable in ours.variables:
        if variable.name != "seed_generator_state":
            variable.assign(values.pop(variable.path))
    assert not values
    inputs = tiny.batch(rows=3, length=40, token_types=0)
    with torch.no_grad():
        wanted = theirs(
            torch.tensor(inputs["token_ids"]).long(), attention_mask=torch.tensor(inputs["padding_mask"]).long()
        ).last_hidden_state.numpy()
    real = inputs["padding_mask"] == 1
    found = np.asarray(ours(inputs)["sequence_output"])
    np.testing.assert_allclose(found[real], wanted[real], atol=1e-5)
    assert np.abs(wanted[real]).max() > 0.5
