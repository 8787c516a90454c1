"""What all tasks share, shown on one: inputs of every kind, lengths, schedules, saving, interruption."""

import json

import batteries
import keras
import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

from tfxformer import tasks
from tfxformer.tasks.text_classifier import probabilities

pytestmark = pytest.mark.usefixtures("plain_kernels")
IDS = [int(label == "positive") for label in tiny.LABELS]


@pytest.fixture
def make(tiny_tokenizer):
    def make(dtype=None, tokenizer=tiny_tokenizer, sequence_length=None, **arguments):
        backbone = tiny.backbone(dtype=dtype, encoder__num_layers=1, **arguments)
        labels = ["negative", "positive"]
        return tiny.perturb(
            tasks.TextClassifier(backbone, labels, tokenizer=tokenizer, sequence_length=sequence_length)
        )

    return make


@pytest.fixture(scope="module")
def untrained(tiny_tokenizer):
    """A classifier that no test trains."""
    return tasks.TextClassifier(
        tiny.backbone(encoder__num_layers=1), ["negative", "positive"], tokenizer=tiny_tokenizer
    )


class Recorder(keras.callbacks.Callback):
    """The learning rate of each step, and the steps of each epoch."""

    def __init__(self):
        super().__init__()
        self.rates, self.lengths = [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch, logs=None):
        self.lengths.append(len(self.rates))


def fit(model, x, y=None, **arguments):
    arguments = {"batch_size": 8, "epochs": 1, "verbose": 0, "shuffle": False, **arguments}
    if hasattr(x, "element_spec") and "token_ids" in str(x.element_spec):
        arguments.pop("batch_size")
    return model.fit(x, y, **arguments).history["loss"]


def test_every_kind_of_input_trains_alike(make):
    """Texts, a dataset of texts (single or batched), arrays, and a dataset of batches: one and the same loss."""
    examples, labels, ids = tiny.TEXTS[:12], tiny.LABELS[:12], np.array(IDS[:12])  # a batch and a half
    encoded = make(sequence_length=16).encode(examples)
    texts = tf.data.Dataset.from_tensor_slices((examples, labels))
    batches = tf.data.Dataset.from_tensor_slices((encoded, ids)).batch(8)
    kinds = {
        "texts": (examples, labels),
        "dataset of texts": (texts,),
        "arrays": (encoded, ids),
        "dataset of batches": (batches,),
    }
    losses = {}
    for kind, given in kinds.items():
        model = make(sequence_length=16)
        losses[kind] = fit(model, *given)[0]
        if kind == "texts":
            evaluated = model.evaluate(*given, verbose=0, return_dict=True)
            for other in (*kinds.values(), (np.array(examples), ids), (texts.batch(5),)):
                again = model.evaluate(*other, verbose=0, return_dict=True)
                np.testing.assert_allclose(list(again.values()), list(evaluated.values()), rtol=1e-4)
            wanted = model.predict(examples, verbose=0)
            np.testing.assert_allclose(model.predict(texts, verbose=0), wanted, atol=1e-6)
            np.testing.assert_allclose(model.predict(encoded, verbose=0), wanted, atol=1e-6)
            np.testing.assert_allclose(model.predict(batches, verbose=0), wanted, atol=1e-6)
    np.testing.assert_allclose(list(losses.values()), losses["texts"], rtol=1e-5)


def test_default_schedule_covers_the_steps_of_each_fit(make):
    """0 at the first step, the peak after a tenth, down to 0 after the last; again in the next fit."""
    model = make(sequence_length=16)
    model.compile(learning_rate=1e-3, warmup=0.25)
    for texts, labels, epochs, total in ((tiny.TEXTS, tiny.LABELS, 4, 12), (tiny.TEXTS[:10], tiny.LABELS[:10], 2, 4)):
        recorder = Recorder()
        fit(model, texts, labels, epochs=epochs, callbacks=[recorder])
        warmup = total // 4
        wanted = [
            1e-3 * (step / warmup if step < warmup else (total - step) / (total - warmup)) for step in range(total)
        ]
        np.testing.assert_allclose(recorder.rates, wanted, rtol=1e-5, atol=1e-12)
    no_decay = {v.path for v in model.trainable_variables if not model.optimizer._use_weight_decay(v)}
    assert all(path.endswith(("bias", "beta", "gamma")) for path in no_decay) and no_decay


def test_validation_split_shortens_the_schedule(make):
    model, recorder = make(sequence_length=16), Recorder()
    history = model.fit(
        tiny.TEXTS, tiny.LABELS, batch_size=8, verbose=0, validation_split=0.5, callbacks=[recorder], shuffle=False
    ).history
    assert recorder.lengths == [2] and model.optimizer.learning_rate == 0  # 12 of 24 texts in 2 steps
    wanted = model.evaluate(tiny.TEXTS[12:], tiny.LABELS[12:], verbose=0)
    np.testing.assert_allclose(history["val_loss"][0], wanted[0], rtol=1e-4)


