"""DenoisingLM: what it makes of texts, losses against plain numpy, records, and the folder that Seq2SeqLM opens."""

import batteries
import keras
import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

import tfxformer
from tfxformer import data, tasks, training
from tfxformer.text import Tokenizer

pytestmark = pytest.mark.usefixtures("plain_kernels")
TEXTS = [f"{text}. {other}!" for text, other in zip(tiny.TEXTS, tiny.TEXTS[5:], strict=False)]
SENTINELS = [f"<extra_id_{index}>" for index in range(20)]
BPE = Tokenizer.train_byte_level_bpe(TEXTS, 300, ("</s>", "<mask>", *SENTINELS))
MASK, FIRST_SENTINEL = BPE.mask_id, 2


def make(tokenizer=BPE, corruption="spans", sequence_length=32, dtype=None, **arguments):
    sizes = {"num_layers": 1, "max_positions": 48}
    stacks = {f"{stack}__{name}": value for stack in ("encoder", "decoder") for name, value in sizes.items()}
    backbone = tiny.backbone("marian", dtype=dtype, vocabulary_size=310, **stacks)
    given = {"corruption": corruption, "sequence_length": sequence_length, **arguments}
    return tiny.perturb(tasks.DenoisingLM(backbone, tokenizer=tokenizer, **given))


def real(ids, mask):
    return [row[kept > 0].tolist() for row, kept in zip(ids, mask, strict=True)]


def pairs_of(batch):
    """(sources, targets) of a batch as lists of ids, after a look at how its arrays hang together."""
    inputs, targets, weights = batch
    mask = inputs["decoder_padding_mask"]
    np.testing.assert_array_equal(weights, mask)
    np.testing.assert_array_equal(inputs["decoder_token_ids"][:, 1:], targets[:, :-1])
    assert (inputs["decoder_token_ids"][:, 0] == 0).all()
    sources = real(inputs["encoder_token_ids"], inputs["encoder_padding_mask"])
    return list(zip(sources, real(targets, mask), strict=True))


def filled(source, target):
    """The text of a source whose sentinels the target tells, without the target's end."""
    spans = {}
    for token in target[:-1]:
        if FIRST_SENTINEL <= token < FIRST_SENTINEL + len(SENTINELS):
            spans[token] = content = []
        else:
            content.append(token)
    return [token for one in source for token in spans.get(one, [one])]


def epochs_of(model, texts=TEXTS, epochs=2, fitting=True):
    batches = model._hiding(texts, 4, fitting)
    seen = []
    for _ in range(epochs):
        seen.append([pair for index in range(len(batches)) for pair in pairs_of(batches[index])])
        batches.on_epoch_end()
    return seen


def whole_text():
    return [token for row in BPE.ids(TEXTS, special_tokens=False) for token in row]


def test_spans_fill_full_sources_and_every_epoch_takes_others():
    model = make()
    first, second = epochs_of(model)
    pieces = [filled(*pair) for pair in first]
    ids = whole_text()
    wanted = [ids[begin : begin + model.text_length] for begin in range(0, len(ids), model.text_length)]
    assert sorted(pieces) == sorted(wanted) == sorted(filled(*pair) for pair in second)
    assert sorted(len(source) for source, _ in first)[1:] == [32] * (len(first) - 1)
    assert all(target[-1] == BPE.eos_id for _, target in first)
    assert sorted(first) != sorted(second) and epochs_of(model, epochs=1) == [first]
    assert epochs_of(make(seed=1), epochs=1) != [first]
    same, again = epochs_of(model, fitting=False)
    assert same == again


def test_infilling_asks_for_the_whole_text():
    model = make(corruption="infilling")
    assert (model.text_length, model.corruption_rate) == (31, 0.3)
    for source, target in epochs_of(model, epochs=1)[0]:
        assert target[-1] == BPE.eos_id and MASK in source and MASK not in target
        text = target[:-1]
        assert sum(token != MASK for token in source) == len(text) - np.ceil(0.3 * len(text) - 1e-9)
        left = iter(text)
        assert all(token in left for token in source if token != MASK)  # in their order


def test_sentences_change_their_places():
    model = make(corruption="infilling-permutation", corruption_rate=0.05)
    orders = []
    for source, target in epochs_of(model, epochs=1)[0]:
        assert not {token for token in source if token != MASK} - set(target)
        left = iter(target)
        orders.append(all(token in left for token in source if token != MASK))
    assert not all(orders)


