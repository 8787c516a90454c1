"""Labels, batches, ids and weights mean what Keras users mean: each finding with its right value."""

import json
import math

import keras
import numpy as np
import pandas
import pytest
import tensorflow as tf
import tiny

from tfxformer import compression, tasks, training
from tfxformer.data.targets.labels import check_labels, cosine_targets, encode_labels
from tfxformer.data.targets.spans import answer_spans
from tfxformer.data.targets.weights import word_weights
from tfxformer.data.targets.words.windows import encode_word_windows, named_labels, word_values
from tfxformer.training.inputs.array_checks import Limit, check_values

pytestmark = pytest.mark.usefixtures("plain_kernels")
IDS = np.array([int(label == "positive") for label in tiny.LABELS])
SENTENCES = [text.split() for text in tiny.TEXTS]
TAGS = [["O"] * len(words) for words in SENTENCES]


@pytest.fixture(scope="module")
def kernels_of_module():
    """Models that a module shares are traced with plain kernels too."""
    from tfxformer.layers.kernels import clusters

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "use_clusters", lambda: False)
        yield


@pytest.fixture(scope="module")
def compiled(tiny_tokenizer, kernels_of_module):
    """One compiled classifier."""
    return make(tiny_tokenizer)


@pytest.fixture(scope="module")
def beginning(compiled):
    """Its weights before any test."""
    return [weight.numpy() for weight in compiled.weights]


@pytest.fixture
def classifier(compiled, beginning):
    """The compiled classifier with its first weights, whatever an earlier test has made of them."""
    put_back(compiled, beginning)
    return compiled


def put_back(model, values):
    for weight, value in zip(model.weights, values, strict=True):
        weight.assign(value)


@pytest.fixture(scope="module")
def backbone(kernels_of_module):
    """The encoder below tasks that nothing trains."""
    return tiny.backbone(encoder__num_layers=1)


def make(tokenizer, **arguments):
    backbone = tiny.backbone(encoder__num_layers=1)
    model = tasks.TextClassifier(
        backbone, ["negative", "positive"], tokenizer=tokenizer, sequence_length=16, **arguments
    )
    tiny.perturb(model)
    model.compile(optimizer=keras.optimizers.SGD(0.01), run_eagerly=True)  # cheap; traced where it says so
    return model


def assert_alike(values, model):
    for value, weight in zip(values, model.weights, strict=True):
        np.testing.assert_allclose(value, weight.numpy(), atol=1e-6, err_msg=weight.path)


def updates(model) -> int:
    return int(model.optimizer.iterations)


def fitted(model, *args, **kwargs) -> int:
    """The updates of a fit."""
    before = updates(model)
    model.fit(*args, verbose=0, **kwargs)
    return updates(model) - before


class Batches(keras.utils.PyDataset):
    """Three batches of eight rows: texts or arrays."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        x = {name: array[rows] for name, array in self.x.items()} if isinstance(self.x, dict) else self.x[rows]
        return x, self.y[rows]


# ---- batches ----------------------------------------------------------------------------------------------------


def test_dataset_of_texts_keeps_its_batches(classifier, beginning):
    """24 texts in batches of 4 are 6 updates, in their order: as a plain keras.Model on the same arrays."""
    dataset, model = tf.data.Dataset.from_tensor_slices((tiny.TEXTS, tiny.LABELS)).batch(4), classifier
    assert fitted(model, dataset) == 6
    ours = [weight.numpy() for weight in model.weights]
    put_back(model, beginning)
    keras.Model.fit(model, model.encode(tiny.TEXTS), IDS, batch_size=4, shuffle=False, verbose=0)
    assert_alike(ours, model)
    with pytest.raises(ValueError, match=r"batch_size=8 beside a .*whose own size counts"):
        model.fit(dataset, batch_size=8)
    assert fitted(model, dataset.unbatch(), batch_size=8) == 3
    assert fitted(model, dataset.unbatch()) == 1  # Keras' 32


def test_epochs_are_batches_and_no_texts(tiny_tokenizer, eager):
    """`training.Epochs` in a task, as the same batches in a dataset: class weights, taggers' padding, hidden tokens."""

    def losses(model, *batch, **options):
        dataset, found = tf.data.Dataset.from_tensors(batch).repeat(2), []
        model.compile(keras.optimizers.SGD(0.01))
        for x in (dataset, training.Epochs(lambda epoch, first: dataset.skip(first), 2)):
            tiny.perturb(model)
            found.append(model.fit(x, verbose=0, **options).history["loss"])
        np.testing.assert_allclose(found[1], found[0], rtol=1e-5)

    batch, backbone = tiny.batch(4), tiny.backbone(encoder__num_layers=1)
    classifier, masked = tasks.TextClassifier(backbone, ["a", "b"]), tasks.MaskedLM(backbone, tokenizer=tiny_tokenizer)
    losses(classifier, batch, IDS[:4], class_weight={"a": 3.0})
    losses(tasks.TokenClassifier(backbone, ["a", "b"]), batch, batch["token_ids"] % 2)
    losses(masked, *masked.hidden_batch(batch, np.random.default_rng(0)))
    with pytest.raises(ValueError, match="y: wanted 0 to 1, ids of the labels"):
        losses(classifier, batch, IDS[:4] + 6)