def test_validation_data_and_early_stopping(make):
    model = make(sequence_length=16)
    model.compile(learning_rate=0.0)
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
    validation = (tiny.TEXTS[:6], tiny.LABELS[:6])
    history = model.fit(
        tiny.TEXTS, tiny.LABELS, epochs=6, verbose=0, validation_data=validation, callbacks=[stopping]
    ).history
    assert len(history["loss"]) == 2  # nothing improves at rate 0
    dataset = tf.data.Dataset.from_tensor_slices(validation)
    encoded = (model.encode(validation[0]), np.array(IDS[:6]))
    for given in (dataset, encoded):
        again = model.fit(tiny.TEXTS, tiny.LABELS, verbose=0, validation_data=given).history
        np.testing.assert_allclose(again["val_loss"][0], history["val_loss"][0], rtol=1e-5)


def test_own_optimizer_and_loss_are_kept(make):
    model = make(sequence_length=16)
    optimizer = keras.optimizers.SGD(0.1)
    model.compile(optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[])
    before = tiny.weights(model)
    fit(model, tiny.TEXTS, tiny.LABELS)
    assert model.optimizer is optimizer and int(optimizer.iterations) == 3
    after = tiny.weights(model)
    assert all((before[path] != after[path]).any() for path in before if path.endswith("output/kernel"))


# ---- lengths --------------------------------------------------------------------------------------------------


def test_sequence_length_is_the_95th_percentile(make):
    texts = ["good " * 10] * 96 + ["good " * 50] * 4  # 12 and 52 tokens with the special ones
    model = make()
    assert model.encode(texts)["token_ids"].shape == (100, 64)  # not chosen yet: the longest
    with pytest.warns(UserWarning, match="longer than 16 tokens") as caught:
        fit(model, texts, IDS[:4] * 25, batch_size=50)
    assert model.sequence_length == 16
    assert len([w for w in caught if "longer than" in str(w.message)]) == 1
    with pytest.warns(UserWarning, match="1 of 2 texts were longer"):
        assert model.encode(["good", "good " * 20])["token_ids"].shape == (2, 16)
    with pytest.raises(ValueError, match=r"texts\[1\] has 22 tokens"):
        model.encode(["good", "good " * 20], truncation=False)
    assert model.encode(["good"], sequence_length=32)["token_ids"].shape == (1, 32)


@pytest.mark.parametrize("length", [0, -1, 65])
def test_impossible_sequence_length(length, untrained):
    with pytest.raises(ValueError, match="must be 1 to 64, the model's positions"):
        tasks.TextClassifier(untrained.backbone, ["a", "b"], sequence_length=length)


# ---- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        ([], [], ValueError, "dataset is empty"),
        (["good"], ["positive", "negative"], ValueError, "1 texts but 2 labels"),
        (["good"], ["neutral"], ValueError, "'neutral', which is not among negative, positive"),
        (["good"], [2], ValueError, "label id 2"),
        (["good"], [0.5], ValueError, "wanted one label"),
        ("good", ["positive"], TypeError, r"pass \[texts\]"),
        ([3], ["positive"], TypeError, "not str"),
        ([None], ["positive"], TypeError, "not str"),
    ],
)
def test_bad_examples(x, y, error, message, untrained):
    model = untrained
    with pytest.raises(error, match=message):
        model.fit(x, y, verbose=0)
    assert model.optimizer is None or int(model.optimizer.iterations) == 0


def test_datasets_without_length_or_end(make):
    model = make(sequence_length=16)
    dataset = tf.data.Dataset.from_tensor_slices((tiny.TEXTS, tiny.LABELS))
    with pytest.raises(ValueError, match="never ends"):
        model.fit(dataset.repeat())
    with pytest.raises(ValueError, match="empty"):
        model.fit(dataset.take(0))
    batches = tf.data.Dataset.from_tensor_slices((model.encode(tiny.TEXTS), IDS)).batch(8)
    with pytest.raises(ValueError, match="steps_per_epoch"):
        model.fit(batches.filter(lambda x, y: True))
    with pytest.raises(TypeError, match="token_ids and padding_mask"):
        model.fit(tf.data.Dataset.from_tensor_slices(np.zeros((4, 3))))
    recorder = Recorder()
    model.fit(batches.repeat(), steps_per_epoch=2, epochs=2, verbose=0, callbacks=[recorder])
    assert recorder.lengths == [2, 4] and model.optimizer.learning_rate == 0


def test_without_tokenizer(make, tiny_tokenizer):
    model = make(tokenizer=None)
    with pytest.raises(ValueError, match="no tokenizer"):
        model.predict(["good"])
    assert model.predict(tiny.batch(), verbose=0).shape == (3, 2)
    model.tokenizer = tiny_tokenizer
    assert model.predict(["good"], verbose=0).shape == (1, 2)


def test_tokenizer_of_another_model(tiny_tokenizer):
    with pytest.raises(ValueError, match="95 tokens, the model rows for 40: they do not belong together"):
        tasks.TextClassifier(tiny.backbone(vocabulary_size=40), ["a", "b"], tokenizer=tiny_tokenizer)


