"""Losses, metrics, class weights and sample weights mean on a task's logits what Keras users mean by them.

Sources: scikit-learn on what `predict` gives, torch's cross_entropy for weights and -100,
a plain `keras.Model` with a softmax, and the formulas written out.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from sklearn import metrics as sklearn_metrics

from tfxformer import compression, tasks
from tfxformer.training import DistributedModel

pytestmark = pytest.mark.usefixtures("plain_kernels")
WORDS = [["ada", "wrote", "it"], ["london"], ["the", "cat", "sat", "on", "alanx"]]
TAGS = [["P", "O", "P"], ["Q"], ["O", "O", "P", "Q", "O"]]
PAIRS = [("good film", "bad plot"), ("a cat", "the dog sat"), ("slow", "fast"), ("ada", "alan"), ("code", "engine")]
TWO, THREE, FOUR = ["negative", "positive"], ["a", "b", "c"], ["a", "b", "c", "d"]
IDS = np.asarray([1, 0] * 12)


@pytest.fixture(scope="module")
def backbone():
    return tiny.backbone(encoder__num_layers=1)


@pytest.fixture(scope="module")
def made(backbone, tiny_tokenizer):
    """Every task on one backbone; tests do not train it."""

    def classifier(labels, problem_type="single_label_classification"):
        return tasks.TextClassifier(backbone, labels, problem_type, tokenizer=tiny_tokenizer)

    found = {
        "two": classifier(TWO),
        "three": classifier(THREE),
        "many": classifier(FOUR, "multi_label_classification"),
        "score": classifier(["score"], "regression"),
        "tagger": tasks.TokenClassifier(backbone, ["O", "P", "Q"], tokenizer=tiny_tokenizer),
        "answers": tasks.QuestionAnswering(backbone, tokenizer=tiny_tokenizer),
        "embedder": tasks.TextEmbedder(backbone, tokenizer=tiny_tokenizer),
        "contrastive": tasks.ContrastiveEmbedder(backbone, tokenizer=tiny_tokenizer),
        "masked": tasks.MaskedLM(backbone, tokenizer=tiny_tokenizer),
    }
    generator = np.random.default_rng(1)
    for task in found.values():
        task.run_eagerly = True  # `predict` of a task that is not compiled, too
        for layer in task.heads.values():
            for variable in layer.weights:
                variable.assign(generator.normal(0, 0.3, variable.shape))
    return found


def evaluated(task, x, y, loss="auto", metrics=(), **arguments):
    """What `evaluate` gives, by name; eagerly, since a trace costs a second."""
    weighted = arguments.pop("weighted_metrics", None)
    task.compile("sgd", loss, list(metrics), weighted_metrics=weighted, run_eagerly=True)
    return task.evaluate(x, y, verbose=0, return_dict=True, **arguments)


def measured(task, batch, y, loss="auto"):
    """The loss of one batch of arrays."""
    task.compile("sgd", loss, metrics=[], run_eagerly=True)
    return task.test_on_batch(batch, y)


def shares(logits):
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


# ---- class_weight ----------------------------------------------------------------------------------------------


def test_class_weight_by_name(backbone, tiny_tokenizer):
    """fit(class_weight={"negative": 3, "positive": .5}) was ignored; numpy: sum(w * ce) / B, and ids are the same."""
    weights = {"negative": 3.0, "positive": 0.5}
    for given, sample_weight in ((weights, None), ({0: 3.0, 1: 0.5}, None), (weights, [1.0, 2.0] * 12)):
        task = tasks.TextClassifier(backbone, TWO, tokenizer=tiny_tokenizer)
        task.compile(keras.optimizers.SGD(0.0), metrics=[], run_eagerly=True)
        losses = -np.log(task.predict(tiny.TEXTS, verbose=0)[np.arange(24), IDS])
        labels = [TWO[i] for i in IDS]
        wanted = np.where(IDS == 0, 3.0, 0.5) * (np.ones(24) if sample_weight is None else sample_weight)
        options = {"class_weight": given, "sample_weight": sample_weight, "batch_size": 24, "verbose": 0}
        history = task.fit(tiny.TEXTS, labels, **options).history
        np.testing.assert_allclose(history["loss"][0], (wanted * losses).sum() / 24, rtol=1e-5)
    # Validation is not weighted, as Keras has it, and neither are the last rows of validation_split.
    history = task.fit(tiny.TEXTS, labels, validation_split=0.25, **options).history
    np.testing.assert_allclose(history["val_loss"][0], (losses * sample_weight)[18:].sum() / 6, rtol=1e-5)
    np.testing.assert_allclose(history["loss"][0], (losses * wanted)[:18].sum() / 18, rtol=1e-5)


def test_class_weight_is_that_of_a_plain_keras_model(made):
    """Arrays, datasets, PyDatasets and generators of batches, and train_on_batch: as keras.Model has it with ids."""
    task = made["three"]
    batch, labels = task.encode(tiny.TEXTS[:6]), np.asarray([0, 1, 2, 2, 1, 0])
    logits = task.logits(batch, verbose=0)
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Softmax()])
    plain.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    wanted = plain.train_on_batch(logits, labels, class_weight={0: 2.0, 2: 7.0})

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return batch, labels

    dataset = tf.data.Dataset.from_tensor_slices((batch, labels)).batch(6)
    for given in ((batch, labels), (batch, np.eye(3)[labels]), (dataset, None), (Batches(), None)):
        task.compile(keras.optimizers.SGD(0.0), metrics=[], run_eagerly=True)
        history = task.fit(*given, class_weight={"a": 2, "c": 7}, verbose=0).history
        np.testing.assert_allclose(history["loss"][0], wanted, rtol=1e-5)
    task.compile(keras.optimizers.SGD(0.0), metrics=[], run_eagerly=True)
    np.testing.assert_allclose(task.train_on_batch(batch, labels, class_weight={"a": 2, "c": 7}), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "y"),
    [
        ("many", [[0, 1, 0, 1]] * 5),
        ("score", [0.5] * 5),
        ("answers", [None] * 5),
        ("embedder", [0.5] * 5),
        ("masked", None),
        ("contrastive", None),
    ],
)
def test_class_weight_where_rows_have_no_class_is_refused(made, name, y):
    """For multi-label, regression and QA it was applied to argmax or rounded targets."""
    pairs = name in ("answers", "embedder", "contrastive")
    with pytest.raises(TypeError, match="sample_weight"):
        made[name].fit(PAIRS if pairs else [first for first, _ in PAIRS], y, class_weight={0: 2.0})


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"negatve": 2.0}, ValueError, "'negative'"),
        ({2: 2.0}, ValueError, "2 labels"),
        ({1.5: 2.0}, TypeError, "name or id"),
        ({"negative": 2.0, 0: 2.0}, ValueError, "twice"),
        ({"negative": float("nan")}, ValueError, "finite"),
        ([1.0, 2.0], TypeError, "dict"),
    ],
)
def test_class_weight_of_unknown_labels_is_refused(made, given, error, message):
    with pytest.raises(error, match=message):
        made["two"].fit(tiny.TEXTS, tiny.LABELS, class_weight=given)
    with pytest.raises(ValueError, match="several"):
        made["two"].fit(tiny.TEXTS[:2], [[0.4, 0.6], [0.0, 1.0]], class_weight={"negative": 2.0})


# ---- losses ----------------------------------------------------------------------------------------------------


def test_string_losses_on_logits(made):
    """compile(loss="sparse_categorical_crossentropy") gave 2.660; right is the log loss of the probabilities."""
    texts = tiny.TEXTS[:6]
    for name, ids in (("two", IDS[:6]), ("three", np.arange(6) % 3)):
        task = made[name]
        chances, batch = task.predict(texts, verbose=0), task.encode(texts)
        rows = np.eye(chances.shape[1])[ids]
        log_loss = sklearn_metrics.log_loss(ids, chances)
        brier = ((rows - chances) ** 2).mean()
        for loss, y, wanted in [
            ("sparse_categorical_crossentropy", ids, log_loss),
            ("crossentropy", ids, log_loss),
            (keras.losses.sparse_categorical_crossentropy, ids, log_loss),
            (keras.losses.SparseCategoricalCrossentropy(), ids, log_loss),
            (keras.losses.SparseCategoricalCrossentropy(from_logits=True), ids, log_loss),
            ("categorical_crossentropy", rows, log_loss),
            ("categorical_crossentropy", ids, log_loss),
            ("kl_divergence", rows, log_loss),
            ("mse", rows, brier),
            (keras.losses.MeanSquaredError(), ids, brier),
        ]:
            found = measured(task, batch, y, loss)
            np.testing.assert_allclose(found, wanted, rtol=2e-5, err_msg=f"{name} {loss}")
        if name == "two":
            np.testing.assert_allclose(measured(task, batch, ids, "binary_crossentropy"), log_loss, 2e-5)


def test_string_losses_of_other_tasks(made):
    """Against scikit-learn, or the task's own loss, which its tests compare with the reference."""
    task, texts = made["many"], tiny.TEXTS[:6]
    y = np.random.default_rng(0).integers(0, 2, (6, 4)).astype("float32")
    wanted = sklearn_metrics.log_loss(y.ravel(), task.predict(texts, verbose=0).ravel())
    for loss in ("binary_crossentropy", "bce", "crossentropy", keras.losses.BinaryCrossentropy()):
        np.testing.assert_allclose(measured(task, task.encode(texts), y, loss), wanted, rtol=2e-5)
    task = made["answers"]
    batch, spans, _ = task.to_arrays(PAIRS[:1], [{"text": "bad", "answer_start": 0}])
    for loss in ("sparse_categorical_crossentropy", keras.losses.SparseCategoricalCrossentropy()):
        np.testing.assert_allclose(measured(task, batch, spans, loss), measured(task, batch, spans), rtol=1e-6)
    wanted = evaluated(made["tagger"], WORDS, TAGS)["loss"]
    for loss in ("sparse_categorical_crossentropy", "categorical_crossentropy"):
        np.testing.assert_allclose(evaluated(made["tagger"], WORDS, TAGS, loss)["loss"], wanted, rtol=1e-6)


