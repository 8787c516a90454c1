"""Token ids as rectangular int32 arrays.

Shape letters: B texts (or windows), S sequence length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import numpy as np
import tokenizers

from tfxformer.text.inputs import check_unicode

CHUNK = 2048  # texts handed to the Rust side at once; progress is told between chunks


@dataclass(frozen=True)
class Encoding:
    """Encoded texts, all arrays int32.

    Attributes:
        token_ids: [B,S], padded on the right.
        padding_mask: [B,S], 1 on tokens and 0 on padding.
        segment_ids: [B,S], 1 on the second text of a pair where the tokenizer marks it so, else 0.
        truncated: number of texts that lost tokens.
        offsets: [B,S,2], start and end character of each token in its text (in its word, where texts are
            split into words); 0, 0 on special tokens and padding. None unless asked for.
        word_ids: [B,S], index of the word a token belongs to, -1 on special tokens and padding; or None.
        sequence_ids: [B,S], 0 on the first text's tokens, 1 on the pair's, -1 on special tokens and padding;
            or None.
        overflow_to_sample: [B], index of the text each window was taken from. None unless windows were
            asked for.
    """

    token_ids: np.ndarray
    padding_mask: np.ndarray
    segment_ids: np.ndarray
    truncated: int = 0
    offsets: np.ndarray | None = None
    word_ids: np.ndarray | None = None
    sequence_ids: np.ndarray | None = None
    overflow_to_sample: np.ndarray | None = None


class Packer:
    """Collects ragged encodings chunk by chunk as flat arrays, then fills the rectangles in one stroke each.

    Flat arrays keep no Python object per token, so long lists of texts need little more than their result.
    """

    def __init__(self, with_offsets: bool):
        self._fields = ["ids", "type_ids", *(["offsets", "word_ids", "sequence_ids"] if with_offsets else [])]
        self._flat = {field: [] for field in self._fields}
        self._lengths: list[np.ndarray] = []

    def add(self, encodings: Sequence[tokenizers.Encoding]) -> None:
        """Takes the token columns out of unpadded encodings."""
        lengths = np.fromiter(map(len, encodings), np.int64, count=len(encodings))
        self._lengths.append(lengths)
        for field in self._fields:
            rows = (getattr(encoding, field) for encoding in encodings)
            self._flat[field].append(_flatten(rows, field, int(lengths.sum())))

    def lengths(self) -> np.ndarray:
        """Number of tokens of each encoding, int64 [B]."""
        return np.concatenate([np.zeros(0, np.int64), *self._lengths])

    def pack(self, sequence_length: int, padding_id: int) -> dict[str, np.ndarray]:
        """The arrays of `Encoding`, [B,S]; no encoding may be longer than `sequence_length`."""
        mask = np.arange(sequence_length) < self.lengths()[:, None]  # [B,S]
        arrays = {
            "token_ids": self._fill("ids", mask, padding_id),
            "padding_mask": mask.astype(np.int32),
            "segment_ids": self._fill("type_ids", mask, 0),
        }
        if "offsets" in self._fields:
            arrays["offsets"] = self._fill("offsets", mask, 0)
            arrays["word_ids"] = self._fill("word_ids", mask, -1)
            arrays["sequence_ids"] = self._fill("sequence_ids", mask, -1)
        return arrays

    def _fill(self, field: str, mask: np.ndarray, empty: int) -> np.ndarray:
        tail = (2,) if field == "offsets" else ()
        filled = np.full((*mask.shape, *tail), empty, np.int32)
        filled[mask] = np.concatenate([np.zeros((0, *tail), np.int32), *self._flat[field]])
        return filled


def _flatten(rows: Iterable[list], field: str, count: int) -> np.ndarray:
    """One int32 array of the values of all rows; None (a token of no word, of no text) becomes -1."""
    values = chain.from_iterable(rows)
    if field == "offsets":
        return np.fromiter(chain.from_iterable(values), np.int32, count=2 * count).reshape(count, 2)
    if field in ("word_ids", "sequence_ids"):
        numbers = np.array(list(values), np.float64)  # None becomes nan; exact up to 2**53
        return np.where(np.isnan(numbers), -1, numbers).astype(np.int32)
    return np.fromiter(values, np.int32, count=count)


class Run:
    """One pass over texts on a backend whose truncation is set."""

    def __init__(self, backend: tokenizers.Tokenizer, words: bool, with_offsets: bool):
        self.backend, self._words, self._with_offsets = backend, words, with_offsets

    def _encode(self, inputs: list, special_tokens: bool, fast: bool) -> list[tokenizers.Encoding]:
        # The fast variant keeps no offsets and no word ids.
        encode = self.backend.encode_batch_fast if fast else self.backend.encode_batch
        try:
            return encode(inputs, is_pretokenized=self._words, add_special_tokens=special_tokens)
        except TypeError:
            check_unicode(inputs)
            raise

    def counts(self, inputs: list, special_tokens: bool) -> np.ndarray:
        """Tokens of each input, int64 [B]."""
        counts = np.zeros(len(inputs), np.int64)
        for start in range(0, len(inputs), CHUNK):
            part = self._encode(inputs[start : start + CHUNK], special_tokens, fast=True)
            counts[start : start + CHUNK] = [len(encoding) for encoding in part]
        return counts

    @contextmanager
    def cutting(self, inputs: list, paired: bool, limit: int | None, strategy: str | None, overlap: int, side: str):
        """Inside, texts are cut to `limit` tokens; see `check_room` for what it raises."""
        if limit is not None:
            self.check_room(inputs, paired, limit, strategy, overlap)
        if limit is not None and strategy is not None:
            self.backend.enable_truncation(limit, stride=overlap, strategy=strategy, direction=side)
        try:
            yield
        finally:
            self.backend.no_truncation()

    def check_room(self, inputs: list, paired: bool, limit: int, strategy: str | None, overlap: int) -> None:
        """Raises where the special tokens, or the text that is not cut, leave no room.

        The backend itself does not cut at all then, or aborts without naming the text.
        """
        room = limit - self.backend.num_special_tokens_to_add(paired)
        if room <= overlap:
            raise ValueError(
                f"A sequence length of {limit} leaves room for {room} tokens besides the special ones; "
                f"it must be longer{f' than the overlap of {overlap}' if overlap else ''}."
            )
        if not paired or strategy not in ("only_first", "only_second"):
            return
        kept = 0 if strategy == "only_second" else 1
        counts = self.counts([pair[kept] for pair in inputs], special_tokens=False)
        tight = np.flatnonzero(room - counts <= overlap)
        cut = self.counts([inputs[index][1 - kept] for index in tight], special_tokens=False)
        for index, cut_count in zip(tight, cut, strict=True):
            if counts[index] + cut_count > room:
                raise ValueError(
                    f"{('texts', 'pairs')[kept]}[{index}] has {counts[index]} tokens and is kept whole by "
                    f"truncation={strategy!r}: of {limit} that leaves {room - counts[index]} for the other "
                    f"text, with an overlap of {overlap}. Shorten it or give a longer sequence_length."
                )

    def all(
        self,
        inputs: list,
        limit: int | None,
        overflow: bool,
        progress: Callable[[int, int], None] | None,
    ) -> tuple[Packer, list[int], int]:
        """Flat arrays of all windows, the text each came from, and the number of texts that lost tokens."""
        packer, samples, truncated = Packer(self._with_offsets), [], 0
        for start in range(0, len(inputs), CHUNK):
            chunk = self._encode(inputs[start : start + CHUNK], True, fast=not self._with_offsets)
            windows = []
            for index, encoding in enumerate(chunk, start):
                # Asking for the overflow copies it: only full encodings can have one.
                rest = encoding.overflowing if limit is not None and len(encoding) == limit else []
                kept = [encoding, *rest] if overflow else [encoding]
                windows += kept
                samples += [index] * len(kept)
                truncated += bool(rest) and not overflow
            packer.add(windows)
            if progress is not None:
                progress(min(start + CHUNK, len(inputs)), len(inputs))
        return packer, samples, truncated


def check_lengths(lengths: np.ndarray, limit: int | None) -> None:
    """Raises for the first text longer than `limit`."""
    if limit is not None and lengths.max(initial=0) > limit:
        index = int(np.argmax(lengths > limit))
        raise ValueError(
            f"texts[{index}] has {lengths[index]} tokens with its special ones, more than {limit}: "
            "give a longer sequence_length, shorten the text, or pass truncation=True."
        )


def check_padding(lengths: np.ndarray, width: int, padding_id: int | None) -> None:
    """Raises where texts have other lengths than the batch, and there is nothing to pad them with."""
    if padding_id is None and (lengths != width).any():
        raise ValueError(
            "This tokenizer has no padding token, so texts of different lengths make no batch: "
            "encode texts one by one without sequence_length."
        )
