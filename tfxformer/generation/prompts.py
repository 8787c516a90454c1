"""Prompts as arrays, and how many slots of a cache they need."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfxformer.arguments.plain_values import is_whole_number
from tfxformer.layers.adapters.prompt import placeholders

STOP_SLOTS = 8  # stop ids are filled up to a multiple, so that their number traces nothing anew


class Prompts(NamedTuple):
    """Prompts of unequal lengths, padded on the left.

    Attributes:
        token_ids: int32 [B, P], 0 at padding, negative at the model's own prompt.
        padding: int32 [B], the padded slots of each row.
    """

    token_ids: np.ndarray
    padding: np.ndarray

    @property
    def length(self) -> int:
        """P, the tokens of the longest."""
        return self.token_ids.shape[1]

    def repeated(self, times: int) -> Prompts:
        """Each row `times` times, one after the other."""
        return Prompts(*(np.repeat(x, times, axis=0) for x in self))


def backbone_of(model):
    """A model, or the backbone of a task."""
    return getattr(model, "backbone", model)


def config_of(model):
    """The `TransformerConfig` of a model, or of the backbone of a task."""
    return backbone_of(model).config


def prompt_length_of(model) -> int:
    """The embeddings that a model, or the backbone of a task, has in front of every text."""
    return getattr(backbone_of(model), "prompt_length", 0)


def read_prompts(prompts, model) -> Prompts:
    """Lists of ids as one array, a model's own prompt (`layers.prompt`) in front of each.

    Raises:
        ValueError: for no prompt, an empty one, or an id that is not in the vocabulary.
        TypeError: for what is no list of whole numbers, such as a text.
    """
    if isinstance(prompts, str) or not hasattr(prompts, "__len__"):
        raise TypeError(f"Prompts are a list of lists of token ids, not {prompts!r}; a task's generate takes texts.")
    if not len(prompts):
        raise ValueError("There is no prompt: give at least one list of token ids.")
    own, rows = placeholders(prompt_length_of(model)), []
    for index, prompt in enumerate(prompts):
        if isinstance(prompt, (str, int, np.integer)):
            raise TypeError(f"Prompt {index} must be a list of token ids, not {prompt!r}.")
        row = np.asarray(prompt)
        if row.size == 0:
            raise ValueError(f"Prompt {index} is empty: give it at least one token, such as the one that begins texts.")
        if row.ndim != 1 or row.dtype.kind not in "iu":
            raise TypeError(f"Prompt {index} must be a list of whole numbers, not {row.dtype} of shape {row.shape}.")
        check_ids(row, config_of(model).vocabulary_size, f"Prompt {index}")
        rows.append(np.concatenate([own, row]))
    length = max(len(row) for row in rows)
    token_ids = np.zeros((len(rows), length), "int32")
    for line, row in zip(token_ids, rows, strict=True):
        line[length - len(row) :] = row
    return Prompts(token_ids, np.array([length - len(row) for row in rows], "int32"))


def check_ids(ids, vocabulary_size: int, what: str) -> None:
    """Refuses ids outside the vocabulary: a table has no row for them, and XLA reads another one in silence."""
    wrong = [int(index) for index in ids if not 0 <= index < vocabulary_size]
    if wrong:
        raise ValueError(f"{what} has the id {wrong[0]}; the vocabulary has ids 0 to {vocabulary_size - 1}.")


def read_stop_ids(stop_ids, vocabulary_size: int) -> np.ndarray:
    """Stop ids filled up with -1: int32, a multiple of `STOP_SLOTS`."""
    ids = [stop_ids] if isinstance(stop_ids, (int, np.integer)) else list(stop_ids or ())
    check_ids(ids, vocabulary_size, "stop_ids")
    filled = np.full(max(1, -(-len(ids) // STOP_SLOTS)) * STOP_SLOTS, -1, "int32")
    filled[: len(ids)] = ids
    return filled


def check_count(name: str, value) -> int:
    """A whole number of at least 1."""
    if not is_whole_number(value) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}.")
    return int(value)


def slots_for(prompt: int, new: int, context: int, given: int | None = None) -> int:
    """T, the slots of the cache for a prompt and new tokens.

    Few lengths, so that few loops are compiled, but near what is needed, since attention reads all of them:
    multiples of 64 up to 256, then of 256.

    Args:
        prompt, new: int, tokens.
        context: int, the longest sequence of the model.
        given: int or None, the slots that the caller wants.

    Raises:
        ValueError: where they do not fit into the context, or into the slots given.
    """
    needed = prompt + new
    if needed > context:
        raise ValueError(
            f"A prompt of {prompt} tokens and {new} new ones are {needed}; the model's context is {context}. "
            "Shorten the prompt, or ask for fewer new tokens."
        )
    if given is not None:
        if needed > given:
            raise ValueError(
                f"A prompt of {prompt} tokens and {new} new ones are {needed}; the cache has {given} slots. "
                "Give a longer cache_length, or None to have it chosen."
            )
        return given
    step = 64 if needed <= 256 else 256
    return -(-needed // step) * step


def until_stop(ids, stop_ids) -> list[int]:
    """Ids up to the first stop id, which is the last."""
    stops = np.flatnonzero(np.isin(ids, stop_ids))
    return [int(index) for index in (ids if not len(stops) else ids[: stops[0] + 1])]
