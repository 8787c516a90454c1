"""QuantizationAware: steps round as the file will, everywhere alike, and nothing is left."""

import keras
import numpy as np
import pytest
import replicas
import tensorflow as tf
import tiny
from ai_edge_litert.interpreter import Interpreter
from distillation_cases import classifier, language_model
from quantization_cases import distance, planted, two_replicas_and_one_device

from tfxformer import compression, export, tasks
from tfxformer.compression import Distiller, QuantizationAware, student_from
from tfxformer.compression.quantization_aware import observe
from tfxformer.export import plan
from tfxformer.layers.quantization.fake_quantization import FakeQuantization, rounding

pytestmark = pytest.mark.usefixtures("plain_kernels", "eager")
CLASSES = np.array([label == "positive" for label in tiny.LABELS]).astype("int32")


def small(tokenizer, **changes):
    """A classifier of one block, to which rounding does much."""
    made = planted(classifier(tokenizer, layers=1, **changes))
    made.sequence_length = 16
    return made


@pytest.fixture
def model(tiny_tokenizer):
    return small(tiny_tokenizer)


def fit(model, *callbacks, rate=0.05, epochs=1, rows=24, **options):
    """Plain gradient descent, in order, 8 rows a step."""
    compile_options = {name: options.pop(name) for name in ("jit_compile",) if name in options}
    model.compile(keras.optimizers.SGD(rate), **compile_options)
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, "epochs": epochs, **options}
    return model.fit(tiny.TEXTS[:rows], tiny.LABELS[:rows], callbacks=list(callbacks), **arguments).history


def by_hand(model, epochs=1, rate=0.05):
    """The weights after the same descent, written as a loop over the rounded forward pass."""
    batch, logits = model.encode(tiny.TEXTS), None
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    weights = model.trainable_variables
    for _ in range(epochs):
        quantization = observe(model, tiny.TEXTS)
        for begin in range(0, len(CLASSES), 8):
            part = {name: tf.constant(ids[begin : begin + 8]) for name, ids in batch.items()}
            with rounding(quantization), tf.GradientTape() as tape:
                logits = model(part, training=True)
                loss = loss_of(CLASSES[begin : begin + 8], logits)
            for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
                weight.assign_sub(rate * tf.convert_to_tensor(gradient))
    return tiny.weights(model)


def assert_near(found, wanted, plain):
    """Far nearer to the rounded steps than steps without rounding: where a sum is near a tie, its order decides."""
    assert distance(wanted, plain) > 1e-2
    assert distance(found, wanted) < 0.25 * distance(wanted, plain)


def unrounded(tokenizer, epochs=1):
    """The weights after steps without rounding."""
    model = small(tokenizer)
    fit(model, epochs=epochs)
    return tiny.weights(model)


def test_steps_are_those_of_the_rounded_model(model, tiny_tokenizer, traced):
    fit(model, QuantizationAware(tiny.TEXTS), epochs=2)
    wanted = by_hand(small(tiny_tokenizer), epochs=2)
    assert_near(tiny.weights(model), wanted, unrounded(tiny_tokenizer, epochs=2))


@pytest.mark.slow
def test_compiled_steps_are_the_same(model, tiny_tokenizer, traced):
    fit(model, QuantizationAware(tiny.TEXTS), jit_compile=True)
    assert_near(tiny.weights(model), by_hand(small(tiny_tokenizer)), unrounded(tiny_tokenizer))


def test_the_rounded_model_answers_as_the_file(tiny_tokenizer, tmp_path):
    """As far from the float model as the file is: it rounds in the same places, though by other ties."""
    backbone = tiny.backbone("bert", encoder__num_layers=1)
    model = tiny.perturb(tasks.TokenClassifier(backbone, ["O", "B-X", "I-X"], tokenizer=tiny_tokenizer))
    path, seen = tmp_path / "m.tflite", [*plan.SAMPLE_TEXTS, *tiny.TEXTS]  # what calibrates the file
    export.export_litert(model, path, "int8", sequence_length=16, representative=tiny.TEXTS, tolerance=0.9)
    runner = Interpreter(model_path=str(path)).get_signature_runner("tag")
    batch = tensors(model, tiny.TEXTS[:6])
    rows = [{name: np.asarray(ids)[i : i + 1] for name, ids in batch.items()} for i in range(6)]
    file = np.concatenate([runner(**row)["logits"] for row in rows])
    with rounding(observe(model, tensors(model, seen))):
        rounded = np.asarray(model(batch))
    real = np.asarray(batch["padding_mask"]) == 1
    plain = np.asarray(model(batch))
    errors = [np.linalg.norm((logits - plain)[real]) for logits in (rounded, file)]
    assert 0.5 < errors[0] / errors[1] < 2.0


