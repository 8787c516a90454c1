"""What a task makes of what `fit`, `evaluate` and `predict` are given: texts read, arrays checked, parts held out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tfxformer.data.batches import Examples, first_of, is_dataset, is_py_dataset, is_raw, read_examples
from tfxformer.data.targets.weights import example_weights, weigh_tokens
from tfxformer.tasks.base.streams import DEFAULT_BATCH, read_given, split_given
from tfxformer.text.inputs import as_list
from tfxformer.training.compiling.outputs import Output
from tfxformer.training.inputs.array_checks import Limit, Limits
from tfxformer.training.inputs.checked_batches import checked_batches, each_batch, of_sparse_losses
from tfxformer.training.inputs.given import Given
from tfxformer.training.resume.data_positions import Epochs


class TaskData:
    """The data side of a `Task`, which has `prepare` and `choose_sequence_length`."""

    learns_from_labels = False  # else from texts alone
    lists_are_examples = False  # whether one example is a list of str: words, sentences
    default_batch = DEFAULT_BATCH

    def read(self, x, y=None) -> Examples:
        """Raw examples, or a stream of them, as lists."""
        given = read_given(x, y, lists=self.lists_are_examples)
        return read_examples(given.x, given.y, words=self.lists_are_examples)

    def read_given(self, x, y=None, sample_weight=None, **arguments) -> Given:
        """What `fit` was given, its streams of texts as lists; see `tasks.streams.read_given`."""
        arguments = {"lists": self.lists_are_examples, "default_batch": self.default_batch, **arguments}
        return read_given(x, y, sample_weight, **arguments)

    def _examples(self, x, y=None, sample_weight=None, *, fitting=False):
        if not is_raw(x):
            return self._of_arrays(x, y, sample_weight)
        examples = self.read(x, y)
        if fitting:
            self.choose_sequence_length(examples)
        return self.prepare(examples, sample_weight)

    def _of_arrays(self, x, y, sample_weight) -> tuple:
        """Arrays or batches as Keras takes them: labels and weights may be lists, or names, as beside texts; padded
        tokens weigh nothing.
        """
        if isinstance(x, Mapping) and x:
            texts = [name for name, column in x.items() if isinstance(column, (list, str)) or is_raw(column)]
            if texts:
                raise TypeError(
                    f"x is a dict of {', '.join(map(repr, x))}, and {texts[0]!r} is no array of numbers: pass one "
                    f'column of texts and one of labels, fit(x["{texts[0]}"], labels), or the arrays of encode(texts).'
                )
            if y is not None and not isinstance(y, Mapping) and (isinstance(y, (list, tuple)) or is_raw(y)):
                y = self.encode_labels(as_list(y, "labels"))
        x = self._by_our_names(x)
        if not isinstance(self.output_kinds, Output):
            return x, y, sample_weight
        if self.output_kinds.tokens:
            return weigh_tokens(x, y, sample_weight)
        if sample_weight is not None and isinstance(x, Mapping):
            sample_weight = example_weights(sample_weight, len(next(iter(x.values()))))
        return x, y, sample_weight

    def _by_our_names(self, x):
        """Arrays, or a stream of batches, by our names; refused before the first step where they do not fit."""
        if isinstance(x, Mapping):
            return self.named_inputs(x)
        if isinstance(x, Iterator) or is_py_dataset(x):
            return each_batch(x, lambda index, batch: (self._by_our_names(batch[0]), *batch[1:]))
        first = first_of(x.element_spec) if is_dataset(x) else None
        if not isinstance(first, Mapping) or self.named_inputs(first).keys() == first.keys():
            return x
        return x.map(lambda batch, *others: (self.named_inputs(batch), *others) if others else self.named_inputs(batch))

    def arrays(self, given: Given, *, fitting=False) -> Given:
        """Arrays of what `read_given` gave, ready for Keras and checked; batches stay as they are.

        With `fitting` it also chooses `sequence_length`, as `fit` does.
        """
        if isinstance(given.x, Epochs):
            return given._replace(x=given.x.through(lambda dataset: TaskData.arrays(self, Given(dataset)).x))
        x, y, sample_weight = self._examples(given.x, given.y, given.sample_weight, fitting=fitting)
        x = checked_batches(x, y, sample_weight, self.limits())
        return given.of_arrays(x, y, sample_weight)

    def limits(self) -> Limits:
        """What arrays may hold: ids that the model's tables have, and labels that its outputs have."""
        config = self.backbone.config
        mask = Limit(0, 1, "1 at tokens and 0 at padding")
        if "decoder" in config.stacks:
            mask = Limit(0, None, "0 at padding and the number of the document at tokens")
        inputs = {
            "token_ids": Limit(0, config.vocabulary_size - 1, "ids of the vocabulary"),
            "padding_mask": mask,
            "segment_ids": Limit(0, max(0, config.token_types - 1), "the segments that the model knows"),
        }
        targets = of_sparse_losses(self.target_limits(), self.loss if self.compiled else self.default_loss())
        return Limits(inputs, targets, self.backbone.longest_text if self.backbone.stack.has_position_table else None)

    def target_limits(self) -> Limit | dict | None:
        """The `Limit` of label ids, a dict of them by output; None, as here, where targets are no ids."""

    def want_labels(self, given: Given) -> None:
        """Refuses texts or arrays without the labels that the task learns from."""
        if self.learns_from_labels and given.y is None and (is_raw(given.x) or isinstance(given.x, dict)):
            raise ValueError(
                f"{type(self).__name__} learns from labels, and none came: give fit(x, y) and evaluate(x, y) a label "
                "for each example, or a dataset of (x, y)."
            )

    def is_splittable(self, given: Given) -> bool:
        return is_raw(given.x)

    def split(self, given: Given, share: float) -> tuple[Given, Given]:
        return split_given(given, share)
