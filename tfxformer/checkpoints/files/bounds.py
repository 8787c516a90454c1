"""What a checkpoint's tensors can hold bounds what its config may ask for, before anything is made.

A config.json of a few bytes can ask for a model of any size: its layers, tables and labels are compared with the
shapes in the headers of the weights, which the files' own bytes have been checked against.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tfxformer.checkpoints.family import Family
from tfxformer.checkpoints.files.safetensors import CheckpointError
from tfxformer.models import TransformerConfig

MOST_SHARED_LAYERS = 1000  # layers that share weights cost no bytes; the deepest model in use has some hundred


def numbers(tensors) -> int:
    """How many numbers a checkpoint's tensors hold, by their headers."""
    return sum(math.prod(tensors.shape(name)) for name in tensors)


def check_layers(reference: Mapping, family: Family, tensors: Mapping) -> None:
    """Refuses more layers than there are tensors: reading the rest of config.json may walk through them.

    Raises:
        CheckpointError: naming the key and its value.
    """
    key = next(key for path, key in family.keys.items() if path.endswith(".num_layers"))
    layers, most = key.read(reference), max(MOST_SHARED_LAYERS, len(tensors))
    if isinstance(layers, (int, float)) and layers > most:
        raise CheckpointError(
            f"config.json says {key.name}={layers}, but the weights are {len(tensors)} tensors: they cannot be those "
            "of as many layers. Is config.json that of another model?"
        )


def check_size(reference: Mapping, config: TransformerConfig, family: Family, tensors: Mapping) -> None:
    """Refuses a config whose tables, layers or labels are larger than all tensors together.

    Raises:
        CheckpointError: naming the key whose part is the largest, and both numbers.
    """
    stack, held = config.stack, numbers(tensors)
    blocks = stack.num_layers if stack.layer_groups is None else stack.layer_groups * stack.layers_per_group
    attention = stack.num_heads * stack.head_width * stack.hidden_size
    inner = stack.feed_forward_size * stack.hidden_size
    parts = {  # from the smallest, so that the one that is wrong is named
        "layers_per_group": blocks,
        "num_heads": attention,
        "feed_forward_size": inner,
        "num_layers": blocks * (attention + inner),
        "token_types": config.token_types * config.table_size,
        "vocabulary_size": config.vocabulary_size * config.table_size,
    }
    if stack.positions == "learned":
        parts["max_positions"] = stack.max_positions * config.table_size
    for part, wanted in parts.items():
        if wanted > held:
            raise CheckpointError(
                f"config.json asks for {wanted:,} numbers by {_key_of(family, part)}, but all tensors together hold "
                f"{held:,}: they cannot be those of this model. Is config.json that of another one?"
            )
    labels = reference.get("num_labels")
    if labels is not None and (type(labels) is not int or labels < 1):
        raise CheckpointError(f"config.json says num_labels={labels!r}, where a positive whole number was due.")
    if labels is not None and not reference.get("id2label") and labels * stack.hidden_size > held:
        raise CheckpointError(
            f"config.json says num_labels={labels} without naming them, but all tensors together hold {held:,} "
            "numbers: no head of theirs has as many labels."
        )


def _key_of(family: Family, part: str) -> str:
    """The name that config.json has for a switch of ours."""
    return next((key.name for path, key in family.keys.items() if path.rpartition(".")[2] == part), part)
