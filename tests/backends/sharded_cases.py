"""A model on a mesh of eight virtual devices is saved and loaded, in a process of its own on JAX.

    KERAS_BACKEND=jax XLA_FLAGS=--xla_force_host_platform_device_count=8 python sharded_cases.py FOLDER

writes FOLDER/found.json: of each model what differed, and the bytes that saving and loading needed.
"""

import gc
import json
import sys
import tracemalloc
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # `tiny`

import numpy as np
import tiny

MESH = (2, 4)
# GPT-2's fused tensors and Llama's transposed ones; no tensor is more than a ninth of its model.
SIZES = {
    "hidden_size": 256,
    "feed_forward__size": 4096,
    "num_layers": 6,
    "attention__heads": 8,
}
VOCABULARY = 4096


def model_of(family):
    """A backbone of some megabytes with weights drawn by numpy."""
    import tfxformer

    heads = {"decoder__attention__key_value_heads": 4} if family == "llama" else {}
    sizes = {f"decoder__{name}": value for name, value in SIZES.items()}
    return tiny.perturb(tfxformer.build(tiny.config(family, vocabulary_size=VOCABULARY, **sizes, **heads)))


def values(model) -> dict:
    """Path -> value, fetched by JAX itself."""
    import jax

    return {one.path: np.array(jax.device_get(one.value)) for one in model.weights}


def saving(model, folder) -> dict:
    """Saves; bytes of the host's memory, at the most and afterwards."""
    from tfxformer import checkpoints

    gc.collect()
    tracemalloc.start()
    checkpoints.save_pretrained(folder, model, model.config, max_shard_bytes=20_000_000)
    gc.collect()
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"saving": peak, "kept": after}


def loading(folder) -> tuple:
    """(model, bytes of the largest piece that was cut from the file, of all pieces, and of the host's memory)."""
    import tfxformer
    from tfxformer.checkpoints.files.safetensors import SafetensorsFile

    pieces = []

    class Watched(np.ndarray):
        """Writes down what is cut from it."""

        def __getitem__(self, index):
            found = super().__getitem__(index)
            if type(index) is tuple and all(isinstance(one, slice) and one.step is None for one in index):
                pieces.append(found.nbytes)
            return found

    plain = SafetensorsFile.__getitem__
    SafetensorsFile.__getitem__ = lambda self, name: plain(self, name).view(Watched)
    gc.collect()
    tracemalloc.start()
    try:
        model = tfxformer.from_pretrained(folder)
    finally:
        SafetensorsFile.__getitem__ = plain
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return model, {"piece": max(pieces), "pieces": sum(pieces), "loading": peak}


def check(family, folder) -> dict:
    """What a round trip gives."""
    import jax
    import keras

    import tfxformer
    from tfxformer import training

    training.strategy("cpu", mesh=MESH)
    try:
        model = model_of(family)
        before = values(model)
        numbers = saving(model, folder)
        loaded, more = loading(folder)
        rows = {row.path: row for row in training.layout(loaded, MESH)}
    finally:
        keras.distribution.set_distribution(None)
    after, alone = values(loaded), values(tfxformer.from_pretrained(folder))
    placed = [
        one.path
        for one in loaded.weights
        if tuple(one.value.sharding.spec) != rows[one.path].axes[: len(one.value.sharding.spec)]
    ]
    parts = [shard for one in loaded.weights for shard in one.value.addressable_shards]
    on_device = {device: sum(s.data.nbytes for s in parts if s.device == device) for device in jax.devices()}
    return {
        **numbers,
        **more,
        "differing": [path for path in before if not (before[path] == after[path]).all()],
        "differing alone": [path for path in before if not (before[path] == alone[path]).all()],
        "misplaced": placed,
        "split": sum(any(row.axes) for row in rows.values()),
        "model": sum(value.nbytes for value in before.values()),
        "largest": max(value.nbytes for value in before.values()),
        "on a device": max(on_device.values()),
        "by the layout": sum(rows[one.path].bytes_each for one in loaded.weights),
        "on devices": sum(on_device.values()),
    }


def main(folder) -> None:
    found = {family: check(family, folder / family) for family in ("gpt2", "llama")}
    (folder / "found.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