# ---- interruption, saving -------------------------------------------------------------------------------------


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise KeyboardInterrupt


def test_interrupted_fit(make, tmp_path):
    """What was learnt stays, the model can be saved, and fits again with a whole schedule."""
    model, recorder = make(sequence_length=16), Recorder()
    model.compile(learning_rate=1e-3, warmup=0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(model, tiny.TEXTS, tiny.LABELS, epochs=2, callbacks=[Interrupt()])
    assert int(model.optimizer.iterations) == 2
    model.save(tmp_path / "interrupted.keras")
    fit(model, tiny.TEXTS, tiny.LABELS, callbacks=[recorder])
    np.testing.assert_allclose(recorder.rates, [1e-3, 2e-3 / 3, 1e-3 / 3], rtol=1e-5)


def test_continuing_from_a_file_equals_not_stopping(make, tmp_path):
    """Weights, moments and schedule: an epoch, a file, one more, are two epochs."""
    whole, recorder = make(sequence_length=16), Recorder()
    whole.compile(learning_rate=1e-3)
    fit(whole, tiny.TEXTS, tiny.LABELS, epochs=2, callbacks=[recorder])

    class Save(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                self.model.save(tmp_path / "half.keras")
                self.model.stop_training = True

    half = make(sequence_length=16)
    half.compile(learning_rate=1e-3)
    fit(half, tiny.TEXTS, tiny.LABELS, epochs=2, callbacks=[Save()])
    opened, rest = keras.saving.load_model(tmp_path / "half.keras"), Recorder()
    fit(opened, tiny.TEXTS, tiny.LABELS, epochs=2, initial_epoch=1, callbacks=[rest])
    np.testing.assert_allclose(rest.rates, recorder.rates[3:], rtol=1e-6)
    wanted, actual = tiny.weights(whole), tiny.weights(opened)
    for path, value in wanted.items():
        np.testing.assert_allclose(actual[path], value, atol=1e-5, err_msg=path)


def test_initial_epoch_of_a_fresh_model_trains(make):
    """Its default optimizer knows no steps yet: without a schedule of its own, the rate would be zero."""
    model, recorder = make(sequence_length=16), Recorder()
    fit(model, tiny.TEXTS, tiny.LABELS, epochs=3, initial_epoch=1, callbacks=[recorder])
    assert len(recorder.rates) == 6 and min(recorder.rates) > 1e-5


def test_unsaved_and_uncompiled_files(make, tmp_path):
    model = make()
    model.save(tmp_path / "model.keras")
    opened = keras.saving.load_model(tmp_path / "model.keras")
    assert not opened.compiled and opened.sequence_length is None
    np.testing.assert_array_equal(opened.predict(["good film"], verbose=0), model.predict(["good film"], verbose=0))
    bare = make(tokenizer=None)
    bare.save(tmp_path / "bare.keras")
    assert keras.saving.load_model(tmp_path / "bare.keras").tokenizer is None


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_fit(dtype, make, tmp_path):
    model = make(dtype=dtype, sequence_length=16)
    losses = fit(model, tiny.TEXTS[:16], tiny.LABELS[:16])
    assert np.isfinite(losses).all()
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (dtype == "mixed_float16")
    plain = make(sequence_length=16)
    np.testing.assert_allclose(losses, fit(plain, tiny.TEXTS[:16], tiny.LABELS[:16]), rtol=3e-2)
    model.save(tmp_path / "model.keras")
    opened = keras.saving.load_model(tmp_path / "model.keras")
    assert opened.dtype_policy.name == dtype
    np.testing.assert_array_equal(opened.predict(["good"], verbose=0), model.predict(["good"], verbose=0))
    folder = model.save_pretrained(tmp_path / "folder")
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    batteries.check_same_weights(tasks.TextClassifier.from_pretrained(folder), model)


def test_frozen_backbone_stays(make):
    model = make(sequence_length=16)
    model.backbone.trainable = False
    before = tiny.weights(model)
    fit(model, tiny.TEXTS, tiny.LABELS)
    after = tiny.weights(model)
    changed = {path for path in before if (before[path] != after[path]).any()}
    assert changed and all(path.startswith("classifier/") for path in changed)


def test_whole_step_under_xla(make, traced):
    model = make(sequence_length=16)
    model.compile(jit_compile=True)
    losses = fit(model, tiny.TEXTS, tiny.LABELS)
    tf.config.run_functions_eagerly(True)
    np.testing.assert_allclose(losses, fit(make(sequence_length=16), tiny.TEXTS, tiny.LABELS), rtol=1e-4)


def test_probabilities():
    logits = np.array([[1000.0, 0.0], [-3.0, 2.0]])
    single = probabilities(logits, "single_label_classification")
    np.testing.assert_allclose(single, [[1, 0], [1 / (1 + np.e**5), 1 / (1 + np.e**-5)]], rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(
        probabilities(logits, "multi_label_classification")[1], [1 / (1 + np.e**3), 1 / (1 + np.e**-2)], rtol=1e-5
    )
    assert probabilities(logits, "regression") is not None and (probabilities(logits, "regression") == logits).all()
