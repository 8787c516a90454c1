"""A classifier on an encoder with a decoder: against its pieces in numpy, and BART's of transformers."""

import batteries
import numpy as np
import pytest
import seq2seq_cases
import tiny

from tfxformer import compression, export, tasks

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
def test_it_is_the_classifier_of_transformers(tmp_path):
    import torch
    import transformers

    family, _, keys = seq2seq_cases.CASES["bart"]
    config = getattr(transformers, f"{family}Config")(
        **{**seq2seq_cases._ALL, **keys}, id2label=dict(enumerate(LABELS)), label2id={"entailment": 2}
    )
    torch.manual_seed(0)
    reference = transformers.BartForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.12)
    reference.save_pretrained(tmp_path / "theirs")
    made = seq2seq_cases.batch(config.pad_token_id)
    ids, mask = made["encoder_token_ids"], made["encoder_padding_mask"]
    ids[np.arange(len(ids)), mask.sum(axis=1) - 1] = config.eos_token_id

    def logits(model):
        with torch.inference_mode():
            return model(torch.from_numpy(ids).long(), torch.from_numpy(mask).long()).logits.numpy()

    with pytest.warns(UserWarning, match="no tokenizer files"):
        model = tasks.TextClassifier.from_pretrained(tmp_path / "theirs")
    assert model.labels == LABELS
    np.testing.assert_allclose(model({"token_ids": ids, "padding_mask": mask}), logits(reference), rtol=0, atol=2e-6)
    model.save_pretrained(tmp_path / "ours")
    opened = transformers.BartForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    np.testing.assert_array_equal(logits(opened), logits(reference))
