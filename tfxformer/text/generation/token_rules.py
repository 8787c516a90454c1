"""What a checkpoint says of the tokens that may come next: forced, suppressed and bad ones, least lengths, repetition.

The rules are those of transformers (generation/logits_process.py), in the order in which its `generate` applies them.
They are written once, on whatever offers numpy's functions: numpy itself where a file is run, `keras.ops` in the
compiled loop. A row is read alone, as if the prompts beside it were not there: padding on the left counts for nothing.

Shape letters: B rows, T slots, V vocabulary, K sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tfxformer.numpy_ops import NUMPY

_NOT_FINITE = (
    "The model's logits are not finite (NaN or infinite): its weights hold such numbers, or overflow in its dtype. "
    "Load the weights anew, or take float32."
)


def require_finite(finite) -> None:
    """Refuses logits of which no next token can be chosen.

    Args:
        finite: bool, or what is like one: whether all of them are finite numbers.

    Raises:
        ValueError: where they are not.
    """
    if not bool(finite):
        raise ValueError(_NOT_FINITE)


class Rows(NamedTuple):
    """What is written so far.

    Attributes:
        tokens: int [B, T], the ids in their slots; negative where a slot holds none.
        slot: int, or a scalar tensor: where the next token goes.
        padding: int [B], the padded slots on the left of each row.
        first: the slot of the first new token.
        end: the slot at which texts end unfinished.
    """

    tokens: object
    slot: object
    padding: object
    first: object
    end: object


@dataclass(frozen=True)
class TokenRules:
    """Which tokens may come next; the names are those of transformers' `GenerationConfig`.

    Attributes:
        eos_token_id: ids that end a text.
        forced_bos_token_id: None, or the first new token after a prompt of one token.
        forced_eos_token_id: ids one of which is the last token of a text that is as long as it may be.
        suppress_tokens: ids that never come.
        begin_suppress_tokens: ids that are not the first new token.
        bad_words_ids: sequences of ids that never come whole.
        sequence_bias: (sequence of ids, number added to the logit of its last id where the others came before).
        min_length: tokens of prompt and text before which no text ends.
        min_new_tokens: tokens of a text before which it does not end.
        repetition_penalty: what logits of tokens that came, prompt included, are divided by; multiplied where negative.
        no_repeat_ngram_size: 0, or the length of sequences that come once only, prompt included.
        exponential_decay_length_penalty: None, or (new tokens after which the end grows likelier, factor of each).
    """

    eos_token_id: tuple[int, ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: tuple[int, ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] = ()
    min_length: int = 0
    min_new_tokens: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    exponential_decay_length_penalty: tuple[int, float] | None = None

    @property
    def change_nothing(self) -> bool:
        """Whether logits stay as they are."""
        return self == TokenRules(eos_token_id=self.eos_token_id)

    def apply(self, logits, rows: Rows, ops=NUMPY):
        """float32 logits [B, V] of the next tokens -> [B, V], -inf at tokens that may not come.

        Args:
            logits: of the model.
            rows: what is written so far.
            ops: numpy's functions by their names: `NUMPY`, or keras.ops.
        """
        vocabulary = logits.shape[-1]
        if self.sequence_bias:
            logits = logits + _biases(self.sequence_bias, rows, vocabulary, ops)
        if self.repetition_penalty != 1.0:
            penalty = np.float32(self.repetition_penalty)
            worse = ops.where(logits < 0, logits * penalty, logits / penalty)
            logits = ops.where(_seen(rows, vocabulary, ops), worse, logits)
        if self.no_repeat_ngram_size:
            logits = _without(logits, _repeating(rows, self.no_repeat_ngram_size, vocabulary, ops), ops)
        ends = [(index,) for index in self.eos_token_id]
        if bad := [(ids, -np.inf) for ids in self.bad_words_ids if ids not in ends]:
            logits = logits + _biases(bad, rows, vocabulary, ops)
        return self._lengths(logits, rows, vocabulary, ops)

    def _lengths(self, logits, rows: Rows, vocabulary: int, ops):
        """The rules of where a text begins and ends."""
        length, new = rows.slot - rows.padding, rows.slot - rows.first  # [B] and a number
        if self.min_length and self.eos_token_id:
            short = ops.reshape(length < self.min_length, (-1, 1))
            logits = _without(logits, ops.logical_and(short, _mask(self.eos_token_id, vocabulary)), ops)
        if self.min_new_tokens and self.eos_token_id:
            short = ops.reshape(new < self.min_new_tokens, (1, 1))
            logits = _without(logits, ops.logical_and(short, _mask(self.eos_token_id, vocabulary)), ops)
        if self.forced_bos_token_id is not None:
            alone = ops.reshape(ops.equal(length, 1), (-1, 1))
            logits = ops.where(alone, _only((self.forced_bos_token_id,), vocabulary), logits)
        if self.forced_eos_token_id:
            last = ops.reshape(ops.equal(rows.slot, rows.end - 1), (1, 1))
            logits = ops.where(last, _only(self.forced_eos_token_id, vocabulary), logits)
        if self.exponential_decay_length_penalty is not None and self.eos_token_id:
            start, factor = self.exponential_decay_length_penalty
            steps = ops.multiply(ops.maximum(new - start, 0), np.float32(1.0))
            growth = ops.power(np.float32(factor), steps) - np.float32(1.0)
            raised = ops.logical_and(_mask(self.eos_token_id, vocabulary), logits > -np.inf)
            logits = ops.where(raised, logits + ops.abs(ops.where(raised, logits, 0.0)) * growth, logits)
        if self.suppress_tokens:
            logits = _without(logits, _mask(self.suppress_tokens, vocabulary), ops)
        if self.begin_suppress_tokens:
            # After a prompt of one token the first one may be forced: the next is then the beginning.
            forced = ops.where(rows.first - rows.padding > 1, 0, int(self.forced_bos_token_id is not None))
            begins = ops.reshape(ops.equal(new, forced), (-1, 1))
            logits = _without(logits, ops.logical_and(begins, _mask(self.begin_suppress_tokens, vocabulary)), ops)
        return logits


def _mask(ids, vocabulary: int) -> np.ndarray:
    """True at ids, bool [1, V]; ids beyond the vocabulary are none of it."""
    mask = np.zeros((1, vocabulary), bool)
    mask[:, [index for index in ids if index < vocabulary]] = True
    return mask


def _only(ids, vocabulary: int) -> np.ndarray:
    """Logits of which nothing but `ids` can be chosen, float32 [1, V]."""
    return np.where(_mask(ids, vocabulary), np.float32(0.0), np.float32(-np.inf))


def _without(logits, banned, ops):
    return ops.where(banned, np.float32(-np.inf), logits)


def _place(columns, values, vocabulary: int, ops):
    """Values [B, K] added at columns int [B, K] of zeros [B, V]; negative columns, and those beyond V, are nowhere."""
    count, width = columns.shape
    inside = ops.logical_and(columns >= 0, columns < vocabulary)
    columns = ops.where(inside, columns, vocabulary)
    rows = np.repeat(np.arange(count, dtype="int32")[:, None], width, axis=1)
    indices = ops.reshape(ops.stack([rows, columns], axis=-1), (-1, 2))
    return ops.scatter(indices, ops.reshape(values, (-1,)), (count, vocabulary + 1))[:, :vocabulary]


def _count(columns, flags, vocabulary: int, ops):
    """Whether a column is flagged: int [B, K] and bool [B, K] -> bool [B, V]."""
    return _place(ops.where(flags, columns, -1), np.ones(columns.shape, "int32"), vocabulary, ops) > 0


def _seen(rows: Rows, vocabulary: int, ops):
    """The tokens that a row has: bool [B, V]."""
    slots = np.arange(rows.tokens.shape[1], dtype="int32")[None]
    real = ops.logical_and(slots >= ops.reshape(rows.padding, (-1, 1)), slots < rows.slot)
    return _count(rows.tokens, real, vocabulary, ops)


def _back(rows: Rows, distance: int, ops):
    """The tokens `distance` slots before the next one: int [B]."""
    return ops.take(rows.tokens, ops.maximum(rows.slot - distance, 0), axis=1)


def _repeating(rows: Rows, size: int, vocabulary: int, ops):
    """The tokens that would complete a sequence of `size` that a row has already: bool [B, V]."""
    windows = rows.tokens.shape[1] - size + 1
    if windows < 1:
        return np.zeros((1, vocabulary), bool)
    starts = np.arange(windows, dtype="int32")[None]
    same = ops.logical_and(starts >= ops.reshape(rows.padding, (-1, 1)), starts + size <= rows.slot)
    for offset in range(size - 1):
        last = ops.reshape(_back(rows, size - 1 - offset, ops), (-1, 1))
        same = ops.logical_and(same, ops.equal(rows.tokens[:, offset : offset + windows], last))
    return _count(rows.tokens[:, size - 1 :], same, vocabulary, ops)


def _biases(sequences, rows: Rows, vocabulary: int, ops):
    """What is added for sequences whose last token comes next: float32 [B, V]."""
    total = np.zeros((1, vocabulary), "float32")
    for ids, bias in sequences:
        if len(ids) == 1 and ids[0] < vocabulary:
            total[0, ids[0]] = bias
    count = rows.tokens.shape[0]
    for size in sorted({len(ids) for ids, _ in sequences} - {1}):
        group = [(ids, bias) for ids, bias in sequences if len(ids) == size]
        matches = ops.reshape(rows.slot - rows.padding >= size - 1, (-1, 1))
        for offset in range(size - 1):
            wanted = np.array([[ids[offset] for ids, _ in group]], "int32")
            last = ops.reshape(_back(rows, size - 1 - offset, ops), (-1, 1))
            matches = ops.logical_and(matches, ops.equal(last, wanted))
        columns = np.repeat(np.array([[ids[-1] for ids, _ in group]], "int32"), count, axis=0)
        biases = ops.where(matches, np.array([[bias for _, bias in group]], "float32"), np.float32(0.0))
        total = total + _place(columns, biases, vocabulary, ops)
    return total
