"""Relations of two marked entities: R-BERT's head by its formula, in Keras and in files, and on texts."""

import batteries
import keras
import numpy as np
import pytest
import tiny

from tfxformer import compression, data, export, tasks

TEXTS = [
    data.mark_entities("the cat sat on the mat", (4, 7), (19, 22)),
    data.mark_entities("the cat sat on the mat", (19, 22), (4, 7)),
    data.mark_entities("a very good film", (2, 11), (12, 16)),
]
LABELS = ["on", "under", "kind"]


def make(tokenizer, family="bert", seed=0, **arguments):
    loaded = tasks.TextClassifier(tiny.backbone(family, seed), LABELS, tokenizer=tokenizer)
    grown = compression.add_tokens(loaded, data.ENTITY_MARKERS)
    arguments = {"tokenizer": grown.tokenizer, "reads": "entities", **arguments}
    return tiny.perturb(tasks.TextClassifier(grown.backbone, LABELS, **arguments))


def by_formula(model, batch) -> np.ndarray:
    """Equations 1 to 5 of Wu and He (2019) in numpy, entities found token by token."""
    states = np.asarray(model.backbone(batch)["sequence_output"], "float64")
    weights = {path: value.astype("float64") for path, value in tiny.weights(model).items()}
    opening, closing = model.heads["classifier"].markers[::2], model.heads["classifier"].markers[1::2]

    def dense(name, x):
        return x @ weights[f"classifier/{name}/kernel"] + weights[f"classifier/{name}/bias"]

    logits = []
    for ids, vectors in zip(batch["token_ids"].tolist(), states, strict=True):
        parts = [dense("text", np.tanh(vectors[0]))]
        for begin, end in zip(opening, closing, strict=True):
            entity = vectors[ids.index(begin) + 1 : ids.index(end)]
            parts.append(dense("entity", np.tanh(entity.mean(0))))
        logits.append(dense("output", np.concatenate(parts)))
    return np.array(logits)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert"])
def test_logits_are_those_of_the_formula(family, tiny_tokenizer):
    model = make(tiny_tokenizer, family)
    batch = model.encode(TEXTS)
    assert len(set(map(tuple, batch["token_ids"].tolist()))) == 3
    np.testing.assert_allclose(np.asarray(model(batch)), by_formula(model, batch), atol=2e-5)
    padded = model.encode(TEXTS, sequence_length=32)
    np.testing.assert_allclose(np.asarray(model(padded)), by_formula(model, batch), atol=2e-5)


def test_the_order_of_the_entities_counts(tiny_tokenizer):
    model = make(tiny_tokenizer)
    first, second = model.predict(TEXTS[:2], verbose=0)
    assert np.abs(first - second).max() > 1e-4


def test_battery(tiny_tokenizer, tmp_path):
    model = make(tiny_tokenizer, "distilbert")
    model.fit(TEXTS * 4, LABELS * 4, batch_size=4, epochs=2, verbose=0)
    model.save(tmp_path / "relations.keras")
    again = keras.saving.load_model(tmp_path / "relations.keras")
    np.testing.assert_array_equal(again.predict(TEXTS, verbose=0), model.predict(TEXTS, verbose=0))
    assert again.reads == "entities"


def test_it_learns_what_is_marked(tiny_tokenizer, plain_kernels):
    """The text is the same, the marks alone tell the labels apart."""
    model = make(tiny_tokenizer, "distilbert")
    model.compile(learning_rate=1e-2)
    with batteries.steps(eager=False):
        model.fit(TEXTS[:2] * 16, LABELS[:2] * 16, batch_size=8, epochs=6, verbose=0)
    assert [LABELS[i] for i in model.predict(TEXTS[:2], verbose=0).argmax(-1)] == LABELS[:2]


def test_a_pooler_that_nothing_reads_is_not_trained(tiny_tokenizer):
    model = make(tiny_tokenizer)
    assert not [path for path in (v.path for v in model.trainable_variables) if path.startswith("pooler/")]


@pytest.mark.parametrize("quantization", ["float32", "dynamic_int8"])
def test_files_find_the_marks_by_their_ids(quantization, tiny_tokenizer, tmp_path):
    model = make(tiny_tokenizer)
    path = tmp_path / "relations.tflite"
    report = export.export_litert(model, path, quantization=quantization, sequence_length=16)
    assert report.error <= report.tolerance
    file, atol = export.LiteRTModel(path), 1e-5 if quantization == "float32" else 2e-2
    np.testing.assert_allclose(file.predict(TEXTS), model.predict(TEXTS, verbose=0), atol=atol)


def test_marks_are_no_words_of_an_explanation(tiny_tokenizer):
    found = make(tiny_tokenizer).explain(TEXTS[0])
    assert [word.text for word in found.words] == ["the", "cat", "sat", "on", "the", "mat"]
    total = sum(word.weight for word in found.words)
    np.testing.assert_allclose(total, found.score - found.baseline_score, atol=5e-3)


def test_the_usual_head_reads_marked_texts_too(tiny_tokenizer, tmp_path):
    grown = compression.add_tokens(
        tasks.TextClassifier(tiny.backbone(), LABELS, tokenizer=tiny_tokenizer), data.ENTITY_MARKERS
    )
    again = tasks.TextClassifier.from_pretrained(grown.save_pretrained(tmp_path / "marked"))
    np.testing.assert_allclose(again.predict(TEXTS, verbose=0), grown.predict(TEXTS, verbose=0), atol=1e-6)
    np.testing.assert_array_equal(again.encode(TEXTS)["token_ids"], grown.encode(TEXTS)["token_ids"])


def test_what_has_no_marks_is_refused(tiny_tokenizer, tmp_path):
    model = make(tiny_tokenizer)
    with pytest.raises(ValueError, match=r"1 of 2 texts lack marks .* texts\[1\], 'a cat', without \[E1\]"):
        model.predict([TEXTS[0], "a cat"], verbose=0)
    with pytest.raises(ValueError, match=r"without \[/E2\].*sequence_length than 10"):
        model.encode(TEXTS[:1], sequence_length=10, truncation=True)
    with pytest.raises(ValueError, match=r"tokens \[E1\], .*compression.add_tokens"):
        tasks.TextClassifier(tiny.backbone(), LABELS, tokenizer=tiny_tokenizer, reads="entities")
    with pytest.raises(ValueError, match="no tokenizer was given"):
        tasks.TextClassifier(tiny.backbone(), LABELS, reads="entities")
    with pytest.raises(ValueError, match="those of an encoder"):
        tasks.TextClassifier(tiny.backbone("gpt2"), LABELS, tokenizer=tiny_tokenizer, reads="entities")
    with pytest.raises(ValueError, match="wanted None, or 'entities'"):
        tasks.TextClassifier(tiny.backbone(), LABELS, tokenizer=tiny_tokenizer, reads="mean")
    with pytest.raises(ValueError, match=r"relations\.keras"):
        model.save_pretrained(tmp_path / "model")
