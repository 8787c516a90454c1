"""What a stored encoder answers on JAX, products at their highest precision (a GPU's default is TF32).

    KERAS_BACKEND=jax python real_model.py FOLDER INPUTS.npz

writes outputs.npz beside the inputs.
"""

import sys
from pathlib import Path

import jax
import numpy as np

import tfxformer

if __name__ == "__main__":
    model = tfxformer.from_pretrained(sys.argv[1])
    with np.load(sys.argv[2]) as inputs, jax.default_matmul_precision("highest"):
        outputs = model(dict(inputs))
    np.savez(
        Path(sys.argv[2]).with_name("outputs.npz"),
        **{name: np.asarray(outputs[name]) for name in ("sequence_output", "pooled_output")},
    )
