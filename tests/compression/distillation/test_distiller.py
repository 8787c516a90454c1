"""Distiller: its loss is the formula's, from `fit` on texts to the student's files."""

import keras
import numpy as np
import pytest
import replicas
import tiny
from distillation_cases import classifier, divergence, language_model, two_replicas_and_one_device

from tfxformer import compression, tasks
from tfxformer.compression import (
    AttentionLoss,
    ConstantSparsity,
    Distiller,
    EmbeddingLoss,
    HiddenStateLoss,
    LogitsLoss,
    Prune,
    RelationLoss,
    student_from,
)

ALL = (LogitsLoss(), HiddenStateLoss(), AttentionLoss(), AttentionLoss(distance="kl"), RelationLoss())
ROWS = tiny.TEXTS[:8], tiny.LABELS[:8]
pytestmark = pytest.mark.usefixtures("plain_kernels", "eager")


@pytest.fixture(scope="module")
def one_teacher(tiny_tokenizer):
    model = classifier(tiny_tokenizer)
    return model, model.get_weights()


@pytest.fixture
def teacher(one_teacher):
    """A teacher of four blocks, one for all tests: none is to change it."""
    model, weights = one_teacher
    model.set_weights(weights)
    return model


def logits(model, texts):
    return model.logits(model.encode(texts, sequence_length=16), verbose=0)


def fit(distiller, *data, rate=0.05, **options):
    """Plain gradient descent, in order."""
    distiller.compile(keras.optimizers.SGD(rate))
    return distiller.fit(*data, **{"batch_size": 8, "shuffle": False, "verbose": 0, **options}).history


@pytest.mark.road
def test_fit_on_texts_brings_the_student_to_its_teacher(teacher, traced):
    keras.utils.set_random_seed(0)  # of the order of the texts
    student = student_from(teacher, keep=2)
    before = divergence(logits(student, tiny.TEXTS), logits(teacher, tiny.TEXTS)).mean()
    distiller = Distiller(student, teacher, label_weight=0)
    distiller.compile(learning_rate=5e-3)
    history = distiller.fit(tiny.TEXTS, epochs=8, batch_size=8, validation_split=0.25, verbose=0).history
    after = divergence(logits(student, tiny.TEXTS), logits(teacher, tiny.TEXTS)).mean()
    assert set(history) == {"loss", "logits_loss", "val_loss", "val_logits_loss"}
    assert after < before / 10 and history["loss"][-1] < history["loss"][0] / 10
    assert student.sequence_length == 16  # chosen by the texts, as the student's own fit does
    assert student.predict(tiny.TEXTS[:3], verbose=0).shape == (3, 2)
    np.testing.assert_array_equal(distiller.predict(tiny.TEXTS[:3], verbose=0), student.predict(tiny.TEXTS[:3]))


def test_the_loss_is_the_formulas(teacher):
    student = student_from(teacher, keep=2)
    losses = [LogitsLoss(temperature=3.0, weight=0.7), HiddenStateLoss(layers={0: 0, 1: 2}, weight=2.0)]
    distiller = Distiller(student, teacher, losses, label_weight=0.3)
    student.sequence_length = 16
    found = distiller.evaluate(tiny.TEXTS, tiny.LABELS, batch_size=24, verbose=0, return_dict=True)

    own, others = np.float64(logits(student, tiny.TEXTS)), np.float64(logits(teacher, tiny.TEXTS))
    labels = np.array([0 if label == "negative" else 1 for label in tiny.LABELS])
    probabilities = np.exp(own) / np.exp(own).sum(-1, keepdims=True)
    labels_loss = -np.log(probabilities[np.arange(24), labels]).mean()
    logits_loss = divergence(own, others, 3.0).mean()
    batch = student.encode(tiny.TEXTS)
    real = batch["padding_mask"] == 1
    states = [
        [np.asarray(x)[real] for x in model.backbone.forward(batch)["hidden_states"]] for model in (student, teacher)
    ]
    hidden = np.mean([((states[0][a] - states[1][b]) ** 2).mean() for a, b in ((0, 0), (1, 2))])
    assert found["logits_loss"] == pytest.approx(logits_loss, rel=1e-5)
    assert found["hidden_state_loss"] == pytest.approx(hidden, rel=1e-4)
    assert found["loss"] == pytest.approx(0.3 * labels_loss + 0.7 * logits_loss + 2.0 * hidden, rel=1e-4)
    assert found["accuracy"] == pytest.approx((own.argmax(-1) == labels).mean())


