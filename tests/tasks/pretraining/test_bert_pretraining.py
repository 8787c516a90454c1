"""BertPretraining: its two losses by hand, its logits against transformers."""

import batteries
import keras
import numpy as np
import pytest
import tiny
from checkpoint_folders import outputs_in_transformers
from optional_tensorflow import tf

from tfxformer import tasks
from tfxformer.data import Records, rows_of, write_records

pytestmark = pytest.mark.usefixtures("plain_kernels")

DOCUMENTS = [
    ["good film", "bad plot", "a very good cat", "the dog sat"],
    ["the bad dog sat", "good code ran fast"],
    ["bad engine is slow", "ada wrote it"],
] * 3


def make(tokenizer=None, family="bert", dtype=None, **arguments):
    backbone = tiny.backbone(family, dtype=dtype, heads__pooler=True, encoder__num_layers=1)
    return tiny.perturb(tasks.BertPretraining(backbone, tokenizer=tokenizer, **arguments))


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_battery_of_the_model(family, tmp_path):
    half = family == "bert"
    batteries.check_model(lambda dtype=None: make(family=family, dtype=dtype), tmp_path, half=half, xla=False)


@pytest.mark.parametrize("objective", ["next", "order"])
def test_both_losses_are_means_over_what_they_ask(tiny_tokenizer, objective):
    model = make(tiny_tokenizer, sequence_length=16, masking_rate=0.5, sentence_objective=objective)
    found = model.evaluate(DOCUMENTS, batch_size=64, verbose=0, return_dict=True)
    batches = model._hiding(DOCUMENTS, 64)
    (inputs, labels, weights) = batches[0]
    pairs = model.pairs(DOCUMENTS)
    assert len(batches) == 1 and sorted(labels["sentences"]) == sorted(pairs.labels)
    assert set(pairs.labels) == {0, 1}
    plain = {name: array for name, array in inputs.items() if name != "masked_positions"}
    logits = {name: np.asarray(value).astype("float64") for name, value in model(plain).items()}
    shares = {name: value - np.log(np.exp(value).sum(-1, keepdims=True)) for name, value in logits.items()}
    rows, columns = np.nonzero(inputs["masked_positions"] >= 0)
    places = inputs["masked_positions"][rows, columns]
    tokens = -shares["tokens"][rows, places, labels["tokens"][rows, columns]].mean()
    assert weights["tokens"].sum() == len(rows)
    sentences = -shares["sentences"][np.arange(len(pairs.labels)), labels["sentences"]].mean()
    np.testing.assert_allclose(found["tokens_loss"], tokens, rtol=1e-5)
    np.testing.assert_allclose(found["sentences_loss"], sentences, rtol=1e-5)
    np.testing.assert_allclose(found["loss"], tokens + sentences, rtol=1e-5)


def test_fit_save_and_fine_tune(tiny_tokenizer, tmp_path):
    model = make(tiny_tokenizer, sequence_length=16)
    model.compile(learning_rate=5e-3)
    history = model.fit(DOCUMENTS, batch_size=8, epochs=4, verbose=0, validation_data=DOCUMENTS).history
    assert history["loss"][-1] < history["loss"][0] and len(history["val_sentences_accuracy"]) == 4
    asked = ["good [MASK]", "the [MASK] sat"]
    wanted = model.predict(asked, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.predict(asked, verbose=0) == wanted and again.sentence_objective == "next"
    folder = model.save_pretrained(tmp_path / "folder")
    batteries.check_same_weights(tasks.BertPretraining.from_pretrained(folder), model)
    with pytest.warns(UserWarning, match="seq_relationship"):
        assert tasks.MaskedLM.from_pretrained(folder).predict(asked, verbose=0) == wanted
    with pytest.warns(UserWarning, match="classifier"):
        classifier = tasks.TextClassifier.from_pretrained(folder, labels=tiny.LABELS[:2])
    pooler = tiny.weights(model)["pooler/kernel"]
    np.testing.assert_array_equal(tiny.weights(classifier)["pooler/kernel"], pooler)


def test_records_keep_the_sentence_labels(tiny_tokenizer, tmp_path):
    model = make(tiny_tokenizer, sequence_length=16)
    pairs = model.pairs(DOCUMENTS)._asdict()
    pairs["sentence_labels"] = pairs.pop("labels")
    write_records(rows_of(pairs), tmp_path / "records", shards=2)
    dataset = Records(tmp_path / "records").dataset(4)
    (first, labels, weights), *_ = model.mask_batches(dataset).as_numpy_iterator()
    of_epochs = next(iter(model.epochs(Records(tmp_path / "records"), 4).next_epoch(0)))
    assert of_epochs[1].keys() == labels.keys()
    np.testing.assert_array_equal(labels["sentences"], pairs["sentence_labels"][:4])
    assert "sentence_labels" not in first and (weights["sentences"] == 1).all()
    assert isinstance(dataset, tf.data.Dataset)
    assert np.isfinite(model.fit(dataset, verbose=0).history["loss"]).all()


def test_bad_input(tiny_tokenizer):
    with pytest.raises(ValueError, match=r"segments and a pooler.*token_types=0"):
        tasks.BertPretraining(tiny.backbone("distilbert"))
    with pytest.raises(ValueError, match="next, order"):
        make(sentence_objective="previous")
    with pytest.raises(TypeError, match="list of sentences"):
        make(tiny_tokenizer).fit(["a text", "another"])


@pytest.mark.reference
@pytest.mark.parametrize(
    ("family", "architecture", "key"),
    [("bert", "BertForPreTraining", "seq_relationship_logits"), ("albert", "AlbertForPreTraining", "sop_logits")],
)
def test_logits_are_those_of_transformers(family, architecture, key, tmp_path):
    model = make(family=family)
    inputs = tiny.inputs_for(model)
    wanted = outputs_in_transformers(architecture, model.save_pretrained(tmp_path / "folder"), inputs)
    found, valid = model(inputs), inputs["padding_mask"].astype(bool)
    assert np.abs(np.asarray(found["tokens"]) - wanted.prediction_logits.numpy())[valid].max() < 1e-5
    assert np.abs(np.asarray(found["sentences"]) - wanted[key].numpy()).max() < 1e-5
