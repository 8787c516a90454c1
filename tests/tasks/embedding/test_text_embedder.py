"""TextEmbedder: pooling against numpy, cosine regression, sentence-transformers folders."""

import json

import batteries
import keras
import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

from tfxformer import samples, tasks
from tfxformer.checkpoints import CheckpointError

pytestmark = pytest.mark.usefixtures("plain_kernels")
PAIRS = [("good film", "a very good film"), ("bad dog", "ada wrote code"), ("the cat sat", "the dog sat")] * 8
SCORES = [1.0, -0.5, 0.3] * 8


def make(tokenizer=None, dtype=None, family="bert", **arguments):
    return tasks.TextEmbedder(
        tiny.backbone(family, dtype=dtype, encoder__num_layers=1), tokenizer=tokenizer, **arguments
    )


def test_battery_with_pairs(tiny_tokenizer, tmp_path):
    batteries.check_task(
        make(tiny_tokenizer), PAIRS, SCORES, tmp_path, same=lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6)
    )


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_battery_of_the_model(pooling, tmp_path):
    batteries.check_model(lambda dtype=None: make(dtype=dtype, pooling=pooling), tmp_path, xla=pooling == "mean")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalize", [True, False])
def test_vectors_equal_numpy(pooling, normalize, tiny_tokenizer):
    model = make(tiny_tokenizer, pooling=pooling, normalize=normalize)
    batch = model.encode(tiny.TEXTS[:4])
    sequence = np.asarray(model.backbone(batch)["sequence_output"])
    mask = batch["padding_mask"].astype(bool)
    wanted = np.stack(
        [row[0] if pooling == "cls" else row[keep].mean(0) for row, keep in zip(sequence, mask, strict=True)]
    )
    if normalize:
        wanted = wanted / np.linalg.norm(wanted, axis=-1, keepdims=True)
    np.testing.assert_allclose(model.predict(tiny.TEXTS[:4], verbose=0), wanted, atol=1e-5)


def test_arrays_may_be_longer_than_texts_are_cut_to(tiny_tokenizer):
    short = make(tiny_tokenizer, max_length=4)
    batch = short.encode(tiny.TEXTS[:4], sequence_length=16)
    whole = tasks.TextEmbedder(short.backbone, tokenizer=tiny_tokenizer).predict(batch, verbose=0)
    np.testing.assert_allclose(short.predict(batch, verbose=0), whole, atol=1e-6)
    assert np.abs(short.predict(tiny.TEXTS[:4], verbose=0) - whole).max() > 1e-3


def test_pairs_give_cosines(tiny_tokenizer):
    model = make(tiny_tokenizer, normalize=False, sequence_length=16)
    first, second = (model.predict([pair[i] for pair in PAIRS[:3]], verbose=0) for i in (0, 1))
    cosines = (first * second).sum(-1) / np.linalg.norm(first, axis=-1) / np.linalg.norm(second, axis=-1)
    np.testing.assert_allclose(model.predict(PAIRS[:3], verbose=0), cosines, atol=1e-5)
    loss, error = model.evaluate(PAIRS[:3], SCORES[:3], verbose=0)
    difference = cosines - np.array(SCORES[:3])
    np.testing.assert_allclose([loss, error], [(difference**2).mean(), np.abs(difference).mean()], rtol=1e-4)


def test_fit_brings_cosines_to_their_scores(tiny_tokenizer):
    model = make(tiny_tokenizer, sequence_length=16)
    model.compile(learning_rate=1e-2, warmup=0.0)
    dataset = tf.data.Dataset.from_tensor_slices((tuple(map(list, zip(*PAIRS, strict=True))), SCORES))
    before = model.evaluate(PAIRS, SCORES, verbose=0)[0]
    model.fit(dataset, epochs=4, batch_size=8, verbose=0)
    assert model.evaluate(PAIRS, SCORES, verbose=0)[0] < before / 2


def test_files_after_a_fit_on_pairs_still_embed_texts(tiny_tokenizer, tmp_path):
    model = make(tiny_tokenizer, sequence_length=16)
    model.save(tmp_path / "model.keras")
    opened = keras.saving.load_model(tmp_path / "model.keras")
    wanted = model.predict(["good film"], verbose=0)
    np.testing.assert_allclose(opened.predict(["good film"], verbose=0), wanted, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(wanted, axis=-1), 1.0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_folder_of_sentence_transformers(pooling, tiny_tokenizer, tmp_path):
    folder = make(tiny_tokenizer, pooling=pooling).save_pretrained(tmp_path / "folder")
    modules = json.loads((folder / "modules.json").read_text())
    assert [module["type"].rpartition(".")[2] for module in modules] == ["Transformer", "Pooling", "Normalize"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tfxformer": {}}))  # as others write it
    assert tasks.TextEmbedder.from_pretrained(folder).pooling == pooling
    other = "mean" if pooling == "cls" else "cls"
    assert tasks.TextEmbedder.from_pretrained(folder, pooling=other).pooling == other


def test_pooling_without_a_switch_is_the_mean(tiny_tokenizer, tmp_path):
    """As sentence-transformers reads such a file; tests/right_answers has the other poolings."""
    folder = make(tiny_tokenizer, pooling="cls").save_pretrained(tmp_path / "folder")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": False}))
    assert tasks.TextEmbedder.from_pretrained(folder).pooling == "mean"


def test_further_modules_are_refused(tiny_tokenizer, tmp_path):
    folder = make(tiny_tokenizer).save_pretrained(tmp_path / "folder")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_LSTM", "type": "sentence_transformers.models.LSTM"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match=r"lists .*LSTM"):
        tasks.TextEmbedder.from_pretrained(folder)


def test_unknown_pooling():
    with pytest.raises(ValueError, match="Unknown pooling 'median'; known: cls, max, mean"):
        make(pooling="median")


@pytest.mark.samples
@pytest.mark.reference
def test_real_minilm_vectors_equal_torch():
    import torch
    import transformers

    folder = samples.minilm()
    texts = ["eating food", "having a meal", "The bank raised rates."]
    encoded = transformers.AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        sequence = transformers.AutoModel.from_pretrained(folder).eval()(**encoded).last_hidden_state
    mask = encoded["attention_mask"][..., None].float()
    wanted = torch.nn.functional.normalize((sequence * mask).sum(1) / mask.sum(1), dim=-1).numpy()
    actual = tasks.TextEmbedder.from_pretrained(folder).predict(texts, verbose=0)
    np.testing.assert_allclose(actual, wanted, atol=1e-6)
    assert actual[0] @ actual[1] > 0.5 > actual[0] @ actual[2]
