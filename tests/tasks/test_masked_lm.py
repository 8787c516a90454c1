"""MaskedLM: what is hidden when, and fillings against a plain softmax."""

import batteries
import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

from tfxformer import tasks
from tfxformer.data import Records, rows_of, write_records
from tfxformer.text import Tokenizer

pytestmark = pytest.mark.usefixtures("plain_kernels")


def make(tokenizer=None, dtype=None, family="bert", backbone=None, **arguments):
    backbone = backbone or tiny.backbone(family, dtype=dtype, encoder__num_layers=1)
    return tiny.perturb(tasks.MaskedLM(backbone, tokenizer=tokenizer, **arguments))


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


def restored(batch):
    """(ids as they were, which places are hidden) of a batch that `fit` feeds: each [B, S]."""
    inputs, labels, weights = batch
    original, hidden = inputs["token_ids"].copy(), np.zeros_like(inputs["token_ids"])
    for row, places in enumerate(inputs["masked_positions"]):
        assert (weights[row] == (places >= 0)).all()
        original[row, places[places >= 0]] = labels[row][places >= 0]
        hidden[row, places[places >= 0]] = 1
    return original, hidden


def epochs_seen(model):
    """What `fit` feeds in each of three epochs: (ids, ids as they were, which are hidden)."""
    batches = model._hiding(tiny.TEXTS, 8, fitting=True)
    seen = []
    for _ in range(3):
        parts = [(batches[i][0]["token_ids"], *restored(batches[i])) for i in range(len(batches))]
        seen.append(tuple(np.concatenate(column) for column in zip(*parts, strict=True)))
        batches.on_epoch_end()
    return seen


@pytest.mark.parametrize("masking", ["tokens", "words", "spans"])
def test_every_epoch_hides_others_of_the_same_texts(tiny_tokenizer, masking):
    options = {"masking_rate": 0.3, "masking": masking, "backbone": tiny.backbone(encoder__num_layers=1)}
    seen = epochs_seen(make(tiny_tokenizer, **options))
    ids, originals, hidden = zip(*seen, strict=True)
    assert all(sorted(map(tuple, one)) == sorted(map(tuple, originals[0])) for one in originals)
    assert (ids[0] != ids[1]).any() and (originals[0] != originals[1]).any()  # shuffled too
    assert ((ids[0] == originals[0]) | (hidden[0] == 1)).all()
    special = np.isin(originals[0], list(tiny_tokenizer.special_ids))
    assert not hidden[0][special].any() and 0.1 < hidden[0][~special].mean() < 0.5
    again = epochs_seen(make(tiny_tokenizer, **options))
    assert all((one[0] == other[0]).all() for one, other in zip(seen, again, strict=True))
    other = epochs_seen(make(tiny_tokenizer, **options, seed=1))
    assert (other[0][0] != ids[0]).any()


def test_validation_hides_the_same_in_every_epoch(tiny_tokenizer):
    batches = make(tiny_tokenizer)._hiding(tiny.TEXTS, 24)
    first = batches[0][0]["token_ids"]
    batches.on_epoch_end()
    np.testing.assert_array_equal(batches[0][0]["token_ids"], first)
    model = make(tiny_tokenizer, sequence_length=16, masking_rate=0.5)
    model.compile(learning_rate=0.0)
    for validation in (tiny.TEXTS, tf.data.Dataset.from_tensor_slices(tiny.TEXTS)):
        history = model.fit(tiny.TEXTS, epochs=2, verbose=0, validation_data=validation).history
        np.testing.assert_allclose(history["val_loss"][0], history["val_loss"][1], rtol=1e-5)
        np.testing.assert_allclose(history["val_loss"][0], model.evaluate(tiny.TEXTS, verbose=0)[0], rtol=1e-5)