def test_sources_and_targets_stand_between_what_the_tokenizer_writes(tmp_path):
    # T5's tokenizer ends sources; WordPiece, which has no end token, has none to end targets with.
    ending = Tokenizer.from_json(BPE.to_json())
    ending._backend.post_processor = __import__("tokenizers").processors.TemplateProcessing(
        single="</s> $A </s>", pair="</s> $A $B", special_tokens=[("</s>", BPE.eos_id)]
    )
    model = make(ending)
    for source, target in epochs_of(model, epochs=1)[0]:
        assert source[0] == source[-1] == target[-1] == BPE.eos_id
        assert filled(source[1:-1], target) in [
            whole_text()[begin : begin + model.text_length] for begin in range(0, len(whole_text()), model.text_length)
        ]
    with pytest.raises(ValueError, match="The tokenizer has no end token"):
        _ = make(tiny.tokenizer(tmp_path)).text_length


def test_lengths_of_t5():
    t5 = tasks.DenoisingLM(tiny.backbone("t5", vocabulary_size=310), tokenizer=BPE)
    t5.sequence_length = 511  # this tokenizer writes no end behind a source
    assert t5.text_length == 568 and t5._lengths(568) == (511, 114)


def test_loss_is_that_of_the_targets():
    model = make()
    loss, perplexity = model.evaluate(TEXTS, batch_size=3, verbose=0)
    losses = []
    for source, target in epochs_of(model, epochs=1, fitting=False)[0]:
        inputs = {
            "encoder_token_ids": np.array([source], "int32"),
            "encoder_padding_mask": np.ones((1, len(source)), "int32"),
            "decoder_token_ids": np.array([[0, *target[:-1]]], "int32"),
            "decoder_padding_mask": np.ones((1, len(target)), "int32"),
        }
        logits = np.asarray(model(inputs))[0].astype("float64")
        shares = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        losses += (-shares[np.arange(len(target)), target]).tolist()
    # Batches of another size take other spans: the loss is that of the very batches, compared for one size.
    found = model.evaluate(TEXTS, batch_size=4, return_dict=True, verbose=0)
    np.testing.assert_allclose(found["loss"], np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(perplexity, np.exp(loss), rtol=1e-5)


def test_battery(tmp_path):
    def predict(model, texts):
        return model.score(texts, texts[::-1])

    batteries.check_task(make(sequence_length=None), TEXTS, None, tmp_path, predict=predict)


def test_the_folder_opens_as_a_task_of_sources_and_targets(tmp_path):
    model = make(sequence_length=None)
    model.compile(learning_rate=1e-2)
    validation = tf.data.Dataset.from_tensor_slices(TEXTS[:6])
    history = model.fit(TEXTS, batch_size=4, epochs=2, validation_data=validation, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] and len(history["val_loss"]) == 2
    assert model.sequence_length == 48  # all texts are longer than the model
    model.save_pretrained(tmp_path / "model")
    opened = tasks.Seq2SeqLM.from_pretrained(tmp_path / "model")
    assert type(opened) is tasks.Seq2SeqLM and opened.target_length is None
    inputs = model._hiding(TEXTS, 4)[0][0]
    np.testing.assert_array_equal(np.asarray(opened(inputs)), np.asarray(model(inputs)))
    assert opened.generate(TEXTS[:2], 4) == model.generate(TEXTS[:2], 4)


@pytest.mark.road
def test_records_are_corrupted_by_the_number_of_their_batch(tmp_path):
    model = make()
    records = data.prepare_records(
        TEXTS, tmp_path / "records", BPE, sequence_length=model.text_length, kind="pieces", shards=2
    )
    epochs = model.epochs(records, 2, seed=3)
    count = records.count // 2
    assert epochs.num_batches == count
    rows = records.dataset(2, seed=3, epoch=1, position=2)
    found = list(epochs.first_epoch(1, 1).as_numpy_iterator())
    for index, (one, plain) in enumerate(zip(found, rows.as_numpy_iterator(), strict=True)):
        generator = np.random.default_rng((model.seed, count + 1 + index, 0))
        tf.nest.map_structure(np.testing.assert_array_equal, one, model.hidden_batch(plain, generator))
        assert [filled(*pair) for pair in pairs_of(one)] == real(plain["token_ids"], plain["padding_mask"])
    model.compile(learning_rate=1e-2)
    history = model.fit(model.epochs(records, 4), epochs=2, verbose=0, validation_data=records.dataset(4)).history
    assert history["loss"][1] < history["loss"][0] and len(history["val_loss"]) == 2
    causal = data.prepare_records(TEXTS, tmp_path / "causal", BPE, sequence_length=16)
    with pytest.raises(ValueError, match=r'are causal rows: .*kind="pieces", sequence_length=35'):
        model.epochs(causal, 2)
    with pytest.raises(ValueError, match=r"Rows of 35 tokens become sources of 32, more than sequence_length=24"):
        make(sequence_length=24).epochs(records, 2).next_epoch(0)


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_spans(tmp_path):
    records = data.prepare_records(TEXTS, tmp_path / "records", BPE, sequence_length=35, kind="pieces")

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise KeyboardInterrupt

    def fit(folder, *callbacks):
        keras.utils.set_random_seed(0)
        model = make()
        model.compile(training.AdamW(1e-2), jit_compile=False)
        resume = training.Resume(folder, save_freq=2)
        model.fit(model.epochs(records, 2), epochs=2, callbacks=[resume, *callbacks], verbose=0)
        return model.get_weights()

    whole = fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", Stop())
    for one, other in zip(whole, fit(tmp_path / "run"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_refusals(tiny_tokenizer):
    with pytest.raises(ValueError, match="corruption='words' is unknown; known: spans, infilling, infilling-perm"):
        make(corruption="words")
    with pytest.raises(ValueError, match=r"A share of 1\.0 of noise"):
        make(corruption_rate=1.0)
    with pytest.raises(ValueError, match=r"Spans of 0\.5 tokens on average"):
        make(mean_span=0.5)
    model = make()
    with pytest.raises(ValueError, match="learns from texts alone and takes no labels"):
        model.fit(TEXTS, TEXTS)
    with pytest.raises(ValueError, match="pairs of texts are for Seq2SeqLM"):
        model.fit(list(zip(TEXTS, TEXTS, strict=True)))
    with pytest.raises(ValueError, match=r"A row has 2 spans of noise, and the vocabulary 0 sentinels"):
        make(Tokenizer.train_byte_level_bpe(TEXTS, 300)).fit(TEXTS, verbose=0)
    with pytest.raises(ValueError, match=r'no mask token to stand for spans: take corruption="spans"'):
        make(Tokenizer.train_byte_level_bpe(TEXTS, 300), "infilling").fit(TEXTS, verbose=0)
    with pytest.raises(ValueError, match="needs an encoder with a decoder"):
        tasks.DenoisingLM(tiny.backbone())


@pytest.mark.slow
@pytest.mark.parametrize("initial", ["fan_in", "normal"])
def test_a_decoder_learns_to_read_its_source_from_the_initial_weights_of_t5_alone(initial, traced):
    """Rows of one word, six times: what is missing stands in the source. From 0.02 everywhere attention stays even."""
    letters, drawn = list("abcdefgh"), np.random.default_rng(0)
    words = ["".join(drawn.choice(letters, 4)) for _ in range(10_100)]
    tokenizer = Tokenizer.characters("".join(letters), ("</s>", *SENTINELS[:6]))
    sizes = {"num_layers": 1, "hidden_size": 48, "attention__heads": 4, "attention__width": 12, "dropout": 0.0}
    sizes |= {"feed_forward__size": 96, "attention_dropout": 0.0}
    stacks = {f"{stack}__{name}": value for stack in ("encoder", "decoder") for name, value in sizes.items()}
    weights = {} if initial == "fan_in" else {"initializer": "normal", "initializer_range": 0.02}
    keras.utils.set_random_seed(0)
    backbone = tfxformer.build(
        "t5-small", vocabulary_size=tokenizer.vocabulary_size, heads__logit_scale=48**-0.5, **stacks, **weights
    )
    model = tasks.DenoisingLM(backbone, tokenizer=tokenizer, sequence_length=23, mean_span=2.0)
    model.compile(learning_rate=5e-3)
    model.fit([word * 6 for word in words[100:]], batch_size=64, epochs=6, verbose=0)
    gaps = [f"{word * 2}{word[0]}{SENTINELS[0]}{word[3]}{word * 2}" for word in words[:100]]
    written = model.generate(gaps, 3, batch_size=100)
    right = np.mean([one == word[1:3] for one, word in zip(written, words[:100], strict=True)])
    assert right > 0.8 if initial == "fan_in" else right < 0.2