def tensors(model, texts) -> dict:
    """Texts as a batch of 16 tokens each."""
    encoding = model.tokenizer.encode(texts, sequence_length=16)
    return {tensor.name: tf.constant(getattr(encoding, tensor.name)) for tensor in model.inputs}


def assert_nothing_left(model):
    assert not {"call", "make_train_function"} & set(vars(model))


def test_nothing_is_left(model, tmp_path):
    wanted = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            wanted.append(logs["val_loss"])

    split = {"validation_data": (tiny.TEXTS, tiny.LABELS)}
    fit(model, QuantizationAware(tiny.TEXTS), Watch(), **split)
    assert_nothing_left(model)
    assert model.evaluate(tiny.TEXTS, tiny.LABELS, verbose=0)[0] == pytest.approx(wanted[-1], rel=1e-5)  # float
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(tiny.TEXTS), model.predict(tiny.TEXTS))


def test_a_fit_that_is_interrupted_leaves_nothing_for_the_next(model, tiny_tokenizer, monkeypatch):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, QuantizationAware(tiny.TEXTS), Interrupt())
    before = np.asarray(model(model.encode(tiny.TEXTS)))
    np.testing.assert_array_equal(model.logits(model.encode(tiny.TEXTS), verbose=0).shape, before.shape)
    monkeypatch.setattr(FakeQuantization, "rounded", lambda *_: pytest.fail("it still rounds"))
    fit(model)
    assert_nothing_left(model)


def test_the_student_rounds_and_the_teacher_does_not(tiny_tokenizer, monkeypatch):
    teacher = classifier(tiny_tokenizer, layers=2)
    student, seen = student_from(teacher, keep=1), []
    rounded = FakeQuantization.rounded
    monkeypatch.setattr(
        FakeQuantization, "rounded", lambda self, x, layer, name: seen.append(layer) or rounded(self, x, layer, name)
    )
    distiller = Distiller(student, teacher, cache_bytes=0)  # the teacher answers in each step
    history = fit(distiller, QuantizationAware(tiny.TEXTS), epochs=2, rows=8)
    own = {id(layer) for layer in student._flatten_layers()}
    assert seen and {id(layer) for layer in seen} <= own
    assert np.isfinite(history["loss"]).all()
    assert_nothing_left(distiller)
    assert_nothing_left(student)


@pytest.mark.parametrize("order", [1, -1])
def test_beside_pruning(model, order):
    callbacks = [compression.Prune(compression.ConstantSparsity(0.5, 0, frequency=1)), QuantizationAware(tiny.TEXTS)]
    history = fit(model, *callbacks[::order], epochs=2, rows=8)
    assert history["sparsity"][-1] == 0.5
    assert_nothing_left(model)


def test_adapters_and_half_precision(tiny_tokenizer):
    model = small(tiny_tokenizer, dtype="mixed_bfloat16")
    compression.Adapters(model).add("small", compression.LoRA(rank=2, dropout=0.1))
    start = tiny.weights(model)
    history = fit(model, QuantizationAware(tiny.TEXTS), epochs=3, rate=0.1, rows=8)
    assert history["loss"][-1] < history["loss"][0]
    moved = {path for path, value in tiny.weights(model).items() if not np.array_equal(value, start[path])}
    assert any("lora_a" in path for path in moved) and not any(path.endswith("query/kernel") for path in moved)


@pytest.mark.slow
def test_two_replicas_are_one_device():
    """An update every other batch, and a last batch of one row, of which a replica gets none."""
    result = replicas.run(two_replicas_and_one_device)
    assert result["rounding_matters"] > 1e-2
    assert result["difference"] < 0.1 * result["rounding_matters"]


def test_what_it_refuses(model):
    with pytest.raises(ValueError, match="representative data is empty"):
        QuantizationAware([])
    with pytest.raises(ValueError, match="representative data is empty"):
        QuantizationAware({"token_ids": np.zeros((0, 8), "int32")})
    inputs = keras.Input((4,))
    other = keras.Model(inputs, keras.layers.Dense(2)(inputs), name="mine")
    other.compile("sgd", "mse")
    with pytest.raises(ValueError, match="'mine' is another model, whose layers do not round"):
        other.fit(np.zeros((4, 4)), np.zeros((4, 2)), verbose=0, callbacks=[QuantizationAware(["a"])])
    decoder, inputs, targets, weights = language_model()
    decoder.compile(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match="CausalLM is no encoder"):
        decoder.fit(inputs, targets, sample_weight=weights, verbose=0, callbacks=[QuantizationAware(["a"])])
