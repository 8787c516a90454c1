"""Equalization: another graph, the same function, and a smaller error in int8."""

import dataclasses

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from export_cases import TEXTS, backbone, perturb
from language_cases import causal_lm

from tfxformer import export, samples, tasks
from tfxformer.export import convert, plan
from tfxformer.export.batches import in_groups, unpadded
from tfxformer.export.quantization import quantize
from tfxformer.layers.quantization import equalization

MODE = quantize.MODES["dynamic_int8"]
PLAIN = dataclasses.replace(MODE, equalized=False)
GATED = {"encoder__feed_forward__gated": True, "encoder__feed_forward__activation": "silu"}


def planted(task):
    """Weights as trained models have them: a few channels and units far larger than the others."""
    perturb(task, kernels=0.05)
    for weight in task.weights:
        values = np.asarray(weight).copy()
        if weight.path.endswith("token_embedding/embeddings"):
            values[:, 5] *= 12
        elif weight.path.endswith("feed_forward/output/kernel"):
            values[7, 3] = 4.0
        elif weight.path.endswith("norm/gamma"):
            values[[3, 40]] *= 12
        weight.assign(values)
    return task


def make(kind, tokenizer):
    if kind == "embedder":
        return planted(tasks.TextEmbedder(backbone(), tokenizer=tokenizer))
    if kind == "gated":
        return planted(tasks.TextClassifier(backbone(**GATED), ["a", "b", "c"], tokenizer=tokenizer))
    if kind == "shared blocks":
        return planted(tasks.TextEmbedder(backbone(encoder__layer_groups=1), tokenizer=tokenizer))
    if kind == "pre-norm, no biases":
        changes = {"encoder__norm__placement": "pre", "encoder__norm__final": True}
        changes |= {"encoder__attention__bias": False, "encoder__feed_forward__bias": False}
        return planted(tasks.TokenClassifier(backbone(**changes), ["O", "B-X"], tokenizer=tokenizer))
    if kind == "masked-lm":
        return planted(tasks.MaskedLM(backbone(), tokenizer=tokenizer))
    return planted(tasks.TextClassifier(backbone(), ["a", "b", "c"], tokenizer=tokenizer))


def relative(got, wanted):
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize(
    "kind", ["classifier", "embedder", "gated", "shared blocks", "pre-norm, no biases", "masked-lm"]
)
def test_the_function_stays(tokenizer, kind):
    task = make(kind, tokenizer)
    rows = [unpadded(batch) for batch in plan.encode_batches(task, 32, TEXTS)]
    graph_form = plan.equalized(task, MODE, rows).graph_form
    written = graph_form.equalization
    assert written.scales and written.column_scales
    assert bool(written.gated_scales) == (kind == "gated") != bool(written.unit_parts)
    batch = plan.encode_batches(task, 32, TEXTS)[2]
    assert relative(task.forward(batch, graph_form=graph_form), task(batch, training=False)) <= 1e-5


def test_padding_is_nobodys(tokenizer):
    """Texts that are run together, padded to the longest of them, ask for the scales that each of them asks for."""
    task = make("gated", tokenizer)
    rows = plan.encode_batches(task, 32, TEXTS)
    one_by_one = plan.equalized(task, MODE, [unpadded(row) for row in rows]).graph_form.equalization
    (batch,) = in_groups(rows, len(rows))
    together = plan.equalized(task, MODE, [unpadded(batch)]).graph_form.equalization
    assert 0 in unpadded(batch)["padding_mask"]
    for scales, wanted in ((together.scales, one_by_one.scales), (together.gated_scales, one_by_one.gated_scales)):
        assert scales.keys() == wanted.keys() and wanted
        for key, scale in scales.items():
            np.testing.assert_allclose(scale, wanted[key], rtol=1e-4)


def litert_error(task, mode):
    """Relative L2 error of a file on texts that its equalization has not seen, by the plain interpreter."""
    signature = plan.plan_signatures(task, mode, [48], TEXTS[:3])[0].signature
    content = convert.convert([signature], mode).content
    runner = Interpreter(model_content=content).get_signature_runner(signature.name)
    batches = plan.encode_batches(task, 48, [*TEXTS[3:], *plan.SAMPLE_TEXTS])
    pairs = [(runner(**batch)["embedding"], task(batch, training=False)) for batch in batches]
    return relative(*(np.concatenate(values) for values in zip(*pairs, strict=True))), content


def test_outliers_cost_int8_less(tokenizer):
    task = make("embedder", tokenizer)
    plain, _ = litert_error(task, PLAIN)
    equalized, content = litert_error(task, MODE)
    assert equalized < 0.7 * plain
    details = Interpreter(model_content=content).get_tensor_details()
    apart = [detail for detail in details if list(detail["shape"]) == [64, 8]]
    assert len(apart) == 2, "kernels of the outlier units of both blocks"


