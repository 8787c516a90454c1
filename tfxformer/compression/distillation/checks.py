"""What a `Distiller` refuses before it trains: models that cannot learn from each other."""

from __future__ import annotations

import keras

from tfxformer.backend import strategy_of
from tfxformer.compression.distillation.losses import DistillationLoss
from tfxformer.models import TransformerConfig


def check_losses(losses, label_weight) -> None:
    """Refuses what is no list of distillation losses, and no weight."""
    wrong = [loss for loss in losses if not isinstance(loss, DistillationLoss)]
    if not losses or wrong:
        raise TypeError(
            "Distiller wants losses=[...] of LogitsLoss, EmbeddingLoss, HiddenStateLoss, AttentionLoss and "
            f"RelationLoss; got {wrong or losses!r}."
        )
    if isinstance(label_weight, bool) or not isinstance(label_weight, (int, float)) or not 0 <= label_weight < 1e9:
        raise ValueError(f"Distiller: label_weight is a number, 0 or more; got {label_weight!r}.")


def check_models(student, teacher) -> None:
    """Refuses two models that do not read the same batches, or that would change each other."""
    for role, model in (("student", student), ("teacher", teacher)):
        functional = isinstance(model, keras.Model) and getattr(model, "inputs", None)
        if not functional or isinstance(model, keras.Sequential):
            raise TypeError(
                f"Distiller: the {role} is a functional Keras model, whose inner tensors can be read; got "
                f"{type(model).__name__}. Wrap a Sequential as keras.Model(model.inputs, model.outputs[0]), a "
                "subclassed one as keras.Model(inputs, model(inputs))."
            )
    shared = set(map(id, student.weights)) & set(map(id, teacher.weights))
    if shared:
        raise ValueError(
            f"Student and teacher share {len(shared)} weights, so that the teacher would change: make the student by "
            "compression.student_from(teacher, ...), or keras.models.clone_model."
        )
    if strategy_of(student) is not strategy_of(teacher):
        raise ValueError("Student and teacher were made under different strategies: make both in the scope of one.")
    names = [set(model.input) if isinstance(model.input, dict) else None for model in (student, teacher)]
    if (None in names and names != [None, None]) or (None not in names and not names[1] <= names[0]):
        raise ValueError(
            f"The teacher reads {sorted(names[1] or ['one input'])}, the student {sorted(names[0] or ['one input'])}: "
            "both read one batch, so the student needs all inputs that its teacher has."
        )
    _check_vocabularies(student, teacher)


def _check_vocabularies(student, teacher) -> None:
    tokenizers = [getattr(model, "tokenizer", None) for model in (student, teacher)]
    if None not in tokenizers:
        if tokenizers[0].to_json() != tokenizers[1].to_json():
            raise ValueError(
                "Student and teacher have different tokenizers: the same ids would be other texts to each. Where the "
                "vocabulary was trimmed, trim first: teacher = compression.trim_vocabulary(teacher, texts), then make "
                "the student of that teacher (student_from, remove_heads, ...). Else give the student the teacher's "
                "tokenizer and vocabulary."
            )
        return
    sizes = [_vocabulary_sizes(model) for model in (student, teacher)]
    if None not in sizes and sizes[0] != sizes[1]:
        ours, theirs = (" and ".join(map(str, dict.fromkeys(both))) for both in sizes)
        raise ValueError(
            f"The student has a vocabulary of {ours}, its teacher one of {theirs}: the same ids would be other "
            "texts to each. Give both the same (compression.student_from)."
        )


def _vocabulary_sizes(model) -> tuple[int, int] | None:
    """Rows of what a model reads and of what it writes."""
    config = getattr(getattr(model, "backbone", None), "config", None)
    return (config.read_vocabulary_size, config.vocabulary_size) if isinstance(config, TransformerConfig) else None
