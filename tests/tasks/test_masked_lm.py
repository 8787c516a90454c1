"""MaskedLM: what is hidden when, and fillings against a plain softmax."""

import batteries
import numpy as np
import pytest
import tensorflow as tf
import tiny

from tfxformer import tasks
from tfxformer.text import Tokenizer

pytestmark = pytest.mark.usefixtures("plain_kernels")


def make(tokenizer=None, dtype=None, family="bert", **arguments):
    return tiny.perturb(tasks.MaskedLM(tiny.backbone(family, dtype=dtype), tokenizer=tokenizer, **arguments))


def test_battery_with_texts(tiny_tokenizer, tmp_path):
    def same(actual, wanted):
        assert actual == wanted

    texts = [text + " [MASK]" for text in tiny.TEXTS]
    batteries.check_task(make(tiny_tokenizer, masking_rate=0.4), texts, None, tmp_path, same=same)


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_battery_of_the_model(family, tmp_path):
    batteries.check_model(lambda dtype=None: make(dtype=dtype, family=family), tmp_path, half=family == "bert")


def test_fillings_are_the_best_of_a_softmax(tiny_tokenizer):
    model = make(tiny_tokenizer)
    texts = ["the [MASK] sat on the [MASK]", "good [MASK]"]
    batch = model.encode(texts)
    logits = np.asarray(model(batch)).astype("float64")
    fillings = model.predict(texts, top_k=3, batch_size=1, verbose=0)
    assert [len(one) for one in fillings] == [2, 1]
    for row, positions in enumerate([np.flatnonzero(ids == tiny_tokenizer.mask_id) for ids in batch["token_ids"]]):
        for position, found in zip(positions, fillings[row], strict=True):
            known = logits[row, position][: len(tiny.VOCABULARY)]  # the table has rows that are no tokens
            shares = np.exp(known) / np.exp(known).sum()
            best = np.argsort(-shares)[:3]
            assert [filling.token_id for filling in found] == best.tolist()
            np.testing.assert_allclose([filling.probability for filling in found], shares[best], rtol=1e-4)
            assert [filling.token for filling in found] == [tiny.VOCABULARY[i] for i in best]


def test_text_without_mask(tiny_tokenizer):
    with pytest.raises(ValueError, match=r"Text 1 has no mask token.*good film"):
        make(tiny_tokenizer).predict(["the [MASK]", "good film"])


def test_tokenizer_without_mask(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(token for token in tiny.VOCABULARY if token != "[MASK]"))
    model = make(Tokenizer.from_vocabulary(path))
    with pytest.raises(ValueError, match="no mask token"):
        model.fit(tiny.TEXTS)


def epochs_seen(model, **arguments):
    """The batches that `fit` feeds in each epoch: lists of (ids, labels, weights)."""
    texts = arguments.pop("texts", tiny.TEXTS)
    batches = model._hiding(texts, 8, **arguments)
    seen = []
    for _ in range(3):
        seen.append([batches[i] for i in range(len(batches))])
        batches.on_epoch_end()
    return seen


def test_every_epoch_hides_others_of_the_same_texts(tiny_tokenizer):
    seen = epochs_seen(make(tiny_tokenizer, masking_rate=0.3), fitting=True)
    originals = [np.concatenate([labels for _, labels, _ in epoch]) for epoch in seen]
    assert all(sorted(map(tuple, one)) == sorted(map(tuple, originals[0])) for one in originals)
    hidden = [np.concatenate([inputs["token_ids"] for inputs, _, _ in epoch]) for epoch in seen]
    assert (hidden[0] != hidden[1]).any() and (originals[0] != originals[1]).any()  # shuffled too
    weights = np.concatenate([weights for _, _, weights in seen[0]])
    assert ((hidden[0] == originals[0]) | (weights == 1)).all()
    special = np.isin(originals[0], list(tiny_tokenizer.special_ids))
    assert not weights[special].any() and 0.1 < weights[~special].mean() < 0.5
    again = epochs_seen(make(tiny_tokenizer, masking_rate=0.3), fitting=True)
    assert all(
        np.array_equal(a[0]["token_ids"], b[0]["token_ids"])
        for one, other in zip(seen, again, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    other = epochs_seen(make(tiny_tokenizer, masking_rate=0.3, seed=1), fitting=True)
    assert (np.concatenate([inputs["token_ids"] for inputs, _, _ in other[0]]) != hidden[0]).any()


def test_validation_hides_the_same_in_every_epoch(tiny_tokenizer):
    first, second, _ = epochs_seen(make(tiny_tokenizer))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a[0]["token_ids"], b[0]["token_ids"])
    model = make(tiny_tokenizer, sequence_length=16, masking_rate=0.5)
    model.compile(learning_rate=0.0)
    for validation in (tiny.TEXTS, tf.data.Dataset.from_tensor_slices(tiny.TEXTS)):
        history = model.fit(tiny.TEXTS, epochs=2, verbose=0, validation_data=validation).history
        np.testing.assert_allclose(history["val_loss"][0], history["val_loss"][1], rtol=1e-5)
        np.testing.assert_allclose(history["val_loss"][0], model.evaluate(tiny.TEXTS, verbose=0)[0], rtol=1e-5)


def test_loss_counts_hidden_tokens_only(tiny_tokenizer):
    model = make(tiny_tokenizer, sequence_length=16, masking_rate=0.5)
    loss, accuracy = model.evaluate(tiny.TEXTS, batch_size=24, verbose=0)
    inputs, labels, weights = model._hiding(tiny.TEXTS, 24)[0]
    logits = np.asarray(model(inputs)).astype("float64")
    shares = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(shares, labels[..., None], -1)[..., 0]
    np.testing.assert_allclose(loss, (losses * weights).sum() / weights.sum(), rtol=1e-5)
    right = logits.argmax(-1) == labels
    np.testing.assert_allclose(accuracy, (right * weights).sum() / weights.sum(), rtol=1e-5)


def test_table_is_tied(tiny_tokenizer):
    model = make(tiny_tokenizer)
    assert sum("token_embedding" in path for path in tiny.weights(model)) == 1
    inputs = model.encode(["good film"])
    before = np.asarray(model(inputs))
    table = model.backbone.token_embedding.embeddings
    unused = tiny.VOCABULARY_SIZE - 1  # its row is read by the head alone
    table.assign(table.numpy() + (np.arange(tiny.VOCABULARY_SIZE) == unused)[:, None].astype("float32"))
    after = np.asarray(model(inputs))
    assert np.abs(after - before)[..., unused].max() > 1e-3
    np.testing.assert_array_equal(np.delete(after, unused, -1), np.delete(before, unused, -1))
