"""A model with a factorized token table is the big one with the table's best approximation of that rank."""

import contextlib

import keras
import numpy as np
import pytest
import tiny
from structured_cases import made_task, outputs, shared

from tfxformer import compression, export, tasks
from tfxformer.checkpoints import CheckpointError
from tfxformer.compression.smaller.factorized import best_factors

pytestmark = pytest.mark.usefixtures("plain_kernels", "eager")


@contextlib.contextmanager
def approximated(big, rank):
    """While it lasts, the table of a model is cut to a rank by numpy's SVD."""
    (table,) = [variable for variable in big.weights if variable.path == "token_embedding/embeddings"]
    whole = table.numpy()
    left, scale, right = np.linalg.svd(whole.astype("float64"), full_matrices=False)
    table.assign((left[:, :rank] * scale[:rank]) @ right[:rank])
    yield
    table.assign(whole)


@pytest.mark.parametrize("family", ["bert", "albert", "llama"])
def test_it_is_the_model_of_that_rank(family):
    big = shared(family)
    before, width = tiny.weights(big), big.config.table_size
    small = compression.factorize_embeddings(big, width // 4)
    for path, values in tiny.weights(big).items():
        np.testing.assert_array_equal(values, before[path])
    with approximated(big, width // 4):
        np.testing.assert_allclose(outputs(small), outputs(big), rtol=0, atol=1e-5)
    assert np.abs(outputs(small) - outputs(big)).max() > 1e-2
    shapes = {path: values.shape for path, values in tiny.weights(small).items()}
    assert shapes["token_embedding/embeddings"] == (110, width // 4)
    assert shapes["token_embedding/projection"] == (width // 4, width)
    assert small.count_params() == big.count_params() - 110 * width + width // 4 * (110 + width)


@pytest.mark.parametrize("name", ["TextClassifier", "MaskedLM", "CausalLM", "MultiTask"])
def test_tasks_heads_that_are_tied_too(name, tiny_tokenizer):
    big, _ = made_task(name, tiny_tokenizer)
    small = compression.factorize_embeddings(big, 24)
    with approximated(big, 24):
        np.testing.assert_allclose(outputs(small), outputs(big), rtol=0, atol=1e-5)
        if name == "CausalLM":  # the cached step reads the same table
            said, wanted = (lm.generate(["good film"], max_new_tokens=4, jit_compile=False) for lm in (small, big))
            assert said == wanted


@pytest.mark.road
@pytest.mark.parametrize("mode", ["float32", pytest.param("dynamic_int8", marks=pytest.mark.slow)])
def test_it_fits_saves_shrinks_further_and_is_exported(mode, tiny_tokenizer, tmp_path):
    big, _ = made_task("TextClassifier", tiny_tokenizer)
    small = compression.factorize_embeddings(big, 8)
    if mode == "float32":
        history = small.fit(tiny.TEXTS, tiny.LABELS, verbose=0).history
        assert np.isfinite(history["loss"]).all()
        np.testing.assert_array_equal(outputs(compression.student_from(small, keep=2)), outputs(small))
        small = compression.trim_vocabulary(compression.remove_heads(small, 2), tiny.TEXTS)
        assert small.backbone.config.token_table_rank == 8
    wanted = small.predict(tiny.TEXTS[:4], verbose=0)
    small.save(tmp_path / "small.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "small.keras").predict(tiny.TEXTS[:4]), wanted)
    report = export.export_litert(small, tmp_path / "small.tflite", quantization=mode, sequence_length=16)
    assert report.error <= report.tolerance
    found = export.LiteRTModel(tmp_path / "small.tflite").predict(tiny.TEXTS[:4])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 if mode == "float32" else 5e-2)
    with pytest.raises(CheckpointError, match=r"transformers could not open it.*model\.save"):
        small.save_pretrained(tmp_path / "folder")


def test_a_language_model_is_exported_with_one_table(tiny_tokenizer, tmp_path):
    backbone = tiny.backbone("llama", decoder__num_layers=1, vocabulary_size=600)
    big = tiny.perturb(tasks.CausalLM(backbone, tokenizer=tiny_tokenizer))
    sizes = {}
    for name, lm in (("big", big), ("small", compression.factorize_embeddings(big, 8))):
        report = export.export_litert(lm, tmp_path / f"{name}.tflite", cache_length=32, prefill_lengths=(8,))
        assert report.error <= report.tolerance
        sizes[name] = report.weight_bytes
    assert sizes["big"] - sizes["small"] > 600 * (32 - 8) * 0.8


@pytest.mark.parametrize(("rows", "columns", "rank"), [(40, 12, 5), (6, 12, 5), (12, 12, 11)])
def test_factors_are_the_best_of_their_rank(rows, columns, rank):
    table = np.random.default_rng(0).normal(size=(rows, columns)).astype("float32")
    vectors, projection = best_factors(table, rank)
    scale = np.linalg.svd(table, compute_uv=False)
    lost = np.linalg.norm(table - vectors @ projection)
    assert lost == pytest.approx(np.sqrt(np.square(scale[rank:]).sum()), rel=1e-4)
    np.testing.assert_allclose(projection @ projection.T, np.eye(rank), atol=1e-5)


def test_what_cannot_be_factorized_is_refused():
    for rank in (0, 32, -1):
        with pytest.raises(ValueError, match=f"rank={rank} must be 1 to 31, below the table's width 32"):
            compression.factorize_embeddings(shared(), rank)
    for rank in (8.0, True, None):
        with pytest.raises(TypeError, match="rank is an int"):
            compression.factorize_embeddings(shared(), rank)
    small = compression.factorize_embeddings(shared(), 8)
    with pytest.raises(ValueError, match="has rank 8 already"):
        compression.factorize_embeddings(small, 4)
    with pytest.raises(TypeError, match=r"tfxformer's models"):
        compression.factorize_embeddings(keras.Sequential([keras.layers.Dense(2)]), 4)
    with pytest.raises(ValueError, match=r"token_table_rank must be an int of 1 to 31"):
        tiny.config().replace(token_table_rank=32)
