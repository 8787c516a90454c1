"""MultiTask: logits and losses are those of its tasks alone."""

import keras
import numpy as np
import pytest
import tiny

from tfxformer import tasks

pytestmark = pytest.mark.usefixtures("plain_kernels")

WORDS = [["good", "film"], ["the", "bad", "dog", "sat"], ["ada", "wrote", "code"]] * 4
TAGS = [["A", "N"], ["O", "A", "N", "O"], ["N", "O", "N"]] * 4
QUESTIONS = [("who wrote it", "ada wrote it")] * 3
ANSWERS = [{"text": "ada", "answer_start": 0}] * 3
MIXTURE = {"topic": (tiny.TEXTS, tiny.LABELS), "tags": (WORDS, TAGS), "answers": (QUESTIONS, ANSWERS)}


def make(tokenizer, **arguments):
    encoder = tiny.backbone(heads__pooler=True, encoder__num_layers=1)
    parts = {
        "topic": tasks.TextClassifier(encoder, labels=["negative", "positive"], tokenizer=tokenizer),
        "tags": tasks.TokenClassifier(encoder, labels=["A", "N", "O"], tokenizer=tokenizer),
        "answers": tasks.QuestionAnswering(encoder, tokenizer=tokenizer),
    }
    return tiny.perturb(tasks.MultiTask(parts, **arguments))


def test_logits_are_those_of_the_tasks(tiny_tokenizer):
    model = make(tiny_tokenizer)
    inputs = tiny.inputs_for(model)
    for name, logits in model(inputs).items():
        np.testing.assert_allclose(np.asarray(logits), np.asarray(model.tasks[name](inputs)), atol=1e-6)


def test_every_example_counts_once_in_its_own_loss(tiny_tokenizer):
    model = make(tiny_tokenizer, sequence_length=16)
    found = model.evaluate(MIXTURE, batch_size=64, verbose=0, return_dict=True)
    total = 0.0
    for name, (x, y) in MIXTURE.items():
        task = model.tasks[name]
        inputs, labels, weights = task.prepare(task.read(x, y))
        logits = np.asarray(task(inputs)).astype("float64")
        if name == "answers":  # the first and the last token, each out of all
            shares = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            losses = -np.stack([shares[np.arange(len(labels)), labels[:, i], i] for i in (0, 1)]).mean(0)
        else:
            shares = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            losses = -np.take_along_axis(shares, labels[..., None], -1)[..., 0]
        if losses.ndim == 2:  # the mean over a text's labelled tokens
            losses = (losses * weights).sum(1) / weights.sum(1)
        total += losses.sum()
    count = len(tiny.TEXTS) + len(WORDS) + len(QUESTIONS)
    np.testing.assert_allclose(found["loss"], total / count, rtol=1e-5)


@pytest.mark.road
def test_trains_saves_and_leaves_its_tasks(tiny_tokenizer, tmp_path, traced):
    model = make(tiny_tokenizer, temperature=2.0)
    model.compile(learning_rate=5e-3)
    history = model.fit(MIXTURE, batch_size=8, epochs=6, verbose=0, validation_data=MIXTURE).history
    assert history["loss"][-1] < 0.7 * history["loss"][0] and "val_tags_accuracy" in history
    assert model.sequence_length == model.tasks["tags"].sequence_length == 16
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.tasks["topic"].backbone is again.tasks["tags"].backbone is again.backbone
    for one in (again, model):
        assert one.tasks["tags"].predict(WORDS, verbose=0) == model.tasks["tags"].predict(WORDS, verbose=0)
    wanted = model.tasks["topic"].predict(tiny.TEXTS, verbose=0)
    np.testing.assert_array_equal(again.tasks["topic"].predict(tiny.TEXTS, verbose=0), wanted)
    opened = tasks.TextClassifier.from_pretrained(model.tasks["topic"].save_pretrained(tmp_path / "topic"))
    np.testing.assert_array_equal(opened.predict(tiny.TEXTS, verbose=0), wanted)


def test_bad_input(tiny_tokenizer):
    model = make(tiny_tokenizer)
    with pytest.raises(ValueError, match="the tasks are topic, tags, answers"):
        model.fit({"topic": (tiny.TEXTS, tiny.LABELS)})
    with pytest.raises(ValueError, match="one of the tasks"):
        model.predict(tiny.TEXTS)
    one = tasks.TokenClassifier(tiny.backbone(), labels=["A", "B"])
    other = tasks.TokenClassifier(tiny.backbone(), labels=["A", "B"])
    with pytest.raises(ValueError, match="2 on 2"):
        tasks.MultiTask({"one": one, "other": other})
