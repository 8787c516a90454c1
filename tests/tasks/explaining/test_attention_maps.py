"""What each token reads of each other one: against transformers, and the picture against the numbers."""

import numpy as np
import pytest
import tiny

from tfxformer import tasks

TEXT, PAIR = "a very good, bad film!", ("a good film", "the dog sat on the mat")
FAMILIES = ("bert", "roberta", "distilbert", "modernbert", "deberta-v2", "albert", "gpt2")


def classifier(tokenizer, family="bert", **arguments):
    return tiny.perturb(tasks.TextClassifier(tiny.backbone(family), ["a", "b", "c"], tokenizer=tokenizer, **arguments))


@pytest.mark.reference
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_those_of_transformers(family, tiny_tokenizer, tmp_path):
    import torch
    import transformers

    model = classifier(tiny_tokenizer, family)
    folder = model.save_pretrained(tmp_path / "model")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    batch = model.encode([TEXT])
    count = int(batch["padding_mask"].sum())
    inputs = {"input_ids": batch["token_ids"], "attention_mask": batch["padding_mask"]}
    with torch.no_grad():
        inputs = {name: torch.tensor(array[:, :count], dtype=torch.int64) for name, array in inputs.items()}
        attentions = theirs(**inputs, output_attentions=True).attentions
    found = model.attention_maps(TEXT)
    assert found.tokens == [tiny_tokenizer.vocabulary()[i] for i in batch["token_ids"][0, :count]]
    np.testing.assert_allclose(found.weights, torch.cat(attentions).numpy(), atol=1e-5)


def test_rows_sum_to_one_without_padding(tiny_tokenizer):
    """A model that has chosen its length pads its batches; the maps hold the text's own tokens."""
    model = classifier(tiny_tokenizer, sequence_length=32)
    found = model.attention_maps(TEXT)
    assert found.weights.shape == (2, 4, len(found.tokens), len(found.tokens))
    assert found.tokens[0] == "[CLS]" and found.tokens[-1] == "[SEP]" and "[PAD]" not in found.tokens
    np.testing.assert_allclose(found.weights.sum(-1), 1.0, atol=1e-6)


def test_looking_changes_nothing(tiny_tokenizer):
    model = classifier(tiny_tokenizer)
    before = model.predict([TEXT], verbose=0)
    first, second = model.attention_maps(TEXT), model.attention_maps(PAIR)
    assert len(second.tokens) == len(first.tokens) + 3
    assert second.tokens.count("[SEP]") == 2
    np.testing.assert_array_equal(model.predict([TEXT], verbose=0), before)
    assert not any("probabilities" in vars(block.self_attention) for block in model.backbone.blocks)


def test_causal_attention_sees_nothing_later(tiny_tokenizer):
    weights = classifier(tiny_tokenizer, "gpt2").attention_maps(TEXT).weights
    earlier = np.tril(np.ones(weights.shape[-2:], bool))
    assert weights[..., ~earlier].max() == 0.0 and weights[..., earlier].min() > 0.0


def test_other_tasks_have_them(tiny_tokenizer):
    tagger = tasks.TokenClassifier(tiny.backbone(), ["O", "X"], tokenizer=tiny_tokenizer)
    assert tagger.attention_maps(["good", "film"]).tokens == ["[CLS]", "good", "film", "[SEP]"]
    embedder = tasks.TextEmbedder(tiny.backbone(), tokenizer=tiny_tokenizer)
    assert embedder.attention_maps("good film").tokens == ["[CLS]", "good", "film", "[SEP]"]
    lm = tasks.CausalLM(tiny.backbone("gpt2"), tokenizer=tiny_tokenizer)
    assert "film" in lm.attention_maps("good film").tokens


def test_the_picture_shows_the_numbers(tiny_tokenizer, tmp_path):
    found = classifier(tiny_tokenizer).attention_maps(TEXT)
    drawn = found.plot(tmp_path / "map.png", layer=1, head=2)
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"
    panel, bar = drawn.axes
    (image,) = panel.get_images()
    np.testing.assert_array_equal(image.get_array(), found.weights[1, 2])
    assert panel.get_title() == "layer 1, head 2"
    assert [label.get_text() for label in panel.get_yticklabels()] == found.tokens
    assert bar.get_ylabel() and panel.get_xlabel() and panel.get_ylabel()
    mean = found.plot()
    np.testing.assert_array_equal(mean.axes[0].get_images()[0].get_array(), found.weights[-1].mean(0))
    assert mean.axes[0].get_title() == "layer 1, mean of 4 heads"
    with pytest.raises(ValueError, match="head=4: the model has 4, from 0 to 3"):
        found.plot(head=4)


def test_what_has_no_table_of_tokens_is_refused(tiny_tokenizer):
    with pytest.raises(ValueError, match="layers of the kind convolution mix tokens without attention"):
        classifier(tiny_tokenizer, "lfm2").attention_maps(TEXT)
    with pytest.raises(ValueError, match="an encoder and a decoder"):
        classifier(tiny_tokenizer, "bart").attention_maps(TEXT)
    with pytest.raises(ValueError, match="no tokenizer"):
        classifier(None).attention_maps(TEXT)
