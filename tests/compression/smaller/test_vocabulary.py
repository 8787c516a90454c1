"""A model with a trimmed vocabulary says of its corpus what the whole one says."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny
from structured_cases import made_task, shared

from tfxformer import compression, export, tasks
from tfxformer.text import Tokenizer

pytestmark = pytest.mark.usefixtures("plain_kernels", "eager")
CORPUS = ["a good film", "not a bad plot, was it?", "good cats ran", "who é sat", "short long"]


def same(small, big, texts):
    """Logits of texts by each model's own tokenizer, float32."""
    return [keras.tree.map_structure(np.asarray, m(m.encode(texts, sequence_length=16))) for m in (small, big)]


@pytest.mark.parametrize("name", ["TextClassifier", "TokenClassifier", "TextEmbedder", "MultiTask"])
def test_texts_keep_their_outputs(name, tiny_tokenizer):
    big, _ = made_task(name, tiny_tokenizer)
    small = compression.trim_vocabulary(big, CORPUS)
    assert small.backbone.config.vocabulary_size == small.tokenizer.vocabulary_size < tiny.VOCABULARY_SIZE
    for ours, theirs in zip(*map(keras.tree.flatten, same(small, big, CORPUS)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if name == "MultiTask":
        assert small.tasks["topics"].tokenizer == small.tokenizer


def test_language_models_keep_the_logits_of_the_tokens_left(tiny_tokenizer):
    _, kept = tiny_tokenizer.trimmed(CORPUS)
    batch = tiny_tokenizer.encode(CORPUS, sequence_length=16)
    changes = {"heads__tied": False, "heads__logits_bias": True}
    untied = tiny.perturb(tasks.CausalLM(tiny.backbone("llama", **changes), tokenizer=tiny_tokenizer))
    for big in (made_task("MaskedLM", tiny_tokenizer)[0], made_task("CausalLM", tiny_tokenizer)[0], untied):
        small = compression.trim_vocabulary(big, CORPUS)
        ids = {name: getattr(batch, name) for name in big.backbone.input}
        wanted = np.asarray(big(ids))[..., kept]
        ids["token_ids"] = np.searchsorted(kept, ids["token_ids"]).astype("int32")
        np.testing.assert_allclose(np.asarray(small(ids)), wanted, rtol=0, atol=1e-5)


def test_a_language_model_of_byte_level_bpe_writes_the_same(tmp_path):
    whole = Tokenizer.train_byte_level_bpe(tiny.TEXTS + CORPUS, 330)
    backbone = tiny.backbone("gpt2", decoder__num_layers=1, vocabulary_size=340)
    big = tiny.perturb(tasks.CausalLM(backbone, tokenizer=whole))
    small = compression.trim_vocabulary(big, CORPUS)
    assert small.backbone.config.vocabulary_size == small.tokenizer.vocabulary_size < whole.vocabulary_size
    _, kept = whole.trimmed(CORPUS)
    for text in CORPUS:
        ours, theirs = (m({k: np.array(v) for k, v in _batch(m.tokenizer, text).items()}) for m in (small, big))
        np.testing.assert_allclose(ours, np.asarray(theirs)[..., kept], rtol=0, atol=1e-5)
    again = tasks.CausalLM.from_pretrained(small.save_pretrained(tmp_path))
    said, wanted = (lm.generate(CORPUS[:2], max_new_tokens=3, jit_compile=False) for lm in (again, small))
    assert said == wanted


def _batch(tokenizer, text):
    (ids,) = tokenizer.ids([text])
    return {"token_ids": [ids], "padding_mask": [[1] * len(ids)]}


@pytest.mark.slow
def test_a_trimmed_model_fits_saves_and_is_exported(tiny_tokenizer, tmp_path):
    big, _ = made_task("TextClassifier", tiny_tokenizer)
    small = compression.trim_vocabulary(big, [*CORPUS, *tiny.TEXTS])
    assert np.isfinite(small.fit(tiny.TEXTS, tiny.LABELS, verbose=0).history["loss"]).all()
    wanted = small.predict(tiny.TEXTS[:4], verbose=0)
    small.save(tmp_path / "small.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "small.keras").predict(tiny.TEXTS[:4]), wanted)
    again = tasks.TextClassifier.from_pretrained(small.save_pretrained(tmp_path / "folder"))
    np.testing.assert_array_equal(again.predict(tiny.TEXTS[:4], verbose=0), wanted)
    export.export_litert(small, tmp_path / "small.tflite", quantization="float32", sequence_length=16)
    found = export.LiteRTModel(tmp_path / "small.tflite").predict(tiny.TEXTS[:4])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_ids_of_config_json_are_renumbered(tiny_tokenizer, tmp_path):
    big, _ = made_task("TextClassifier", tiny_tokenizer)
    _, kept = tiny_tokenizer.trimmed(CORPUS)
    gone = next(index for index in range(tiny_tokenizer.vocabulary_size) if index not in kept)
    big.backbone.reference_config = {
        "pad_token_id": 0,
        "sep_token_id": int(kept[40]),
        "eos_token_id": [int(kept[41]), gone],
        "bos_token_id": gone,
        "decoder_start_token_id": None,
    }
    folder = compression.trim_vocabulary(big, CORPUS).save_pretrained(tmp_path)
    written = json.loads((folder / "config.json").read_text())
    assert (written["pad_token_id"], written["sep_token_id"], written["eos_token_id"]) == (0, 40, [41])
    assert "bos_token_id" not in written
    assert written["vocab_size"] == len(kept)


def test_a_bare_model_takes_ids(tiny_tokenizer):
    tokenizer, ids = tiny_tokenizer.trimmed(CORPUS)
    big = shared()
    small = compression.keep_tokens(big, ids)
    batches = [one.encode(CORPUS, sequence_length=16) for one in (tokenizer, tiny_tokenizer)]
    ours, theirs = (
        np.asarray(m({name: getattr(batch, name) for name in m.input})["sequence_output"])
        for m, batch in zip((small, big), batches, strict=True)
    )
    np.testing.assert_array_equal(ours, theirs)


def test_what_cannot_be_trimmed_is_refused(tiny_tokenizer):
    unigram = Tokenizer.from_pretrained(Path(__file__).parents[2] / "text" / "fixtures" / "albert")
    sizes = {"decoder__num_layers": 1, "vocabulary_size": unigram.vocabulary_size}
    lm = tasks.CausalLM(tiny.backbone("gpt2", **sizes), tokenizer=unigram)
    with pytest.raises(ValueError, match=r"Only WordPiece and BPE.*Unigram"):
        compression.trim_vocabulary(lm, CORPUS)
    with pytest.raises(ValueError, match="no tokenizer"):
        compression.trim_vocabulary(shared(), CORPUS)
    with pytest.raises(TypeError, match=r"tfxformer's models"):
        compression.trim_vocabulary(keras.Sequential([keras.layers.Dense(2)]), CORPUS)
    classifier, _ = made_task("TextClassifier", tiny_tokenizer)
    with pytest.raises(ValueError, match="corpus is empty"):
        compression.trim_vocabulary(classifier, [])
    for ids in ([], [3, 1], [0, 0], [0, 110], [-1, 2], [[0, 1]], [0.0, 1.0]):
        with pytest.raises(ValueError, match="ascending ids of 0 to 109"):
            compression.keep_tokens(shared(), ids)
    with pytest.raises(ValueError, match="padding token, id 0"):
        compression.keep_tokens(shared(), [1, 2])
    with pytest.raises(ValueError, match="a tokenizer of 95 tokens"):
        compression.keep_tokens(classifier, [0, 1, 2], tiny_tokenizer)
    with pytest.raises(ValueError, match="needs the one with the new ids"):
        compression.keep_tokens(classifier, [0, 1, 2])
    with pytest.raises(ValueError, match="counted from its padding id, 1"):
        compression.keep_tokens(tiny.backbone("roberta", encoder__num_layers=1, padding_id=1), [1, 2, 3])


@pytest.mark.parametrize("family", ["bert", "albert", "gpt2"])
def test_added_tokens_leave_the_others_as_they_are(family, tiny_tokenizer):
    """Where the table has no spare row, and where it has: logits of texts without the tokens are what they were."""
    for rows in (len(tiny.VOCABULARY), tiny.VOCABULARY_SIZE):
        backbone = tiny.backbone(family, vocabulary_size=rows)
        task = tasks.TextClassifier(backbone, ["a", "b"], tokenizer=tiny_tokenizer)
        grown = compression.add_tokens(task, ["[E1]", "[/E1]"])
        assert grown.backbone.config.vocabulary_size == max(rows, len(tiny.VOCABULARY) + 2)
        np.testing.assert_allclose(
            grown.predict(tiny.TEXTS[:4], verbose=0), task.predict(tiny.TEXTS[:4], verbose=0), atol=1e-6
        )
        before, after = (tiny.weights(one)["token_embedding/embeddings"] for one in (task, grown))
        count = len(tiny.VOCABULARY)
        np.testing.assert_array_equal(after[:count], before[:count])
        np.testing.assert_array_equal(after[count + 2 :], before[count + 2 :])
        new, mean = after[count : count + 2], before[:count].mean(0)
        assert 0 < np.abs(new - mean).max() < 6 * backbone.config.initializer_range
        assert np.abs(new[0] - new[1]).max() > 0
    again = compression.add_tokens(grown, ["[E1]"])
    assert again.backbone.config == grown.backbone.config and again.tokenizer == grown.tokenizer


def test_added_tokens_of_a_masked_lm(tiny_tokenizer):
    task = tasks.MaskedLM(tiny.backbone(vocabulary_size=len(tiny.VOCABULARY)), tokenizer=tiny_tokenizer)
    grown = compression.add_tokens(task, ["[E1]"])
    before, after = (np.asarray(one(one.encode(tiny.TEXTS[:2]))) for one in (task, grown))
    np.testing.assert_allclose(after[..., :-1], before, atol=1e-5)
    with pytest.raises(ValueError, match="this model has no tokenizer"):
        compression.add_tokens(tasks.MaskedLM(tiny.backbone()), ["[E1]"])
