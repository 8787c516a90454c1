"""TextClassifier: problem types, pairs, labels; predictions against the graph's own pieces in numpy."""

import json

import batteries
import keras
import numpy as np
import pytest
import tiny

from tfxformer import tasks
from tfxformer.checkpoints import CheckpointError
from tfxformer.tasks.text_classifier import inference_columns

FAMILIES = ["bert", "roberta", "distilbert", "albert", "electra"]


def make(tokenizer=None, family="bert", labels=("negative", "positive"), dtype=None, **arguments):
    return tiny.perturb(
        tasks.TextClassifier(
            tiny.backbone(family, dtype=dtype, encoder__num_layers=1), list(labels), tokenizer=tokenizer, **arguments
        )
    )


def test_battery_with_texts(tiny_tokenizer, tmp_path, clusters_of_any_size):
    """The one task test that runs the training kernels as CPUs do."""
    batteries.check_task(make(tiny_tokenizer), tiny.TEXTS, tiny.LABELS, tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_battery_of_the_model(family, tmp_path):
    batteries.check_model(lambda dtype=None: make(family=family, dtype=dtype), tmp_path, half=family == "bert")


@pytest.mark.parametrize("family", FAMILIES)
def test_prediction_is_softmax_of_the_head(family, tiny_tokenizer):
    model = make(tiny_tokenizer, family)
    batch = model.encode(tiny.TEXTS[:4])
    outputs = model.backbone(batch)
    weights = tiny.weights(model)
    if model.backbone.config.heads.pooler:
        first = np.asarray(outputs["pooled_output"])
    else:
        activate = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0), "gelu": keras.ops.gelu}
        name = model.backbone.config.heads.classifier_activation
        x = np.asarray(outputs["sequence_output"])[:, 0] @ weights["classifier/dense/kernel"]
        x = x + weights["classifier/dense/bias"]
        first = np.asarray(keras.ops.gelu(x, approximate=False) if name == "gelu" else activate[name](x))
    logits = first @ weights["classifier/output/kernel"] + weights["classifier/output/bias"]
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(np.asarray(model(batch)), logits, atol=1e-5)
    np.testing.assert_allclose(model.predict(tiny.TEXTS[:4], verbose=0), shares, atol=1e-5)


@pytest.mark.parametrize("size", [3, 5, 7, 10])
def test_the_last_batch_is_traced_with_the_others(size, tiny_tokenizer, monkeypatch, traced):
    model, traces = make(tiny_tokenizer), []
    step = type(model).predict_step
    monkeypatch.setattr(type(model), "predict_step", lambda *given: traces.append(1) or step(*given))
    batch = model.encode((tiny.TEXTS * 2)[:7])
    found = model.logits(batch, batch_size=size, verbose=0)
    np.testing.assert_allclose(found, np.asarray(model(batch)), atol=1e-5)
    assert len(traces) == 1


def test_pairs(tiny_tokenizer, plain_kernels):
    model = make(tiny_tokenizer)
    pairs = [("good film", "bad plot"), ("a cat", "the dog sat")] * 8
    model.fit(pairs, [0, 1] * 8, batch_size=8, verbose=0)
    batch = model.encode(pairs[:1])
    ids = tiny_tokenizer.encode(["good film"], ["bad plot"], sequence_length=16)
    np.testing.assert_array_equal(batch["token_ids"], ids.token_ids)
    assert batch["segment_ids"][0].sum() == 3  # bad plot [SEP]
    swapped = [(second, first) for first, second in pairs[:2]]
    assert np.abs(model.predict(pairs[:2], verbose=0) - model.predict(swapped, verbose=0)).max() > 1e-5


