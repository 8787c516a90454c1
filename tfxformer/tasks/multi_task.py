"""Several tasks learned at once on one encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras
import numpy as np

from tfxformer.arguments.keywords import checked
from tfxformer.data.batches import is_raw, is_stream
from tfxformer.data.targets.mixing import mixed_order, mixing_rates
from tfxformer.layers import DEFAULT, GraphForm
from tfxformer.models.adapted import collect_adapters, restore_adapters
from tfxformer.tasks.base.streams import split_given
from tfxformer.tasks.base.task import Task
from tfxformer.text import Tokenizer
from tfxformer.training.inputs.given import Given

if TYPE_CHECKING:
    from typing_extensions import Self


@keras.saving.register_keras_serializable("tfxformer")
class MultiTask(Task):
    """Trains tasks that share one backbone on a mixture of their examples.

    A batch holds examples of all tasks; the encoder reads it once, and every example counts once, in the loss of its
    own task: the mean over its labelled tokens where it has several.

    Args:
        tasks: dict of name -> task (`TextClassifier`, `TokenClassifier`, `QuestionAnswering`) on the same backbone.
        temperature, limit: of the mixture; see `data.mixing.mixing_rates`.
        seed: int, of its order.
        sequence_length: tokens of every example; None for the longest that a task chooses by its own.

    `fit({name: (x, y), ...})`, or (x, y, sample_weight); `evaluate` likewise. What was learned is in the tasks:
    `model.tasks[name].predict(...)`, `.save_pretrained(...)`, and export are theirs. Logits: dict of theirs by name.

    Example:
        encoder = tfxformer.from_pretrained(folder)
        topics = tasks.TextClassifier(encoder, labels=topic_names, tokenizer=tokenizer)
        tags = tasks.TokenClassifier(encoder, labels=tag_names, tokenizer=tokenizer)
        both = tasks.MultiTask({"topics": topics, "tags": tags}, temperature=2.0)
        both.fit({"topics": (texts, labels), "tags": (sentences, word_labels)}, epochs=3)

    Raises ValueError for fewer than two tasks, and for tasks on several backbones.
    """

    task_name = "multi-task"

    def __init__(self, tasks: dict, temperature=1.0, limit=None, seed=0, tokenizer=None, **kwargs):
        backbones = {id(task.backbone): task.backbone for task in tasks.values()}
        if len(tasks) < 2 or len(backbones) > 1:
            raise ValueError(
                f"MultiTask takes two tasks or more on one backbone; got {len(tasks)} on {len(backbones)}: make the "
                "encoder once, and each task on it."
            )
        (backbone,) = backbones.values()
        heads = {name: _head(task, name) for name, task in tasks.items()}
        tokenizer = tokenizer or next(iter(tasks.values())).tokenizer
        super().__init__(backbone, heads, tokenizer=tokenizer, **kwargs)
        self.tasks = dict(tasks)
        self.temperature, self.limit, self.seed = temperature, limit, seed

    @staticmethod
    def graph(backbone, heads, inputs, graph_form: GraphForm = DEFAULT):
        features = backbone.forward(inputs, graph_form)
        features.pop("hidden_states")
        return {name: head({**inputs, **features}) for name, head in heads.items()}

    @classmethod
    def wants_pooler(cls, config):
        return None

    def default_loss(self):
        losses = {name: task.default_loss() for name, task in self.tasks.items()}
        for loss in losses.values():
            loss.reduction = "sum_over_batch_size"  # each example once; the weights of its tokens have their own mean
        return losses

    @property
    def output_kinds(self):
        # Each row has the labels of one task, and weights of 0 for the others'.
        counted = {"partial": True, "reduction": "sum_over_batch_size"}
        kinds = {name: task.output_kinds for name, task in self.tasks.items()}
        return None if None in kinds.values() else {name: kind._replace(**counted) for name, kind in kinds.items()}

    def default_weighted_metrics(self):
        """The tasks' own, over their examples."""
        return {name: task.default_metrics() or task.default_weighted_metrics() for name, task in self.tasks.items()}

    # ---- data -------------------------------------------------------------------------------------------------

    @checked
    def fit(self, x=None, y=None, *args, **kwargs):
        """Fits on {name: (x, y)}, each as its task takes them; an epoch has as many examples as all sets together."""
        return super().fit(x, y, *args, **kwargs)

    @checked
    def evaluate(self, x=None, y=None, *args, **kwargs):
        """The losses and metrics of {name: (x, y)}, every example once."""
        return super().evaluate(x, y, *args, **kwargs)

    def read_given(self, x, y=None, sample_weight=None, *, batch_size=None, **arguments) -> Given:
        """See `Task.read_given`; a mixture is {name: Given}."""
        if not _is_mixture(x):
            if is_raw(x) or (isinstance(x, Mapping) and not set(x).isdisjoint(self.tasks)):
                raise TypeError(
                    f"MultiTask takes {{name: (x, y), ...}} for its tasks {', '.join(self.tasks)}: the labels (and "
                    "weights) of each beside its examples."
                )
            return super().read_given(x, y, sample_weight, batch_size=batch_size, **arguments)
        if set(x) != set(self.tasks):
            raise ValueError(f"Examples of {', '.join(x)}; the tasks are {', '.join(self.tasks)}.")
        if y is not None or sample_weight is not None:
            raise ValueError(
                "y or sample_weight beside a mixture: give them with its examples, {name: (x, y, weights)}."
            )
        read = {}
        for name, part in x.items():
            part = part if isinstance(part, tuple) else (part,)
            read[name] = self.tasks[name].read_given(*part, **arguments)
            self.tasks[name].want_labels(read[name])
        return Given(read, None, None, batch_size)

    def is_splittable(self, given: Given) -> bool:
        return _is_read(given.x)

    def split(self, given: Given, share: float) -> tuple[Given, Given]:
        """The last `share` of each task's examples validates."""
        parts = {name: split_given(part, share) for name, part in given.x.items()}
        return tuple(given._replace(x={name: part[side] for name, part in parts.items()}) for side in (0, 1))

    def arrays(self, given: Given, *, fitting=False) -> Given:
        if not _is_read(given.x):
            return super().arrays(given, fitting=fitting)
        return Given(self._mixed(given.x, given.batch_size, changing=fitting))

    def target_limits(self):
        return {name: task.target_limits() for name, task in self.tasks.items()}

    @checked(to="logits")
    def predict(self, x, *args, **kwargs):
        """Not here: a text is one task's."""
        raise ValueError(f"Predict with one of the tasks: model.tasks[name], name one of {', '.join(self.tasks)}.")

    def _mixed(self, mixture: Mapping, batch_size, changing=False):
        examples = {name: task.read(mixture[name].x, mixture[name].y) for name, task in self.tasks.items()}
        if self.sequence_length is None:
            for name, task in self.tasks.items():
                task.choose_sequence_length(examples[name])
            self.sequence_length = max(task.sequence_length for task in self.tasks.values())
        for task in self.tasks.values():
            task.sequence_length = self.sequence_length
        sets = {
            name: _rows(*task.prepare(examples[name], mixture[name].sample_weight)) for name, task in self.tasks.items()
        }
        sizes = [len(weights) for _, _, weights in sets.values()]
        rates = mixing_rates(sizes, self.temperature, self.limit) if changing else mixing_rates(sizes)
        return _MixedBatches(sets, rates, self.seed, batch_size or 32, changing)

    def get_config(self):
        described = {
            name: {"class": keras.saving.get_registered_name(type(task)), "config": task.get_config()}
            for name, task in self.tasks.items()
        }
        for task in described.values():
            del task["config"]["backbone"]  # one, and above
        mixture = {"temperature": self.temperature, "limit": self.limit, "seed": self.seed}
        return {**super().get_config(), **mixture, "tasks": described}

    @classmethod
    def from_config(cls, config, custom_objects=None) -> Self:
        config = dict(config)
        adapters = collect_adapters(config)
        backbone = keras.saving.deserialize_keras_object(config.pop("backbone"), custom_objects=custom_objects)
        tokenizer = config.pop("tokenizer")
        tasks = {}
        for name, task in config.pop("tasks").items():
            task_class = keras.saving.get_registered_object(task["class"], custom_objects)
            tasks[name] = task_class.from_config({**task["config"], "backbone": backbone})
        tokenizer = None if tokenizer is None else Tokenizer.from_json(tokenizer)
        return restore_adapters(cls(tasks, tokenizer=tokenizer, **config), adapters)