@pytest.mark.parametrize(("type_", "activation"), [("multi_label_classification", "sigmoid"), ("regression", "linear")])
def test_logits_of_other_problem_types(type_, activation):
    models = [
        tiny.perturb(tasks.TextClassifier(tiny.backbone(), ["a", "b"], problem_type=type_), seed) for seed in (0, 1)
    ]
    batch = tiny.inputs_for(models[0])
    found = Distiller(*models, label_weight=0).evaluate(batch, verbose=0, return_dict=True)["logits_loss"]
    s, t = (np.float64(model.logits(batch, verbose=0)) for model in models)
    if activation == "linear":
        wanted = ((s - t) ** 2).mean()
    else:  # each label's sigmoid as a softmax of two
        wanted = divergence(np.stack([s, 0 * s], -1), np.stack([t, 0 * t], -1)).mean()
    assert found == pytest.approx(wanted, rel=1e-5)
    stated = Distiller(*models, [LogitsLoss(activation=activation)], label_weight=0)
    assert stated.evaluate(batch, verbose=0, return_dict=True)["logits_loss"] == pytest.approx(wanted, rel=1e-5)


def test_tokens_count_by_mask_or_by_the_weights_of_their_labels():
    teacher, inputs, targets, weights = language_model()
    student = student_from(teacher, keep=1)
    each = divergence(student.logits(inputs, verbose=0), teacher.logits(inputs, verbose=0))
    distiller = Distiller(student, teacher)
    found = distiller.evaluate(inputs, targets, sample_weight=weights, verbose=0, return_dict=True)
    assert found["logits_loss"] == pytest.approx((each * weights).sum() / weights.sum(), rel=1e-4)
    mask = inputs["padding_mask"]
    found = distiller.evaluate(inputs, verbose=0, return_dict=True)
    assert found["logits_loss"] == pytest.approx((each * mask).sum() / mask.sum(), rel=1e-4)


def test_weights_of_samples():
    models = [classifier(layers=2, seed=seed) for seed in (1, 2)]
    batch, by_row = tiny.inputs_for(models[0]), np.array([1, 0, 3], "float32")
    each = divergence(*(model.logits(batch, verbose=0) for model in models))
    distiller = Distiller(*models, [LogitsLoss(), HiddenStateLoss(layers={1: 1})], label_weight=0)
    found = distiller.evaluate(batch, np.zeros(3, "int32"), sample_weight=by_row, verbose=0, return_dict=True)
    assert found["logits_loss"] == pytest.approx((each * by_row).mean(), rel=1e-5)
    states = [np.asarray(model.backbone.forward(batch)["hidden_states"][1]) for model in models]
    weights = batch["padding_mask"] * by_row[:, None]
    wanted = (((states[0] - states[1]) ** 2).mean(-1) * weights).sum() / weights.sum()
    assert found["hidden_state_loss"] == pytest.approx(wanted, rel=1e-4)


