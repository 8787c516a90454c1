"""How tokens go through a decoder's file: prefill in chunks, then one token at a time.

Shape letters: S tokens of a chunk, T slots of the cache, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

DECODE, DECODE_FIRST, PREFILL = "decode", "decode_", "prefill_"
CACHE = "kv_cache_"
# Of layers that carry a state from token to token: a part of the cache without slots.
KEYS, VALUES, STATE = f"{CACHE}k_", f"{CACHE}v_", f"{CACHE}state_"
# Of a file with an encoder: what reads a source, and what each step reads of it, cross keys and values and their mask.
ENCODE, CROSS, SOURCE_MASK = "encode_", "cross_", "source_mask"
PADDING = 0  # any id does: what is written behind the last token is overwritten before it is seen


def cache_slots(own: Mapping, inputs: Iterable) -> tuple[int, int]:
    """(T of a decoder's file, the fewest slots that one of its layers keeps: those that see a window may have fewer).

    Args:
        own: what the file says of itself; before 0.12 it says nothing of T.
        inputs: the tensors of its `decode`.
    """
    slots = [tensor.shape[2] for tensor in inputs if tensor.name.startswith(KEYS)]  # [1, G, T, H]
    return own.get("cache_length") or max(slots), min(slots)


class Chunk(NamedTuple):
    """One call that fills the cache.

    Attributes:
        length: int S, what its signature takes; 1 is `decode`.
        count: int, how many of them are real tokens, the first ones.
    """

    length: int
    count: int


def signature_name(length: int) -> str:
    """The signature that takes `length` tokens."""
    return DECODE if length == 1 else f"{PREFILL}{length}"


def decode_name(slots: int) -> str:
    """The signature that takes one token and reads the first `slots` of the cache; `decode` reads all."""
    return f"{DECODE_FIRST}{slots}"


def numbers(names: Iterable[str], prefix: str) -> tuple[int, ...]:
    """The numbers after `prefix` in names of signatures, ascending."""
    return tuple(sorted(int(name[len(prefix) :]) for name in names if name.startswith(prefix)))


def chunks(
    count: int, position: int, lengths: Sequence[int], cache_length: int, whole: bool = False
) -> Iterator[Chunk]:
    """The calls that write `count` tokens from the slot `position` on.

    LiteRT moves a write that would go past the end of the cache back over valid slots, so no chunk ever does: where
    none fits, tokens go one by one. The rest is padded into a longer chunk where that holds half of it at least.

    Args:
        count: tokens to write; they must fit into the cache.
        position: the first free slot.
        lengths: S of the prefill signatures.
        cache_length: T.
        whole: bool, whether no chunk is padded: a state would have read the padding.

    Raises:
        ValueError: if the tokens do not fit.
    """
    if position + count > cache_length:
        raise ValueError(f"{count} tokens from slot {position} on do not fit into a cache of {cache_length} slots.")
    while count:
        fitting = sorted(length for length in lengths if position + length <= cache_length)
        filled = [length for length in fitting if length <= count]
        padded = [length for length in fitting if not whole and count < length <= max(2 * count, min(lengths))]
        length = padded[0] if padded else filled[-1] if filled else 1
        used = min(length, count)
        yield Chunk(length, used)
        position, count = position + used, count - used


def _whole(tokens) -> np.ndarray:
    """Tokens as int32 [S]; numpy would make 5 of 5.7 without a word.

    Raises:
        ValueError: for what is no integer, or one that no vocabulary has.
    """
    found = np.asarray(tokens)
    if found.size and (found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= 2**31):
        raise ValueError(f"Tokens are integers from 0 to the size of the vocabulary, not {found.ravel()[:5].tolist()}.")
    return found.astype(np.int32)


class DecodingSession:
    """The state of one text in a decoder's file: how many slots are filled, and the calls that fill more.

    Args:
        run: (signature, tokens int32 [1, S], positions int32 [S]) -> logits float32 [V], None from a prefill; it
            keeps the cache.
        lengths: S of the prefill signatures.
        cache_length: T.
        slots: of the decode signatures that read only so many of the first slots, ascending.
        whole: bool, see `chunks`.
    """

    def __init__(
        self, run: Callable, lengths: Sequence[int], cache_length: int, slots: Sequence[int] = (), whole: bool = False
    ):
        self._run = run
        self._lengths = tuple(lengths)
        self._slots = tuple(slots)
        self._whole_chunks = whole
        self.cache_length = cache_length
        self.position = 0

    def prefill(self, tokens: Sequence[int]) -> None:
        """Writes tokens into the cache."""
        tokens = _whole(tokens)
        for chunk in chunks(len(tokens), self.position, self._lengths, self.cache_length, self._whole_chunks):
            padded = np.full((1, chunk.length), PADDING, np.int32)
            padded[0, : chunk.count] = tokens[: chunk.count]
            positions = np.arange(self.position, self.position + chunk.length, dtype=np.int32)
            self._run(signature_name(chunk.length), padded, positions)
            tokens, self.position = tokens[chunk.count :], self.position + chunk.count

    def decode(self, token: int) -> np.ndarray:
        """Writes one token and returns the logits of the next: float32 [V].

        Raises:
            ValueError: if the cache is full.
        """
        if self.position >= self.cache_length:
            raise ValueError(f"The cache of {self.cache_length} slots is full.")
        name = next((decode_name(slots) for slots in self._slots if self.position < slots), DECODE)
        logits = self._run(name, _whole([token])[None], np.array([self.position], np.int32))
        self.position += 1
        return logits
