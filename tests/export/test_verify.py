"""What verification catches, each trap on a file that has it."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfxformer import export
from tfxformer.export import convert, plan, verify
from tfxformer.export.quantization import quantize
from tfxformer.layers.attention.disentangled import DistanceEmbeddings
from tfxformer.layers.kernels.formulas import embedding_lookup
from tfxformer.runtime.format import flatbuffer


def traced(model):
    return tf.function(lambda features: {"output": model(features)}).get_concrete_function(
        tf.TensorSpec((1, 16), tf.float32, name="features")
    )


@pytest.mark.filterwarnings("ignore")
def test_file_with_variables_for_weights_is_refused(plain_model):
    """The converter's own silent trap: a function given with its Keras model loses the weights."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced(plain_model)], plain_model)
    model = flatbuffer.read(converter.convert())
    with pytest.raises(export.ExportError, match=r"reads variables \(.*VAR_HANDLE"):
        verify.check_operators(model)


@pytest.mark.filterwarnings("ignore")
def test_flex_operator_is_refused_and_named():
    function = tf.function(lambda x: {"y": keras.ops.erf(x)})
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function(tf.TensorSpec((1, 4), tf.float32, name="x"))]
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    model = flatbuffer.read(converter.convert())
    with pytest.raises(export.ExportError, match="FlexErf"):
        verify.check_operators(model)


def make(model, mode_name="float32"):
    mode = quantize.mode(mode_name)
    plans = plan.plan_signatures(model, mode, [None])
    return convert.convert([p.signature for p in plans], mode), plans, mode


def test_missing_weights_are_counted(plain_model):
    converted, plans, mode = make(plain_model)
    wanted = sum(int(np.prod(weight.shape)) for weight in plain_model.weights)
    assert converted.weight_elements == {"serving_default": wanted}
    assert verify.verify(converted, plans, mode)["serving_default"].constant_bytes >= 4 * wanted * 0.95
    more = convert.Converted(converted.content, {"serving_default": 2 * wanted})
    with pytest.raises(export.ExportError, match=f"{2 * wanted:,} weights.*weights are missing"):
        verify.verify(more, plans, mode)


def test_unused_sliced_and_constant_weights_do_not_count():
    table = keras.Variable(np.random.default_rng(0).normal(size=(512, 4)).astype("float32"))
    zeros = keras.Variable(np.zeros(4, "float32"))
    unused = keras.Variable(np.ones((9, 9), "float32"))

    def call(inputs):
        keras.ops.sum(unused * 2.0)
        return {"y": keras.ops.matmul(inputs["x"], table[:8]) + zeros}

    signature = convert.Signature("f", {"x": ((1, 8), "float32")}, call)
    converted = convert.convert([signature], quantize.mode("float32"))
    assert converted.weight_elements == {"f": 8 * 4}


def test_wrong_numbers_are_caught(plain_model):
    converted, plans, mode = make(plain_model)
    for weight in plain_model.weights:
        weight.assign(weight * 1.01)
    try:
        with pytest.raises(export.ExportError, match=r"relative L2 error 2.*e-02 .*allows 0.0001"):
            verify.verify(converted, plans, mode)
    finally:
        for weight in plain_model.weights:
            weight.assign(weight / 1.01)


def test_edited_numbers_are_caught(plain_model):
    converted, plans, _ = make(plain_model)
    model = flatbuffer.read(converted.content)
    largest = max((b for b in model.buffers if b.data is not None), key=lambda b: b.data.size)
    changed = largest.data.view(np.float32).copy()
    changed[0] += 1.0
    largest.data = changed.view(np.uint8)
    with pytest.raises(export.ExportError, match="changed output"):
        verify.check_unchanged(flatbuffer.write(model), converted.content, plans)


def test_samples_that_keras_reads_together_are_those_that_it_reads_alone(classifier):
    (made,) = plan.plan_signatures(classifier, quantize.mode("float32"), [24])
    together = dataclasses.replace(made, together=3)
    found = list(verify._references(together))
    assert len(made.samples) == len(found) == 8
    for batch, reference in zip(made.samples, found, strict=True):
        np.testing.assert_allclose(reference["logits"], made.reference(batch)["logits"], rtol=1e-5)
    assert [len(group["token_ids"]) for group in plan.in_groups(made.samples, 3)] == [3, 3, 2]


def test_relative_error():
    assert verify.relative(0.0, 0.0) == 0.0
    assert verify.relative(1.0, 0.0) == float("inf")
    assert verify.relative(1.0, 4.0) == 0.5


def test_a_table_counts_with_the_rows_that_no_input_chooses():
    """Of 32 rows a file for 6 tokens holds the 11 of their distances; where the batch chooses, all."""
    layer = DistanceEmbeddings(8, 16, 32, initializer="uniform")
    row = np.arange(6, dtype="int32")[None]
    layer(None, None, row, row)
    spec = tf.TensorSpec((1, 6), tf.int32)
    known = tf.function(lambda ids: layer(None, None, ids, ids)).get_concrete_function(spec)
    assert convert.used_weight_elements(known) == 11 * 8
    chosen = tf.function(lambda ids: embedding_lookup(layer.embeddings, ids)).get_concrete_function(spec)
    assert convert.used_weight_elements(chosen) == 32 * 8


def test_weights_count_as_what_the_converter_makes_of_them():
    """Distances times their kernel are one product in the file; a sum of kernels is one, and so is one read twice.

    Of a kernel that a file has whole there is no way around: it counts whole.
    """
    generator = np.random.default_rng(0)
    made = {"table": (3, 4), "kernel": (4, 20), "more": (4, 20), "zeros": (20,)}
    weights = {name: tf.Variable(generator.normal(size=shape).astype("float32")) for name, shape in made.items()}
    weights["zeros"].assign(tf.zeros(20))

    def counted(function):
        return convert.used_weight_elements(
            tf.function(lambda x: function(x, **weights)).get_concrete_function(tf.TensorSpec((1, 4), tf.float32))
        )

    assert counted(lambda x, table, kernel, more, zeros: tf.matmul(table, kernel) * x[0, 0] + zeros) == 3 * 20
    assert counted(lambda x, table, kernel, more, zeros: tf.matmul(x, kernel + more)) == 4 * 20
    assert counted(lambda x, table, kernel, more, zeros: tf.matmul(x, kernel) + tf.matmul(2 * x, kernel)) == 4 * 20
    assert counted(lambda x, table, kernel, more, zeros: tf.matmul(x, kernel) + tf.matmul(x, more)) == 2 * 4 * 20
    assert counted(lambda x, table, kernel, more, zeros: tf.matmul(table, kernel)) == 3 * 20