def test_kept_answers_train_as_those_of_each_step(tiny_tokenizer):
    """And a dataset of batches too, of which none are kept."""
    import tensorflow as tf

    teacher = classifier(tiny_tokenizer, layers=2)
    batch = teacher.encode(tiny.TEXTS[:12], sequence_length=16)
    labels = np.arange(12, dtype="int32") % 2
    losses = [LogitsLoss(), HiddenStateLoss(), AttentionLoss(distance="kl")]  # outputs, states, queries and keys
    results = []
    for cache_bytes, data in (
        (2**30, (batch, labels)),
        (0, (batch, labels)),
        (2**30, (tf.data.Dataset.from_tensor_slices((batch, labels)).batch(8),)),
    ):
        student = student_from(teacher, keep=1)
        distiller = Distiller(student, teacher, losses, cache_bytes=cache_bytes)
        # A mean over tokens depends on what is in a batch: validation has the same ones in all three.
        options = {"batch_size": None, "validation_batch_size": 8} if len(data) == 1 else {}
        history = fit(distiller, *data, epochs=2, validation_data=(batch, labels), **options)
        results.append((history, student.get_weights()))
    for history, weights in results[1:]:
        assert set(history) == set(results[0][0])
        for name, values in history.items():
            np.testing.assert_allclose(values, results[0][0][name], rtol=1e-4, err_msg=name)
        for ours, theirs in zip(weights, results[0][1], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


class Counting(keras.layers.Layer):
    """Counts the rows that go through it."""

    def build(self, input_shape):
        self.rows = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.rows.assign_add(keras.ops.cast(keras.ops.shape(x)[0], "float32"))
        return x


@pytest.mark.parametrize(("cache_bytes", "rows"), [(2**20, 12 + 1), (0, 1 + 3 * 12)])
def test_the_teacher_reads_a_training_set_once(cache_bytes, rows):
    """One row more says how large its answers are. Any functional model is a teacher."""
    inputs = keras.Input((4,))
    counting = Counting()
    teacher = keras.Model(inputs, keras.layers.Dense(3)(counting(inputs)))
    student = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    x = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    fit(Distiller(student, teacher, cache_bytes=cache_bytes), x, epochs=3, batch_size=4)
    assert float(counting.rows) == rows


def test_the_teacher_stays_as_it_is(teacher):
    before = teacher.get_weights()
    trainable = [variable.trainable for variable in teacher.variables]
    student = student_from(teacher, keep=2)
    fit(Distiller(student, teacher, ALL, cache_bytes=0), *ROWS)
    for kept, now in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)
    assert [variable.trainable for variable in teacher.variables] == trainable
    assert any(
        np.abs(a - b).max() > 1e-4
        for a, b in zip(student.get_weights(), student_from(teacher, 2).get_weights(), strict=True)
    )


def test_a_narrower_student_learns_through_a_projection(teacher):
    student = classifier(teacher.tokenizer, layers=1, seed=3, encoder__hidden_size=16, encoder__attention__heads=2)
    losses = [HiddenStateLoss(projection=True), RelationLoss(heads=4, relations=("query-key", "value-value"))]
    distiller = Distiller(student, teacher, losses, label_weight=0)
    (projection,) = distiller.learned
    assert projection.kernel.shape == (16, 32)
    kernel = np.asarray(projection.kernel)
    history = fit(distiller, tiny.TEXTS[:8], epochs=6, rate=0.3)  # the same rows in each step
    assert all(history[name][-1] < history[name][0] for name in ("hidden_state_loss", "relation_loss"))
    assert np.abs(np.asarray(projection.kernel) - kernel).max() > 1e-3
    assert not any("projection" in variable.path and "hidden_state" in variable.path for variable in student.variables)


def test_a_tagger(tiny_tokenizer):
    words = [text.split() for text in tiny.TEXTS]
    tags = [["N" if word in ("film", "cat", "dog") else "O" for word in row] for row in words]
    teacher = tiny.perturb(tasks.TokenClassifier(tiny.backbone(), ["O", "N"], tokenizer=tiny_tokenizer))
    student = student_from(teacher, keep=1)
    student.sequence_length = 16
    distiller = Distiller(student, teacher)
    found = distiller.evaluate(words, tags, batch_size=24, verbose=0, return_dict=True)
    encoding = tiny_tokenizer.encode(tiny.TEXTS, sequence_length=16)  # a word is one token, between [CLS] and [SEP]
    batch = {name: getattr(encoding, name) for name in student.input}
    each = divergence(*(np.asarray(model(batch)) for model in (student, teacher)))
    counted = np.array([[0 < place <= len(row) for place in range(16)] for row in words])
    assert found["logits_loss"] == pytest.approx(each[counted].mean(), rel=1e-4)
    assert np.isfinite(fit(distiller, words, tags)["loss"]).all()
    assert len(student.predict(words[:1])[0]) == len(words[0])


