"""Explanations: the sums they promise, torch's own gradients, the paper's product, and whose words they are."""

import re

import numpy as np
import pytest
import tiny

from tfxformer import compression, data, tasks
from tfxformer.tasks.explaining.rollout import rollout
from tfxformer.tasks.explaining.words import Explanation, WordWeight

TEXT, PAIR = "a very good, bad film!", ("a good film", "the dog sat on the mat")
SMOOTH = ("bert", "roberta", "albert", "electra", "modernbert", "deberta-v2", "xlnet", "gpt2", "llama", "bart", "lfm2")


def classifier(tokenizer, family="bert", labels=("a", "b", "c"), **arguments):
    return tiny.perturb(tasks.TextClassifier(tiny.backbone(family), list(labels), tokenizer=tokenizer, **arguments))


def log_odds(probability):
    return np.log(probability) - np.log1p(-probability)


@pytest.mark.parametrize("family", SMOOTH)
def test_weights_sum_to_the_difference_of_scores(family, tiny_tokenizer):
    """Completeness, and a score that is what `predict` says of the label."""
    model = classifier(tiny_tokenizer, family)
    found = model.explain(TEXT)
    probability = model.predict([TEXT], verbose=0)[0].astype("float64")
    assert found.label == model.labels[probability.argmax()]
    np.testing.assert_allclose(found.probability, probability.max(), rtol=1e-6)
    np.testing.assert_allclose(found.score, log_odds(probability.max()), atol=1e-5)
    total = sum(word.weight for word in found.words)
    np.testing.assert_allclose(total, found.score - found.baseline_score, atol=5e-3)


def test_the_baseline_is_the_text_of_masks(tiny_tokenizer):
    """Of a model whose positions do not hang on the ids; every other token of the batch stays."""
    model = classifier(tiny_tokenizer)
    found = {name: model.explain(TEXT, label="b", baseline=name) for name in (None, "mask", "pad", "zeros")}
    batch = model.encode([TEXT])
    for name, token in (("mask", tiny_tokenizer.mask_id), ("pad", tiny_tokenizer.padding_id)):
        ids = np.where(batch["token_ids"] >= len(tiny.SPECIAL), token, batch["token_ids"])
        logits = np.asarray(model({**batch, "token_ids": ids}))[0].astype("float64")
        expected = log_odds(np.exp(logits[1]) / np.exp(logits).sum())
        np.testing.assert_allclose(found[name].baseline_score, expected, atol=1e-5)
    assert found[None] == found["mask"]
    assert found["zeros"].score == found["pad"].score
    assert abs(found["zeros"].baseline_score - found["pad"].baseline_score) > 1e-4


def torch_gradients(theirs, batch, mask_id, column, steps=300):
    """Integrated gradients by torch's autograd and a plain midpoint sum: float64 [S]."""
    import torch

    ids, mask = (torch.tensor(batch[name], dtype=torch.int64) for name in ("token_ids", "padding_mask"))
    table = theirs.get_input_embeddings()
    end = table(ids).detach()
    start = table(torch.where(ids >= len(tiny.SPECIAL), mask_id, ids)).detach()
    places = (torch.arange(steps) + 0.5) / steps
    points = (start + places[:, None, None] * (end - start)).requires_grad_()
    logits = theirs(inputs_embeds=points, attention_mask=mask.repeat(steps, 1)).logits
    others = torch.cat([logits[:, :column], logits[:, column + 1 :]], -1)
    (logits[:, column] - others.logsumexp(-1)).sum().backward()
    return ((end - start)[0] * points.grad.mean(0)).sum(-1).double().numpy()


@pytest.mark.reference
@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_weights_are_those_of_torch(family, tiny_tokenizer, tmp_path):
    import transformers

    model = classifier(tiny_tokenizer, family)
    folder = model.save_pretrained(tmp_path / "model")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = model.encode([TEXT])
    expected = torch_gradients(theirs, batch, tiny_tokenizer.mask_id, 2)
    found = model.explain(TEXT, label="c", steps=128)
    tokens = batch["token_ids"][0] >= len(tiny.SPECIAL)  # each word of the text is one token
    assert tokens.sum() == len(found.words)
    np.testing.assert_allclose([word.weight for word in found.words], expected[tokens], atol=2e-3)


@pytest.mark.reference
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_rollout_is_the_product_of_transformers_attentions(family, tiny_tokenizer, tmp_path):
    import torch
    import transformers

    model = classifier(tiny_tokenizer, family)
    folder = model.save_pretrained(tmp_path / "model")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    encoding = tiny_tokenizer.encode([TEXT], return_offsets=True)
    with torch.no_grad():
        attentions = theirs(torch.tensor(encoding.token_ids.astype("int64")), output_attentions=True).attentions
    means = [layer[0].mean(0).numpy() + np.eye(encoding.token_ids.shape[1]) for layer in attentions]
    shares = np.linalg.multi_dot([layer / layer.sum(-1, keepdims=True) for layer in means[::-1]])
    row = shares[-1 if family == "gpt2" else 0]
    found = model.explain(TEXT, method="attention_rollout")
    np.testing.assert_allclose(
        [word.weight for word in found.words], row[encoding.sequence_ids[0] == 0], rtol=1e-4, atol=1e-6
    )
    assert found.score is None