def test_balance_shares_outliers_and_survives_dead_channels():
    inputs, kernel = np.ones(6, np.float32), np.ones((6, 4), np.float32)
    inputs[1], kernel[2], inputs[4], kernel[4] = 100.0, 9.0, 0.0, 0.0
    scale = equalization.balance(inputs, [kernel, kernel / 2])
    assert np.isfinite(scale).all() and (scale > 0).all()
    np.testing.assert_allclose(scale[[0, 1, 2]], [1.0, 0.1, 3.0], rtol=1e-6)
    np.testing.assert_array_equal(equalization.balance(np.zeros(3), [np.zeros((3, 2))]), np.ones(3))


def test_gates_carry_a_scale_through():
    """A decoder with outliers in the channels of its gated products: the function stays, int8 is closer."""
    model = perturb(causal_lm(), kernels=0.1)
    for weight in model.weights:
        values = np.asarray(weight).copy()
        if weight.path.endswith("feed_forward/expand/kernel"):
            values[:, 5] *= 30
            weight.assign(values)
        elif weight.path.endswith("feed_forward/output/kernel"):
            values[5::16] /= 10
            weight.assign(values)
    row = {"token_ids": np.arange(4, 40, dtype="int32")[None], "padding_mask": np.ones((1, 36), "int32")}
    written = plan.equalized(model, MODE, [row])
    assert len(written.graph_form.equalization.gated_scales) == 2
    wanted = np.asarray(model(row, training=False))
    assert relative(model.forward(row, graph_form=written.graph_form), wanted) <= 1e-5
    errors = []
    for mode in (PLAIN, written):

        def function(inputs, mode=mode):
            return {"logits": model.forward(inputs, graph_form=mode.graph_form)}

        signature = convert.Signature("score", dict.fromkeys(row, ((1, 36), "int32")), function)
        runner = Interpreter(model_content=convert.convert([signature], mode).content).get_signature_runner("score")
        errors.append(relative(runner(**row)["logits"], wanted))
    assert errors[1] < 0.7 * errors[0]


def test_a_tied_head_shares_the_outliers_of_its_table():
    """A decoder whose last norm lets one channel stand out, and whose table another: the function stays."""
    model = perturb(causal_lm(), kernels=0.1)
    for weight in model.weights:
        values = np.asarray(weight).copy()
        if weight.path.startswith("final_norm"):
            values[3] *= 40
        elif weight.path.endswith("embeddings"):
            values[:, 5] *= 8
        weight.assign(values)
    row = {"token_ids": np.arange(4, 40, dtype="int32")[None], "padding_mask": np.ones((1, 36), "int32")}
    graph_form = plan.equalized(model, MODE, [row]).graph_form
    ((path, scale),) = graph_form.equalization.column_scales.items()
    assert path.startswith("token_embedding") and scale[3] < 0.5 and scale[5] > 1.5
    wanted = np.asarray(model(row, training=False))
    assert relative(model.forward(row, graph_form=graph_form), wanted) <= 1e-5


def test_only_outliers_are_computed_apart():
    kernel = np.random.default_rng(0).uniform(-1, 1, (64, 32))
    assert equalization.part_units(kernel) is None
    kernel[[3, 50], 0] = 20.0
    others, outliers = equalization.part_units(kernel)
    assert {3, 50} <= set(outliers) and len(outliers) == 8
    assert sorted([*others, *outliers]) == list(range(64))


def test_columns_shrink_by_powers_of_two():
    table = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    assert equalization.shrink_columns(np.ones((4, 3))) is None
    assert equalization.shrink_columns(np.zeros((4, 3))) is None
    table[:, 2] *= 30
    scale = equalization.shrink_columns(table)
    np.testing.assert_array_equal(table / scale * scale, table)
    assert scale[2] > 8 and np.abs(table / scale).max(axis=0)[2] <= np.median(np.abs(table).max(axis=0))


@pytest.mark.slow
@pytest.mark.samples
def test_the_real_minilm_exports_with_defaults(tmp_path):
    embedder = tasks.TextEmbedder.from_pretrained(samples.minilm())
    report = export.export_litert(embedder, tmp_path / "minilm.tflite", sequence_length=64)
    assert report.quantization == "dynamic_int8" and report.error <= 0.045


def test_a_head_of_its_own_is_written_around_what_it_reads():
    """A head reads the largest channels of all: as the blocks' products, those are shared out, and no logit changes."""
    model = planted(causal_lm("untied"))
    batch = {"token_ids": np.arange(5, 17)[None], "padding_mask": np.ones((1, 12), int)}
    form = plan.equalized(model, MODE, [batch]).graph_form
    (scale,) = (scale for layers, scale in form.equalization.scales.items() if layers == (model.heads["head"].path,))
    assert scale[[3, 40]].max() < 0.5 < np.median(scale)
    assert relative(model.forward(batch, graph_form=form), model(batch, training=False)) <= 1e-5