def test_losses_and_metrics_that_cannot_be_meant_are_refused(made):
    for loss in ("binary_crossentropy", keras.losses.BinaryCrossentropy(), "crossentropy"):
        with pytest.raises(ValueError, match="scores"):
            made["score"].compile(loss=loss)
    made["score"].compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="mse"):
        made["score"].compile(metrics=["accuracy"])
    with pytest.raises(ValueError, match="F1Score"):
        made["two"].compile(metrics=["f1"])
    with pytest.raises(ValueError, match="TextEmbedder"):
        made["contrastive"].compile(loss="mse")


def test_a_loss_of_the_user_gets_the_logits(made):
    seen = []

    def loss(y_true, y_pred):
        seen.append(np.asarray(y_pred))
        return keras.ops.mean(y_pred, axis=-1)

    evaluated(made["three"], tiny.TEXTS[:3], [0, 1, 2], loss, [lambda y_true, y_pred: loss(y_true, y_pred)])
    logits = made["three"].logits(made["three"].encode(tiny.TEXTS[:3]), verbose=0)
    assert len(seen) == 2
    for given in seen:
        np.testing.assert_allclose(given, logits, rtol=1e-5)


# ---- metrics ---------------------------------------------------------------------------------------------------


def test_probability_metrics_on_logits_multi_label(made):
    """.167 / .554 / 0 / 0 came for accuracy, AUC, precision and F1; right is scikit-learn on `predict`."""
    task, y = made["many"], np.random.default_rng(3).integers(0, 2, (24, 4))
    chances = task.predict(tiny.TEXTS, verbose=0)
    metrics = keras.metrics
    given = [
        *("accuracy", metrics.AUC(num_thresholds=5000, name="auc"), metrics.Precision(name="precision")),
        *(metrics.F1Score("micro", threshold=0.5, name="f1"), metrics.F1Score("macro", threshold=0.5, name="macro")),
        *(metrics.BinaryAccuracy(threshold=0.0, name="of_logits"), "mae"),
        metrics.AUC(multi_label=True, num_labels=4, num_thresholds=5000, name="by_label"),
    ]
    found = evaluated(task, tiny.TEXTS, y, metrics=given)
    chosen = chances > 0.5
    wanted = {
        "accuracy": (chosen == y).mean(),
        "of_logits": (chosen == y).mean(),  # a threshold that no probability has was meant for logits
        "auc": sklearn_metrics.roc_auc_score(y.ravel(), chances.ravel()),
        "by_label": sklearn_metrics.roc_auc_score(y, chances, average="macro"),
        "precision": sklearn_metrics.precision_score(y.ravel(), chosen.ravel()),
        "f1": sklearn_metrics.f1_score(y, chosen, average="micro"),
        "macro": sklearn_metrics.f1_score(y, chosen, average="macro", zero_division=0),
        "mae": np.abs(chances - y).mean(),
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, err_msg=name)


