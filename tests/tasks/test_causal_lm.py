"""CausalLM: what is fitted on, and loss, perplexity and likelihoods against plain numpy and transformers."""

import keras
import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

import tfxformer
from tfxformer import tasks
from tfxformer.data import Records, RecordsError, prepare_records
from tfxformer.models import FeedForwardConfig, HeadConfig, NormConfig, StackConfig, TransformerConfig
from tfxformer.text import Tokenizer

pytestmark = pytest.mark.usefixtures("plain_kernels")
BPE = Tokenizer.train_byte_level_bpe(tiny.TEXTS, 280)
END = BPE.eos_id
TEXTS = tiny.TEXTS[:9]
LONG = " ".join(tiny.TEXTS)
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def make(tokenizer=BPE, dtype=None, sequence_length=None, tied=True, max_positions=48):
    stack = StackConfig(
        1, 32, 4, FeedForwardConfig(48, "gelu_new"), NormConfig("pre", epsilon=1e-5, embedding=False, final=True),
        max_positions=max_positions, dropout=0.0, attention_dropout=0.0, embedding_dropout=0.0,
    )  # fmt: skip
    config = TransformerConfig("gpt2", 290, decoder=stack, heads=HeadConfig(tied=tied, classifier_bias=False))
    backbone = tfxformer.build(config, dtype=dtype)
    return tiny.perturb(tasks.CausalLM(backbone, tokenizer=tokenizer, sequence_length=sequence_length))


def token_losses(model, ids):
    """The loss of ids[1:] in one row without padding or packing, in float64."""
    ids = np.asarray(ids, "int32")
    inputs = {"token_ids": ids[None, :-1], "padding_mask": np.ones((1, len(ids) - 1), "int32")}
    logits = np.asarray(model(inputs))[0].astype("float64")
    shares = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -shares[np.arange(len(ids) - 1), ids[1:]]


# ---- what is fitted on ----------------------------------------------------------------------------------------


