"""ContrastiveEmbedder: its loss in numpy, and two replicas against one device."""

import batteries
import keras
import numpy as np
import pytest
import replicas
import tiny
from optional_tensorflow import tf

from tfxformer import tasks

pytestmark = pytest.mark.usefixtures("plain_kernels")

PAIRS = [("good film", "very good film"), ("bad plot", "slow plot"), ("the cat sat", "a cat sat on the mat")] * 4


def make(tokenizer=None, dtype=None, **arguments):
    return tiny.perturb(
        tasks.ContrastiveEmbedder(tiny.backbone(dtype=dtype, encoder__num_layers=1), tokenizer=tokenizer, **arguments)
    )


def by_hand(vectors, temperature):
    """(loss, accuracy) of vectors [B, K, D], anchor by anchor."""
    vectors = vectors.astype("float64")
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    losses, right = [], []
    for row in range(len(vectors)):
        others = [vectors[other, column] for column in range(1, vectors.shape[1]) for other in range(len(vectors))]
        logits = np.array([vectors[row, 0] @ other for other in others]) / temperature
        losses.append(np.log(np.exp(logits).sum()) - logits[row])
        right.append(logits.argmax() == row)
    return np.mean(losses), np.mean(right)


def test_battery_of_the_model(tmp_path):
    batteries.check_model(lambda dtype=None: make(dtype=dtype), tmp_path, half=False)


def test_battery_with_pairs(tiny_tokenizer, tmp_path):
    batteries.check_task(make(tiny_tokenizer), PAIRS * 2, None, tmp_path)


@pytest.mark.parametrize("columns", [2, 3])
def test_loss_and_accuracy_are_written_out(columns):
    model = make(temperature=0.3)
    batches = [tiny.batch(rows=6, seed=seed) for seed in range(columns)]
    arrays = {name: np.stack([batch[name] for batch in batches], 1) for name in batches[0]}
    vectors = np.stack([np.asarray(model(batch)) for batch in batches], 1)
    loss, accuracy = by_hand(vectors, 0.3)
    found = model.evaluate(arrays, batch_size=6, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(found["in_batch_accuracy"], accuracy, rtol=1e-6)


def test_texts_are_paired_with_themselves_through_another_dropout(tiny_tokenizer):
    texts = [one for pair in PAIRS[:3] for one in pair]
    model = tiny.perturb(
        tasks.ContrastiveEmbedder(
            tiny.backbone(encoder__dropout=0.3, encoder__num_layers=1), tokenizer=tiny_tokenizer, sequence_length=16
        )
    )
    inputs, *_ = model.prepare(model.read(model._pairs(texts)))
    np.testing.assert_array_equal(inputs["token_ids"][:, 0], inputs["token_ids"][:, 1])
    read = np.asarray(model(inputs, training=True))
    assert np.abs(read[:, 0] - read[:, 1]).max() > 1e-3
    still = np.asarray(model(inputs, training=False))
    np.testing.assert_allclose(still[:, 0], still[:, 1], atol=1e-6)
    model.compile(learning_rate=1e-2, warmup=0.0)
    losses = model.fit(texts * 2, epochs=3, batch_size=6, verbose=0, validation_data=PAIRS).history
    assert losses["loss"][-1] < losses["loss"][0] and len(losses["val_in_batch_accuracy"]) == 3


def test_is_saved_as_an_embedder(tiny_tokenizer, tmp_path):
    model = make(tiny_tokenizer)
    folder = model.save_pretrained(tmp_path / "folder")
    opened = tasks.TextEmbedder.from_pretrained(folder)
    np.testing.assert_array_equal(opened.predict(tiny.TEXTS[:3], verbose=0), model.predict(tiny.TEXTS[:3], verbose=0))


def test_trains_on_a_checkpoint(tiny_tokenizer, tmp_path, eager):
    """Its own metric has a value where the weights came from files."""
    opened = tasks.ContrastiveEmbedder.from_pretrained(make(tiny_tokenizer).save_pretrained(tmp_path / "folder"))
    assert 0 <= opened.fit(PAIRS, batch_size=6, verbose=0).history["in_batch_accuracy"][0] <= 1


def test_bad_input(tiny_tokenizer):
    with pytest.raises(ValueError, match="takes no scores"):
        make(tiny_tokenizer).fit(PAIRS, [1.0] * len(PAIRS))
    with pytest.raises(ValueError, match="above 0"):
        make(temperature=0.0)


def train(strategy):
    """[history, the first numbers of every weight] of two epochs of three batches, the last half as large."""
    rng, shape = np.random.default_rng(0), (20, 2, 12)
    arrays = {
        "token_ids": rng.integers(5, 95, shape).astype("int32"),
        "padding_mask": np.ones(shape, "int32"),
        "segment_ids": np.zeros(shape, "int32"),
    }
    with strategy.scope():
        model = tasks.ContrastiveEmbedder(tiny.backbone(encoder__num_layers=1), temperature=0.2)
        model.compile(keras.optimizers.SGD(0.5), jit_compile=False)
    options = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    history = model.fit(arrays, validation_data=arrays, validation_batch_size=8, **options).history
    return [history, [weight.numpy().ravel()[:50].tolist() for weight in model.trainable_weights]]


@pytest.mark.road
def test_two_replicas_compare_all_texts_as_one_device_does():
    """With a last batch of half the size; XLA and more in tests/training/test_distributed_model.py."""
    alone, together = train(tf.distribute.get_strategy()), replicas.run(train)
    assert alone[0]["loss"][0] > alone[0]["loss"][1]
    for name, values in alone[0].items():
        np.testing.assert_allclose(together[0][name], values, rtol=1e-5, err_msg=name)
    for one, other in zip(alone[1], together[1], strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)
