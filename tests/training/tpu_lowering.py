"""Lowers the train step of a small CausalLM for a TPU, in an environment of requirements-tpu.txt; needs no TPU.

    TPU_SKIP_MDS_QUERY=1 python tests/training/tpu_lowering.py

What is lowered is the function each replica computes: forward, backward, metrics, in bfloat16.
"""

import keras
import tensorflow as tf

import tfxformer
from tfxformer import models, tasks
from tfxformer.training import adamw
from tfxformer.training.step.replica_step import values
from tfxformer.training.step.train_step import TrainStep

LENGTH = 32


def main():
    """Prints the size of the program; fails where TensorFlow cannot lower it."""
    sizes = {"num_layers": 2, "hidden_size": 64, "attention__heads": 4, "feed_forward__size": 128}
    changes = {f"decoder__{name}": value for name, value in sizes.items()}
    config = models.preset("gpt2").replace(vocabulary_size=300, padding_id=0, **changes)
    model = tasks.CausalLM(tfxformer.build(config, dtype="mixed_bfloat16"))
    model.compile(adamw(total_steps=10), jit_compile=True)
    tensor = tf.TensorSpec((4, LENGTH), "int32")
    batch = (dict.fromkeys(model.input, tensor), tensor, tf.TensorSpec((4, LENGTH), "float32"))
    symbols = tf.nest.map_structure(lambda spec: keras.KerasTensor(tuple(spec.shape), spec.dtype.name), batch)
    model._symbolic_build(data_batch=symbols)
    step = TrainStep(model, batch).replica_step
    variables = (values(step.trainable), values(step.state), values(step.metric_variables))
    zeros = tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), batch)

    @tf.function(jit_compile=True, autograph=False)
    def flat(*arguments):  # a program has tensors only: no None for a weight without gradient
        found = tf.nest.flatten(step._compute(*tf.nest.pack_sequence_as(structure, arguments)))
        return [tensor for tensor in found if tensor is not None]

    structure = (*variables, *zeros, tf.constant(0), tf.constant(1.0))
    lowered = flat.experimental_get_compiler_ir(*tf.nest.flatten(structure))(
        stage="stablehlo_serialized", platform_name="TPU"
    )
    print(f"TensorFlow {tf.__version__} lowers the train step for a TPU: {len(lowered)} bytes of StableHLO")


if __name__ == "__main__":
    main()