def test_packed_texts_cost_what_each_costs_alone():
    """No text sees its neighbours, positions begin anew, nothing is lost or counted twice, ends included."""
    model = make(sequence_length=48)
    rows = [[*ids, END] for ids in BPE.ids(TEXTS)]
    assert 48 < sum(len(row) - 1 for row in rows) < 96  # two blocks; one text goes on in the second
    blocks, targets, weights = model._examples(TEXTS)
    cut = max(blocks["padding_mask"][0]) - 1  # the text across the border: its pieces see themselves only
    before = int((blocks["padding_mask"][0] <= cut).sum())
    pieces = [*rows[:cut], rows[cut][: 48 - before + 1], rows[cut][48 - before :], *rows[cut + 1 :]]
    losses = np.concatenate([token_losses(model, piece) for piece in pieces if len(piece) > 1])
    loss, perplexity = model.evaluate(TEXTS, batch_size=1, verbose=0)
    np.testing.assert_allclose(loss, losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(perplexity, np.exp(losses.mean()), rtol=1e-5)
    assert (targets.shape, weights.sum()) == ((2, 48), len(losses))


def test_every_kind_of_input_trains_alike():
    prepared = make(sequence_length=16)._examples(TEXTS)
    texts = tf.data.Dataset.from_tensor_slices(TEXTS)
    batches = tf.data.Dataset.from_tensor_slices(prepared).batch(4)
    losses = []
    for x, y, arguments in (
        (TEXTS, None, {"batch_size": 4}),
        (texts, None, {"batch_size": 4}),
        (prepared[0], prepared[1], {"batch_size": 4, "sample_weight": prepared[2]}),
        (batches, None, {}),
    ):
        history = make(sequence_length=16).fit(x, y, shuffle=False, verbose=0, **arguments).history
        losses.append(history["loss"])
    np.testing.assert_allclose(losses, [losses[0]] * 4, rtol=1e-4)


def test_fit_learns_and_reports_perplexity(traced):
    model = make()
    model.compile(learning_rate=1e-2, warmup=0.0)
    history = model.fit(TEXTS, epochs=30, batch_size=1, sequence_length=32, validation_data=(TEXTS[:2],), verbose=0)
    history = history.history
    assert model.sequence_length == 32
    assert history["perplexity"][-1] < 3 < 100 < history["perplexity"][0]
    np.testing.assert_allclose(np.exp(history["val_loss"]), history["val_perplexity"], rtol=1e-5)
    loss, perplexity = model.evaluate(TEXTS[:2], verbose=0)
    np.testing.assert_allclose([loss, perplexity], [history["val_loss"][-1], history["val_perplexity"][-1]], rtol=1e-5)


def test_default_lengths():
    model = make()
    assert model._examples([LONG])[0]["token_ids"].shape[1] == 48  # the model's positions
    assert model._examples(["good"])[0]["token_ids"].shape == (1, 16)
    assert make(max_positions=600)._examples([LONG * 3])[0]["token_ids"].shape[1] == 512
    many = ["good"] * 98 + ["good " * 30] * 2
    with pytest.warns(UserWarning, match="2 of 100 examples were longer than 17 tokens"):
        assert model._examples(many, ["bad"] * 100)[0]["token_ids"].shape[1] == 16
    with pytest.raises(ValueError, match="sequence_length=49 must be 1 to 48"):
        model.fit(TEXTS, sequence_length=49)


def test_one_long_text_of_ids():
    ids = np.array(BPE.ids([LONG])[0])
    model = make(sequence_length=32)
    blocks, targets, weights = model._examples(ids)
    assert len(targets) > 3
    np.testing.assert_array_equal(targets[weights == 1], ids[1:])
    np.testing.assert_array_equal(blocks["token_ids"][weights == 1], ids[:-1])
    inputs, targets = model.windows(ids, 20, seed=3)
    np.testing.assert_array_equal(inputs["token_ids"][:, 1:], targets[:, :-1])
    np.testing.assert_array_equal(model.windows([LONG], 20, seed=3)[1].shape, (20, 32))
    history = model.fit(inputs, targets, batch_size=10, verbose=0).history
    assert np.isfinite(history["loss"]).all()


# ---- answers --------------------------------------------------------------------------------------------------


def test_only_answers_are_learned():
    prompts, answers = ["the cat sat on the", "who wrote it"], [" mat", " ada"]
    model = make()
    _, targets, weights = model._examples(prompts, answers)
    losses = []
    for prompt, answer in zip(BPE.ids(prompts), BPE.ids(answers), strict=True):
        losses.append(token_losses(model, [*prompt, *answer, END])[len(prompt) - 1 :])
    losses = np.concatenate(losses)
    assert weights.sum() == len(losses)
    assert targets[weights == 1].tolist() == [token for ids in BPE.ids(answers) for token in (*ids, END)]
    np.testing.assert_allclose(model.evaluate(prompts, answers, verbose=0)[0], losses.mean(), rtol=1e-5)
    dataset = tf.data.Dataset.from_tensor_slices((prompts, answers))
    np.testing.assert_allclose(model.evaluate(dataset, verbose=0)[0], losses.mean(), rtol=1e-5)
    assert np.isfinite(model.fit(prompts, answers, verbose=0).history["loss"]).all()


def chatting():
    parts = Tokenizer.from_json(BPE.to_json())
    parts._config["chat_template"] = TEMPLATE
    return parts


def test_only_what_the_assistant_says_is_learned():
    tokenizer = chatting()
    conversation = [
        {"role": "user", "content": "good film"},
        {"role": "assistant", "content": "very good"},
        {"role": "user", "content": "bad plot"},
        {"role": "assistant", "content": "a bad engine"},
    ]
    pieces = ["<user>good film<|endoftext|><assistant>", "very good<|endoftext|>",
              "<user>bad plot<|endoftext|><assistant>", "a bad engine<|endoftext|>"]  # fmt: skip
    ids = tokenizer.ids(pieces, special_tokens=False)
    model = make(tokenizer, max_positions=96)
    inputs, targets, weights = model._examples([conversation])
    assert inputs["token_ids"][inputs["padding_mask"] > 0].tolist() == [i for piece in ids for i in piece][:-1]
    assert targets[weights == 1].tolist() == ids[1] + ids[3]
    assert np.isfinite(model.fit([conversation] * 2, verbose=0).history["loss"]).all()
    with pytest.raises(ValueError, match='Conversation 1 has no message of the role "assistant"'):
        model.fit([conversation, conversation[:1]])
    tokenizer._config["chat_template"] = "{{ messages | length }}" + TEMPLATE
    with pytest.raises(ValueError, match="Conversation 0: the chat template writes earlier messages anew"):
        model.fit([conversation])


# ---- measuring ------------------------------------------------------------------------------------------------


def strided_losses(model, ids, length, stride):
    """The loop of transformers' guide to perplexity, over pairs: each window counts what none before it did."""
    losses, counted = [], 0
    for begin in range(0, len(ids), stride):
        end = min(begin + length, len(ids) - 1)
        losses.append(token_losses(model, ids[begin : end + 1])[counted - begin :])
        counted = end
        if end == len(ids) - 1:
            break
    return np.concatenate(losses)


def test_epochs_of_records_are_their_blocks(tmp_path):
    model = make(sequence_length=32)
    prepared = prepare_records(
        [{"text": text} for text in tiny.TEXTS * 3], tmp_path / "records", BPE, sequence_length=32, kind="causal"
    )
    records = Records(tmp_path / "records", tokenizer=BPE)
    rows = {row["token_ids"].tobytes(): row for row in records.dataset(None).as_numpy_iterator()}
    (inputs, targets, weights), *others = model.epochs(records, 4).first_epoch(0, 1).as_numpy_iterator()
    assert len(others) == prepared.count // 4 - 2
    for index, ids in enumerate(inputs["token_ids"]):
        row = rows[ids.tobytes()]
        for found, name in ((inputs["padding_mask"], "padding_mask"), (targets, "targets"), (weights, "weights")):
            np.testing.assert_array_equal(found[index], row[name])
    with pytest.raises(RecordsError, match="another tokenizer"):
        tasks.CausalLM(tiny.backbone("llama"), tokenizer=Tokenizer.characters("ab")).epochs(records)
    with pytest.raises(ValueError, match="MaskedLM reads segment_ids of a row"):
        tasks.MaskedLM(tiny.backbone()).epochs(records)


@pytest.mark.parametrize(("length", "stride"), [(48, 48), (48, 20), (32, 9)])
def test_long_texts_are_measured_by_stride(length, stride):
    model = make(sequence_length=length)
    (ids,) = BPE.ids([LONG])
    assert len(ids) > 2 * length
    wanted = strided_losses(model, ids, length, stride)
    assert len(wanted) == len(ids) - 1
    actual = model.perplexity(LONG, stride=stride, sequence_length=length)
    np.testing.assert_allclose(actual, np.exp(wanted.mean()), rtol=1e-5)
    with_end = strided_losses(model, [*ids, END], length, stride)
    loss, perplexity = model.evaluate([LONG], stride=stride, verbose=0)
    np.testing.assert_allclose([loss, perplexity], [with_end.mean(), np.exp(with_end.mean())], rtol=1e-5)


def test_scores_are_mean_log_likelihoods():
    model = make()
    texts = ["good film", LONG, "the bad dog sat", "engine"]
    wanted = [-strided_losses(model, ids, 48, 24).mean() for ids in BPE.ids(texts)]
    np.testing.assert_allclose(model.score(texts), wanted, rtol=1e-5)
    np.testing.assert_allclose(model.score(texts[::-1]), wanted[::-1], rtol=1e-5)
    with pytest.raises(ValueError, match=r"texts\[1\] has 1 tokens"):
        model.score(["good film", "g"])


def test_bad_input():
    model = make()
    for call, message in (
        (lambda: model.fit([]), "dataset is empty"),
        (lambda: model.fit(["good"], ["bad", "worse"]), "1 texts but 2 labels"),
        (lambda: model.fit(["good film"], sample_weight=[1.0]), "sample_weight is for arrays"),
        (lambda: model.fit([("good", "film")]), "prompts and answers as two lists"),
        (lambda: model.evaluate([LONG], stride=0, verbose=0), "stride=0 must be 1 to 48"),
        (lambda: model.predict(["good"]), "use generate"),
        (lambda: make(None).fit(["good"]), "no tokenizer"),
        (lambda: model.fit([""]), "nothing to predict"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"answers\[0\] is int"):
        model.fit(["good"], [3])


def test_encode_pads_without_a_padding_token():
    parts = Tokenizer.from_json(BPE.to_json())
    parts._config["pad_token"] = None
    model = make(Tokenizer.from_json(parts.to_json()))
    assert model.tokenizer.padding_id is None
    batch = model.encode(["good film", "a very good cat"])
    assert batch["padding_mask"].sum(axis=1).tolist() == [len(ids) for ids in BPE.ids(["good film", "a very good cat"])]
    with pytest.warns(UserWarning, match="1 of 1 texts were longer than 16"):
        model.encode([LONG], sequence_length=16)
    with pytest.raises(ValueError, match="more than 16"):
        model.encode([LONG], sequence_length=16, truncation=False)


# ---- saving ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_files_hold_everything(tied, tmp_path):
    model = make(chatting(), tied=tied)
    model.fit(TEXTS, sequence_length=32, verbose=0)
    model.save(tmp_path / "lm.keras")
    opened = [keras.saving.load_model(tmp_path / "lm.keras")]
    if tied:  # the reference's GPT-2 knows no other
        opened.append(tasks.CausalLM.from_pretrained(model.save_pretrained(tmp_path / "folder")))
    for other in opened:
        np.testing.assert_array_equal(other.score(TEXTS), model.score(TEXTS))
        assert other.tokenizer.eos_id == END and other.tokenizer.chat_template == TEMPLATE
        assert other.sequence_length == 32
    assert opened[0].compiled and int(opened[0].optimizer.iterations) == int(model.optimizer.iterations)
    np.testing.assert_allclose(opened[0].evaluate(TEXTS, verbose=0), model.evaluate(TEXTS, verbose=0), rtol=1e-6)


def test_mixed_precision():
    history = make(dtype="mixed_bfloat16", sequence_length=32).fit(TEXTS, epochs=2, verbose=0).history
    wanted = make(sequence_length=32).fit(TEXTS, epochs=2, verbose=0).history
    np.testing.assert_allclose(history["loss"], wanted["loss"], rtol=3e-2)


@pytest.mark.slow
def test_whole_step_under_xla(traced):
    """As tests/tasks/base/test_task.py has it for a classifier."""
    losses = []
    for jit_compile in (True, False):
        model = make(sequence_length=32)
        model.compile(learning_rate=1e-3, jit_compile=jit_compile)
        losses.append(model.fit(TEXTS, epochs=2, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@pytest.mark.reference
def test_loss_and_score_are_those_of_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = make()
    theirs = transformers.GPT2LMHeadModel.from_pretrained(model.save_pretrained(tmp_path)).eval()
    for text in TEXTS:
        ids = torch.tensor(BPE.ids([text]))
        with torch.no_grad():
            wanted = theirs(input_ids=ids, labels=ids).loss.item()
        np.testing.assert_allclose(model.score([text])[0], -wanted, rtol=1e-5)
    rows = [[*ids, END] for ids in BPE.ids(TEXTS)]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
    with torch.no_grad():
        wanted = theirs(input_ids=ids, attention_mask=(labels >= 0).long(), labels=labels).loss.item()
    prompts = [""] * len(TEXTS)  # whole examples, as theirs are
    np.testing.assert_allclose(model.evaluate(prompts, TEXTS, verbose=0)[0], wanted, rtol=1e-5)