def test_multi_label(tiny_tokenizer, tmp_path, plain_kernels):
    labels = ["good", "animal", "fast"]
    model = make(tiny_tokenizer, labels=labels, problem_type="multi_label_classification")
    names = [["good"], [], ["good", "animal"], ["animal"], ["good", "fast"], []] * 4
    rows = np.array([[label in one for label in labels] for one in names], "float32")
    by_name = model.fit(tiny.TEXTS, names, batch_size=8, shuffle=False, verbose=0).history
    again = make(tiny_tokenizer, labels=labels, problem_type="multi_label_classification")
    by_row = again.fit(tiny.TEXTS, rows, batch_size=8, shuffle=False, verbose=0).history
    np.testing.assert_allclose(by_name["loss"], by_row["loss"], rtol=1e-6)
    logits = np.asarray(model(model.encode(tiny.TEXTS[:6])))
    np.testing.assert_allclose(model.predict(tiny.TEXTS[:6], verbose=0), 1 / (1 + np.exp(-logits)), atol=1e-6)
    entropy = np.maximum(logits, 0) - logits * rows[:6] + np.log1p(np.exp(-np.abs(logits)))
    loss, accuracy = model.evaluate(tiny.TEXTS[:6], names[:6], verbose=0)
    np.testing.assert_allclose([loss, accuracy], [entropy.mean(), ((logits > 0) == rows[:6]).mean()], rtol=1e-5)
    folder = model.save_pretrained(tmp_path / "folder")
    assert json.loads((folder / "config.json").read_text())["problem_type"] == "multi_label_classification"
    assert tasks.TextClassifier.from_pretrained(folder).problem_type == "multi_label_classification"


def test_regression(tiny_tokenizer, plain_kernels):
    model = make(tiny_tokenizer, labels=["score"], problem_type="regression")
    scores = [float(len(text)) / 10 for text in tiny.TEXTS]
    model.fit(tiny.TEXTS, scores, batch_size=8, verbose=0)
    predicted = model.predict(tiny.TEXTS, verbose=0)
    np.testing.assert_allclose(predicted, np.asarray(model(model.encode(tiny.TEXTS))), atol=1e-6)
    loss, error = model.evaluate(tiny.TEXTS, scores, verbose=0)
    difference = predicted[:, 0] - np.array(scores, "float32")
    np.testing.assert_allclose([loss, error], [(difference**2).mean(), np.abs(difference).mean()], rtol=1e-5)


def test_loss_is_cross_entropy(tiny_tokenizer):
    model = make(tiny_tokenizer)
    loss, accuracy = model.evaluate(tiny.TEXTS[:6], tiny.LABELS[:6], verbose=0)
    shares = model.predict(tiny.TEXTS[:6], verbose=0)
    ids = np.array([1, 0] * 3)
    np.testing.assert_allclose(loss, -np.log(shares[np.arange(6), ids]).mean(), rtol=1e-5)
    assert accuracy == pytest.approx((shares.argmax(-1) == ids).mean())


def test_sample_weights(tiny_tokenizer):
    model = make(tiny_tokenizer)
    weights = np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    weighted = model.evaluate(tiny.TEXTS[:6], tiny.LABELS[:6], sample_weight=weights, verbose=0)[0]
    alone = model.evaluate(tiny.TEXTS[:1], tiny.LABELS[:1], verbose=0)[0]
    np.testing.assert_allclose(weighted, alone / 6, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labels": ["a"]}, ValueError, "no choice"),
        ({"labels": ["a", "a"]}, ValueError, "come once"),
        ({"labels": "ab"}, TypeError, "list of names"),
        ({"labels": [1, 2]}, TypeError, "each a str"),
        (
            {"labels": ["a", "b"], "problem_type": "ranking"},
            ValueError,
            "Unknown problem_type 'ranking'; known: single",
        ),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        tasks.TextClassifier(tiny.backbone(), **arguments)


def test_labels_of_a_folder(tiny_tokenizer, tmp_path):
    model = make(tiny_tokenizer, labels=["cat", "dog", "neither"], sequence_length=32)
    folder = model.save_pretrained(tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "cat", "1": "dog", "2": "neither"}
    assert config["label2id"] == {"cat": 0, "dog": 1, "neither": 2}
    assert config["architectures"] == ["BertForSequenceClassification"]
    opened = tasks.TextClassifier.from_pretrained(folder)
    assert (opened.labels, opened.sequence_length) == (["cat", "dog", "neither"], 32)
    assert tasks.TextClassifier.from_pretrained(folder, labels=["x", "y", "z"]).labels == ["x", "y", "z"]
    with pytest.raises(CheckpointError, match="do the labels match"):
        tasks.TextClassifier.from_pretrained(folder, labels=["x", "y"])
    for key in ("id2label", "label2id", "num_labels"):  # as transformers saves two labels without names
        config.pop(key)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="do the labels match"):
        tasks.TextClassifier.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    with pytest.raises(ValueError, match=r"names no labels: pass labels="):
        tasks.TextClassifier.from_pretrained(folder)