def test_infinite_generator_of_batches_with_steps(classifier, beginning):
    """Two steps, and the weights of keras.Model.fit on the same generator."""

    def batches(encode):
        x = encode(tiny.TEXTS[:8])
        while True:
            yield x, IDS[:8]

    model = classifier
    assert fitted(model, batches(model.encode), steps_per_epoch=2) == 2
    ours, before = [weight.numpy() for weight in model.weights], updates(model)
    put_back(model, beginning)
    keras.Model.fit(model, batches(model.encode), steps_per_epoch=2, verbose=0)
    assert updates(model) - before == 2
    assert_alike(ours, model)
    found = model.evaluate(batches(model.encode), steps=2, verbose=0)
    np.testing.assert_allclose(found, model.evaluate(tiny.TEXTS[:8], IDS[:8], verbose=0), rtol=1e-5)
    assert model.predict(batches(model.encode), steps=3, verbose=0).shape == (24, 2)


def test_generators_of_texts(classifier):
    def endless():
        while True:
            yield tiny.TEXTS[:4], tiny.LABELS[:4]

    assert fitted(classifier, endless(), steps_per_epoch=3, epochs=2) == 6
    assert fitted(classifier, zip(tiny.TEXTS, tiny.LABELS, strict=True), batch_size=8) == 3
    assert fitted(classifier, iter([(tiny.TEXTS, tiny.LABELS)] * 2)) == 2
    whole = classifier.evaluate(tiny.TEXTS[:4], tiny.LABELS[:4], verbose=0)
    np.testing.assert_allclose(classifier.evaluate(endless(), steps=2, verbose=0), whole, rtol=1e-5)
    wanted = classifier.predict(tiny.TEXTS, verbose=0)
    np.testing.assert_allclose(classifier.predict(iter(tiny.TEXTS), verbose=0), wanted, atol=1e-6)
    assert classifier.predict(endless(), steps=2, verbose=0).shape == (8, 2)
    with pytest.raises(ValueError, match="may be a pair of texts or a text and its label"):
        classifier.predict(zip(tiny.TEXTS, tiny.TEXTS, strict=True))
    with pytest.raises(ValueError, match="empty"):
        classifier.fit(iter([]))
    with pytest.raises(ValueError, match="leave y and sample_weight out"):
        classifier.fit(endless(), tiny.LABELS)


def test_py_datasets_of_texts_and_of_batches(classifier):
    texts, arrays = Batches(tiny.TEXTS, tiny.LABELS), Batches(classifier.encode(tiny.TEXTS), IDS)
    wanted = classifier.evaluate(tiny.TEXTS, tiny.LABELS, verbose=0)
    for dataset in (texts, arrays):
        np.testing.assert_allclose(classifier.evaluate(dataset, verbose=0), wanted, rtol=1e-5)
        assert classifier.predict(dataset, verbose=0).shape == (24, 2)
    for dataset in (texts, arrays):
        assert fitted(classifier, dataset, epochs=2) == 6


def test_weights_come_with_streams_and_as_lists(classifier):
    """numpy: the mean of weight times cross-entropy over the rows, as Keras divides."""
    weights = [1.0, 2.0, 0.5] * 8
    shares = classifier.predict(tiny.TEXTS, verbose=0)[np.arange(24), IDS]
    wanted = (-np.log(shares) * weights).mean()
    for given in (weights, pandas.Series(weights, index=range(24, 0, -1)), np.array(weights)):
        found = classifier.evaluate(tiny.TEXTS, tiny.LABELS, sample_weight=given, verbose=0)
        np.testing.assert_allclose(found[0], wanted, rtol=1e-5)
    stream = zip(tiny.TEXTS, tiny.LABELS, weights, strict=True)
    np.testing.assert_allclose(classifier.evaluate(stream, verbose=0)[0], wanted, rtol=1e-5)
    with pytest.raises(ValueError, match="23"):
        classifier.fit(tiny.TEXTS, tiny.LABELS, sample_weight=weights[1:])
    with pytest.raises(ValueError, match="finite"):
        classifier.fit(tiny.TEXTS, tiny.LABELS, sample_weight=[*weights[1:], math.nan])


