"""What checks on JAX find, in a process of its own.

    KERAS_BACKEND=jax python mesh_cases.py FOLDER [tpu]

writes into the folder `found.json`. It needs no libtpu but for "tpu"; with
XLA_FLAGS=--xla_force_host_platform_device_count=4 there are devices to train on.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # `tiny`

import numpy as np
import tiny

LENGTH, ROWS, MESH = 16, 8, (2, 2)
WIDE = 2**20  # of a layer whose weights are 4 TiB


def run_on_jax(python, folder, *kinds) -> dict:
    """What this file finds in an environment with JAX."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [python, __file__, str(folder), *kinds]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((Path(folder) / "found.json").read_text(encoding="utf-8"))


def language_model(accumulation=1):
    """A decoder whose weights are the same each time."""
    import keras

    from tfxformer import tasks, training

    keras.utils.set_random_seed(1)
    lm = tasks.CausalLM(tiny.backbone("gpt2", dtype="mixed_bfloat16", decoder__num_layers=1), sequence_length=LENGTH)
    optimizer = training.adamw(total_steps=10)
    optimizer.gradient_accumulation_steps = accumulation if accumulation > 1 else None
    lm.compile(optimizer)
    return tiny.perturb(lm)


def spec_of(lm):
    import keras

    tokens, weights = keras.KerasTensor((None, LENGTH), "int32"), keras.KerasTensor((None, LENGTH), "float32")
    return dict.fromkeys(lm.input, tokens), tokens, weights


def batch_of(lm):
    tokens = np.random.default_rng(0).integers(5, tiny.VOCABULARY_SIZE, (ROWS, LENGTH)).astype("int32")
    inputs = {name: np.ones_like(tokens) if "mask" in name else tokens for name in lm.input}
    return inputs, tokens, np.ones(tokens.shape, "float32")


def figures(memory, flops) -> list:
    """The figures that are compared."""
    sizes = [memory.argument_size_in_bytes, memory.temp_size_in_bytes, memory.peak_memory_in_bytes]
    return [int(size) for size in sizes] + [flops]


def trained() -> list:
    """Of the step that `fit` compiles under a strategy with this mesh, from real weights and a real batch."""
    import jax
    import keras

    from tfxformer import training
    from tfxformer.training.devices.keras_distribution import on_devices

    training.strategy("cpu", mesh=MESH)
    try:
        lm = language_model(accumulation=2)
        batch = on_devices(batch_of(lm))
        lm._symbolic_build(data_batch=batch)
        state = lm._get_jax_state(
            trainable_variables=True, non_trainable_variables=True, optimizer_variables=True, metrics_variables=True
        )
        shardings = lm._get_state_sharding_spec()
        step = jax.jit(lm.train_step, donate_argnums=0, out_shardings=(None, shardings))
        compiled = step.lower(state, batch).compile()
    finally:
        keras.distribution.set_distribution(None)
    return figures(compiled.memory_analysis(), compiled.cost_analysis()["flops"])


def checked() -> list:
    """The same as the check has it, of shapes alone, and what it leaves behind."""
    import jax
    import keras

    from tfxformer.training.memory.mesh_lowering import MeshLowering
    from tfxformer.training.memory.mesh_steps import on_mesh
    from tfxformer.training.memory.tpu_compiler import Compiler

    lm = language_model(accumulation=2)
    before = {path: value.copy() for path, value in tiny.weights(lm).items()}
    optimizer = lm.optimizer
    with on_mesh(lm, spec_of(lm), jax.devices(), MESH) as steps, Compiler("cpu:4") as compiler:
        lowering = MeshLowering(steps, steps.train, "cpu")
        found = compiler.compile(lowering.module(ROWS // MESH[0]), None, 4)
        sums = steps.bytes_each(steps.slots)
    assert lm.optimizer is optimizer and not optimizer.built and lm._sums is None
    assert keras.distribution.distribution() is None
    assert all(variable._layout is None for variable in lm.variables)
    after = tiny.weights(lm)
    assert all(np.array_equal(after[path], value) for path, value in before.items())
    return [
        found.argument_bytes,
        found.temporary_bytes,
        found.peak_bytes,
        found.flops,
        sums,
        "all-reduce" in found.program,
    ]


def wide_model():
    import keras

    from tfxformer import training

    with training.shapes_only():
        inputs = keras.Input((WIDE,))
        model = training.DistributedModel(inputs, keras.layers.Dense(WIDE, name="query")(inputs))
    model.compile("adam", "mse")
    return model, (keras.KerasTensor((None, WIDE), "float32"), keras.KerasTensor((None, WIDE), "float32"))


def on_tpu() -> dict:
    from tfxformer import training

    lm, (wide, wide_spec) = language_model(), wide_model()
    small = training.tpu_check(lm, spec_of(lm), topology="v5e:2x2", mesh=MESH, batch_size=ROWS)
    large = training.tpu_check(wide, wide_spec, topology="v5e:2x2", mesh=(1, 4), batch_size=8)
    errors = []
    for arguments in ({"mesh": (2, 4)}, {"mesh": 8}, {"mesh": MESH, "batch_size": 7}):
        try:
            training.tpu_check(lm, spec_of(lm), topology="v5e:2x2", **arguments)
        except ValueError as error:
            errors.append(str(error))
    estimate = training.fit_estimate(lm, spec_of(lm), mesh=(2, 1), memory_bytes=2**24)
    return {
        "small": {**small.to_dict(), "text": str(small)},
        "large": large.to_dict(),
        "errors": errors,
        "estimate": {**estimate.to_dict(), "text": str(estimate)},
        "parameters": sum(int(np.prod(weight.shape)) for weight in lm.trainable_variables),
    }


if __name__ == "__main__":
    result = {"trained": trained(), "checked": checked()}
    if "tpu" in sys.argv[2:]:
        result |= on_tpu()
    (Path(sys.argv[1]) / "found.json").write_text(json.dumps(result), encoding="utf-8")