def test_loss_counts_hidden_tokens_only(tiny_tokenizer):
    model = make(tiny_tokenizer, sequence_length=16, masking_rate=0.5)
    loss, accuracy = model.evaluate(tiny.TEXTS, batch_size=24, verbose=0)
    batch = model._hiding(tiny.TEXTS, 24)[0]
    original, hidden = restored(batch)
    inputs = {name: array for name, array in batch[0].items() if name != "masked_positions"}
    logits = np.asarray(model(inputs)).astype("float64")  # of every position
    shares = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(shares, original[..., None], -1)[..., 0]
    np.testing.assert_allclose(loss, (losses * hidden).sum() / hidden.sum(), rtol=1e-5)
    right = logits.argmax(-1) == original
    np.testing.assert_allclose(accuracy, (right * hidden).sum() / hidden.sum(), rtol=1e-5)


def test_epochs_of_records_are_batches_hidden_by_their_number(tiny_tokenizer, tmp_path):
    model = make(tiny_tokenizer, masking_rate=0.3)
    write_records(rows_of(model.encode(tiny.TEXTS, sequence_length=16)), tmp_path / "records", shards=2)
    records = Records(tmp_path / "records")
    epochs, count = model.epochs(records, 4, seed=3), records.count // 4
    assert epochs.num_batches == count
    rows = records.dataset(4, seed=3, epoch=1, position=4)
    wanted = list(model.mask_batches(rows, first=count + 1).as_numpy_iterator())
    for found, one in zip(epochs.first_epoch(1, 1).as_numpy_iterator(), wanted, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, found, one)
    assert epochs.signature != model.epochs(records, 4, seed=4).signature
    unsegmented = tasks.MaskedLM(tiny.backbone("distilbert"), tokenizer=tiny_tokenizer)
    assert set(next(iter(unsegmented.epochs(records, 4).next_epoch(0)))[0]) == {*unsegmented.input, "masked_positions"}
    with pytest.raises(ValueError, match="batch_size=99 is more than the"):
        model.epochs(records, 99)


def test_logits_of_positions_are_those_of_all(tiny_tokenizer):
    model = make(tiny_tokenizer)
    inputs = tiny.inputs_for(model)
    positions = np.array([[0, 5, -1], [3, 3, 8], [-1, -1, 2]], "int32")
    some, every = np.asarray(model({**inputs, "masked_positions": positions})), np.asarray(model(inputs))
    for row, places in enumerate(positions):
        for column, place in enumerate(places):
            if place >= 0:
                np.testing.assert_allclose(some[row, column], every[row, place], atol=2e-6)


def test_batches_of_a_dataset_are_hidden_by_their_number(tiny_tokenizer):
    model = make(tiny_tokenizer, masking_rate=0.3)
    batch = model.encode(tiny.TEXTS, sequence_length=16)
    dataset = tf.data.Dataset.from_tensor_slices(batch).batch(8)
    hidden = list(model.mask_batches(dataset).as_numpy_iterator())
    assert all((restored(one)[0] == batch["token_ids"][8 * i : 8 * i + 8]).all() for i, one in enumerate(hidden))
    assert all(restored(one)[1].any() for one in hidden)
    (later,) = model.mask_batches(dataset.skip(2), first=2).as_numpy_iterator()
    np.testing.assert_array_equal(later[0]["token_ids"], hidden[2][0]["token_ids"])
    changing = model.mask_batches(dataset, changing=True)
    passes = [[one[0]["token_ids"] for one in changing.as_numpy_iterator()] for _ in range(2)]
    assert any((one != other).any() for one, other in zip(*passes, strict=True))


def test_fit_hides_in_datasets_without_labels(tiny_tokenizer, tmp_path):
    model = make(tiny_tokenizer, sequence_length=16, masking_rate=0.3)
    write_records(rows_of(model.encode(tiny.TEXTS)), tmp_path / "records", shards=2)
    dataset = Records(tmp_path / "records").dataset(8, seed=0, epochs=2)
    model.compile(learning_rate=1e-2)
    history = model.fit(dataset, steps_per_epoch=3, epochs=2, verbose=0, validation_data=dataset.take(3)).history
    assert history["loss"][1] < history["loss"][0] and history["val_masked_accuracy"][1] >= 0


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