# ---- every task -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def every_task(tiny_tokenizer, backbone):
    """(name, task, x, y) of each task on texts, compiled so that nothing trains."""
    shared = {"tokenizer": tiny_tokenizer, "sequence_length": 16}
    pairs = [(text, text) for text in tiny.TEXTS]
    documents = [["good film", "bad plot", "a cat"], ["the dog sat", "good code", "ada wrote it"]] * 6
    electra, llama = tiny.backbone("electra", encoder__num_layers=1), tiny.backbone("llama", decoder__num_layers=1)
    found = [
        ("qa", tasks.QuestionAnswering(backbone, **shared), pairs, [(0, 3)] * 24),
        ("tagger", tasks.TokenClassifier(backbone, ["O", "B"], **shared), SENTENCES, TAGS),
        ("embedder", tasks.TextEmbedder(backbone, **shared), pairs, [0.5] * 24),
        ("contrastive", tasks.ContrastiveEmbedder(backbone, **shared), pairs, None),
        ("masked", tasks.MaskedLM(backbone, **shared), tiny.TEXTS, None),
        ("permutation", tasks.PermutationLM(backbone, **shared), tiny.TEXTS, None),
        ("replaced", tasks.ReplacedTokenDetection(electra, **shared), tiny.TEXTS, None),
        ("pretraining", tasks.BertPretraining(backbone, **shared), documents, None),
        ("causal", tasks.CausalLM(llama, **shared), tiny.TEXTS, None),
    ]
    for _, model, _, _ in found:
        tiny.perturb(model)
        model.compile(optimizer=keras.optimizers.SGD(0.0), run_eagerly=True)
    return found


def rows_of(x, y, part):
    return (x[part],) if y is None else (x[part], y[part])


def test_validation_split_in_every_task(every_task):
    """The last examples validate, as Keras has it: the loss of `evaluate` on them, where nothing trains."""
    for name, model, x, y in every_task:
        x, y = x[:10], y and y[:10]  # whose halves differ
        history = model.fit(x, y, validation_split=0.5, verbose=0).history
        wanted = model.evaluate(*rows_of(x, y, slice(5, None)), verbose=0, return_dict=True)
        tolerance = 0.1 if name == "replaced" else 1e-4  # its generator draws
        np.testing.assert_allclose(history["val_loss"][0], wanted["loss"], rtol=tolerance, err_msg=name)


def test_endless_generators_in_every_task(every_task):
    for name, model, x, y in every_task:

        def batches(x=x, y=y):
            while True:
                yield (x[:4],) if y is None else (x[:4], y[:4])

        assert fitted(model, batches(), steps_per_epoch=2) == 2, name
        assert np.isfinite(model.evaluate(batches(), steps=2, verbose=0, return_dict=True)["loss"]), name


def test_streams_of_mixtures_and_of_distillers(backbone, classifier, tiny_tokenizer):
    topics = tasks.TextClassifier(backbone, ["negative", "positive"], tokenizer=tiny_tokenizer)
    tagger = tasks.TokenClassifier(backbone, ["O", "B"], tokenizer=tiny_tokenizer)
    both = tasks.MultiTask({"topics": topics, "tags": tagger}, sequence_length=16)
    both.compile(optimizer=keras.optimizers.SGD(0.0), run_eagerly=True)
    lists = {"topics": (tiny.TEXTS, tiny.LABELS), "tags": (SENTENCES, TAGS)}
    streams = {
        "topics": tf.data.Dataset.from_tensor_slices((tiny.TEXTS, tiny.LABELS)).batch(4),
        "tags": (iter(SENTENCES), TAGS),
    }
    with pytest.raises(ValueError, match="leave y"):
        both.evaluate(streams, verbose=0)
    streams["tags"] = zip(SENTENCES, TAGS, strict=True)
    np.testing.assert_allclose(
        both.evaluate(streams, verbose=0, return_dict=True)["loss"],
        both.evaluate(lists, verbose=0, return_dict=True)["loss"],
        rtol=1e-5,
    )
    history = both.fit(lists, validation_split=0.25, verbose=0).history
    last = {name: (x[18:], y[18:]) for name, (x, y) in lists.items()}
    np.testing.assert_allclose(history["val_loss"][0], both.evaluate(last, verbose=0)[0], rtol=1e-4)

    student, teacher = make(tiny_tokenizer), classifier
    distiller = compression.Distiller(student, teacher)
    distiller.compile(optimizer=keras.optimizers.SGD(0.0), run_eagerly=True)
    assert fitted(distiller, tf.data.Dataset.from_tensor_slices((tiny.TEXTS, tiny.LABELS)).batch(4)) == 6
    assert fitted(distiller, (part for part in [(student.encode(tiny.TEXTS), IDS)] * 3), steps_per_epoch=3) == 3
    assert "val_loss" in distiller.fit(tiny.TEXTS, tiny.LABELS, validation_split=0.25, verbose=0).history
    with pytest.raises(ValueError, match="token_ids"):
        distiller.fit({**student.encode(tiny.TEXTS), "token_ids": np.full((24, 16), -1)}, IDS)