def test_backbone_without_pooler(tiny_tokenizer):
    with pytest.raises(ValueError, match="this backbone has no pooler"):
        tasks.TextClassifier(tiny.backbone(heads__pooler=False), ["a", "b"])
    tasks.TextClassifier(tiny.backbone("roberta"), ["a", "b"])  # reads the first token instead


def test_labels_in_another_order_than_the_head_learned_them(tiny_tokenizer, tmp_path):
    folder = make(tiny_tokenizer).save_pretrained(tmp_path / "folder")
    assert tasks.TextClassifier.from_pretrained(folder, labels=["negative", "positive"]).labels[0] == "negative"
    with pytest.raises(ValueError, match="was trained for"):
        tasks.TextClassifier.from_pretrained(folder, labels=["positive", "negative"])


def inference(tokenizer, labels=("contradiction", "neutral", "entailment")):
    return make(tokenizer, labels=labels)


def test_zero_shot_asks_each_pair(tiny_tokenizer):
    model, texts, topics = inference(tiny_tokenizer), tiny.TEXTS[:3], ["cat", "dog"]
    pairs = [(text, f"it is a {topic}") for text in texts for topic in topics]
    logits = model.logits(pairs, verbose=0).reshape(3, 2, 3).astype("float64")
    shares = np.exp(logits[..., 2]) / np.exp(logits[..., 2]).sum(-1, keepdims=True)
    asked = {"template": "it is a {}", "verbose": 0}
    np.testing.assert_allclose(model.zero_shot(texts, topics, **asked), shares, atol=1e-5)
    each = 1 / (1 + np.exp(logits[..., 0] - logits[..., 2]))
    np.testing.assert_allclose(model.zero_shot(texts, topics, multi_label=True, **asked), each, atol=1e-5)
    np.testing.assert_allclose(model.zero_shot(texts, topics[:1], **asked), each[:, :1], atol=1e-5)
    long = " ".join(["film"] * 90)
    model.sequence_length = 16
    with pytest.warns(UserWarning, match="lost their end"):
        cut = model.zero_shot([long], topics, **asked)
    short = model.zero_shot([" ".join(["film"] * 9)], topics, **asked)  # 3 special tokens, 4 of the sentence
    np.testing.assert_allclose(cut, short, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "columns"),
    [
        (("ENTAILMENT", "neutral", "contradiction"), (0, 2)),
        (("neutral", "contradiction", "entailment"), (2, 1)),
        (("entailment", "not_entailment"), (0, 1)),
        (("LABEL_0", "entailment"), (1, 0)),
    ],
)
def test_the_columns_of_inference(labels, columns):
    assert inference_columns(labels, "single_label_classification") == columns


def test_zero_shot_refuses(tiny_tokenizer):
    with pytest.raises(ValueError, match="one of whose labels is entailment; the labels of this one are negative"):
        make(tiny_tokenizer).zero_shot(["a cat"], ["cat"])
    model = inference(tiny_tokenizer)
    with pytest.raises(ValueError, match=r"has no \{\}"):
        model.zero_shot(["a cat"], ["cat"], template="it is")
    with pytest.raises(ValueError, match="got 1 and 0"):
        model.zero_shot(["a cat"], [])
    with pytest.raises(TypeError, match="labels"):
        model.zero_shot(["a cat"], "cat")


@pytest.mark.reference
@pytest.mark.parametrize("multi_label", [False, True])
def test_zero_shot_is_that_of_transformers(multi_label, tiny_tokenizer, tmp_path):
    import transformers

    model, topics = inference(tiny_tokenizer), ["cat", "engine", "film"]
    model.save_pretrained(tmp_path / "mnli")
    reference = transformers.pipeline("zero-shot-classification", str(tmp_path / "mnli"))
    found = model.zero_shot(tiny.TEXTS[:4], topics, multi_label=multi_label, verbose=0)
    for row, wanted in zip(found, reference(tiny.TEXTS[:4], topics, multi_label=multi_label), strict=True):
        scores = dict(zip(wanted["labels"], wanted["scores"], strict=True))
        np.testing.assert_allclose(row, [scores[topic] for topic in topics], atol=1e-5)
