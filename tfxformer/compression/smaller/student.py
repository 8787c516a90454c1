"""A smaller model of the same kind, made of some of its teacher's layers."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from tfxformer.arguments.keywords import checked
from tfxformer.compression.distillation.losses import even_layers
from tfxformer.compression.smaller.one_stack import stack_of
from tfxformer.compression.smaller.rebuilding import keep_layers, named_layers, rebuild


@checked
def student_from(teacher, keep: int | Sequence[int], *, stack: str | None = None):
    """A model of fewer layers, its weights copies of the teacher's: embeddings, norms, heads, and some layers.

    So DistilBERT was begun (Sanh et al., 2019, arXiv:1910.01108). Tokenizer, labels and all else stay as they are; the
    student saves, reloads and exports as its teacher does, and fits on its own or in a `Distiller`.

    Args:
        teacher: a task, `models.Encoder` or `models.Decoder`; it is left as it is.
        keep: int, how many layers, evenly spread with the last among them: 3 of 6 are layers 1, 3 and 5; or the numbers
            of those to keep, counted from 0 as `remove_layers` counts them, in ascending order.
        stack: "encoder" or "decoder", of a teacher that has both: most often a decoder loses layers, whose every token
            they cost time, and an encoder none (Shleifer & Rush, 2020, arXiv:2010.13002).

    Returns:
        a new model of the teacher's class.

    Raises:
        TypeError: for a model that is not one of ours.
        ValueError: for more layers than the teacher has, for layers that share weights in groups (ALBERT with several),
            and for weights that its config does not describe (adapters).
    """
    part = stack_of(teacher, stack, "student_from")
    config = part.config
    if isinstance(keep, Integral):
        kept = list(even_layers(keep, config.num_layers).values())
    else:
        kept = named_layers("student_from", "keep", keep, config.num_layers)
    if (config.layer_groups or 1) > 1 or config.layers_per_group > 1:
        raise ValueError(
            f"The teacher's {config.num_layers} layers share the weights of {config.layer_groups} groups: which to "
            "keep is not a choice of layers. Build the student by tfxformer.build(config)."
        )
    if config.layer_groups == 1:  # one layer, which runs fewer times
        return rebuild(teacher, part.with_changes(num_layers=len(kept)), {})
    return keep_layers(teacher, part, kept, "student_from", "keep")