# ---- labels -----------------------------------------------------------------------------------------------------


def test_number_like_label_names():
    """Strings are names; numbers are refused where as ids and as names they are other labels."""
    single = "single_label_classification"
    assert encode_labels(["1", "0", "1"], ["1", "0"], single).tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match=r"label 1 is ambiguous.*as an id it is the label '0', as a name it is '1'"):
        encode_labels([1, 0, 1], ["1", "0"], single)
    assert encode_labels([1, 0, 1], ["0", "1"], single).tolist() == [1, 0, 1]  # both readings are one
    assert encode_labels([3, 7], ["3", "7"], single).tolist() == [0, 1]  # no ids
    assert encode_labels([1, 0, 1], ["no", "yes"], single).tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="ambiguous"):
        encode_labels([[1, 2], [1]], ["1", "2", "3"], "multi_label_classification")


def test_labels_that_differ_by_what_nobody_sees():
    for pair in (["yes", "yes "], ["caf\u00e9", "cafe\u0301"], ["a b", "a  b"]):
        with pytest.raises(ValueError, match="differ by spaces or by their Unicode form"):
            check_labels(pair)
    with pytest.warns(UserWarning, match="'us' and 'US' differ by upper and lower case only"):
        assert check_labels(["us", "US"]) == ["us", "US"]
    with pytest.raises(ValueError, match="'yes ', which is not among no, yes: it differs from 'yes' by spaces"):
        encode_labels(["yes "], ["no", "yes"], "single_label_classification")
    with pytest.raises(TypeError, match="order"):
        check_labels({"a", "b"})


def test_labels_as_keras_users_have_them(classifier):
    """Columns [B, 1], floats, booleans, tensors, lists beside arrays: the loss of plain ids."""
    wanted = classifier.evaluate(tiny.TEXTS, IDS, verbose=0)
    encoded = classifier.encode(tiny.TEXTS)
    for labels in (IDS[:, None], IDS.astype("float32"), IDS == 1, tf.constant(IDS), tf.constant(tiny.LABELS)):
        np.testing.assert_allclose(classifier.evaluate(tiny.TEXTS, labels, verbose=0), wanted, rtol=1e-5)
    for labels in (IDS.tolist(), tiny.LABELS, np.array(tiny.LABELS), pandas.Series(tiny.LABELS), IDS):
        np.testing.assert_allclose(classifier.evaluate(encoded, labels, verbose=0), wanted, rtol=1e-5)


def test_no_labels_are_said(every_task):
    for name, model, x, y in every_task:
        if y is not None:
            with pytest.raises(ValueError, match="learns from labels, and none came"):
                model.fit(x)
            with pytest.raises(ValueError, match="learns from labels, and none came"):
                model.evaluate(tf.data.Dataset.from_tensors(["a"]) if name == "embedder" else x)
        elif name != "contrastive":
            continue
        else:
            with pytest.raises(ValueError, match="Examples of 3 texts: wanted texts, or pairs"):
                model.fit([("a", "b", "c")] * 4)


def test_labels_of_words_are_as_many_as_words(backbone, tiny_tokenizer):
    model = tasks.TokenClassifier(backbone, ["O", "B"], tokenizer=tiny_tokenizer)
    for labels in (["O"], ["O"] * 3):
        with pytest.raises(ValueError, match=r"Example 1 has 2 words but . labels"):
            model.fit([["good"], ["bad", "film"]], [["O"], labels])


# ---- columns ----------------------------------------------------------------------------------------------------