def test_two_class_metrics_on_logits(made):
    """Two-class AUC raised InvalidArgumentError; it is about the second label, as scikit-learn's is."""
    task, metrics = made["two"], keras.metrics
    given = [
        *("acc", metrics.AUC(num_thresholds=5000, name="auc"), "Precision", "recall", "ce"),
        *(metrics.F1Score(name="f1"), metrics.F1Score("macro", name="macro"), metrics.BinaryAccuracy()),
        *(metrics.Precision(class_id=0, name="of_the_first"), metrics.Accuracy(name="equal")),
        metrics.AUC(from_logits=True, num_thresholds=5000, name="auc_of_logits"),
    ]
    found = evaluated(task, tiny.TEXTS, IDS, metrics=given)
    chances = task.predict(tiny.TEXTS, verbose=0)
    chosen = chances.argmax(-1)
    one = sklearn_metrics.precision_recall_fscore_support(IDS, chosen, average=None, zero_division=0)
    wanted = {
        **dict.fromkeys(("acc", "binary_accuracy", "equal"), sklearn_metrics.accuracy_score(IDS, chosen)),
        **dict.fromkeys(("auc", "auc_of_logits"), sklearn_metrics.roc_auc_score(IDS, chances[:, 1])),
        **{"Precision": one[0][1], "recall": one[1][1], "of_the_first": one[0][0], "f1": one[2]},
        **{"macro": one[2].mean(), "ce": sklearn_metrics.log_loss(IDS, chances)},
    }
    assert {*found} == {"loss", *wanted}
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-6, err_msg=name)


