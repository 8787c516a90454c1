"""fit_estimate beside arithmetic, and its two compilers beside each other."""

import importlib.util

import keras
import pytest
import tensorflow as tf
import tiny

from tfxformer import tasks, training
from tfxformer.training.memory import lowering, tpu_compiler

ABSENT = [name for name in ("jax", "libtpu") if importlib.util.find_spec(name) is None]


def needs_compiler(test):
    absent = pytest.mark.skipif(
        bool(ABSENT), reason=f'{", ".join(ABSENT)} not installed: pip install -e ".[tpu-check]"'
    )
    return pytest.mark.extra(absent(test))


LENGTH, BATCH = 32, 256


def language_model(**arguments):
    model = tasks.CausalLM(tiny.backbone("gpt2", **arguments))
    model.compile()
    tokens = tf.TensorSpec((None, LENGTH), "int32")
    return model, (dict.fromkeys(model.input, tokens), tokens, tf.TensorSpec((None, LENGTH), "float32"))


@needs_compiler
def test_the_parts_and_the_whole():
    model, spec = language_model(decoder__num_layers=1)
    found = training.fit_estimate(model, spec, BATCH)
    parameters = sum(int(tf.size(variable.value)) for variable in model.trainable_variables)
    assert found.gradient_bytes == 4 * parameters
    assert 0 <= found.weight_bytes - 4 * parameters < 1000  # states of random generators
    assert 0 <= found.slot_bytes - 8 * parameters < 1000  # two moments, and counters
    assert found.output_bytes == 4 * BATCH * LENGTH * tiny.VOCABULARY_SIZE
    assert found.low_bytes > found.weight_bytes + found.slot_bytes + found.output_bytes
    # Two backends that share neither fusion nor buffer assignment.
    assert found.low_bytes <= found.high_bytes <= 2.5 * found.low_bytes
    assert found.fits(found.high_bytes) is True
    assert found.fits(found.low_bytes - 1) is False


@needs_compiler
def test_gradient_checkpointing_is_seen():
    """By XLA's compiler for CPUs, the faster one; in a strategy's replica too, whose weights come as values."""
    with tpu_compiler.Compiler("cpu") as compiler:
        for replicated, most in ((False, 0.85), (True, 0.9)):
            taken = []
            for checkpointing in (False, True):
                model, spec = language_model(gradient_checkpointing=checkpointing, decoder__num_layers=3)
                step = lowering.training_steps(model, spec, replicated=replicated)["train"]
                module = lowering.Lowering(model, step).module(BATCH)
                taken.append(compiler.compile(module).temporary_bytes)
            assert taken[1] < most * taken[0], replicated


def test_weights_without_a_gradient_are_named():
    """Said, not counted as memory saved."""
    inputs = keras.Input((LENGTH,))
    hidden = keras.ops.stop_gradient(keras.layers.Dense(LENGTH)(inputs))
    model = training.DistributedModel(inputs, keras.layers.Dense(1)(hidden))
    model.compile("sgd", "mse")
    spec = (tf.TensorSpec((None, LENGTH)), tf.TensorSpec((None, 1)))
    with pytest.raises(training.LoweringError, match="have no gradient under a strategy"):
        lowering.Lowering(model, lowering.training_steps(model, spec)["train"])


@needs_compiler
@pytest.mark.slow
def test_the_largest_batch_for_a_memory():
    model, spec = language_model(decoder__num_layers=1)
    found = training.fit_estimate(model, spec, memory_bytes=2**25)
    assert 0 < found.batch_size <= found.possible_batch
    assert found.low_bytes <= found.high_bytes <= found.memory_bytes == 2**25
    beyond = training.fit_estimate(model, spec, round(1.1 * found.batch_size) + 8)
    assert beyond.high_bytes > 2**25
    with pytest.raises(ValueError, match="Not even a batch of 1 fits"):
        training.fit_estimate(model, spec, memory_bytes=2**10)


def test_a_search_needs_a_memory():
    model, spec = language_model(decoder__num_layers=1)
    with pytest.raises(ValueError, match="wants a batch_size, or memory_bytes"):
        training.fit_estimate(model, spec)


def test_gpus_by_name():
    assert training.gpu_memory("T4") == 15 * 2**30
    assert training.gpu_memory("a100-80") == 80 * 2**30
    with pytest.raises(ValueError, match=r"Unknown GPU 'abacus'; known: t4, .*h200"):
        training.gpu_memory("abacus")
