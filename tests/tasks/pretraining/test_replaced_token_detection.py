"""ReplacedTokenDetection: what it draws, what it is asked, and its logits against transformers."""

import batteries
import keras
import numpy as np
import pytest
import tiny
from checkpoint_folders import outputs_in_transformers

from tfxformer import tasks
from tfxformer.tasks.pretraining.replaced_token_detection import (
    ReplacedTokenAccuracy,
    ReplacedTokenLoss,
    generator_config,
)

pytestmark = pytest.mark.usefixtures("plain_kernels")


def make(tokenizer=None, dtype=None, generator_size=0.5, family="electra", **arguments):
    backbone = tiny.backbone(family, dtype=dtype, encoder__num_layers=1)
    arguments = {"generator_size": generator_size, "tokenizer": tokenizer, **arguments}
    return tiny.perturb(tasks.ReplacedTokenDetection(backbone, **arguments))


def test_battery_of_the_model(tmp_path):
    batteries.check_model(lambda dtype=None: make(dtype=dtype), tmp_path)


def test_loss_and_accuracy_are_written_out():
    generator = np.random.default_rng(0)
    original, seen = generator.integers(0, 5, (4, 6)), generator.integers(0, 5, (4, 6))
    logits, weights = generator.normal(0, 3, (4, 6)), generator.integers(0, 2, (4, 6))
    replaced = original != seen
    chance = 1 / (1 + np.exp(-logits))
    wanted = -np.log(np.where(replaced, chance, 1 - chance))
    predicted = np.stack([logits, seen], -1).astype("float32")
    loss = ReplacedTokenLoss()(original, predicted, sample_weight=weights)
    np.testing.assert_allclose(float(loss), (wanted * weights).sum() / weights.sum(), rtol=1e-5)
    metric = ReplacedTokenAccuracy()
    metric.update_state(original, predicted, weights)
    right = ((logits > 0) == replaced)[weights > 0].mean()
    np.testing.assert_allclose(float(metric.result()), right, rtol=1e-6)


def test_only_hidden_places_change_and_follow_the_generator(tiny_tokenizer):
    model = make(tiny_tokenizer, masking_rate=0.4)
    rows = model.encode(["the very good cat sat on the mat"] * 400, sequence_length=16)
    inputs, labels, weights = model.hidden_batch(rows, np.random.default_rng(0))
    np.testing.assert_array_equal(labels["discriminator"], rows["token_ids"])
    np.testing.assert_array_equal(weights["discriminator"], rows["padding_mask"])
    outputs = model(inputs)
    logits, seen = np.asarray(outputs["discriminator"]).transpose(2, 0, 1)
    hidden = np.zeros_like(rows["token_ids"], bool)
    for row, places in enumerate(inputs["masked_positions"]):
        hidden[row, places[places >= 0]] = True
    np.testing.assert_array_equal(seen[~hidden], rows["token_ids"][~hidden])
    # The discriminator's logits are those of a plain call on what it saw.
    np.testing.assert_allclose(logits, np.asarray(model({**rows, "token_ids": seen.astype("int32")})), atol=1e-5)
    drawn = [
        seen[row, place] for row, places in enumerate(inputs["masked_positions"]) for place in places if place >= 0
    ]
    shares = keras.ops.softmax(outputs["generator"]).numpy()[inputs["masked_positions"] >= 0]
    wanted, found = shares.mean(0), np.bincount(np.array(drawn, int), minlength=shares.shape[1]) / len(drawn)
    likely = wanted > 0.02
    assert likely.sum() >= 3
    assert np.abs(found - wanted)[likely].max() < 4 * np.sqrt(wanted.max() / len(drawn))
    other = np.asarray(model(inputs)["discriminator"])[..., 1]
    assert (other != seen).any()  # another call draws anew


def test_tables_are_shared_and_the_rest_is_not(tiny_tokenizer):
    model = make(tiny_tokenizer)
    ours, theirs = model.backbone, model.generator.backbone
    assert ours.token_embedding is theirs.token_embedding
    assert ours.get_layer("position_embedding") is theirs.get_layer("position_embedding")
    assert theirs.config.encoder.hidden_size == 16 and theirs.config.encoder.heads == 2
    assert len({id(v) for v in model.trainable_variables}) == len(model.trainable_variables)
    before = {id(v): v.numpy() for v in model.trainable_variables}
    model.compile(learning_rate=1e-2)
    history = model.fit(tiny.TEXTS, epochs=3, batch_size=8, verbose=0).history
    unmoved = [v.path for v in model.trainable_variables if np.array_equal(before[id(v)], v.numpy())]
    assert not unmoved
    assert history["discriminator_loss"][-1] < history["discriminator_loss"][0]


def test_no_gradient_goes_through_the_drawing(tiny_tokenizer):
    """With the generator's own loss left out, nothing of it but the shared tables moves."""
    model = make(tiny_tokenizer)
    model.compile(keras.optimizers.SGD(0.1), loss_weights={"generator": 0.0, "discriminator": 1.0})
    before = {id(v): v.numpy() for v in model.generator.trainable_variables}
    shared = {id(v) for v in model.backbone.trainable_variables}
    model.fit(tiny.TEXTS, batch_size=8, verbose=0)
    for variable in model.generator.trainable_variables:
        if id(variable) not in shared:
            np.testing.assert_array_equal(variable.numpy(), before[id(variable)])


def test_saved_and_reopened(tiny_tokenizer, tmp_path):
    model = make(tiny_tokenizer)
    model.fit(tiny.TEXTS, batch_size=8, verbose=0)
    asked = ["the good cat", "dog"]
    wanted = model.predict(asked, verbose=0)
    assert [len(row) for row in wanted] == [5, 3] and all(((row > 0) & (row < 1)).all() for row in wanted)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.generator.backbone.token_embedding is again.backbone.token_embedding
    for ours, theirs in zip(model.generator.weights, again.generator.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    folder = model.save_pretrained(tmp_path / "folder")
    opened = tasks.ReplacedTokenDetection.from_pretrained(folder)
    for one in (again, opened):
        for ours, theirs in zip(one.predict(asked, verbose=0), wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    filler = tasks.MaskedLM.from_pretrained(folder / "generator")
    inputs = tiny.inputs_for(filler)
    np.testing.assert_array_equal(np.asarray(filler(inputs)), np.asarray(model.generator(inputs)))
    with pytest.raises(ValueError, match="no generator"):
        opened.fit(tiny.TEXTS, verbose=0)


def test_generators_that_cannot_be():
    config = tiny.config("electra")
    assert generator_config(config, 0.25).encoder.hidden_size == 8
    with pytest.raises(ValueError, match="leaves 0"):
        generator_config(config, 0.01)


@pytest.mark.reference
def test_logits_are_those_of_transformers(tmp_path):
    model = make(generator_size=None)
    inputs = tiny.inputs_for(model)
    folder = model.save_pretrained(tmp_path / "folder")
    wanted = outputs_in_transformers("ElectraForPreTraining", folder, inputs).logits.numpy()
    valid = inputs["padding_mask"].astype(bool)
    assert np.abs(np.asarray(model(inputs)) - wanted)[valid].max() < 1e-5