class _Computed:
    """Stands in for a backbone whose outputs are there already: what a task's graph asks for."""

    def __init__(self, backbone, features: dict):
        self.config, self.token_embedding, self._features = backbone.config, backbone.token_embedding, features
        self._summary = type(backbone).summary_vector

    def forward(self, inputs, graph_form=DEFAULT, first_only=False):
        return self._features

    def summary_vector(self, inputs, graph_form=DEFAULT):
        return self._summary(self, inputs, graph_form)


def _head(task: Task, name: str) -> keras.Model:
    """A task without its encoder: from a batch and the encoder's outputs to logits, on the task's own layers."""
    inputs = task.backbone.make_inputs()
    outputs = task.backbone.output
    features = {key: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=key) for key, tensor in outputs.items()}
    logits = task.graph(_Computed(task.backbone, features), task.heads, inputs)
    return keras.Model({**inputs, **features}, logits, name=name)


def _is_mixture(x) -> bool:
    return isinstance(x, Mapping) and bool(x) and all(isinstance(part, tuple) or is_stream(part) for part in x.values())


def _is_read(x) -> bool:
    return isinstance(x, Mapping) and any(isinstance(part, Given) for part in x.values())


def _rows(inputs: dict, labels, weights) -> tuple:
    """(inputs, labels, weights) with a weight for each example, or for each token so that they are one on average."""
    if next(iter(inputs.values())).ndim != 2:
        raise ValueError("Pairs for an embedder are of another shape than texts: MultiTask cannot mix them.")
    if weights is None:
        weights = np.ones(len(labels), "float32")
    weights = np.asarray(weights, "float32")
    if weights.ndim == 2:
        totals = weights.sum(axis=1, keepdims=True)
        weights = weights * weights.shape[1] / np.maximum(totals, 1e-9)
    return inputs, np.asarray(labels), weights


