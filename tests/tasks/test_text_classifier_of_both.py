"""A classifier on an encoder with a decoder: against its pieces in numpy, and BART's of transformers."""

import batteries
import numpy as np
import pytest
import seq2seq_cases
import tiny

import tfxformer
from tfxformer import compression, export, models, tasks

LABELS = ["contradiction", "neutral", "entailment"]


def make(tokenizer=None, family="bart", dtype=None, **arguments):
    layers = {"encoder__num_layers": 1, "decoder__num_layers": 1}
    return tiny.perturb(
        tasks.TextClassifier(tiny.backbone(family, dtype=dtype, **layers), LABELS, tokenizer=tokenizer, **arguments)
    )


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_it_reads_what_the_decoder_says_of_the_last_token(family):
    model = make(family=family)
    batch = tiny.batch(token_types=0)
    ids, mask = batch["token_ids"], batch["padding_mask"]
    start = np.full_like(ids[:, :1], model.backbone.config.padding_id)
    outputs = model.backbone(
        {
            "encoder_token_ids": ids,
            "encoder_padding_mask": mask,
            "decoder_token_ids": np.concatenate([start, ids[:, :-1]], axis=1),
            "decoder_padding_mask": mask,
        }
    )
    x = np.asarray(outputs["sequence_output"])[np.arange(len(ids)), mask.sum(axis=1) - 1]
    weights = tiny.weights(model)
    x = np.tanh(x @ weights["classifier/dense/kernel"] + weights["classifier/dense/bias"])
    wanted = x @ weights["classifier/output/kernel"] + weights["classifier/output/bias"]
    np.testing.assert_allclose(model(batch), wanted, rtol=0, atol=1e-5)
    longer = {name: np.pad(array, ((0, 0), (0, 5))) for name, array in batch.items()}
    np.testing.assert_allclose(model(longer), wanted, rtol=0, atol=1e-5)


def test_the_battery(tiny_tokenizer, tmp_path, plain_kernels):
    labels = [LABELS[index % 3] for index in range(len(tiny.TEXTS))]
    batteries.check_task(make(tiny_tokenizer), tiny.TEXTS, labels, tmp_path)


def test_it_is_asked_of_new_labels_and_made_smaller(tiny_tokenizer):
    model = make(tiny_tokenizer)
    found = model.zero_shot(tiny.TEXTS[:3], ["cat", "film"], verbose=0)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    small = compression.remove_neurons(model, 16, stack="decoder")
    assert small.zero_shot(tiny.TEXTS[:3], ["cat", "film"], verbose=0).shape == (3, 2)


def test_its_file_says_the_same(tiny_tokenizer, tmp_path):
    model = make(tiny_tokenizer, "t5")
    report = export.export_litert(model, tmp_path / "model.tflite", "float32", sequence_length=16)
    assert report.signatures == ("classify",)
    found = export.LiteRTModel(tmp_path / "model.tflite").predict(tiny.TEXTS[:4])
    np.testing.assert_allclose(found, model.predict(tiny.TEXTS[:4], verbose=0), rtol=0, atol=1e-5)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["bart", "mbart", "plbart", "t5-gated", "mt5", "umt5"])
def test_it_is_the_classifier_of_transformers(name, tmp_path):
    import torch
    import transformers
    from safetensors.numpy import load_file

    family, _, keys = seq2seq_cases.CASES[name]
    config = getattr(transformers, f"{family}Config")(
        **{**seq2seq_cases._ALL, **keys}, id2label=dict(enumerate(LABELS)), label2id={"entailment": 2}
    )
    torch.manual_seed(0)
    architecture = getattr(transformers, f"{family}ForSequenceClassification")
    reference = architecture(config).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.12)
    reference.save_pretrained(tmp_path / "theirs")
    made = seq2seq_cases.batch(config.pad_token_id)
    ids, mask = made["encoder_token_ids"], made["encoder_padding_mask"]
    behind = 1 if name in ("mbart", "plbart") else 0  # the language stands behind the end
    ids[np.arange(len(ids)), mask.sum(axis=1) - 1 - behind] = config.eos_token_id

    def logits(model):
        with torch.inference_mode():
            return model(torch.from_numpy(ids).long(), torch.from_numpy(mask).long()).logits.numpy()

    with pytest.warns(UserWarning, match="no tokenizer files"):
        model = tasks.TextClassifier.from_pretrained(tmp_path / "theirs")
    assert model.labels == LABELS
    np.testing.assert_allclose(model({"token_ids": ids, "padding_mask": mask}), logits(reference), rtol=0, atol=2e-6)
    model.save_pretrained(tmp_path / "ours")
    ours, theirs = (load_file(tmp_path / folder / "model.safetensors") for folder in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    opened = architecture.from_pretrained(tmp_path / "ours").eval()
    np.testing.assert_array_equal(logits(opened), logits(reference))
    # Its backbone alone is the one that the classifier stands on.
    inputs = {**made, "decoder_token_ids": ids, "decoder_padding_mask": mask}
    with pytest.warns(UserWarning, match="not used: classification_head"):
        bare = tfxformer.from_pretrained(tmp_path / "theirs")
    np.testing.assert_array_equal(bare(inputs)["sequence_output"], model.backbone(inputs)["sequence_output"])


def test_a_text_without_an_end_is_read_at_its_last_token():
    """Where the decoder begins with the text's last token; with an end, read there, whatever stands behind it."""
    model = make(family="bart")
    wraps = model.backbone.config.replace(heads__classifier_wraps=True)
    turned = tasks.TextClassifier(models.EncoderDecoder(wraps, reference_config={"eos_token_id": 2}), LABELS)
    turned.set_weights(model.get_weights())
    ids = np.array([[9, 8, 7, 6], [9, 8, 2, 6]], "int32")
    mask = np.ones_like(ids)
    inputs = {"encoder_token_ids": ids, "encoder_padding_mask": mask, "decoder_padding_mask": mask}
    outputs = model.backbone({**inputs, "decoder_token_ids": np.roll(ids, 1, axis=1)})
    wanted = np.asarray(outputs["sequence_output"])[[0, 1], [3, 2]]
    found = turned.backbone.summary_vector({"token_ids": ids, "padding_mask": mask})
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
