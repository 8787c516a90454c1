"""Checkpoint folders to be damaged: their tensors and their config, rewritten."""

import json

import numpy as np

from tfxformer.checkpoints.files import safetensors


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


def outputs_in_transformers(architecture, folder, inputs):
    """What a class of transformers gives for a batch of ours, from a folder in which it misses nothing."""
    import torch
    import transformers

    reference, loading = getattr(transformers, architecture).from_pretrained(folder, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), loading
    tensors = {name: torch.tensor(array.astype("int64")) for name, array in inputs.items()}
    with torch.no_grad():
        return reference.eval()(
            input_ids=tensors["token_ids"],
            attention_mask=tensors["padding_mask"],
            token_type_ids=tensors["segment_ids"],
        )