class _MixedBatches(keras.utils.PyDataset):
    """Batches of examples of several sets, each with the labels of its own and weight 0 for the others'."""

    def __init__(self, sets: dict, rates, seed: int, batch_size: int, changing: bool):
        super().__init__()
        self._sets, self._rates, self._seed = sets, rates, seed
        self._batch_size, self._changing, self._epoch = batch_size, changing, 0
        self._draw()

    def _draw(self):
        sizes = [len(weights) for _, _, weights in self._sets.values()]
        self._order = mixed_order(sizes, self._rates, sum(sizes), [self._seed, self._epoch])

    def __len__(self):
        return -(-len(self._order[0]) // self._batch_size)

    def __getitem__(self, index):
        part = slice(index * self._batch_size, (index + 1) * self._batch_size)
        which, rows = (order[part] for order in self._order)
        inputs, labels, weights = {}, {}, {}
        for number, (name, (x, y, w)) in enumerate(self._sets.items()):
            own = which == number
            for key, array in x.items():
                inputs.setdefault(key, np.zeros((len(which), *array.shape[1:]), array.dtype))[own] = array[rows[own]]
            labels[name] = np.zeros((len(which), *y.shape[1:]), y.dtype)
            weights[name] = np.zeros((len(which), *w.shape[1:]), w.dtype)
            labels[name][own], weights[name][own] = y[rows[own]], w[rows[own]]
        return inputs, labels, weights

    def on_epoch_end(self):
        if self._changing:
            self._epoch += 1
            self._draw()
