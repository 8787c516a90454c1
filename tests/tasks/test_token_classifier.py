"""TokenClassifier: words and pieces both ways, entities."""

import warnings

import batteries
import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

from tfxformer import tasks

pytestmark = pytest.mark.usefixtures("plain_kernels")
LABELS = ["O", "B-PER", "B-LOC"]
WORDS = [["ada", "lives", "in", "london"], ["alanx", "sat"], ["the", "cat", "sat", "in", "parisian", "code"]] * 8
TAGS = [["B-PER", "O", "O", "B-LOC"], ["B-PER", "O"], ["O", "O", "O", "O", "B-LOC", "O"]] * 8


def make(tokenizer=None, dtype=None, family="bert", **arguments):
    return tiny.perturb(
        tasks.TokenClassifier(
            tiny.backbone(family, dtype=dtype, encoder__num_layers=1), LABELS, tokenizer=tokenizer, **arguments
        )
    )


def test_battery_with_words(tiny_tokenizer, tmp_path):
    def same(actual, wanted):
        assert actual == wanted

    batteries.check_task(make(tiny_tokenizer), WORDS, TAGS, tmp_path, same=same)


def test_battery_of_the_model(tmp_path):
    batteries.check_model(lambda dtype=None: make(dtype=dtype), tmp_path, xla=False)


def first_pieces(tokenizer, words):
    """The position of each word's first piece, by encoding the words before it."""
    positions, position = [], 1
    for word in words:
        positions.append(position)
        position += int(tokenizer.token_counts([word])[0]) - 2
    return positions


def test_prediction_reads_first_pieces(tiny_tokenizer):
    model = make(tiny_tokenizer)
    for words in WORDS[:3]:
        positions = first_pieces(tiny_tokenizer, words)
        assert positions[-1] >= len(words)
        logits = np.asarray(model(model.encode([" ".join(words)])))[0]
        wanted = [LABELS[i] for i in logits[positions].argmax(-1)]
        assert model.predict([words], verbose=0) == [wanted]


def test_loss_counts_first_pieces_only(tiny_tokenizer):
    model = make(tiny_tokenizer)
    words, tags = WORDS[1], TAGS[1]  # "alanx" is "alan", "##x"
    loss, accuracy = model.evaluate([words], [tags], verbose=0)
    logits = np.asarray(model(model.encode([" ".join(words)])))[0][first_pieces(tiny_tokenizer, words)]
    assert first_pieces(tiny_tokenizer, words) == [1, 3]
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    ids = [LABELS.index(tag) for tag in tags]
    np.testing.assert_allclose(loss, -np.log(shares[[0, 1], ids]).mean(), rtol=1e-5)
    assert accuracy == pytest.approx((logits.argmax(-1) == ids).mean())


def test_padding_amount_changes_no_loss(tiny_tokenizer):
    losses = [
        make(tiny_tokenizer, sequence_length=length).evaluate(WORDS[:6], TAGS[:6], verbose=0)[0] for length in (16, 48)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_entities(tiny_tokenizer):
    from seqeval.metrics import f1_score

    model = make(tiny_tokenizer)
    scores = model.evaluate_entities(WORDS[:3], TAGS[:3], verbose=0)
    assert scores["f1"] == pytest.approx(f1_score(TAGS[:3], model.predict(WORDS[:3], verbose=0)))
    by_id = model.evaluate_entities(WORDS[:3], [[LABELS.index(tag) for tag in tags] for tags in TAGS[:3]], verbose=0)
    assert by_id == scores


def test_words_of_a_long_text_all_get_labels(tiny_tokenizer, traced):
    model = make(tiny_tokenizer, sequence_length=16)
    words = ["cat"] * 40
    assert len(model.predict([words], verbose=0)[0]) == 40  # 42 tokens fit the model, if not the training length
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is lost: windows that overlap, tests/right_answers has their values
        labels = model.predict([["cat"] * 80], verbose=0)[0]
    assert len(labels) == 80 and set(labels) <= set(LABELS)


def test_dataset_of_batches(tiny_tokenizer):
    model = make(tiny_tokenizer, sequence_length=16)
    inputs, targets, weights = model.prepare(model.read(WORDS, TAGS))
    dataset = tf.data.Dataset.from_tensor_slices((inputs, targets, weights)).batch(8)
    loss = model.evaluate(dataset, verbose=0)[0]
    np.testing.assert_allclose(loss, model.evaluate(WORDS, TAGS, batch_size=8, verbose=0)[0], rtol=1e-6)
    model.fit(dataset, verbose=0)
    assert int(model.optimizer.iterations) == 3


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        ([["ada", "sat"]], [["B-PER"]], ValueError, "labels"),
        ([["ada"]], [["B-ORG"]], ValueError, "'B-ORG', which is not among"),
        (["ada sat"], [["O", "O"]], TypeError, "list"),
        ([], [], ValueError, "empty"),
    ],
)
def test_bad_examples(x, y, error, message, tiny_tokenizer):
    with pytest.raises(error, match=message):
        make(tiny_tokenizer).fit(x, y)


def test_encode_takes_words_and_whole_texts(tiny_tokenizer):
    model = make(tiny_tokenizer)
    words, text = model.encode(WORDS[:2]), model.encode([" ".join(words) for words in WORDS[:2]])
    assert words.keys() == text.keys() == {"token_ids", "padding_mask", "segment_ids"}
    assert all(np.array_equal(words[name], text[name]) for name in words)
    with pytest.raises(ValueError, match="more than 4"):
        model.encode(WORDS[:1], sequence_length=4, truncation=False)


@pytest.mark.reference
@pytest.mark.parametrize(("aggregation", "theirs"), [("first", "first"), ("mean", "average"), ("max", "max")])
def test_entities_are_those_of_transformers(aggregation, theirs, tiny_tokenizer, tmp_path):
    import transformers

    texts = ["ada lives in parisian london, alanx sat!", "the cat sat in parisian code", "  Alanx,ada"]
    model = make(tiny_tokenizer)
    for variable in model.trainable_variables:  # labels that change from word to word, with scores far apart
        variable.assign(variable * 3)
    model.save_pretrained(tmp_path)
    reference = transformers.pipeline("ner", str(tmp_path), aggregation_strategy=theirs)
    found = model.entities(texts, aggregation=aggregation, verbose=0)
    assert len({entity.label for row in found for entity in row}) == 2
    for row, wanted in zip(found, reference(texts), strict=True):
        assert [(e.label, e.start, e.end) for e in row] == [(w["entity_group"], w["start"], w["end"]) for w in wanted]
        np.testing.assert_allclose([e.score for e in row], [w["score"] for w in wanted], atol=1e-5)


def test_entities_of_a_long_text(tiny_tokenizer):
    """In windows: labels and places of words far behind the model's length, as `predict` gives them."""
    model = make(tiny_tokenizer, sequence_length=12)
    words = WORDS[2] * 20
    tags = model.predict([words], verbose=0)[0]
    text = " ".join(words)
    found = model.entities([text], verbose=0)[0]
    assert found == model.entities([words], verbose=0)[0]
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    begins = [int(starts[i]) for i, tag in enumerate(tags) if tag.startswith("B-")]
    assert len(begins) > 20
    assert [entity.start for entity in found] == begins
    assert all(text[entity.start : entity.end] == entity.text for entity in found)