def test_columns_of_pandas_and_numpy(classifier):
    wanted = classifier.evaluate(tiny.TEXTS, tiny.LABELS, verbose=0)
    table = pandas.DataFrame({"text": tiny.TEXTS, "label": tiny.LABELS}).sample(frac=1.0, random_state=0)
    columns = [table.text, table.text.astype("string"), table.text.astype("category")]
    if pandas.__version__ >= "2":
        columns += [table.text.astype("string[pyarrow]")] if _installed("pyarrow") else []
    for column in columns:
        found = classifier.evaluate(column, table.label.astype("category"), verbose=0)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    strings = np.array(tiny.TEXTS, dtype=np.dtypes.StringDType())
    for texts in (strings, tf.constant(tiny.TEXTS), tf.ragged.constant([tiny.TEXTS])[0]):
        np.testing.assert_allclose(classifier.evaluate(texts, tiny.LABELS, verbose=0), wanted, rtol=1e-5)
    holes = table.text.where(table.text != "good film")
    row = next(i for i, text in enumerate(table.text) if text == "good film")
    for missing in (
        holes,
        holes.astype("string"),
        holes.astype("category"),
        holes.astype(object).where(holes.notna(), None),
    ):
        with pytest.raises(TypeError, match=rf"texts\[{row}\] is .*missing"):
            classifier.fit(missing, table.label)
    with pytest.raises(ValueError, match=f"Example {row} has a missing value"):
        classifier.fit(table.text, table.label.where(table.text != "good film"))


def _installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            pandas.DataFrame({"text": ["a"], "label": [0]}),
            TypeError,
            r"'text', 'label': pass one column.*data\['text'\]",
        ),
        ({"text": ["a"]}, TypeError, "dict of 'text'.*pass one column of texts"),
        ({"good", "bad"}, TypeError, "no order"),
        ("good film", TypeError, r"pass \[texts\]"),
        (b"good film", TypeError, r"pass \[texts\]"),
        ([b"good film"], TypeError, "decode it first"),
        (iter([b"good film"]), TypeError, "decode it first"),
        ([], ValueError, "empty"),
        (iter([{"text": "a", "label": 0}]), TypeError, r'row\["text"\], row\["label"\]'),
        (tf.data.Dataset.from_tensors({"text": "a", "label": 0}), TypeError, r'row\["text"\], row\["label"\]'),
        (tf.data.Dataset.from_tensor_slices(["a"]).repeat(), ValueError, "never ends.*steps"),
    ],
)
def test_what_holds_no_texts(x, error, message, classifier):
    with pytest.raises(error, match=message):
        classifier.predict(x, verbose=0)


# ---- ids and numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token_ids", -1),
        ("token_ids", tiny.VOCABULARY_SIZE),
        ("token_ids", 2**33 + 5),
        ("token_ids", 5.7),
        ("padding_mask", 2),
        ("segment_ids", 2),
        ("segment_ids", math.nan),
    ],
)
def test_ids_outside_of_the_tables_are_refused(name, value, classifier):
    """On the host, before a step: a compiled one reads another row, or NaN. Arrays, generators, datasets."""
    inputs = classifier.encode(tiny.TEXTS[:8])
    inputs = {**inputs, name: inputs[name].astype("int64" if isinstance(value, int) else "float32")}
    inputs[name][3, 2] = value
    before = updates(classifier)
    for call in (classifier.fit, classifier.evaluate):
        with pytest.raises(ValueError, match=rf"{name}\[3, 2\] is"):
            call(inputs, IDS[:8], verbose=0)
    for call in (classifier.predict, classifier.logits):
        with pytest.raises(ValueError, match=rf"{name}\[3, 2\] is"):
            call(inputs, verbose=0)
    with pytest.raises(ValueError, match=rf"{name}\[3, 2\] is"):
        classifier.fit(iter([(inputs, IDS[:8])]), steps_per_epoch=1, verbose=0)
    dataset = tf.data.Dataset.from_tensor_slices((inputs, IDS[:8])).batch(8)
    for call in (classifier.fit, classifier.evaluate, classifier.predict):
        with pytest.raises(ValueError, match=name):
            call(dataset, verbose=0)
    assert updates(classifier) == before


@pytest.fixture(scope="module")
def compiled_by_xla(tiny_tokenizer, kernels_of_module):
    model = make(tiny_tokenizer)
    model.compile(optimizer=keras.optimizers.SGD(0.1), jit_compile=True)
    return model


@pytest.mark.parametrize("value", [7, -1, 0.5, math.nan])
def test_label_ids_outside_of_the_labels_are_refused(value, compiled_by_xla):
    """As arrays, under XLA too, whose gather would make the weights NaN."""
    model = compiled_by_xla
    labels = np.where(np.arange(24) == 5, value, IDS)
    with pytest.raises(ValueError, match=r"y\[5\] is"):
        model.fit(model.encode(tiny.TEXTS), labels, verbose=0)
    dataset = tf.data.Dataset.from_tensor_slices((model.encode(tiny.TEXTS), labels)).batch(24)
    with pytest.raises(ValueError, match="y"):
        model.fit(dataset, verbose=0)
    assert all(np.isfinite(variable.numpy()).all() for variable in model.trainable_variables)


