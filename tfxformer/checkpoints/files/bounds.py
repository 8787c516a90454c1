"""What a checkpoint's tensors can hold bounds what its config may ask for, before anything is made.

A config.json of a few bytes can ask for a model of any size: its layers, tables and labels are compared with the
shapes in the headers of the weights, which the files' own bytes have been checked against.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tfxformer.checkpoints.family import Family
from tfxformer.checkpoints.files.errors import CheckpointError
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
    held = numbers(tensors)
    parts = {}  # from the smallest, so that the one that is wrong is named
    for name, stack in config.stacks.items():
        attention = stack.heads * stack.head_width * stack.hidden_size
        inner = stack.feed_forward.size * stack.hidden_size
        parts |= {
            f"{name}.layers_per_group": stack.num_blocks,
            f"{name}.attention.heads": attention,
            f"{name}.feed_forward.size": inner,
            f"{name}.num_layers": stack.num_blocks * (attention + inner),
        }
    parts["token_types"] = config.token_types * config.table_size
    parts["source_vocabulary_size"] = config.read_vocabulary_size * config.table_size
    parts["vocabulary_size"] = config.vocabulary_size * config.table_size
    for name, stack in config.stacks.items():
        if stack.position_table == "learned":
            parts[f"{name}.max_positions"] = stack.max_positions * config.table_size
    for part, wanted in parts.items():
        if wanted > held:
            key = family.keys[part].name if part in family.keys else part.rpartition(".")[2]
            raise CheckpointError(
                f"config.json asks for {wanted:,} numbers by {key}, but all tensors together hold {held:,}: they "
                "cannot be those of this model. Is config.json that of another one?"
            )
    labels = reference.get("num_labels")
    if labels is not None and (type(labels) is not int or labels < 1):
        raise CheckpointError(f"config.json says num_labels={labels!r}, where a positive whole number was due.")
    if labels is not None and not reference.get("id2label") and labels * config.hidden_size > held:
        raise CheckpointError(
            f"config.json says num_labels={labels} without naming them, but all tensors together hold {held:,} "
            "numbers: no head of theirs has as many labels."
        )