def test_an_embedder(tiny_tokenizer):
    teacher = tasks.TextEmbedder(tiny.backbone(), tokenizer=tiny_tokenizer)
    student = student_from(teacher, keep=1)
    s, t = (model.predict(tiny.TEXTS, verbose=0) for model in (student, teacher))
    distiller = Distiller(student, teacher, [EmbeddingLoss(), EmbeddingLoss(distance="mse"), RelationLoss()])
    found = distiller.evaluate(tiny.TEXTS, verbose=0, return_dict=True)
    assert found["embedding_loss"] == pytest.approx(1 - (s * t).sum(-1).mean(), abs=1e-5)
    assert found["embedding_2_loss"] == pytest.approx(((s - t) ** 2).mean(), rel=1e-4)
    history = fit(distiller, tiny.TEXTS[:8], epochs=4)  # the same rows in each step
    assert history["embedding_loss"][-1] < history["embedding_loss"][0]
    with pytest.raises(ValueError, match="learns from single texts"):
        distiller.fit(list(zip(tiny.TEXTS, tiny.TEXTS, strict=True)), np.ones(24, "float32"), verbose=0)


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_causal_language_models(family):
    teacher, inputs, targets, weights = language_model(family, layers=2)
    student = student_from(teacher, keep=1)
    history = fit(Distiller(student, teacher, ALL), inputs, targets, sample_weight=weights, epochs=3, rate=0.02)
    assert history["logits_loss"][-1] < history["logits_loss"][0]
    assert np.isfinite(history["loss"]).all()


def test_pruned_while_it_learns(teacher, tmp_path):
    """What is pruned is the student, all of it but its head; zeros are exact, and its file has them."""
    student = student_from(teacher, keep=1)
    callback = Prune(ConstantSparsity(0.5, begin_step=0, frequency=1))
    history = fit(Distiller(student, teacher, cache_bytes=0), *ROWS, batch_size=4, callbacks=[callback])
    assert history["sparsity"][-1] == 0.5
    assert compression.sparsity_report(student).kernels.sparsity == 0.5
    assert not (np.asarray(student.heads["classifier"].output_projection.kernel) == 0).any()
    assert compression.sparsity_report(teacher).kernels.zeros == 0
    student.save(tmp_path / "pruned.keras")
    assert compression.sparsity_report(keras.saving.load_model(tmp_path / "pruned.keras")).kernels.sparsity == 0.5


@pytest.mark.road
def test_files_are_the_students(teacher, tmp_path):
    student = student_from(teacher, keep=1)
    distiller = Distiller(student, teacher, [HiddenStateLoss(projection=True), LogitsLoss()])
    kept = keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), monitor="val_accuracy", save_best_only=False)
    distiller.compile(learning_rate=1e-3)
    distiller.fit(*ROWS, validation_split=0.25, callbacks=[kept], verbose=0)
    loaded = keras.saving.load_model(tmp_path / "best.keras")
    assert isinstance(loaded, tasks.TextClassifier) and loaded.count_params() == student.count_params()
    np.testing.assert_array_equal(loaded.predict(tiny.TEXTS[:4]), student.predict(tiny.TEXTS[:4]))
    distiller.save_weights(tmp_path / "student.weights.h5")
    other = student_from(teacher, keep=1)
    Distiller(other, teacher).load_weights(tmp_path / "student.weights.h5")
    np.testing.assert_array_equal(other.predict(tiny.TEXTS[:4]), student.predict(tiny.TEXTS[:4]))
    with pytest.raises(ValueError, match=r"save distiller\.student"):
        distiller.get_config()
    student.fit(*ROWS, verbose=0)  # it is a task as before


def test_the_default_rate_falls_to_zero_over_each_fit(teacher):
    distiller = Distiller(student_from(teacher, keep=1), teacher)
    for epochs in (1, 2):
        distiller.fit(*ROWS, batch_size=4, epochs=epochs, verbose=0)
        assert int(distiller.optimizer.iterations) == 2 * epochs
        assert float(distiller.optimizer.learning_rate) == pytest.approx(0, abs=1e-9)


@pytest.mark.road
@pytest.mark.parametrize(
    ("jit", "steps", "small"),
    [
        pytest.param(False, 2, True, id="accumulated"),
        pytest.param(False, None, False, id="language model", marks=pytest.mark.slow),
        pytest.param(True, 2, False, id="XLA, accumulated", marks=pytest.mark.slow),
    ],
)
def test_two_replicas_are_one_device(jit, steps, small):
    """Tokens of other numbers on each, a last batch of one row; with XLA, and an update every other batch."""
    result = replicas.run(two_replicas_and_one_device, jit, steps, small, timeout=600)
    assert result["weights"] < 2e-6
    assert {"loss", "logits_loss", "hidden_state_loss", "evaluated_loss"} <= set(result["history"])
    for key, (ours, alone) in result["history"].items():
        assert ours == pytest.approx(alone, rel=1e-4), key
