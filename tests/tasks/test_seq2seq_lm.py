"""Seq2SeqLM: what is fitted on, losses against plain numpy, texts written, files, and what it refuses."""

import batteries
import keras
import numpy as np
import pytest
import sacrebleu
import tiny
from optional_tensorflow import tf

from tfxformer import compression, export, generation, tasks
from tfxformer.data import evaluation
from tfxformer.data.text_scores import TEXT_SCORES, text_scores
from tfxformer.text import Tokenizer
from tfxformer.training import SmoothedCrossEntropy

pytestmark = pytest.mark.usefixtures("plain_kernels")
BPE = Tokenizer.train_byte_level_bpe(tiny.TEXTS, 280)
SOURCES, TARGETS = tiny.TEXTS[:12], [text.split()[-1] for text in tiny.TEXTS[:12]]


def make(tokenizer=BPE, dtype=None, **arguments):
    sizes = {"num_layers": 1, "max_positions": 48}
    stacks = {f"{stack}__{name}": value for stack in ("encoder", "decoder") for name, value in sizes.items()}
    backbone = tiny.backbone("marian", dtype=dtype, vocabulary_size=290, **stacks)
    return tiny.perturb(tasks.Seq2SeqLM(backbone, tokenizer=tokenizer, **arguments))


def losses_of(model, source, target, smoothing=0.0):
    """The loss of each token of one pair, without padding, in float64."""
    (read,), (written,) = BPE.ids([source]), BPE.ids([target], special_tokens=False)
    written = [*written, BPE.eos_id]
    inputs = {
        "encoder_token_ids": np.array([read], "int32"),
        "encoder_padding_mask": np.ones((1, len(read)), "int32"),
        "decoder_token_ids": np.array([[model.decoder_start_token_id, *written[:-1]]], "int32"),
        "decoder_padding_mask": np.ones((1, len(written)), "int32"),
    }
    logits = np.asarray(model(inputs))[0].astype("float64")
    shares = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    right = shares[np.arange(len(written)), written]
    return -((1 - smoothing) * right + smoothing * shares.mean(-1))


def test_pairs_cost_what_each_costs_alone():
    model = make()
    losses = [losses_of(model, *pair) for pair in zip(SOURCES, TARGETS, strict=True)]
    wanted = np.concatenate(losses).mean()
    loss, perplexity = model.evaluate(SOURCES, TARGETS, batch_size=5, verbose=0)
    np.testing.assert_allclose([loss, perplexity], [wanted, np.exp(wanted)], rtol=1e-5)
    scores = model.score(SOURCES, TARGETS, batch_size=5)
    np.testing.assert_allclose(scores, [-one.mean() for one in losses], rtol=1e-5)


@pytest.mark.road
def test_what_is_written_is_scored_beside_the_targets():
    model = make()
    loss, perplexity, bleu, rouge = model.evaluate(
        SOURCES, TARGETS, 5, metrics=("bleu", "rougeL"), generation={"max_new_tokens": 6}, verbose=0
    )
    assert [loss, perplexity] == model.evaluate(SOURCES, TARGETS, batch_size=5, verbose=0)
    texts = model.generate(SOURCES, 6)  # in one batch; evaluate writes five at a time
    assert bleu == sacrebleu.corpus_bleu(texts, [TARGETS]).score
    assert rouge == text_scores(texts, TARGETS, "rougeL")["rougeL"]
    pairs = tf.data.Dataset.from_tensor_slices((SOURCES[:6], TARGETS[:6])).batch(4)
    beams = {"max_new_tokens": 4, "sampler": generation.Beams(2)}
    found = model.evaluate(pairs, metrics="chrf", generation=beams, return_dict=True, verbose=0)
    assert found["chrf"] == sacrebleu.corpus_chrf(model.generate(SOURCES[:6], **beams), [TARGETS[:6]]).score
    model.target_length = 8  # as many are written where nobody says another number
    scores = evaluation.scores(model, SOURCES[:3], TARGETS[:3])
    assert {key: scores[key] for key in TEXT_SCORES} == text_scores(model.generate(SOURCES[:3]), TARGETS[:3])
    assert scores.keys() == {"loss", "perplexity", *TEXT_SCORES} and evaluation.main_score(model) == "chrf"


def test_texts_are_written_in_batches(capsys):
    model = make()
    sources = [tiny.TEXTS[0], " ".join(tiny.TEXTS[2:5]), *tiny.TEXTS[1:4]]
    together = model.generate(sources, 5)
    assert model.generate(sources, 5, batch_size=2) == together
    assert capsys.readouterr().out == ""
    two = model.generate(sources, 5, batch_size=3, sampler=generation.TopK(1), num_return_sequences=2, verbose=1)
    assert two == [text for text in together for _ in range(2)]
    assert "5/5" in capsys.readouterr().out
    drawn = [model.generate(sources, 5, batch_size=2, temperature=2.0, seed=3) for _ in range(2)]
    assert drawn[0] == drawn[1]
    with pytest.raises(ValueError, match="batch_size=0: wanted a whole number of 1 or more"):
        model.generate(sources, 5, batch_size=0)


def test_label_smoothing():
    model = make(label_smoothing=0.1)
    assert isinstance(model.default_loss(), SmoothedCrossEntropy)
    losses = np.concatenate([losses_of(model, *pair, 0.1) for pair in zip(SOURCES, TARGETS, strict=True)])
    model.compile(metrics=None)
    found = model.evaluate(SOURCES, TARGETS, batch_size=12, return_dict=True, verbose=0)
    np.testing.assert_allclose(found["loss"], losses.mean(), rtol=1e-5)
    with pytest.raises(ValueError, match=r"label_smoothing must be at least 0 and below 1, not 1\.5"):
        make(label_smoothing=1.5)


