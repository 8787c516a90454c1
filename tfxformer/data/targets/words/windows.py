"""Texts of words longer than a model in windows that overlap, and one prediction for each word.

Shape letters: B texts, W windows (at least one a text), S tokens of a window, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfxformer.arguments import notices
from tfxformer.data.targets.words.labels import first_pieces
from tfxformer.text import Tokenizer

OUTSIDE = "O"  # the label of words that belong to no entity, where a tagger has it


@dataclass(frozen=True)
class WordWindows:
    """Encoded texts of words.

    Attributes:
        batch: token_ids, padding_mask and, where the model has them, segment_ids, int32 [W, S].
        first: bool [W, S], the first pieces of words.
        word_ids: int32 [W, S].
        room: int32 [W, S], tokens to the nearer end of the window's text: how much of its context a piece has there.
        example_ids: int32 [W], the text of each window.
        word_counts: int [B].
    """

    batch: dict[str, np.ndarray]
    first: np.ndarray
    word_ids: np.ndarray
    room: np.ndarray
    example_ids: np.ndarray
    word_counts: list[int]


def encode_word_windows(
    tokenizer: Tokenizer,
    texts: Sequence[Sequence[str]],
    *,
    sequence_length: int,
    overlap: int | None = None,
    segment_ids: bool = True,
) -> WordWindows:
    """Encodes lists of words, each in as many windows of S tokens as it needs.

    Args:
        texts: B lists of words.
        sequence_length: S.
        overlap: tokens that two neighbouring windows share; None for a quarter of S, at most 128.
        segment_ids: whether the model takes them.
    """
    options = {"is_split_into_words": True, "return_offsets": True}
    long = tokenizer.token_counts(texts, is_split_into_words=True) > sequence_length
    encoding = tokenizer.encode(texts, sequence_length=sequence_length, **options)
    word_ids = encoding.word_ids
    columns = {
        "token_ids": encoding.token_ids,
        "padding_mask": encoding.padding_mask,
        "segment_ids": encoding.segment_ids,
        "word_ids": word_ids,
        "first": first_pieces(word_ids),
        "room": np.zeros_like(word_ids),  # read where windows overlap; a short text has only one
    }
    parts, examples = [{name: array[~long] for name, array in columns.items()}], [np.flatnonzero(~long)]
    overlap = min(sequence_length // 4, 128) if overlap is None else overlap
    for index in np.flatnonzero(long):
        whole = tokenizer.encode([texts[index]], sequence_length=_longest(tokenizer, texts[index]), **options)
        windows = _windows(whole, sequence_length, overlap, tokenizer.padding_id or 0)
        parts.append(windows)
        examples.append(np.full(len(windows["token_ids"]), index))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in columns}
    keys = ("token_ids", "padding_mask", *(("segment_ids",) if segment_ids else ()))
    return WordWindows(
        batch={name: joined[name] for name in keys},
        first=joined["first"],
        word_ids=joined["word_ids"],
        room=joined["room"],
        example_ids=np.concatenate(examples).astype(np.int32),
        word_counts=[len(words) for words in texts],
    )


def _longest(tokenizer: Tokenizer, words) -> int:
    return int(tokenizer.token_counts([words], is_split_into_words=True)[0])


def _windows(whole, length: int, overlap: int, padding_id: int) -> dict[str, np.ndarray]:
    """Cuts a text encoded whole, [1, T], into windows that share `overlap` tokens, each with the special tokens.

    The windows are those of `Tokenizer.encode(..., return_overflow=True)`; cut here, since a piece knows in the whole
    text alone whether its word begins with it.
    """
    body = np.flatnonzero(whole.word_ids[0] >= 0)
    before, after = np.arange(body[0]), np.arange(body[-1] + 1, whole.token_ids.shape[1])
    size = length - len(before) - len(after)  # tokens of the text in one window
    if not 0 <= overlap < size:
        raise ValueError(f"overlap={overlap} must be 0 to {size - 1}: a window of {length} has {size} of the text.")
    count = body[-1] + 1 - body[0]
    starts = np.arange(0, max(1, count - overlap), size - overlap)
    shape = (len(starts), length)
    ids, mask, segments, room = (np.zeros(shape, np.int32) for _ in range(4))
    ids[:], words, first = padding_id, np.full(shape, -1, np.int32), np.zeros(shape, bool)
    begins = first_pieces(whole.word_ids)[0]
    for row, start in enumerate(starts):
        inside = body[0] + np.arange(start, min(start + size, count))
        chosen = np.concatenate([before, inside, after])
        part = slice(0, len(chosen))
        ids[row, part], mask[row, part] = whole.token_ids[0, chosen], 1
        segments[row, part], words[row, part] = whole.segment_ids[0, chosen], whole.word_ids[0, chosen]
        first[row, part] = begins[chosen]
        place = np.arange(len(inside))
        room[row, len(before) : len(before) + len(inside)] = np.minimum(place, place[::-1])
    return {
        "token_ids": ids,
        "padding_mask": mask,
        "segment_ids": segments,
        "word_ids": words,
        "first": first,
        "room": room,
    }


def word_values(windows: WordWindows, pieces: np.ndarray, missing: int = -1) -> list[np.ndarray]:
    """The values of words' first pieces, each from the window where the shorter of its two contexts is longest.

    So the reference code of Devlin et al. (2018, arXiv:1810.04805) chooses among overlapping windows.

    Args:
        pieces: [W, S] label ids, or [W, S, C] scores.
        missing: stands for words without a piece.

    Returns:
        B arrays of the words' values.
    """
    values = [np.full((count, *pieces.shape[2:]), missing, pieces.dtype) for count in windows.word_counts]
    seen = [np.full(count, -1, np.int32) for count in windows.word_counts]
    for row, example in enumerate(windows.example_ids):
        columns = np.flatnonzero(windows.first[row])
        words, room = windows.word_ids[row, columns], windows.room[row, columns]
        better = room > seen[example][words]
        values[example][words[better]] = pieces[row, columns[better]]
        seen[example][words[better]] = room[better]
    return values


def named_labels(ids: Sequence[np.ndarray], labels: Sequence[str]) -> list[list[str | None]]:
    """The names of words' labels; a word without a piece (-1) gets the outside label "O", or None where there is none.

    That is said in one warning.
    """
    outside = OUTSIDE if OUTSIDE in labels else None
    lost = sum(int((row < 0).sum()) for row in ids)
    if lost:
        notices.warn(
            f"{lost} of {sum(map(len, ids))} words make no piece (the tokenizer drops all their characters), so the "
            f"model cannot see them: they get the label {outside!r}."
        )
    return [[labels[i] if i >= 0 else outside for i in row.tolist()] for row in ids]
