"""LiteRTModel: raw text in, the task's own answers out, without Keras."""

import warnings

import litert_files
import numpy as np
import pytest
from export_cases import TEXTS, keras_probabilities

from tfxformer import export


@pytest.fixture(scope="module")
def model():
    return export.LiteRTModel(litert_files.exported("float32", 16, 48)[0])


def test_classifier_equals_keras(classifier, model):
    np.testing.assert_allclose(model.predict(TEXTS), keras_probabilities(classifier, TEXTS, 48), atol=1e-5)
    assert model.task == "text-classification"
    assert model.labels == ["negative", "neutral", "positive"]
    assert model.quantization == "float32"
    assert model.sequence_length == 48
    assert sorted(model.signatures) == ["classify_16", "classify_48"]


def test_smallest_signature_that_fits_is_taken(model, monkeypatch):
    taken, run = [], model._interpreters.run
    monkeypatch.setattr(model._interpreters, "run", lambda name, batch: taken.append(name) or run(name, batch))
    model.predict([TEXTS[0], TEXTS[2]])
    assert taken == ["classify_16", "classify_48"]


def test_pairs(classifier, model):
    encoding = classifier.tokenizer.encode([TEXTS[0]], [TEXTS[1]], sequence_length=48)
    logits = np.asarray(classifier({t.name: getattr(encoding, t.name) for t in classifier.inputs}))[0]
    wanted = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(model.predict([(TEXTS[0], TEXTS[1])])[0], wanted, atol=1e-5)
    np.testing.assert_allclose(model.predict([TEXTS[0]], [TEXTS[1]])[0], wanted, atol=1e-5)


def test_long_texts_are_cut_with_one_warning(model):
    long = TEXTS[2] * 5
    with pytest.warns(UserWarning, match="1 of 2 texts were longer"):
        model.predict([long, TEXTS[0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict([long])
    with pytest.raises(ValueError):
        model.predict([long], truncation=False)


@pytest.mark.parametrize(
    ("signature", "texts"),
    [
        ("tag", [text.split() for text in TEXTS]),
        ("answer", [("who paid?", TEXTS[3] * 4), ("where?", TEXTS[1])]),
    ],
)
def test_other_tasks_answer_like_the_task(signature, texts):
    task, path, _ = litert_files.other(signature)
    got, wanted = export.LiteRTModel(path).predict(texts), task.predict(texts, verbose=0)
    if signature == "tag":
        assert got == wanted
    else:
        assert [a[0].text for a in got] == [a[0].text for a in wanted]
        np.testing.assert_allclose([a[0].score for a in got], [a[0].score for a in wanted], atol=1e-4)


@pytest.mark.parametrize("aggregation", ["first", "mean"])
def test_entities_are_those_of_the_task(aggregation, model):
    task, path, _ = litert_files.other("tag")
    got = export.LiteRTModel(path).entities(TEXTS, aggregation=aggregation)
    wanted = task.entities(TEXTS, aggregation=aggregation, verbose=0)
    assert sum(map(len, got)) > len(TEXTS)
    for found, entities in zip(got, wanted, strict=True):
        assert [(e.label, e.start, e.end) for e in found] == [(e.label, e.start, e.end) for e in entities]
        np.testing.assert_allclose([e.score for e in found], [e.score for e in entities], atol=1e-5)
    with pytest.raises(ValueError, match="token-classification"):
        model.entities(TEXTS)


def test_entities_of_a_long_text_are_where_its_labels_are():
    file = export.LiteRTModel(litert_files.other("tag")[1])
    words = (TEXTS[2] * 5).split()
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    tags = file.predict([words])[0]
    begins = [index for index, tag in enumerate(tags) if tag != "O" and (tag == "B-X" or tags[index - 1] == "O")]
    assert max(begins) > 48
    assert [entity.start for entity in file.entities([words])[0]] == [int(starts[index]) for index in begins]


def test_masked_words(tokenizer):
    task, path, _ = litert_files.other("fill_mask")
    text = "good [MASK] the [MASK]"
    got = export.LiteRTModel(path).predict([text], top_k=3)
    encoding = tokenizer.encode([text], sequence_length=16)
    logits = np.asarray(task({t.name: getattr(encoding, t.name) for t in task.inputs}))[0]
    vocabulary = tokenizer.vocabulary()
    for found, position in zip(got[0], np.flatnonzero(encoding.token_ids[0] == tokenizer.mask_id), strict=True):
        row = np.exp(logits[position] - logits[position].max())
        best = np.argsort(-row)[:3]
        assert [filling.token_id for filling in found] == list(best)
        assert [filling.token for filling in found] == [vocabulary[i].strip() for i in best]
        np.testing.assert_allclose([filling.probability for filling in found], row[best] / row.sum(), rtol=1e-4)


def test_foreign_file_runs_on_arrays_only(plain_model, tmp_path):
    export.export_litert(plain_model, tmp_path / "plain.tflite", "float32")
    model = export.LiteRTModel(tmp_path / "plain.tflite")
    features = np.ones((1, 16), "float32")
    np.testing.assert_allclose(
        model.run("serving_default", {"features": features})["output"], plain_model(features), atol=1e-5
    )
    with pytest.raises(ValueError, match="call run"):
        model.predict(["text"])
    with pytest.raises(ValueError, match="wants 'features'"):
        model.run("serving_default", {})
    with pytest.raises(ValueError, match="no signature 'other'"):
        model.run("other", {})


def test_bad_paths(tmp_path):
    for opener in (export.LiteRTModel, export.LiteRTGenerator, export.inspect):
        with pytest.raises(FileNotFoundError, match=r"no file '.*absent\.tflite': name a \.tflite file"):
            opener(tmp_path / "absent.tflite")
    (tmp_path / "mine.tflite").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"no file '.*absent\.tflite': its folder has mine\.tflite\."):
        export.LiteRTModel(tmp_path / "absent.tflite")
    (tmp_path / "text.tflite").write_text("hello, world")
    with pytest.raises(ValueError, match=r"no \.tflite file"):
        export.LiteRTModel(tmp_path / "text.tflite")
