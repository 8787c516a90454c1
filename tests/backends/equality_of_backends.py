"""Writes docs/equality_of_backends.md: the largest difference of any weight to TensorFlow's, of every cell on JAX.

    TFXFORMER_JAX_PYTHON=jax/bin/python python tests/backends/equality_of_backends.py

Ends with an error where a cell differs by more than 2e-6. Takes half an hour on two idle cores.
"""

import itertools
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import cases
import numpy as np

LIMIT = 2e-6
TARGET = Path(__file__).parent.parent.parent / "docs" / "equality_of_backends.md"
MESHES = {cases.ONE: "one device", cases.DATA: "data 8", cases.MODEL: "data 2 x model 4", cases.MODEL_4: "4 x 2"}
SHAPES = {"bert": "BERT", "gpt2": "GPT-2", "llama": "SmolLM2", "t5": "T5"}

PAGE = """\
# JAX equals TensorFlow

`python tests/backends/equality_of_backends.py` trains small models of four shapes by `fit` on JAX, on one device and on
meshes of eight virtual ones (Keras' `DataParallel` and `ModelParallel` by `training.strategy(mesh=...)`), and the same
on one device with TensorFlow. Given is the largest absolute difference of any weight after two epochs of ten batches,
float32; the largest here is {worst:.1e}, and all are to be at most {limit:.0e}. Rows count different numbers of tokens,
the last batch is one that eight devices cannot share, the global norm is clipped in every update, the optimizer is
`training.AdamW`. Keras {keras}, JAX {jax}, without TensorFlow installed. Nothing was run on a GPU or a TPU.

{table}
"""


def main():
    python = os.environ["TFXFORMER_JAX_PYTHON"]
    rows = list(itertools.product(SHAPES, (0.0, 0.1), (1, 4)))
    cells = [cases.cell(*row, mesh) for row in rows for mesh in MESHES]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.json"
        path.write_text(json.dumps(cells), encoding="utf-8")
        versions = cases.run_on_jax(python, folder, path)
        found = iter([np.load(Path(folder) / f"{number}.npz") for number in range(len(cells))])
        lines, worst = [], 0.0
        for row in rows:
            here = cases.train(cases.cell(*row), measured=False)
            names = [name for name in here if name.startswith("weight")]
            differences = []
            for _ in MESHES:
                there = next(found)
                differences.append(max(float(np.abs(there[name] - here[name]).max()) for name in names))
            worst = max(worst, *differences)
            lines.append([SHAPES[row[0]], row[1], row[2], *(f"{value:.1e}" for value in differences)])
            print(*lines[-1], flush=True)
    heads = ["shape", "dropout", "accumulation", *MESHES.values()]
    table = [heads, ["---"] * len(heads), *lines]
    text = "\n".join("| " + " | ".join(map(str, line)) + " |" for line in table)
    TARGET.write_text(PAGE.format(worst=worst, limit=LIMIT, table=text, **versions), encoding="utf-8")
    if worst > LIMIT:
        sys.exit(f"A cell differs by {worst:.1e}.")


if __name__ == "__main__":
    main()
