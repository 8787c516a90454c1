"""Checkpoint folders to be damaged: their tensors and their config, rewritten."""

import json

import numpy as np

from tfxformer.checkpoints import safetensors


def change(folder, function):
    """Rewrites a folder's tensors: `function` changes a dict of them."""
    tensors = {name: np.array(array) for name, array in safetensors.open_folder(folder).items()}
    function(tensors)
    safetensors.write(folder / "model.safetensors", tensors)


def configure(folder, **changes):
    """Rewrites keys of a folder's config.json; the value "absent" removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in {**config, **changes}.items() if value != "absent"}))