def test_metrics_of_scores(made):
    """One score a text: scikit-learn's R2 and errors, numpy's correlation."""
    task, y = made["score"], np.random.default_rng(0).normal(0, 1, 24)
    metrics = [keras.metrics.R2Score(), "mse", "RootMeanSquaredError", keras.metrics.PearsonCorrelation(name="r")]
    found = evaluated(task, tiny.TEXTS, y, "mae", metrics, batch_size=24)
    scores = task.predict(tiny.TEXTS, verbose=0)[:, 0]
    error = sklearn_metrics.mean_squared_error(y, scores)
    wanted = {"loss": sklearn_metrics.mean_absolute_error(y, scores), "mse": error, "RootMeanSquaredError": error**0.5}
    wanted |= {"r2_score": sklearn_metrics.r2_score(y, scores), "r": np.corrcoef(y, scores)[0, 1]}
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)


def test_weighted_metrics_of_several_classes(made):
    task, metrics, ids = made["three"], keras.metrics, np.arange(24) % 3
    weights = np.random.default_rng(0).integers(0, 4, 24).astype("float32")
    chances = task.predict(tiny.TEXTS, verbose=0)
    names = ["accuracy", metrics.TopKCategoricalAccuracy(2), metrics.SparseTopKCategoricalAccuracy(2)]
    names += [metrics.F1Score("weighted"), metrics.MeanIoU(3, name="overlap")]
    found = evaluated(task, tiny.TEXTS, ids, weighted_metrics=names, sample_weight=list(weights))
    chosen = chances.argmax(-1)
    top = sklearn_metrics.top_k_accuracy_score(ids, chances, k=2, sample_weight=weights)
    wanted = {
        "accuracy": sklearn_metrics.accuracy_score(ids, chosen, sample_weight=weights),
        **dict.fromkeys(("top_k_categorical_accuracy", "sparse_top_k_categorical_accuracy"), top),
        "f1_score": sklearn_metrics.f1_score(ids, chosen, average="weighted", sample_weight=weights),
        "overlap": sklearn_metrics.jaccard_score(ids, chosen, average="macro", sample_weight=weights),
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_metrics_of_taggers_count_real_words_only(made):
    """TokenClassifier.compile(metrics=["accuracy"]) gave 0.906 for 1 word of 4: padding counted."""
    task = made["tagger"]
    chosen = [tag for row in task.predict(WORDS, verbose=0) for tag in row]
    right = [tag for row in TAGS for tag in row]
    given = ["accuracy", keras.metrics.F1Score("macro", name="f1"), keras.metrics.MeanSquaredError(name="mse")]
    found = evaluated(task, WORDS, TAGS, metrics=given)
    assert {*found} == {"loss", "accuracy", "f1", "mse"}
    np.testing.assert_allclose(found["accuracy"], sklearn_metrics.accuracy_score(right, chosen), rtol=1e-6)
    wanted = sklearn_metrics.f1_score(right, chosen, average="macro", labels=["O", "P", "Q"], zero_division=0)
    np.testing.assert_allclose(found["f1"], wanted, rtol=1e-5)
    # A weight of a word counts in weighted metrics alone.
    weights = [[5.0, 1.0, 1.0], [3.0], [1.0, 2.0, 2.0, 1.0, 4.0]]
    weighted = {"weighted_metrics": ["acc"], "sample_weight": weights}
    found = evaluated(task, WORDS, TAGS, metrics=["accuracy"], **weighted)
    np.testing.assert_allclose(found["accuracy"], sklearn_metrics.accuracy_score(right, chosen), rtol=1e-6)
    wanted = sklearn_metrics.accuracy_score(right, chosen, sample_weight=np.concatenate(weights))
    np.testing.assert_allclose(found["acc"], wanted, rtol=1e-6)


def test_metrics_of_language_models_count_real_tokens_only(made, tiny_tokenizer):
    causal = tasks.CausalLM(tiny.backbone("gpt2", decoder__num_layers=1))
    causal.run_eagerly = True
    for task, inputs in ((made["masked"], tiny.batch()), (causal, tiny.batch(token_types=1))):
        ids = np.random.default_rng(0).integers(0, 90, inputs["token_ids"].shape)
        ids[:, 1] = -100
        logits = task.logits(inputs, verbose=0)
        counted = (inputs["padding_mask"] > 0) & (ids != -100)
        ids[0, :5] = logits[0, :5].argmax(-1)  # some are right
        ids[0, 1] = -100
        wanted = sklearn_metrics.accuracy_score(ids[counted], logits.argmax(-1)[counted])
        losses = -np.log(np.take_along_axis(shares(logits), np.maximum(ids, 0)[..., None], -1)[..., 0])[counted]
        metrics = ["accuracy", keras.metrics.SparseCategoricalCrossentropy(name="ce")]
        found = evaluated(task, inputs, ids, metrics=metrics)
        np.testing.assert_allclose(found["accuracy"], wanted, rtol=1e-6)
        np.testing.assert_allclose(found["ce"], losses.mean(), rtol=1e-5)
        np.testing.assert_allclose(found["loss"], losses.mean(), rtol=1e-5)
        if task is causal:
            keras_hub = pytest.importorskip("keras_hub")
            metrics = [keras_hub.metrics.Perplexity(name="theirs")]
            found = evaluated(task, inputs, ids, metrics=metrics, weighted_metrics=task.default_weighted_metrics())
            np.testing.assert_allclose(found["theirs"], np.exp(losses.mean()), rtol=1e-4)
            np.testing.assert_allclose(found["perplexity"], np.exp(losses.mean()), rtol=1e-4)


# ---- weights of examples, words and -100 -----------------------------------------------------------------------


@pytest.mark.reference
def test_imbalanced_tagging(made):
    """class_weight, a weight a word and -100 raised misleading errors; torch's cross_entropy has all three."""
    import torch

    task, weight = made["tagger"], {"O": 0.2, "Q": 5}
    tags = [["P", -100, "P"], ["Q"], ["O", "O", -100, "Q", "O"]]
    batch, ids, weights = task.to_arrays(WORDS, tags)
    logits = torch.tensor(task.logits(batch, verbose=0)).reshape(-1, 3)
    targets = torch.tensor(np.where(weights > 0, ids, -100)).long().reshape(-1)
    cross_entropy = torch.nn.functional.cross_entropy
    plain = cross_entropy(logits, targets, ignore_index=-100)
    by_class = cross_entropy(logits, targets, weight=torch.tensor([0.2, 1.0, 5.0]), ignore_index=-100)
    ready = np.where(weights > 0, ids, -100)  # as transformers writes them
    for given in ((WORDS, tags), (batch, ready), (tf.data.Dataset.from_tensors((batch, ready)), None)):
        np.testing.assert_allclose(evaluated(task, *given)["loss"], plain, rtol=1e-5)
        for weights_of_classes, wanted in ((None, plain), (weight, by_class)):
            task.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
            loss = task.fit(*given, class_weight=weights_of_classes, verbose=0).history["loss"][0]
            np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    rows = cross_entropy(logits, targets, ignore_index=-100, reduction="none").reshape(ids.shape).numpy()
    by_word = [[5.0, 1.0, 1.0], [3.0], [1.0, 2.0, 2.0, 1.0, 4.0]]
    counted = np.asarray([5.0, 1.0, 3.0, 1.0, 2.0, 1.0, 4.0])
    wanted = (rows[weights > 0] * counted).sum() / counted.sum()
    np.testing.assert_allclose(evaluated(task, WORDS, tags, sample_weight=by_word)["loss"], wanted, rtol=1e-5)


def test_weights_of_another_shape_are_refused(made):
    for weights, message in (([1.0, 2.0], "2 rows"), ([[1.0], [1.0], [1.0]], "3 words"), ([1, 1, np.inf], "finite")):
        with pytest.raises(ValueError, match=message):
            made["tagger"].fit(WORDS, TAGS, sample_weight=weights)
    for weights, message in (([1.0], "24 examples"), ([[1.0, 2.0]] * 24, "24 examples"), ([np.nan] * 24, "finite")):
        with pytest.raises(ValueError, match=message):
            made["two"].fit(tiny.TEXTS, tiny.LABELS, sample_weight=weights)
    with pytest.raises(ValueError, match="-100"):
        made["two"].fit(tiny.TEXTS[:2], [0, -100])
    batch, ids, _ = made["tagger"].to_arrays(WORDS, TAGS)
    with pytest.raises(ValueError, match="a weight a token"):
        made["tagger"].fit(batch, ids, sample_weight=[[1.0, 2.0]] * 3)


def test_each_pair_has_its_own_weight(made):
    """The embedder's weights were averaged over the batch before they met its losses."""
    scores, weights = np.linspace(-1, 1, 5), np.asarray([1, 5, 0, 2, 0.5])
    found = evaluated(made["embedder"], PAIRS, scores, weighted_metrics=["mae"], sample_weight=list(weights))
    errors = made["embedder"].predict(PAIRS, verbose=0) - scores
    np.testing.assert_allclose(found["loss"], (weights * errors**2).sum() / 5, rtol=1e-5)
    np.testing.assert_allclose(found["mae"], (weights * np.abs(errors)).sum() / weights.sum(), rtol=1e-5)


def test_scores_beyond_a_cosine_are_refused(made):
    """Scores 0..5 to TextEmbedder.fit were accepted, loss 5.3; its docstring says -1..1."""
    task = made["embedder"]
    batch, _, _ = task.to_arrays(PAIRS)
    for scores in ([0, 1, 2, 4, 5], [0, 0, 0, 0, -1.5], [0, np.nan, 0, 0, 0]):
        for x in (PAIRS, batch):
            for run in (task.fit, task.evaluate):
                with pytest.raises(ValueError, match="from -1 to 1"):
                    run(x, np.asarray(scores, "float32"))


# ---- soft labels -----------------------------------------------------------------------------------------------


@pytest.mark.reference
def test_soft_labels_from_texts(made):
    """One-hot rows and rows of probabilities were refused; torch's cross_entropy takes them."""
    import torch

    task, rows = made["three"], shares(np.random.default_rng(0).normal(0, 2, (24, 3))).astype("float32")
    logits = torch.tensor(task.logits(task.encode(tiny.TEXTS), verbose=0))
    for given in (rows, np.eye(3, dtype="float32")[rows.argmax(-1)]):
        wanted = torch.nn.functional.cross_entropy(logits, torch.tensor(given))
        for loss in ("auto", keras.losses.CategoricalCrossentropy(from_logits=True), "categorical_crossentropy"):
            found = evaluated(task, tiny.TEXTS, given.tolist(), loss, ["accuracy"])
            np.testing.assert_allclose(found["loss"], wanted, rtol=1e-5)
            right = sklearn_metrics.accuracy_score(given.argmax(-1), logits.argmax(-1))
            np.testing.assert_allclose(found["accuracy"], right, rtol=1e-6)
    tagger, soft = made["tagger"], [rows[:3], rows[3:4], rows[4:9]]
    batch, _, weights = tagger.to_arrays(WORDS, [row.tolist() for row in soft])
    logits = torch.tensor(tagger.logits(batch, verbose=0))[weights > 0]
    wanted = torch.nn.functional.cross_entropy(logits, torch.tensor(rows[:9]))
    np.testing.assert_allclose(evaluated(tagger, WORDS, soft)["loss"], wanted, rtol=1e-5)
    with pytest.raises(ValueError, match="sum to 1"):
        task.fit(tiny.TEXTS[:2], [[1, 1, 0], [0, 0, 1]])


# ---- the whole road --------------------------------------------------------------------------------------------


def test_saved_and_compiled_alike(made, tmp_path):
    """A compiled task, saved and opened, evaluates to the same numbers under the same names."""
    for name, x, y in (("two", tiny.TEXTS, IDS), ("tagger", WORDS, TAGS)):
        task = made[name]
        metrics = ["accuracy", keras.metrics.AUC(name="area"), "recall"]
        wanted = evaluated(task, x, y, "categorical_crossentropy", metrics)
        checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", "val_accuracy", save_best_only=True)
        checkpoint.set_model(task)
        checkpoint._set_monitor_op()  # the accuracy says that more is better
        assert checkpoint._is_improvement(2.0, 1.0)
        task.save(tmp_path / "task.keras")
        opened = keras.models.load_model(tmp_path / "task.keras")
        opened.run_eagerly = True
        found = opened.evaluate(x, y, verbose=0, return_dict=True)
        assert {*found} == {*wanted} == {"loss", "accuracy", "area", "recall"}
        for key, value in wanted.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-6, err_msg=key)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_compiled_and_under_a_strategy(tiny_tokenizer, jit_compile):
    """What one device gives eagerly, XLA and MirroredStrategy give; history has Keras' names."""
    found = []
    for strategy, options in (
        (tf.distribute.get_strategy(), {"run_eagerly": True}),
        (tf.distribute.MirroredStrategy(["CPU:0"]), {"jit_compile": jit_compile}),
    ):
        with strategy.scope():
            task = tasks.TokenClassifier(
                tiny.backbone(encoder__num_layers=1), ["O", "P", "Q"], tokenizer=tiny_tokenizer
            )
            tiny.perturb(task)
            metrics = ["accuracy", keras.metrics.AUC(name="auc")]
            task.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics, **options)
        options = {"class_weight": {"O": 0.5}, "shuffle": False, "verbose": 0}
        found.append(task.fit(WORDS, TAGS, validation_data=(WORDS, TAGS), **options).history)
    names = ["loss", "accuracy", "auc"]
    assert {*found[0]} == {*names, *(f"val_{name}" for name in names)}
    for key, value in found[0].items():
        np.testing.assert_allclose(found[1][key], value, rtol=1e-4, err_msg=key)


