"""Files of 4-bit weights: what is in them is what was computed from the inputs that Keras sees."""

import keras
import numpy as np
import pytest
from export_cases import TEXTS, backbone, perturb
from language_cases import causal_lm

from tfxformer import export, tasks
from tfxformer.export.quantization import int4, rounding
from tfxformer.runtime.format import flatbuffer

pytest.importorskip("ai_edge_quantizer", reason="needs the extra [int4]")
pytestmark = pytest.mark.extra


def dense_model(inputs=64, outputs=32):
    given = keras.Input((inputs,), name="x")
    return keras.Model({"x": given}, keras.layers.Dense(outputs, name="product")(given))


def stored_kernels(path):
    """The int4 weights of a file as numbers, [O, K] each, by their scales."""
    model = flatbuffer.read(path.read_bytes())
    found = []
    for graph in model.subgraphs:
        for tensor in (t for t in graph.tensors if flatbuffer.tensor_info(t).dtype == "int4"):
            data = model.buffers[tensor.buffer].data.astype(np.int16)
            halves = np.stack([data & 0xF, data >> 4], axis=1).reshape(tuple(tensor.shape))
            values = np.where(halves > 7, halves - 16, halves).astype("float32")
            if tensor.quantization.details is None:
                scales = np.asarray(tensor.quantization.scale)[:, None]
            else:
                stored = model.buffers[graph.tensors[tensor.quantization.details.scales].buffer].data
                scales = stored.view(np.float16).astype("float32").reshape(len(values), -1)
            found.append(values * np.repeat(scales, values.shape[1] // scales.shape[1], axis=1))
    return found


@pytest.mark.parametrize("mode", ["int4", "int4_block32"])
def test_the_weights_are_rounded_by_what_the_product_reads(tmp_path, mode):
    model = dense_model()
    generator = np.random.default_rng(0)
    seen = (generator.normal(size=(100, 64)) @ generator.normal(size=(64, 64))).astype("float32")
    kernel, block = model.get_layer("product").kernel.numpy().T, 32 if mode.endswith("32") else None
    errors = {}
    for given, wanted in (
        (None, rounding.rounded(kernel, block)),
        ({"x": seen}, rounding.compensated(kernel, rounding.Known.of(seen.T @ seen), block)),
    ):
        path = tmp_path / "model.tflite"
        report = export.export_litert(model, path, mode, representative=given, samples={"x": seen[:20]})
        (stored,) = stored_kernels(path)
        integers, scales = wanted
        np.testing.assert_allclose(stored, integers * np.repeat(scales, 64 // scales.shape[1], axis=1), atol=1e-5)
        errors[given is None] = report.error
    assert errors[False] < 0.8 * errors[True]


@pytest.fixture
def classifier(tokenizer):
    small = backbone(encoder__num_layers=1)
    return perturb(tasks.TextClassifier(small, ["a", "b"], tokenizer=tokenizer), kernels=0.03)


def test_padding_has_no_say(classifier, tmp_path, monkeypatch):
    seen, known = {}, rounding.Known.of
    for length in (40, 56):  # the same texts, with more padding behind them

        def recorded(moments, length=length):
            seen.setdefault(length, []).append(moments)
            return known(moments)

        monkeypatch.setattr(rounding.Known, "of", recorded)
        encoding = classifier.tokenizer.encode(TEXTS, sequence_length=length)
        batch = {tensor.name: getattr(encoding, tensor.name) for tensor in classifier.inputs}
        path = tmp_path / f"{length}.tflite"
        # The samples, too, are the same at both lengths: equalization scales what is read by them.
        export.export_litert(classifier, path, "int4", sequence_length=length, representative=batch, samples=batch)
    assert len(seen[40]) == len(seen[56]) > 5
    for one, other in zip(seen[40], seen[56], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(one).max())


def test_the_file_is_not_verified_on_what_its_weights_were_fitted_to(classifier, tmp_path):
    """As many samples as without texts: ours alone."""
    reports = [
        export.export_litert(classifier, tmp_path / "model.tflite", "int4", sequence_length=40, representative=texts)
        for texts in (None, TEXTS)
    ]
    assert reports[0].samples == reports[1].samples
    assert reports[0].error != reports[1].error


def correlations(moments):
    """Without the scales of the inputs, which equalization chooses."""
    roots = np.maximum(np.sqrt(np.diag(moments)), 1e-6)
    return moments / np.outer(roots, roots)


def test_a_language_model_reads_texts_in_chunks(tmp_path, monkeypatch):
    model, seen = causal_lm(), []  # of the last block a prefill computes keys and values alone

    def recorded(moments, known=rounding.Known.of):
        seen.append(correlations(moments))
        return known(moments)

    monkeypatch.setattr(rounding.Known, "of", recorded)
    rows = np.random.default_rng(0).integers(0, model.backbone.config.vocabulary_size, (10, 20))
    arguments = {"cache_length": 48, "prefill_lengths": (4, 16), "tolerance": 0.9}
    export.export_litert(model, tmp_path / "model.tflite", "int4", representative=list(rows), **arguments)
    # What the first product reads is known: rows of the table, normalized. 200 tokens are 12 chunks of 16 and a rest.
    table = next(weight.numpy() for weight in model.weights if weight.path.endswith("embeddings"))
    read = table[rows.reshape(-1)[:192]]
    norm = next(w for w in model.weights if w.path.endswith("gamma") and "attention" in w.path).numpy()
    read = read / np.sqrt(np.square(read).mean(-1, keepdims=True) + 1e-5) * norm
    nearest = min(np.abs(found - correlations(read.T @ read)).max() for found in seen if found.shape == (48, 48))
    assert nearest < 1e-4
    with pytest.raises(ValueError, match="have 3 tokens, and the file reads 16 at a time"):
        export.export_litert(model, tmp_path / "model.tflite", "int4", representative=[[1, 2, 3]], **arguments)


def test_moments_that_do_not_fit_together_are_read_one_after_the_other(classifier, tmp_path, monkeypatch):
    files = []
    for most in (2**30, 1):
        monkeypatch.setattr(int4, "MOST_BYTES", most)
        path = tmp_path / "model.tflite"
        export.export_litert(classifier, path, "int4", sequence_length=48, representative=TEXTS)
        files.append(path.read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize(("groups", "shared"), [(2, "int8"), (6, "int4")])
def test_keys_and_values_that_queries_share_are_int8(tmp_path, groups, shared):
    model = causal_lm(decoder__num_layers=1, decoder__attention__key_value_heads=groups)
    path = tmp_path / "model.tflite"
    export.export_litert(model, path, "int4", cache_length=32, prefill_lengths=(4,), tolerance=0.9)
    file = flatbuffer.read(path.read_bytes())
    weights = [
        flatbuffer.tensor_info(graph.tensors[int(operator.inputs[1])])
        for graph in file.subgraphs
        for operator in graph.operators
        if flatbuffer.operator_name(file, operator) == "FULLY_CONNECTED"
    ]
    types = {weight.shape: set() for weight in weights}
    for weight in weights:
        types[weight.shape].add(weight.dtype)
    assert types.pop((8 * groups, 48)) == {shared}
    assert types.pop((model.backbone.config.vocabulary_size, 48)) == {"int8"}  # the table, too
    assert types and all(found == {"int4"} for found in types.values()), types


@pytest.mark.parametrize("mode", ["int4", "int4_block32"])
def test_weights_that_are_all_zero(tmp_path, mode):
    """As pruning leaves them: a scale of 0 is refused by XNNPACK when the file is opened."""
    model = dense_model()
    kernel = model.get_layer("product").kernel
    kernel.assign(kernel.numpy() * (np.arange(32) % 2) * (np.arange(64) >= 32)[:, None])
    samples = {"x": np.random.default_rng(0).normal(size=(20, 64)).astype("float32")}
    report = export.export_litert(model, tmp_path / "model.tflite", mode, samples=samples)
    assert report.error < 0.2