def test_scores_and_targets_that_are_not_finite(backbone, tiny_tokenizer):
    options = {"tokenizer": tiny_tokenizer, "sequence_length": 16}
    scores = tasks.TextClassifier(backbone, ["a", "b"], "regression", **options)
    with pytest.raises(ValueError, match=r"y\[3, 0\] is nan, which is not finite"):
        scores.fit(scores.encode(tiny.TEXTS), np.where(np.arange(48).reshape(24, 2) == 6, np.nan, 1.0), verbose=0)
    with pytest.raises(ValueError, match="Target 1 is not a finite number"):
        scores.fit(tiny.TEXTS[:2], [[0.0, 1.0], [1.0, math.inf]])
    with pytest.raises(ValueError, match=r"sample_weight.*finite"):
        scores.fit(scores.encode(tiny.TEXTS), np.zeros((24, 2)), sample_weight=np.full(24, np.inf), verbose=0)


def test_rows_longer_than_the_positions_are_refused(classifier):
    long = {name: np.tile(array, (1, 5)) for name, array in classifier.encode(tiny.TEXTS[:2]).items()}
    with pytest.raises(ValueError, match="80 tokens a row, the model has positions for 64"):
        classifier.predict(long, verbose=0)


def test_ids_of_language_models_are_refused(tiny_tokenizer):
    lm = tasks.CausalLM(tiny.backbone("llama", decoder__num_layers=1), tokenizer=tiny_tokenizer, sequence_length=16)
    batch = tiny.batch(token_types=1)
    with pytest.raises(ValueError, match=r"y\[0, 0\] is 110"):
        lm.fit(batch, np.full_like(batch["token_ids"], 110), verbose=0)
    with pytest.raises(ValueError, match=r"token_ids.* is -1"):
        lm.logits({**batch, "token_ids": batch["token_ids"] - 1})
    with pytest.raises(ValueError, match=r"token_ids.* is 110"):
        lm.fit(np.arange(100, 140), verbose=0)
    with pytest.raises(ValueError, match="id 110"):
        lm.generate([[5, 110]], 2)


def test_values_are_named_by_place():
    limit = Limit(0, 9, "digits", also=-100)
    check_values(np.array([[0, 9], [-100, 3]]), limit, "y")
    with pytest.raises(ValueError, match=r"y\[1, 0\] is 10: wanted 0 to 9, digits"):
        check_values(np.array([[0, -100], [10, 3]]), limit, "y")
    check_values(np.array([1.0, 2.0]), limit, "y")
    check_values(np.zeros((0, 3)), limit, "y")


def test_nan_weight_is_said(classifier, tiny_tokenizer):
    """evaluate, predict and generate: never an accuracy of 0.3229, never another text."""
    model = classifier
    kernel = next(v for v in model.trainable_variables if v.path.endswith("kernel"))
    kernel.assign(np.where(np.arange(kernel.shape[1]) == 3, np.nan, kernel.numpy()))
    for call in (
        lambda: model.evaluate(tiny.TEXTS, tiny.LABELS, verbose=0),
        lambda: model.evaluate(model.encode(tiny.TEXTS), IDS, verbose=0, return_dict=True),
        lambda: model.predict(tiny.TEXTS, verbose=0),
        lambda: model.logits(model.encode(tiny.TEXTS), verbose=0),
        lambda: compression.Distiller(model, make(tiny_tokenizer)).evaluate(tiny.TEXTS, tiny.LABELS, verbose=0),
    ):
        with pytest.raises(ValueError, match="model's outputs are not finite"):
            call()
    assert math.isnan(model.fit(tiny.TEXTS, tiny.LABELS, validation_split=0.5, verbose=0).history["val_loss"][0])


# ---- words ------------------------------------------------------------------------------------------------------


def test_words_without_pieces_get_the_outside_label(backbone, tiny_tokenizer, eager):
    """A zero-width space makes no piece: "O" where there is one, else None; never labels[0]. Said once."""
    words = [["good", "\u200b", "film"]]
    for labels, wanted in ((["B-PER", "O"], "O"), (["NOUN", "VERB"], None)):
        model = tasks.TokenClassifier(backbone, labels, tokenizer=tiny_tokenizer)
        with pytest.warns(UserWarning, match="1 of 3 words make no piece") as seen:
            (found,) = model.predict(words, verbose=0)
        assert found[1] == wanted and found[0] in labels and found[2] in labels
        assert len([one for one in seen if "no piece" in str(one.message)]) == 1