def test_a_distiller_compiles_what_its_student_would(made, tiny_tokenizer):
    student = made["two"]
    teacher = tiny.perturb(
        tasks.TextClassifier(tiny.backbone(seed=3, encoder__num_layers=1), TWO, tokenizer=tiny_tokenizer), 3
    )
    losses = -np.log(student.predict(tiny.TEXTS, verbose=0)[np.arange(24), IDS])
    distiller = compression.Distiller(student, teacher, [compression.LogitsLoss()])
    metrics = ["accuracy", keras.metrics.AUC(name="auc")]
    distiller.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", metrics, run_eagerly=True)
    options = {"class_weight": {"negative": 3.0}, "batch_size": 24, "verbose": 0}
    history = distiller.fit(tiny.TEXTS, IDS, **options).history
    found = history["loss"][0] - history["logits_loss"][0]
    np.testing.assert_allclose(found, (losses * np.where(IDS == 0, 3.0, 1.0)).mean(), rtol=1e-5)
    assert {"accuracy", "auc"} < {*history}
    for labels in (IDS, tiny.LABELS):  # texts and names here too: Keras' own took arrays and ids only
        parts = distiller.train_on_batch(tiny.TEXTS, labels, class_weight={"negative": 3.0}, return_dict=True)
        np.testing.assert_allclose(parts["loss"], history["loss"][0], rtol=1e-5)
        distiller.reset_metrics()
    parts = distiller.test_on_batch(tiny.TEXTS, tiny.LABELS, return_dict=True)
    np.testing.assert_allclose(parts["loss"] - parts["logits_loss"], losses.mean(), rtol=1e-5)


