"""QuestionAnswering: spans, long contexts in windows, no answer."""

import itertools

import batteries
import numpy as np
import pytest
import tiny

from tfxformer import tasks

pytestmark = pytest.mark.usefixtures("plain_kernels")
PAIRS = [
    ("who wrote it?", "ada wrote it in london."),
    ("who sat?", "the cat sat on the mat."),
    ("who ran?", "a film."),
] * 8
ANSWERS = [{"text": "ada", "answer_start": 0}, (4, 7), None] * 8


def make(tokenizer=None, dtype=None, **arguments):
    return tiny.perturb(
        tasks.QuestionAnswering(tiny.backbone(dtype=dtype, encoder__num_layers=1), tokenizer=tokenizer, **arguments)
    )


def test_battery_with_pairs(tiny_tokenizer, tmp_path):
    def same(actual, wanted):
        assert actual == wanted

    opened = batteries.check_task(make(tiny_tokenizer), PAIRS, ANSWERS, tmp_path, same=same)
    assert opened.overlap is None


def test_battery_of_the_model(tmp_path):
    batteries.check_model(lambda dtype=None: make(dtype=dtype), tmp_path, xla=False)


def logits_of(model, tokenizer, question, context):
    """Logits and the character offsets of the context's tokens, of a text that fits one window."""
    encoding = tokenizer.encode([question], [context], sequence_length=32, return_offsets=True)
    batch = {name: getattr(encoding, name) for name in ("token_ids", "padding_mask", "segment_ids")}
    return np.asarray(model(batch))[0], encoding.offsets[0], encoding.sequence_ids[0] == 1


def test_best_answer_by_trying_every_span(tiny_tokenizer):
    model = make(tiny_tokenizer)
    for question, context in PAIRS[:3]:
        logits, offsets, inside = logits_of(model, tiny_tokenizer, question, context)
        tokens = np.flatnonzero(inside)
        spans = [(i, j) for i, j in itertools.product(tokens, tokens) if i <= j < i + 4]
        ranked = sorted(spans, key=lambda span: -(logits[span[0], 0] + logits[span[1], 1]))[:3]
        answers = model.predict([(question, context)], n_best=3, max_answer_length=4, verbose=0)[0]
        assert [(a.start, a.end) for a in answers] == [(offsets[i, 0], offsets[j, 1]) for i, j in ranked]
        assert all(a.text == context[a.start : a.end] for a in answers)


def test_loss_is_the_mean_of_both_ends(tiny_tokenizer):
    model = make(tiny_tokenizer)
    loss, accuracy = model.evaluate(PAIRS[:1], ANSWERS[:1], verbose=0)
    logits, offsets, inside = logits_of(model, tiny_tokenizer, *PAIRS[0])
    target = int(np.flatnonzero(inside & (offsets[:, 0] == 0))[0])  # "ada" is one token
    logits = logits[:16] if len(logits) > 16 and loss is None else logits
    shares = logits - np.log(np.exp(logits[:16]).sum(0))
    np.testing.assert_allclose(loss, -shares[target].mean(), rtol=1e-4)
    assert accuracy == float((logits[:16].argmax(0) == target).all())


def test_no_answer_points_at_the_first_token(tiny_tokenizer):
    model = make(tiny_tokenizer)
    _, targets, _ = model.prepare(model.read(PAIRS[:3], ANSWERS[:3]))
    assert targets.tolist()[2] == [0, 0] and all(start <= end for start, end in targets.tolist())
    answers = model.predict(PAIRS[:3], n_best=5, allow_no_answer=True, verbose=0)
    assert all(any(a.text == "" for a in one) or len(one) == 5 for one in answers)
    always = model.predict(PAIRS[:3], allow_no_answer=True, no_answer_threshold=-1e9, verbose=0)
    assert [one[0].text for one in always] == ["", "", ""]


def test_long_context_is_read_in_windows(tiny_tokenizer):
    model = make(tiny_tokenizer, sequence_length=32, overlap=8)
    context = " ".join(["the cat sat on the mat"] * 20)
    examples = model.read([("who sat?", context)])
    windows = model.windows(examples)
    assert windows.batch["token_ids"].shape[1] == 32 and len(windows.example_ids) > 4
    covered = {tuple(span) for span in windows.offsets[windows.in_context].tolist()}
    assert len(covered) == 120  # every word of the context is in some window
    answer = model.predict([("who sat?", context)], verbose=0)[0][0]
    assert answer.text == context[answer.start : answer.end] != ""
    model.fit([("who sat?", context)] * 2, [(4, 7)] * 2, batch_size=8, verbose=0)


def test_short_contexts_need_no_stride_of_their_own(tiny_tokenizer):
    """The docstring's example: texts much shorter than the usual overlap of 128."""
    model = make(tiny_tokenizer)
    model.fit(
        [("who wrote it?", "ada wrote it.")] * 8, [{"text": "ada", "answer_start": 0}] * 8, batch_size=8, verbose=0
    )
    assert isinstance(model.predict([("who wrote it?", "ada wrote it.")], verbose=0)[0][0].text, str)


def test_overlap_and_labels_in_the_folder(tiny_tokenizer, tmp_path):
    import json

    model = make(tiny_tokenizer, overlap=5)
    model.backbone.reference_config = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    folder = model.save_pretrained(tmp_path / "folder")
    assert tasks.QuestionAnswering.from_pretrained(folder).overlap == 5
    assert tasks.QuestionAnswering.from_pretrained(folder, overlap=7).overlap == 7
    older = {("stride" if name == "overlap" else name): value for name, value in model.get_config().items()}
    assert tasks.QuestionAnswering.from_config(older).overlap == 5  # a file of 0.5.0
    # The reference gives the head one row a label: those of the classifier it was before would misshape it.
    assert len(json.loads((folder / "config.json").read_text())["id2label"]) == 2


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (["only a question"], [None], TypeError, "pairs"),
        ([("who?", "ada sat")], [{"text": "alan", "answer_start": 0}], ValueError, "says 'alan' begins at character 0"),
        ([("who?", "ada sat")], [(0, 99)], ValueError, "wanted a span inside"),
        ([], [], ValueError, "empty"),
    ],
)
def test_bad_examples(x, y, error, message, tiny_tokenizer):
    with pytest.raises(error, match=message):
        make(tiny_tokenizer).fit(x, y)


def test_predict_takes_pairs_only(tiny_tokenizer):
    with pytest.raises(TypeError, match=r"use logits\(batch\)"):
        make(tiny_tokenizer).predict(tiny.batch())


def test_answer_is_the_best_prediction(tiny_tokenizer):
    model = make(tiny_tokenizer)
    question, context = "who sat?", "the cat sat in london"
    best = model.predict([(question, context)], n_best=3, verbose=0)[0][0]
    answer = model.answer(question, context)
    assert (answer.text, answer.start, answer.end) == (best.text, best.start, best.end)
    with pytest.raises(ValueError, match="no token"):
        model.answer(question, " ")
    assert model.answer(question, " ", allow_no_answer=True).text == ""