def test_long_texts_are_read_in_windows(backbone, tiny_tokenizer, eager):
    """Every word's label by plain numpy: each window alone through the model, the most context on the poorer side."""
    model = tiny.perturb(tasks.TokenClassifier(backbone, ["B-PER", "B-LOC", "O"], tokenizer=tiny_tokenizer))
    generator = np.random.default_rng(0)
    words = [tiny.WORDS[i] for i in generator.integers(0, len(tiny.WORDS), 150)]  # a piece each
    (found,) = model.predict([words, ["good", "film"]], verbose=0)[:1]
    size, stride = 62, 16  # 64 positions, two special tokens; a quarter is shared
    best = {}
    for start in range(0, 150 - stride, size - stride):
        part = words[start : start + size]
        logits = np.asarray(model(model.encode([part], sequence_length=len(part) + 2)))[0, 1:-1]
        for place, row in enumerate(logits):
            room = min(place, len(part) - 1 - place)
            if room > best.get(start + place, (-1,))[0]:
                best[start + place] = room, model.labels[int(row.argmax())]
    assert found == [best[place][1] for place in range(150)] and len(set(found)) > 1


def test_files_tag_as_the_task_does(backbone, tiny_tokenizer, eager):
    """LiteRTModel names words by the same code: here on the logits of the Keras task, at the length of its file."""
    from tfxformer.export import LiteRTModel

    labels = ["B-PER", "B-LOC", "O"]
    model = tiny.perturb(tasks.TokenClassifier(backbone, labels, tokenizer=tiny_tokenizer))

    class File(LiteRTModel):
        sequence_length, _has_segments, task = 64, True, "token-classification"

        def __init__(self):
            self.labels, self.tokenizer = labels, tiny_tokenizer

        def _token_outputs(self, batch, output):
            return model.logits(batch, verbose=0)

    long = [tiny.WORDS[i % len(tiny.WORDS)] for i in range(90)]
    words = [long, ["good", "\u200b", "film"]]
    with pytest.warns(UserWarning, match="no piece"):
        found = File().predict(words)
    with pytest.warns(UserWarning, match="no piece"):
        assert found == model.predict(words, verbose=0)
    assert len(found[0]) == 90 and found[1][1] == "O"
    with pytest.raises(ValueError, match="92 tokens"):
        File().predict(words, truncation=False)
    with pytest.raises(TypeError, match=r"pass \[texts\]"):
        File().predict("good film")


@pytest.mark.reference
def test_windows_are_those_of_transformers(tmp_path, tiny_tokenizer):
    """`return_overflowing_tokens` with a stride cuts the same windows."""
    from transformers import PreTrainedTokenizerFast

    tiny_tokenizer.save_pretrained(tmp_path)
    reference = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="[PAD]")
    words = [["alanx"] * 21, ["good", "film"]]
    windows = encode_word_windows(tiny_tokenizer, words, sequence_length=16, overlap=4)
    theirs = reference(
        words,
        is_split_into_words=True,
        max_length=16,
        stride=4,
        truncation=True,
        padding="max_length",
        return_overflowing_tokens=True,
    )
    order = np.argsort(windows.example_ids, kind="stable")
    np.testing.assert_array_equal(windows.batch["token_ids"][order], theirs["input_ids"])
    np.testing.assert_array_equal(windows.batch["padding_mask"][order], theirs["attention_mask"])
    np.testing.assert_array_equal(windows.example_ids[order], theirs["overflow_to_sample_mapping"])
    values = word_values(windows, windows.batch["token_ids"])
    first = tiny_tokenizer.ids(["alanx"], special_tokens=False)[0][0]
    assert values[0].tolist() == [first] * 21  # a window that begins inside a word does not speak for it
    assert named_labels([np.array([0, -1])], ["A"]) == [["A", None]]


# ---- files ------------------------------------------------------------------------------------------------------


def test_no_nan_in_json(tmp_path, capsys):
    """NaN is no JSON (RFC 8259): what is not finite is refused by its place, and histories have null."""
    from tfxformer.cli import console
    from tfxformer.files import write_json

    for value in ({"scores": {"f1": math.nan}}, {"rates": [1.0, math.inf]}):
        with pytest.raises(ValueError, match="was not written: Out of range float"):
            write_json(tmp_path / "report.json", value)
        with pytest.raises(ValueError, match="not finite"):
            console.show("evaluate", value, as_json=True)
    assert not (tmp_path / "report.json").exists() and not capsys.readouterr().out
    write_json(tmp_path / "report.json", {"f1": np.float32(0.5).item()})
    assert json.loads((tmp_path / "report.json").read_text()) == {"f1": 0.5}


# ---- what testers found ------------------------------------------------------------------------------------------