def test_plain_models_are_compiled_as_keras_has_it():
    inputs = keras.Input((3,))
    for outputs in (inputs, keras.layers.Softmax()(inputs)):
        ours, theirs = DistributedModel(inputs, outputs), keras.Model(inputs, outputs)
        x = np.random.default_rng(0).normal(0, 1, (8, 3)).astype("float32")
        for model in (ours, theirs):
            model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
        wanted = theirs.evaluate(x, np.arange(8) % 3, verbose=0)
        np.testing.assert_allclose(ours.evaluate(x, np.arange(8) % 3, verbose=0), wanted, rtol=1e-6)


def test_several_tasks_at_once(backbone, tiny_tokenizer):
    """Metrics of MultiTask count the rows of their own task; class_weight is refused, weights of examples count."""
    topics = tasks.TextClassifier(backbone, TWO, tokenizer=tiny_tokenizer)
    tags = tasks.TokenClassifier(backbone, ["O", "P", "Q"], tokenizer=tiny_tokenizer)
    topics.run_eagerly = tags.run_eagerly = True
    both = tasks.MultiTask({"topics": topics, "tags": tags})
    metrics = {"topics": ["accuracy", keras.metrics.AUC(name="auc")], "tags": ["accuracy"]}
    both.compile("sgd", metrics=metrics, run_eagerly=True)
    weights = np.arange(24) % 3
    data = {"topics": (tiny.TEXTS, IDS, weights), "tags": (WORDS, TAGS)}
    found = both.evaluate(data, verbose=0, return_dict=True)
    chosen = topics.predict(tiny.TEXTS, verbose=0).argmax(-1)
    right = sklearn_metrics.accuracy_score(IDS[weights > 0], chosen[weights > 0])
    np.testing.assert_allclose(found["topics_accuracy"], right, rtol=1e-6)
    chosen = [tag for row in tags.predict(WORDS, verbose=0) for tag in row]
    right = [tag for row in TAGS for tag in row]
    np.testing.assert_allclose(found["tags_accuracy"], sklearn_metrics.accuracy_score(right, chosen), rtol=1e-6)
    with pytest.raises(TypeError, match="sample_weight"):
        both.fit(data, class_weight={0: 2.0})
    with pytest.raises(ValueError, match="beside a mixture"):  # both vanished
        both.fit(data, sample_weight=weights)
    for x in (tiny.TEXTS, {"topics": tiny.TEXTS, "tags": WORDS}):
        with pytest.raises(TypeError, match=r"takes \{name: \(x, y\), \.\.\.\} for its tasks topics, tags"):
            both.fit(x, IDS)
    with pytest.raises(ValueError, match="One batch was wanted"):
        both.train_on_batch(data)
    with pytest.raises(ValueError, match="topics, tags"):
        both.compile(metrics=["accuracy"])
