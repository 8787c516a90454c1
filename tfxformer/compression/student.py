"""A smaller model of the same kind, made of some of its teacher's layers."""

from __future__ import annotations

from collections.abc import Sequence

from tfxformer.compression.distillation_losses import even_layers
from tfxformer.models.backbone import Backbone
from tfxformer.models.config import TransformerConfig


def student_from(teacher, num_layers: int | None = None, layers: Sequence[int] | None = None):
    """A model of fewer layers, its weights copies of the teacher's: embeddings, norms, heads, and some blocks.

    So DistilBERT was begun (Sanh et al., 2019, arXiv:1910.01108). Tokenizer, labels and all else stay as they are; the
    student saves, reloads and exports as its teacher does, and fits on its own or in a `Distiller`.

    Args:
        teacher: a task, `models.Encoder` or `models.Decoder`; it is left as it is.
        num_layers: int, blocks to keep, evenly spread with the last among them: 3 of 6 are blocks 2, 4 and 6.
        layers: in place of `num_layers`, which blocks, counted from 1 in their order.

    Returns:
        a new model of the teacher's class.

    Raises:
        TypeError: for a model that is not one of ours.
        ValueError: for more layers than the teacher has, and for blocks that share weights in groups (ALBERT).
    """
    backbone = teacher if isinstance(teacher, Backbone) else getattr(teacher, "backbone", None)
    if not isinstance(backbone, Backbone):
        raise TypeError(
            f"student_from makes students of tfxformer's tasks, Encoders and Decoders; got {type(teacher).__name__}. "
            "Build another model's student yourself; Distiller takes any functional one."
        )
    kept = _kept(backbone.config, num_layers, layers)
    with teacher.distribute_strategy.scope():
        small = _smaller(backbone, kept)
        if teacher is backbone:
            return small
        student = type(teacher).from_config({**teacher.get_config(), "backbone": small})
        for name, head in teacher.heads.items():
            _copy(head, student.heads[name])
    return student


def _kept(config: TransformerConfig, num_layers, layers) -> tuple[int, ...]:
    total = config.stack.num_layers
    if (num_layers is None) == (layers is None):
        raise ValueError(f"Give num_layers or layers, one of the two; got {num_layers!r} and {layers!r}.")
    kept = tuple(even_layers(num_layers, total).values()) if layers is None else tuple(layers)
    if not kept or list(kept) != sorted(set(kept)) or not 1 <= kept[0] <= kept[-1] <= total:
        raise ValueError(
            f"layers={list(kept)} are not some of the teacher's blocks 1 to {total}, each once and in their order."
        )
    if (config.stack.layer_groups or 1) > 1 or config.stack.layers_per_group > 1:
        raise ValueError(
            f"The teacher's {total} layers share the weights of {config.stack.layer_groups} groups: which to keep is "
            "not a choice of layers. Build the student by tfxformer.build(config)."
        )
    return kept


def _smaller(backbone: Backbone, kept: tuple[int, ...]) -> Backbone:
    stack, name = backbone.config.stack, "decoder" if backbone.config.encoder is None else "encoder"
    changes = {f"{name}__num_layers": len(kept)}
    if stack.windowed_layers is not None:
        windowed = tuple(stack.windowed_layers[number - 1] for number in kept)
        changes[f"{name}__windowed_layers"] = windowed
    config = backbone.config.replace(**changes)
    small = type(backbone).from_config({**backbone.get_config(), "config": config})
    for part, copied in zip(backbone._parts, small._parts, strict=True):
        if not isinstance(part, tuple):
            _copy(part, copied)
            continue
        blocks = part if stack.layer_groups is None else part * stack.num_layers
        for number, block in zip(kept, copied, strict=False):  # of shared blocks there is one
            _copy(blocks[number - 1], block)
    return small


def _copy(source, target) -> None:
    """Gives a layer (or None) the weights of another of the same shapes."""
    if source is None:
        return
    for weight, copied in zip(source.weights, target.weights, strict=True):
        copied.assign(weight)