def test_rollout_of_layers_that_read_one_token():
    """By hand: each layer keeps half of what it has, and takes half of the first token's."""
    first = np.zeros((2, 3, 3))
    first[..., 0] = 1.0
    np.testing.assert_allclose(rollout([first]), [[1, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]])
    np.testing.assert_allclose(rollout([first, first])[1], [0.75, 0.25, 0])


def test_words_are_those_of_the_text(tiny_tokenizer):
    """Pieces make words, signs stand for themselves, and what joins a word stays in it."""
    model, text = classifier(tiny_tokenizer), "  Don't xyzab well-made... good"
    found = model.explain(text)
    assert [word.text for word in found.words] == ["Don't", "xyzab", "well-made", "...", "good"]
    assert all(text[word.start : word.end] == word.text for word in found.words)
    np.testing.assert_allclose(sum(word.weight for word in found.words), found.score - found.baseline_score, atol=5e-3)


def test_both_texts_of_a_pair(tiny_tokenizer):
    found = classifier(tiny_tokenizer).explain(PAIR)
    assert [word.text for word in found.words] == [*PAIR[0].split(), *PAIR[1].split()]
    assert [word.sequence for word in found.words] == [0] * 3 + [1] * 6
    assert found.texts == PAIR and found.highlighted("html").count("<br>") == 1


@pytest.mark.filterwarnings("ignore:.*longer than 8 tokens")
def test_a_list_is_explained_as_its_texts_are(tiny_tokenizer):
    model = classifier(tiny_tokenizer, sequence_length=8)
    alone = [model.explain(text) for text in (TEXT, "good film")]
    for ours, other in zip(model.explain([TEXT, "good film"]), alone, strict=True):
        assert [word.text for word in ours.words] == [word.text for word in other.words]
        np.testing.assert_allclose([w.weight for w in ours.words], [w.weight for w in other.words], atol=1e-6)
    assert [word.text for word in alone[0].words] == ["a", "very", "good", ",", "bad", "film"]  # of 8 tokens


def test_other_problems(tiny_tokenizer):
    tags = classifier(tiny_tokenizer, problem_type="multi_label_classification")
    probability = tags.predict([TEXT], verbose=0)[0].astype("float64")
    np.testing.assert_allclose(tags.explain(TEXT, label="b").score, log_odds(probability[1]), atol=1e-5)
    grade = classifier(tiny_tokenizer, labels=["stars"], problem_type="regression")
    np.testing.assert_allclose(grade.explain(TEXT).score, grade.predict([TEXT], verbose=0)[0, 0], atol=1e-5)
    grades = classifier(tiny_tokenizer, problem_type="regression")
    assert grades.explain(TEXT, label="c").label == "c"
    with pytest.raises(ValueError, match="label= one of a, b, c"):
        grades.explain(TEXT)


def test_adapters_in_front_are_no_words(tiny_tokenizer):
    model = classifier(tiny_tokenizer)
    compression.Adapters(model).add("films", compression.PromptTuning(3))
    tiny.perturb(model)
    found = model.explain(TEXT)
    np.testing.assert_allclose(sum(word.weight for word in found.words), found.score - found.baseline_score, atol=5e-3)
    with pytest.raises(ValueError, match="3 trained vectors in front of every text"):
        model.explain(TEXT, method="attention_rollout")


def test_it_shows_the_text_in_colours():
    words = [WordWeight("dull", -2.0, 2, 6), WordWeight("film", 1.0, 7, 11)]
    found = Explanation(("a dull film",), words, "good", 0.25, "integrated_gradients", -1.5, -0.5)
    assert re.sub(r"\x1b\[[\d;]*m", "", str(found)) == "good 0.250: a dull film"
    assert found.top(1) == [words[1]]
    shown = found._repr_html_()
    assert shown.startswith("<p><b>good 0.250</b></p>a <mark")
    assert data.highlight("a dull film", words, "html") in shown


def test_colours_of_a_pair_are_of_one_scale():
    words = [WordWeight("good", 2.0, 0, 4), WordWeight("film", 1.0, 0, 4, sequence=1)]
    found = Explanation(("good", "film"), words, "a", 0.5, "integrated_gradients")
    assert re.findall(r"rgb\((.*?)\)", found.highlighted("html")) == ["0, 114, 178", "128, 184, 216"]


def test_what_cannot_be_explained_is_refused(tiny_tokenizer):
    model = classifier(tiny_tokenizer)
    with pytest.raises(ValueError, match="label='d' is none of the classifier's labels: a, b, c"):
        model.explain(TEXT, label="d")
    with pytest.raises(ValueError, match="integrated_gradients, attention_rollout"):
        model.explain(TEXT, method="attention")
    with pytest.raises(ValueError, match="mask, pad, zeros"):
        model.explain(TEXT, baseline="ones")
    with pytest.raises(ValueError, match="steps=0"):
        model.explain(TEXT, steps=0)
    with pytest.raises(ValueError, match="mix tokens without attention"):
        classifier(tiny_tokenizer, "lfm2").explain(TEXT, method="attention_rollout")
    with pytest.raises(ValueError, match="no tokenizer"):
        classifier(None).explain(TEXT)