def test_the_battery(tmp_path):
    model = make()
    opened = batteries.check_task(
        model, SOURCES, TARGETS, tmp_path, predict=lambda task, sources: task.score(sources, TARGETS[:3])
    )
    assert opened.generate(SOURCES[:2], 4) == model.generate(SOURCES[:2], 4)
    assert opened.target_length == model.target_length and model.target_length % 16 == 0


def test_texts_and_their_arrays_train_alike():
    losses = []
    for arrays in (False, True):
        model = make(sequence_length=16, target_length=16)
        model.compile(keras.optimizers.SGD(0.1))
        given = (SOURCES, TARGETS)
        if arrays:
            batch = model.encode(SOURCES, TARGETS)
            targets = np.concatenate([batch["decoder_token_ids"][:, 1:], np.full((12, 1), 0, "int32")], axis=1)
            ends = batch["decoder_padding_mask"].sum(axis=1) - 1
            targets[np.arange(12), ends] = BPE.eos_id
            given = (batch, targets)
        losses.append(model.fit(*given, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_greedy_text_is_the_most_probable_token_after_another():
    model, (source,) = make(), SOURCES[:1]
    ids = []
    for _ in range(4):
        batch = model.encode([source])
        batch |= {
            "decoder_token_ids": np.array([[model.decoder_start_token_id, *ids]], "int32"),
            "decoder_padding_mask": np.ones((1, len(ids) + 1), "int32"),
        }
        ids.append(int(np.asarray(model(batch))[0, -1].argmax()))
        if ids[-1] == BPE.eos_id:
            break
    wanted = BPE.decode([ids])[0]
    assert model.generate([source], 4) == [wanted]
    assert "".join(model.stream(source, 4)) == wanted
    assert model.generate([BPE.ids([source])[0], BPE.ids(SOURCES[1:2])[0]], 4)[0] == wanted  # ids, beside a longer row


def test_bad_input():
    model = make()
    with pytest.raises(ValueError, match="there are none: name some"):
        model.evaluate(SOURCES, TARGETS, generation={"max_new_tokens": 4})
    with pytest.raises(ValueError, match="give sources and targets as texts"):
        model.evaluate(model.encode(SOURCES, TARGETS), np.zeros((12, 16), "int32"), metrics=("bleu",))
    with pytest.raises(ValueError, match=r"sources\[1\] is empty"):
        model.generate(["good film", "  "])
    with pytest.raises(ValueError, match="3 texts but 2 labels"):
        model.fit(SOURCES[:3], TARGETS[:2])
    with pytest.raises(ValueError, match="learns from labels, and none came"):
        model.fit(SOURCES)
    with pytest.raises(ValueError, match="more than 48"):
        model.generate([" ".join(tiny.TEXTS)])
    with pytest.raises(ValueError, match=r"decoder_start_token_id=400 is no id of the vocabulary"):
        make(decoder_start_token_id=400)
    with pytest.raises(ValueError, match=r"target_length=99 must be 1 to 48"):
        make(target_length=99)
    with pytest.raises(ValueError, match="use generate"):
        model.predict(SOURCES)
    with pytest.raises(TypeError, match="takes no 'sequence_lenght'"):
        make(sequence_lenght=3)
    with pytest.raises(ValueError, match=r"sources\[1\] has the id 290; the vocabulary has ids 0 to 289"):
        model.generate([[5, 6], [7, 290]])
    with pytest.raises(ValueError, match=r"targets\[0\] has .* more than 48"):
        model.score(SOURCES[:1], [" ".join(tiny.TEXTS)])
    batch = model.encode(SOURCES[:2], TARGETS[:2])
    batch["encoder_token_ids"][0, 0] = 290
    with pytest.raises(ValueError, match=r"encoder_token_ids.* is 290"):
        model.fit(batch, batch["decoder_token_ids"], verbose=0)


def test_what_no_road_leads_to_yet_is_said(tmp_path):
    model = make()
    with pytest.raises(ValueError, match="an encoder with a decoder inside, and no way to write token by token"):
        export.export_litert(model.backbone, tmp_path / "model.tflite")
    with pytest.raises(ValueError, match="which are made smaller one at a time"):
        compression.remove_layers(model, (0,))


def test_pruning_and_lora_reach_both_stacks_and_what_stands_between():
    kernels = [
        f"{block}/{kernel}/kernel"
        for block, kernel in (
            ("encoder_block_0", "self_attention/query"),
            ("decoder_block_0", "self_attention/value"),
            ("decoder_block_0", "cross_attention/key"),
            ("decoder_block_0", "feed_forward/expand"),
        )
    ]
    model = make()
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(SOURCES, TARGETS, verbose=0, callbacks=[compression.Prune(compression.ConstantSparsity(0.5, 0))])
    held = tiny.weights(model)
    assert [float(np.mean(held[path] == 0)) for path in kernels] == [0.5] * len(kernels)

    adapted = make()
    compression.Adapters(adapted).add(
        "lora", compression.LoRA(rank=2, targets=("query", "cross_attention/value", "expand"))
    )
    adapted.compile(keras.optimizers.SGD(0.1))
    before = tiny.weights(adapted)
    adapted.fit(SOURCES, TARGETS, verbose=0)
    changed = {path for path, value in tiny.weights(adapted).items() if (value != before[path]).any()}
    assert all("lora" in path for path in changed)
    assert {"encoder_block_0", "decoder_block_0"} == {path.split("/")[0] for path in changed}
    assert any("cross_attention" in path for path in changed)
