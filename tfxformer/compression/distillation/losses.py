"""What a student can learn from its teacher: the losses that `Distiller` takes, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real

import keras
from keras import ops

from tfxformer.compression.distillation import divergences
from tfxformer.compression.distillation.taps import OUTPUT, PROJECTIONS, Taps, bias_key, projection_key, state_key
from tfxformer.layers.attention.attention import attention_scores, split_heads

ACTIVATIONS = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": "linear",
}
DISTANCES = {"mse": divergences.squared_distance, "cosine": divergences.cosine_distance}


@dataclass(frozen=True)
class Bound:
    """A loss on two given models.

    Attributes:
        terms: (student's tensors, teacher's tensors), dicts as `Taps.reader` gives them -> list of float32 [B] or
            [B, S] (or [B, 1], of the first token alone): what is to be averaged over samples or tokens.
        states, projections: pairs (of the student, of the teacher) of what a reader has to read.
        learned: layers with weights of the loss's own, which are thrown away with it.
        of_labels: whether the targets' token weights say which tokens count.
        reads_outputs: whether the terms are of the models' outputs.
    """

    name: str
    weight: float
    terms: Callable
    states: tuple = ((), ())
    projections: tuple = ((), ())
    learned: tuple = ()
    of_labels: bool = False
    reads_outputs: bool = False


@dataclass(frozen=True)
class DistillationLoss:
    """A part of the loss; `weight` is its factor."""

    weight: float = field(default=1.0, kw_only=True)

    def __post_init__(self):
        _check_positive(self, "weight")

    def bind(self, student: Taps, teacher: Taps) -> Bound:
        """The loss on two models; refuses those it cannot compare."""
        raise NotImplementedError("A distillation loss says how it compares two models.")


@dataclass(frozen=True)
class LogitsLoss(DistillationLoss):
    """The teacher's probabilities in place of labels (Hinton et al., 2015, arXiv:1503.02531).

    T^2 KL(teacher / T || student / T) of any functional model's logits [B, C], or [B, S, C] of taggers and language
    models, there the mean over real tokens (where the targets have token weights, over the tokens these count).

    Attributes:
        temperature: T, above 0; higher ones show more of how the teacher ranks what it finds unlikely.
        activation: "softmax"; "sigmoid" for labels of which each is true or not; "linear" for scores, learned by
            squared distance (without temperature). None for what the student's `problem_type` says, else "softmax".
    """

    temperature: float = 2.0
    activation: str | None = None

    def __post_init__(self):
        super().__post_init__()
        _check_positive(self, "temperature")
        _check_choice(self, "activation", (None, *ACTIVATIONS.values()))

    def bind(self, student, teacher):
        shapes = [getattr(taps.model.output, "shape", None) for taps in (student, teacher)]
        if None in shapes or shapes[0][1:] != shapes[1][1:] or len(shapes[0]) not in (2, 3):
            raise ValueError(
                f"LogitsLoss compares logits [B, C] or [B, S, C] of the same labels or tokens; the student gives "
                f"{_shown(shapes[0])}, the teacher {_shown(shapes[1])}. Build the student from the teacher "
                "(compression.student_from), or leave LogitsLoss out and learn hidden states or relations."
            )
        for name in ("task_name", "labels", "problem_type"):
            values = [getattr(taps.model, name, None) for taps in (student, teacher)]
            if None not in values and values[0] != values[1]:
                raise ValueError(
                    f"LogitsLoss: student and teacher have other {name}, {values[0]!r} and {values[1]!r}: their "
                    "columns would be compared one by one. Give both the same, in the same order."
                )
        if hasattr(student.model, "pooling"):
            raise ValueError("LogitsLoss: an embedder's vectors are no logits: give EmbeddingLoss().")
        for taps in (student, teacher):
            _check_gives_logits(taps.model)
        activation = self.activation or ACTIVATIONS.get(getattr(student.model, "problem_type", None), "softmax")
        compare = {
            "softmax": lambda s, t: divergences.divergence(s, t, self.temperature),
            "sigmoid": lambda s, t: divergences.binary_divergence(s, t, self.temperature),
            "linear": divergences.squared_distance,
        }[activation]

        def terms(s, t):
            return [compare(s[OUTPUT], t[OUTPUT])]

        return Bound("logits", self.weight, terms, of_labels=True, reads_outputs=True)


@dataclass(frozen=True)
class EmbeddingLoss(DistillationLoss):
    """The teacher's vectors [B, D] of single texts.

    Attributes:
        distance: "cosine" or "mse".
        projection: whether the student's vectors go through a learned matrix to the teacher's width first. It is
            thrown away after training: what remains of the student's vectors is what such a matrix can read.
    """

    distance: str = "cosine"
    projection: bool = False

    def __post_init__(self):
        super().__post_init__()
        _check_choice(self, "distance", DISTANCES)

    def bind(self, student, teacher):
        outputs = [taps.model.output for taps in (student, teacher)]
        shapes = [getattr(output, "shape", None) for output in outputs]
        if any(shape is None or len(shape) != 2 for shape in shapes):
            raise ValueError(
                "EmbeddingLoss compares one vector [B, D] per text; the student gives "
                f"{_shown(shapes[0])}, the teacher {_shown(shapes[1])}."
            )
        learned = _projection(self, "embedding", shapes[0][-1], shapes[1][-1])
        distance = DISTANCES[self.distance]

        def terms(s, t):
            return [distance(learned(s[OUTPUT]) if learned else s[OUTPUT], t[OUTPUT])]

        return Bound("embedding", self.weight, terms, learned=(learned,) if learned else (), reads_outputs=True)


@dataclass(frozen=True)
class HiddenStateLoss(DistillationLoss):
    """The teacher's hidden states, the mean over real tokens and mapped layers.

    DistilBERT's is distance="cosine" on the last layer (Sanh et al., 2019, arXiv:1910.01108), TinyBERT's "mse" on all,
    with a projection (Jiao et al., 2020, arXiv:1909.10351, equation 8). Of a classifier's last block only the first
    token exists, and is learned.

    Attributes:
        layers: {student's hidden state: teacher's hidden state}, numbered as transformers numbers them: 0 is the
            embeddings, i + 1 what layer i gives; or names of layers, of any functional model. None maps the student's
            layers evenly to the teacher's, the last to the last.
        distance: "mse" or "cosine".
        projection: whether one learned matrix brings the student's states, of all layers, to the teacher's width. It
            is thrown away after training.
    """

    layers: Mapping | None = None
    distance: str = "mse"
    projection: bool = False

    def __post_init__(self):
        super().__post_init__()
        _check_choice(self, "distance", DISTANCES)

    def bind(self, student, teacher):
        pairs = _layer_pairs(self.layers, student, teacher, states=True)
        learned = None
        for own, others in pairs:
            widths = student.state(own).shape[-1], teacher.state(others).shape[-1]
            projection = _projection(self, "hidden_state", *widths)
            learned = learned or projection
        distance = DISTANCES[self.distance]

        def terms(s, t):
            states = [_same_tokens(s[state_key(own)], t[state_key(others)]) for own, others in pairs]
            return [distance(learned(x) if learned else x, y) / len(pairs) for x, y in states]

        states = tuple(zip(*pairs, strict=True))
        return Bound("hidden_state", self.weight, terms, states, learned=(learned,) if learned else ())


@dataclass(frozen=True)
class AttentionLoss(DistillationLoss):
    """The teacher's attention maps, head by head, the mean over real tokens and mapped layers.

    They are computed from queries and keys, of the mapped layers alone: in training the model's own are never formed.

    Attributes:
        layers: {student's layer: teacher's layer}, counted from 0. None maps them evenly, the last to the last.
        distance: "mse" of the scores before the softmax, over the keys that a token sees (Jiao et al., 2020,
            arXiv:1909.10351, equation 7), or "kl" of the probabilities.
    """

    layers: Mapping | None = None
    distance: str = "mse"

    def __post_init__(self):
        super().__post_init__()
        _check_choice(self, "distance", ("mse", "kl"))

    def bind(self, student, teacher):
        pairs = _layer_pairs(self.layers, student, teacher, states=False)
        attentions = {(own, others): (student.attention(own), teacher.attention(others)) for own, others in pairs}
        for (own, others), (first, second) in attentions.items():
            if first.num_heads != second.num_heads:
                raise ValueError(
                    f"AttentionLoss compares head by head; the student's layer {own} has {first.num_heads} heads, the "
                    f"teacher's layer {others} {second.num_heads}. RelationLoss compares any numbers of them."
                )
        compare = divergences.score_distance if self.distance == "mse" else divergences.probability_divergence

        def terms(s, t):
            found = []
            for (own, others), (first, second) in attentions.items():
                scores = _scores(s, own, first), _scores(t, others, second)
                found.append(compare(*scores, s.get(bias_key(own))) / len(pairs))
            return found

        return Bound("attention", self.weight, terms, projections=_projections(pairs, ("query", "key")))


@dataclass(frozen=True)
class RelationLoss(DistillationLoss):
    """How the teacher's tokens relate, for any widths and numbers of heads: KL of softmaxed scaled products.

    MiniLM's are ("query-key", "value-value") of the last layers (Wang et al., 2020, arXiv:2002.10957), MiniLMv2's
    ("query-query", "key-key", "value-value") of the student's last and a layer of the teacher (arXiv:2012.15828).

    Attributes:
        layers: {student's layer: teacher's layer}, counted from 0. None is the last to the last.
        relations: names of what is multiplied with what.
        heads: int, relation heads that both widths divide by; None for the teacher's heads (of keys and values).

    Raises ValueError for relations of anything but queries, keys and values.
    """

    layers: Mapping | None = None
    relations: tuple[str, ...] = ("query-query", "key-key", "value-value")
    heads: int | None = None

    def __post_init__(self):
        super().__post_init__()
        sides = [tuple(relation.split("-")) for relation in self.relations]
        if not sides or any(len(side) != 2 or not set(side) <= set(PROJECTIONS) for side in sides):
            raise ValueError(
                f'RelationLoss: relations are of "query", "key" and "value", as "query-key"; got {self.relations!r}.'
            )

    def bind(self, student, teacher):
        for taps in (student, teacher):
            taps.check_number(0)
        last = {len(student) - 1: len(teacher) - 1}
        pairs = _layer_pairs(self.layers or last, student, teacher, states=False)
        sides = [tuple(relation.split("-")) for relation in self.relations]
        heads = self.heads or min(teacher.attention(others).num_key_value_heads for _, others in pairs)
        used = list(dict.fromkeys(name for side in sides for name in side))
        for taps, numbers in zip((student, teacher), zip(*pairs, strict=True), strict=True):
            for number in numbers:
                _check_relation(taps, number, sides, heads)

        def terms(s, t):
            found = []
            for own, others in pairs:
                bias = divergences.hiding(s.get(bias_key(own)))
                for first, second in sides:
                    scores = [
                        divergences.relation_scores(x[projection_key(n, first)], x[projection_key(n, second)], heads)
                        for x, n in ((s, own), (t, others))
                    ]
                    found.append(divergences.probability_divergence(*scores, bias) / len(pairs))
            return found

        return Bound("relation", self.weight, terms, projections=_projections(pairs, used))


def even_layers(student: int, teacher: int) -> dict[int, int]:
    """{student's layer: teacher's layer}, counted from 0: evenly spread, the last to the last.

    Raises:
        ValueError: for a student of more layers than its teacher.
    """
    if not 1 <= student <= teacher:
        raise ValueError(
            f"A student of {student} layers has no even map to a teacher of {teacher}: give 1 to {teacher}, or say "
            "layers={student's layer: teacher's layer}."
        )
    return {number: round((number + 1) * teacher / student) - 1 for number in range(student)}


def _layer_pairs(layers, student: Taps, teacher: Taps, *, states: bool) -> list[tuple]:
    """Pairs (of the student, of the teacher) of hidden states, or of layers, checked."""
    if layers is None:
        for taps in (student, teacher):
            taps.check_number(0)
        return [(own + states, other + states) for own, other in even_layers(len(student), len(teacher)).items()]
    if not isinstance(layers, Mapping) or not layers:
        raise ValueError(f"layers is {{student's layer: teacher's layer}}, with one or more; got {layers!r}.")
    for pair in layers.items():
        for taps, which in zip((student, teacher), pair, strict=True):
            if states:
                taps.state(which)
            else:
                taps.check_number(which)
    return list(layers.items())


def _check_gives_logits(model: keras.Model) -> None:
    last = model.output._keras_history.operation
    probabilities = (keras.activations.softmax, keras.activations.sigmoid)
    if isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) in probabilities:
        raise ValueError(
            f"LogitsLoss reads logits; {model.name} ends in {last.name}, which makes probabilities of them. Give the "
            "model without it: its temperature and divergence are of logits."
        )


def _projections(pairs, names) -> tuple:
    """What readers of the student and of the teacher read of the paired blocks."""
    return tuple([(number, name) for number in side for name in names] for side in zip(*pairs, strict=True))


def _same_tokens(first, second):
    """Both states [B, S, D], or the first token of both where one of them has no other."""
    if len(first.shape) == len(second.shape) == 3 and 1 in (first.shape[1], second.shape[1]):
        return first[:, :1], second[:, :1]
    return first, second


def _projection(loss, name: str, own: int, others: int):
    """The learned matrix to the teacher's width, or None where none is wanted.

    Raises:
        ValueError: for other widths without one.
    """
    if loss.projection:
        return keras.layers.Dense(others, dtype="float32", name=f"{name}_projection")
    if own != others:
        raise ValueError(
            f"{type(loss).__name__}: the student is {own} wide, its teacher {others}. Pass projection=True: a matrix "
            "from one width to the other, learned with the student and thrown away after."
        )
    return None


def _scores(values: dict, number: int, attention):
    query = split_heads(values[projection_key(number, "query")], attention.num_heads)
    key = split_heads(values[projection_key(number, "key")], attention.num_key_value_heads)
    return attention_scores(ops.cast(query, "float32") * attention.scale, ops.cast(key, "float32"))


def _check_relation(taps: Taps, number: int, sides, heads: int) -> None:
    attention = taps.attention(number)
    counts = {"query": attention.num_heads}
    widths = {name: counts.get(name, attention.num_key_value_heads) * attention.head_size for name in PROJECTIONS}
    for first, second in sides:
        if widths[first] % heads or widths[first] != widths[second]:
            raise ValueError(
                f"RelationLoss: layer {number} of {taps.model.name} has a {first} {widths[first]} and a {second} "
                f"{widths[second]} wide; a relation needs one width, which heads={heads} divides. Give other "
                "heads=, or other relations."
            )


def _check_positive(value, name: str) -> None:
    number = getattr(value, name)
    if not isinstance(number, Real) or not 0 < number < float("inf"):
        raise ValueError(f"{type(value).__name__}: {name} must be a number above 0; got {number!r}.")


def _check_choice(value, name: str, choices) -> None:
    if getattr(value, name) not in choices:
        known = ", ".join(map(repr, choices))
        raise ValueError(f"{type(value).__name__}: unknown {name} {getattr(value, name)!r}; known: {known}.")


def _shown(shape) -> str:
    return "several outputs" if shape is None else str(tuple(shape))
