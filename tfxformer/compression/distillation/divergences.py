"""How far a student's numbers are from its teacher's: the formulas of distillation, on tensors.

All compute in float32, whatever they are given, and none divides by the number of samples or tokens.
"""

from __future__ import annotations

from keras import ops

# A bias below it hides a key: masks add -1e9 (-32752 in float16), ALiBi's distances a few thousands at most.
HIDDEN_BELOW = -16000.0


def divergence(student, teacher, temperature: float = 1.0):
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) (Hinton et al., 2015, arXiv:1503.02531).

    With the factor T^2 the gradient keeps its size when T changes (section 2.1 there).

    Args:
        student, teacher: logits [..., C].
        temperature: float T, above 0.

    Returns:
        float32 [...].
    """
    student, teacher = _scaled(student, temperature), _scaled(teacher, temperature)
    student, teacher = ops.log_softmax(student, axis=-1), ops.log_softmax(teacher, axis=-1)
    return temperature**2 * ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)


def binary_divergence(student, teacher, temperature: float = 1.0):
    """The same for labels of which each is true or not: the mean over labels of T^2 KL of two Bernoullis.

    Args:
        student, teacher: logits [..., C], each through a sigmoid of its own.
        temperature: float T, above 0.

    Returns:
        float32 [...].
    """
    student, teacher = _scaled(student, temperature), _scaled(teacher, temperature)
    yes = ops.sigmoid(teacher) * (ops.log_sigmoid(teacher) - ops.log_sigmoid(student))
    no = ops.sigmoid(-teacher) * (ops.log_sigmoid(-teacher) - ops.log_sigmoid(-student))
    return temperature**2 * ops.mean(yes + no, axis=-1)


def squared_distance(student, teacher):
    """Mean over the last axis of the squared difference: [..., D] -> float32 [...]."""
    difference = ops.cast(student, "float32") - ops.cast(teacher, "float32")
    return ops.mean(difference * difference, axis=-1)


def cosine_distance(student, teacher):
    """One minus the cosine (Sanh et al., 2019, arXiv:1910.01108): [..., D] -> float32 [...]."""
    return 1.0 - ops.sum(_unit(student) * _unit(teacher), axis=-1)


def score_distance(student, teacher, bias=None):
    """Mean squared difference of attention scores over heads and the keys that a query sees (TinyBERT, eq. 7).

    Args:
        student, teacher: scores before the softmax, [B, N, S, T].
        bias: additive attention bias, broadcastable to them; None where every key is seen.

    Returns:
        float32 [B, S].
    """
    difference = ops.cast(student, "float32") - ops.cast(teacher, "float32")
    squares = difference * difference
    if bias is None:
        return ops.mean(squares, axis=(1, 3))
    seen = ops.cast(ops.cast(bias, "float32") > HIDDEN_BELOW, "float32") + ops.zeros_like(squares)
    return ops.sum(squares * seen, axis=(1, 3)) / ops.maximum(ops.sum(seen, axis=(1, 3)), 1.0)


def probability_divergence(student, teacher, bias=None):
    """KL(teacher || student) of attention probabilities, the mean over heads (MiniLM, eq. 5).

    Arguments as `score_distance` has them.

    Returns:
        float32 [B, S].
    """
    student, teacher = ops.cast(student, "float32"), ops.cast(teacher, "float32")
    if bias is not None:
        bias = ops.cast(bias, "float32")
        student, teacher = student + bias, teacher + bias
    return ops.mean(divergence(student, teacher), axis=1)


def hiding(bias):
    """What of an attention bias hides keys, without the distances that ALiBi adds: 0 or -1e9, or None."""
    return None if bias is None else ops.where(ops.cast(bias, "float32") > HIDDEN_BELOW, 0.0, -1e9)


def relation_scores(first, second, heads: int):
    """Scaled products of the tokens of two sequences, in so many heads (MiniLMv2, arXiv:2012.15828, eq. 4).

    Args:
        first, second: queries, keys or values with their heads side by side, [B, S, W], `heads` dividing W.
        heads: int A, relation heads.

    Returns:
        float32 [B, A, S, S].
    """
    width = first.shape[-1] // heads

    def split(x):
        x = ops.reshape(ops.cast(x, "float32"), (-1, ops.shape(x)[1], heads, width))  # [B, S, W] -> [B, S, A, d]
        return ops.transpose(x, (0, 2, 1, 3))

    return ops.matmul(split(first), ops.transpose(split(second), (0, 1, 3, 2))) * width**-0.5


def _scaled(logits, temperature):
    return ops.cast(logits, "float32") / temperature


def _unit(x):
    x = ops.cast(x, "float32")
    return x * ops.rsqrt(ops.maximum(ops.sum(x * x, axis=-1, keepdims=True), 1e-24))
