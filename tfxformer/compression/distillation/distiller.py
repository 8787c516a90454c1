"""Distillation: a small model learns what a large one answers, in Keras' `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import keras
from keras import ops, tree

from tfxformer.arguments.keywords import checked
from tfxformer.backend import strategy_of
from tfxformer.compression.distillation.checks import check_losses, check_models
from tfxformer.compression.distillation.losses import Bound, DistillationLoss, LogitsLoss
from tfxformer.compression.distillation.taps import OUTPUT, Taps, token_mask
from tfxformer.compression.distillation.teacher import TeacherAnswers, batch_of, has_answers
from tfxformer.training.inputs.given import Given
from tfxformer.training.scheduled_model import AUTO, ScheduledModel
from tfxformer.training.step.loss_terms import Objective, compiled_objectives


class Distiller(ScheduledModel):
    """Trains a student on its teacher's answers, and on labels where there are any.

    `fit` and `evaluate` take what the student's take: of our tasks texts (with or without labels), arrays, datasets.
    The loss is label_weight times the student's own plus each of `losses` times its weight; history has it as `loss`,
    and each part beside it (`logits_loss`, ...). The teacher does not train. Of texts and arrays it answers once,
    before the first epoch, as long as its answers fit into `cache_bytes`; of datasets of batches, which may differ
    from epoch to epoch, in every step.

    What is trained is the student: predict with it, save it, export it; nothing of the teacher is in its files.
    `save` and `save_weights` here, which callbacks call, write the student. Callbacks that change weights in training,
    such as `compression.Prune`, change the student's.

    Args:
        student, teacher: functional Keras models of the same inputs: two of our tasks, or any others. For a teacher of
            ours `compression.student_from(teacher, keep=3)` makes the student.
        losses: `LogitsLoss`, `EmbeddingLoss`, `HiddenStateLoss`, `AttentionLoss`, `RelationLoss`; None for the first
            alone.
        label_weight: float, weight of the labels' loss; 0 to learn from the teacher only.
        cache_bytes: int, memory for the teacher's answers to a training set.

    Raises:
        ValueError: for models that share weights, or that have other inputs, vocabularies, outputs or widths than the
            losses compare, and for layer maps outside of them.

    Example:
        student = compression.student_from(teacher, keep=3)
        distiller = compression.Distiller(student, teacher, [compression.LogitsLoss(temperature=2.0)])
        distiller.fit(texts, labels, epochs=3, batch_size=32)
        student.save_pretrained("saved_models/small")
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        losses: Sequence[DistillationLoss] | None = None,
        *,
        label_weight: float = 1.0,
        cache_bytes: int = 2**30,
        name: str = "distiller",
    ):
        losses = [LogitsLoss()] if losses is None else list(losses)
        check_models(student, teacher)
        check_losses(losses, label_weight)
        with strategy_of(student).scope():
            super().__init__(inputs=student.input, outputs=student.output, name=name)
            own, others = Taps(student), Taps(teacher)
            bounds = _with_names([loss.bind(own, others) for loss in losses])
            self.student, self.teacher = student, teacher
            self.learned = [layer for bound in bounds for layer in bound.learned]
            self.part_metrics = [_PartMean(name=f"{bound.name}_loss") for bound in bounds]
            self.label_weight, self.cache_bytes = float(label_weight), cache_bytes
            read_student, read_teacher = (
                taps.reader(
                    [state for bound in bounds for state in bound.states[side]],
                    [projection for bound in bounds for projection in bound.projections[side]],
                    outputs=side == 0 or any(bound.reads_outputs for bound in bounds),
                    biases=side == 0,
                )
                for side, taps in enumerate((own, others))
            )
            # Not attributes: Keras would track the models' layers once more, and the teacher as a part of the answers.
            self.__dict__["_bounds"], self.__dict__["_read"] = bounds, read_student
            self.__dict__["_answering"] = TeacherAnswers(teacher, read_teacher)
            self._make_learned(bounds)

    def _make_learned(self, bounds) -> None:
        """Gives the projections their weights: the optimizer has to know them before the first step."""
        if any(bound.learned for bound in bounds):
            batch = tree.map_structure(
                lambda x: ops.zeros([size or 1 for size in x.shape], x.dtype), self.student.input
            )
            self(batch)

    # ---- variables --------------------------------------------------------------------------------------------

    @property
    def trainable_variables(self):
        """Those of the student and of the projections; the teacher's own `trainable` is left as it is."""
        return [variable for part in (self.student, *self.learned) for variable in part.trainable_variables]

    @property
    def non_trainable_variables(self):
        trainable = set(map(id, self.trainable_variables))
        return [variable for variable in self.variables if id(variable) not in trainable]

    @property
    def trainable_weights(self):
        return self.trainable_variables

    @property
    def non_trainable_weights(self):
        trainable = set(map(id, self.trainable_variables))
        return [variable for variable in self.weights if id(variable) not in trainable]

    @property
    def losses(self):
        """What layers and regularizers of the student add."""
        return self.student.losses

    # The functional graph is the student's, whose batch alone it would take.
    input_spec = None

    # ---- a step -----------------------------------------------------------------------------------------------

    def call(self, inputs, training=None):
        """A batch, or {"batch": ..., "answers": the teacher's}, as the student's outputs and the terms of the loss."""
        batch = batch_of(inputs)
        answers = self._answering.call(batch) if batch is inputs else inputs["answers"]
        answers = tree.map_structure(ops.stop_gradient, answers)
        found = self._read(batch, training=training)
        terms = {bound.name: bound.terms(found, answers) for bound in self._bounds}
        return {OUTPUT: found[OUTPUT], "terms": terms}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The whole loss of the samples that it is given: float32 scalar."""
        loss = ops.cast(sum(self.losses, 0.0), "float32")
        if self._learns_labels(y):
            loss = loss + self.label_weight * ops.cast(self._compile_loss(y, y_pred[OUTPUT], sample_weight), "float32")
        for bound, part in self._parts(x, y_pred, sample_weight):
            loss = loss + bound.weight * part.value
        return loss

    def objectives(self, x, y, y_pred, sample_weight, samples, records) -> list[Objective]:
        """The same by divisor: see `training.DistributedModel`."""
        if self._learns_labels(y):
            self._compile_loss(y, y_pred[OUTPUT], sample_weight)
            records[:] = [record._replace(weight=record.weight * self.label_weight) for record in records]
        by_count = {}
        for objective in (
            *compiled_objectives(records, self.losses, samples),
            *(
                Objective(bound.weight * part.value, samples if part.count is None else part.count)
                for bound, part in self._parts(x, y_pred, sample_weight)
            ),
        ):
            before = by_count.get(id(objective.count))
            value = objective.value if before is None else before.value + objective.value
            by_count[id(objective.count)] = Objective(value, objective.count)
        return list(by_count.values())

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The metrics of compile() on the student's outputs, and the parts of the loss."""
        samples = ops.cast(ops.shape(tree.flatten(x)[0])[0], "float32")
        metrics = dict(zip((bound.name for bound in self._bounds), self.part_metrics, strict=True))
        found = {name: [[0.0, 0.0], [0.0, 0.0]] for name in metrics}  # (sum of means, count) of samples and of tokens
        for bound, part in self._parts(x, y_pred, sample_weight):
            kind = found[bound.name][part.count is not None]
            kind[:] = kind[0] + part.value, samples if part.count is None else part.count
        for name, metric in metrics.items():
            metric.update_state(*zip(*found[name], strict=True))
        if y is None:
            return self.get_metrics_result()
        return super().compute_metrics(x, y, y_pred[OUTPUT], sample_weight)

    def get_metrics_result(self):
        if self._compile_metrics is None or self._compile_metrics.built:
            return super().get_metrics_result()
        # No labels have come: the metrics of compile() have nothing to say.
        return {metric.name: metric.result() for metric in (self._loss_tracker, *self.part_metrics)}

    def _learns_labels(self, y) -> bool:
        if y is None or not self.label_weight:
            return False
        if self._compile_loss is None:
            raise ValueError(
                f"There are targets, but no loss for them: {self.student.name} has none of its own. Give loss= to "
                "compile(), or Distiller(..., label_weight=0)."
            )
        return True

    def _parts(self, x, y_pred, sample_weight):
        """(bound, Objective) of every term: its mean, and what it was divided by, None for the samples."""
        batch = batch_of(x)
        rank = None if sample_weight is None else len(sample_weight.shape)
        tokens = token_mask(batch)
        if rank == 1:
            by_sample = ops.cast(sample_weight, "float32")
            tokens = ops.expand_dims(by_sample, 1) if tokens is None else tokens * ops.expand_dims(by_sample, 1)
        by_token = ops.cast(sample_weight, "float32") if rank == 2 else None
        counts = {}
        for bound in self._bounds:
            for term in y_pred["terms"][bound.name]:
                if len(term.shape) == 2 and term.shape[1] == 1:
                    term = term[:, 0]
                if len(term.shape) == 1:
                    yield bound, Objective(ops.mean(term * by_sample if rank == 1 else term), None)
                    continue
                of_labels = bound.of_labels and rank == 2
                weights = by_token if of_labels else tokens
                weights = ops.ones_like(term) if weights is None else weights + ops.zeros_like(term)
                count = counts.setdefault(of_labels, ops.sum(weights))  # one, so that one divisor makes one objective
                yield bound, Objective(ops.divide_no_nan(ops.sum(term * weights), count), count)

    # ---- training ---------------------------------------------------------------------------------------------

    def compile(self, optimizer=AUTO, loss=AUTO, metrics=AUTO, *args, **kwargs):
        """See `ScheduledModel.compile`; the parts that the teacher teaches are there already.

        The loss and the metrics are on the student's outputs and the labels. "auto" are those of a task of ours, and
        none of another model; without a loss labels are refused.
        """
        super().compile(optimizer, loss if self.label_weight else None, metrics, *args, **kwargs)

    @property
    def output_kinds(self):
        return self.student.output_kinds if isinstance(self.student, ScheduledModel) else None

    @property
    def learns_from_labels(self) -> bool:
        return getattr(self.student, "learns_from_labels", True)

    def weigh_classes(self, *arguments):
        return self.student.weigh_classes(*arguments)

    def default_loss(self):
        return self._default_of_student("default_loss")

    def default_metrics(self):
        return self._default_of_student("default_metrics")

    def default_weighted_metrics(self):
        return self._default_of_student("default_weighted_metrics")

    def _default_of_student(self, name: str):
        return getattr(self.student, name)() if isinstance(self.student, ScheduledModel) else None

    def read_given(self, x, y=None, sample_weight=None, **arguments) -> Given:
        """What the student reads of it."""
        if has_answers(x) or not isinstance(self.student, ScheduledModel):  # what `fit` evaluates on is prepared
            return super().read_given(x, y, sample_weight, **arguments)
        return self.student.read_given(x, y, sample_weight, **arguments)

    def is_splittable(self, given: Given) -> bool:
        return isinstance(self.student, ScheduledModel) and self.student.is_splittable(given)

    def split(self, given: Given, share: float) -> tuple[Given, Given]:
        """See `ScheduledModel.split`."""
        return self.student.split(given, share)

    def arrays(self, given: Given, *, fitting=False) -> Given:
        """What Keras trains on, of what the student's `fit` takes, with the teacher's answers where they are kept.

        Without targets it learns from the teacher alone.
        """
        if has_answers(given.x):
            return given
        if isinstance(self.student, ScheduledModel):
            given = self.student.fixed_arrays(given, fitting=fitting)
        return given._replace(x=self._answering.with_answers(given.x, self.cache_bytes))

    def predict(self, x, *args, **kwargs):
        """The student's `predict`."""
        return self.student.predict(x, *args, **kwargs)

    # ---- files ------------------------------------------------------------------------------------------------

    @checked
    def save(self, filepath, *args, **kwargs):
        """Saves the student: what a callback such as ModelCheckpoint keeps."""
        self.student.save(filepath, *args, **kwargs)

    @checked(to=keras.Model.save_weights)
    def save_weights(self, filepath, *args, **kwargs):
        """Saves the student's weights."""
        self.student.save_weights(filepath, *args, **kwargs)

    def load_weights(self, filepath, skip_mismatch=False, objects_to_skip=None):
        """Reads what `save_weights` wrote into the student."""
        self.student.load_weights(filepath, skip_mismatch=skip_mismatch, objects_to_skip=objects_to_skip)

    def get_config(self):
        raise ValueError("A Distiller is not saved: save distiller.student, and make a new Distiller to go on.")


class _PartMean(keras.metrics.Metric):
    """A part of the loss over an epoch: its mean over samples plus its mean over tokens, whichever it has."""

    def __init__(self, name):
        super().__init__(name=name)
        self.totals = self.add_weight(shape=(2,), initializer="zeros", name="totals")
        self.counts = self.add_weight(shape=(2,), initializer="zeros", name="counts")

    def update_state(self, means, counts):
        """Two means, and what each was divided by (0 for none)."""
        means, counts = (ops.stack([ops.cast(x, "float32") for x in pair]) for pair in (means, counts))
        self.totals.assign_add(means * counts)
        self.counts.assign_add(counts)

    def result(self):
        return ops.sum(ops.divide_no_nan(self.totals, self.counts))


def _with_names(bounds: list[Bound]) -> list[Bound]:
    """Each with a name of its own: that of a second one of a kind has a number."""
    named = []
    for bound in bounds:
        same = sum(bound.name == other.name for other in bounds[: len(named)])
        named.append(bound if not same else replace(bound, name=f"{bound.name}_{same + 1}"))
    return named