def test_rows_of_several_labels():
    """Rows of another width were read as ids ([1, 0, 0, 0] of three labels gave the first two); shares of 0 to 1, which
    Keras' binary cross-entropy takes as they are, were refused."""
    several = ["a", "b", "c"], "multi_label_classification"
    for rows in (np.eye(4)[:2], [[2.0, 2.0, 2.0]], [[1, 0, 1, 0, 0]], [[1, 1]]):
        with pytest.raises(ValueError, match="each once, or a row of 3 numbers from 0 to 1"):
            encode_labels(np.asarray(rows).tolist(), *several)
    shares = np.asarray([[0.5, 0.25, 1.0], [0.0, 1.0, 0.0]], "float32")
    np.testing.assert_array_equal(encode_labels(shares.tolist(), *several), shares)
    np.testing.assert_array_equal(
        encode_labels([[0, 2], ["b"], {"a", "c"}], *several), [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),  # Keras takes 32 in silence
        ("batch_size", -1),
        ("batch_size", 4.0),
        ("epochs", 1.5),
        ("epochs", "2"),
        ("initial_epoch", -1),
        ("steps_per_epoch", 0),
        ("validation_batch_size", 0),
    ],
)
def test_counts_are_whole_numbers(name, value, classifier):
    with pytest.raises(ValueError, match=rf"{name}={value!r}: wanted a whole number of [01] or more"):
        classifier.fit(tiny.TEXTS, tiny.LABELS, verbose=0, **{name: value})
    if name == "batch_size":
        for method in (classifier.evaluate, classifier.predict):
            with pytest.raises(ValueError, match="batch_size="):
                method(tiny.TEXTS, batch_size=value, verbose=0)


def test_validation_data_as_keras_takes_it(classifier):
    """Keras reads a list of x and y as it reads a tuple; a list of two texts to MaskedLM stays one of texts."""
    texts, labels = tiny.TEXTS[:3], tiny.LABELS[:3]
    wanted = classifier.evaluate(texts, labels, verbose=0)[0]
    classifier.optimizer.learning_rate = 0.0
    for given in ((texts, labels), [texts, labels], [classifier.encode(texts), np.asarray([1, 0, 1])]):
        got = classifier.fit(tiny.TEXTS, tiny.LABELS, validation_data=given, verbose=0).history
        np.testing.assert_allclose(got["val_loss"], wanted, rtol=1e-6)
    with pytest.raises(ValueError, match="validation_data has 4 parts; wanted x"):
        classifier.fit(tiny.TEXTS, tiny.LABELS, validation_data=(texts, labels, None, None), verbose=0)
    classifier.optimizer.learning_rate = 0.01


def test_targets_that_are_no_targets_are_named(classifier):
    """Each came as Python's or numpy's own error from deep inside."""
    for answer in ("ada", ("ada", 0), {"text": "ada"}, (1.5, 2.5)):
        with pytest.raises(ValueError, match=r"answers\[0\] is .*wanted \(start, end\) of characters"):
            answer_spans([answer], ["ada wrote it"])
    with pytest.raises(ValueError, match="Score 1 is 'same': wanted a number"):
        cosine_targets([0.5, "same"])
    with pytest.raises(ValueError, match=r"sample_weight\[0\] is \['x'\]: wanted numbers"):
        word_weights([["x"]], [["ada"]])
    with pytest.raises(TypeError, match=r"texts\[0\] is a list of 24: .*zip\(first, second\)"):
        classifier.predict([tiny.TEXTS, tiny.TEXTS, tiny.TEXTS], verbose=0)
    with pytest.raises(TypeError, match=r"rows of numbers, data\.to_numpy\(\)"):
        classifier.fit(tiny.TEXTS, pandas.DataFrame(np.eye(2)[[0, 1] * 12], columns=["a", "b"]), verbose=0)


@pytest.mark.parametrize("loss", ["mse", "binary_crossentropy", keras.losses.CategoricalCrossentropy(from_logits=True)])
def test_label_ids_are_refused_whatever_the_loss(loss, classifier):
    """Ids beside a loss of rows are made rows: 7 became one without a class, whose loss is 0."""
    classifier.compile(keras.optimizers.SGD(0.01), loss, run_eagerly=True)
    batch = classifier.encode(tiny.TEXTS)
    for value in (7, -1):
        with pytest.raises(ValueError, match=rf"y\[0\] is {value}: wanted 0 to 1"):
            classifier.fit(batch, np.full(24, value), verbose=0)
    for rows in (IDS, np.eye(2)[IDS], np.eye(2, dtype="int32")[IDS], np.full((24, 2), 0.5)):
        assert math.isfinite(classifier.test_on_batch(batch, rows)[0])
    classifier.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
