"""A BERT tokenizer as a TensorFlow graph: for `tf.data` without Python, and for SavedModels that take text.

    tokenize = tokenizer.in_graph(128)
    dataset = texts.batch(32).map(tokenize)          # token_ids, padding_mask, segment_ids: int32 [B, 128]

It is exact or it is not made: special tokens, truncation and padding included, every string of `hard_strings` must come
out as from the Rust tokenizer. The characters' treatment is looked up in tables that the Rust tokenizer filled
(`character_tables`); the words' pieces come from tensorflow-text's FastWordpiece. Needs the extra:
pip install "tfxformer[text]". What loads such a SavedModel must import tensorflow_text.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tokenizers

from tfxformer.extras import needs
from tfxformer.text.graph import character_tables
from tfxformer.text.graph.hard_strings import HARD_STRINGS

# Characters of a private use area stand for added tokens, and one more for those of them that a text has itself.
_STAND_INS = 0xF0000
_OTHER = 0xF0FFF


class Frame(NamedTuple):
    """What stands around every text, and how it is cut and padded."""

    before: list[int]
    after: list[int]
    padding_id: int
    sequence_length: int


class GraphTokenizer(tf.Module):
    """Texts, string [B] in UTF-8 -> token_ids, padding_mask and segment_ids, int32 [B,S]; see `Tokenizer.in_graph`.

    Args:
        tokenizer: a `text.Tokenizer` of BERT's kind.
        sequence_length: S; longer texts lose their end.

    Raises:
        ImportError: without tensorflow-text.
        ValueError: for another kind of tokenizer, and where one of the hard strings comes out differently.
    """

    def __init__(self, tokenizer, sequence_length: int):
        super().__init__(name="graph_tokenizer")
        parts = json.loads(tokenizer.tokenizer_json())
        _check_kind(tokenizer, parts)
        backend = tokenizers.Tokenizer.from_str(tokenizer.tokenizer_json())
        backend.no_truncation()
        backend.no_padding()
        self._frame = _frame(tokenizer, backend, sequence_length)
        self._added = _added_tokens(parts)
        self._longest = int(parts["model"]["max_input_chars_per_word"])
        tables = character_tables.character_tables(backend)
        self._pages, self._changes = tf.constant(tables.pages), tf.constant(tables.changes)
        self._pieces = _pieces(tokenizer, parts, self._added, self._longest)
        self._check_parity(tokenizer)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="texts")])
    def __call__(self, texts):
        """The batch of some texts."""
        rows, codes, classes = self._characters(texts)
        words, word_rows = self._words(rows, codes, classes)
        ids = self._pieces.tokenize(words)  # [words, pieces]
        counts = tf.math.unsorted_segment_sum(ids.row_lengths(), word_rows, tf.shape(texts)[0])  # [B]
        return self._batch(tf.RaggedTensor.from_row_lengths(ids.flat_values, counts))

    def _characters(self, texts):
        """The normalized characters of all texts: the text each is of, its code point and its class, int32 [any]."""
        raw = tf.strings.regex_replace(texts, f"[{chr(_STAND_INS)}-{chr(_STAND_INS + len(self._added))}]", chr(_OTHER))
        for index, token in enumerate(self._added):
            raw = tf.strings.regex_replace(raw, re.escape(token), chr(_STAND_INS + index))
        decoded = tf.strings.unicode_decode(raw, "UTF-8", errors="strict")  # [B, characters]
        codes = decoded.flat_values
        rows = tf.gather(self._pages, codes // character_tables.PAGE) * character_tables.PAGE
        changes = tf.gather(self._changes, rows + codes % character_tables.PAGE)  # [characters, K]
        stand_in = (codes >= _STAND_INS) & (codes < _STAND_INS + len(self._added))
        alone = tf.constant([character_tables.ALONE] + [character_tables.NONE] * (self._changes.shape[1] - 1))
        changes = tf.where(stand_in[:, None], alone, changes)
        there = changes != character_tables.NONE
        rows = tf.repeat(tf.cast(decoded.value_rowids(), tf.int32), tf.math.count_nonzero(there, 1, dtype=tf.int32))
        found = tf.boolean_mask(tf.bitwise.right_shift(changes, 2) + codes[:, None], there)
        return rows, found, tf.boolean_mask(tf.bitwise.bitwise_and(changes, 3), there)

    def _words(self, rows, codes, classes):
        """Words, string [W], and the text each is of, int32 [W]."""
        plain, first = classes == character_tables.PLAIN, tf.ones_like(rows[:1], tf.bool)
        goes_on = tf.concat([~first, plain[1:] & plain[:-1] & (rows[1:] == rows[:-1])], 0)
        kept = classes != character_tables.SPACE
        codes, begins = tf.boolean_mask(codes, kept), tf.boolean_mask(~goes_on, kept)
        starts = tf.where(begins)[:, 0]  # int64 [W]
        words = tf.RaggedTensor.from_row_starts(codes, starts)
        lengths = words.row_lengths()
        unknown = tf.cast(tf.strings.unicode_encode([[_OTHER]], "UTF-8")[0], tf.string)
        words = tf.where(lengths > self._longest, unknown, tf.strings.unicode_encode(words, "UTF-8"))
        return words, tf.gather(tf.boolean_mask(rows, kept), starts)

    def _batch(self, ids):
        """Ragged ids [B, any] -> the batch, with special tokens, cut and padded."""
        before, after, padding_id, length = self._frame
        ids = ids[:, : length - len(before) - len(after)]
        size = ids.nrows()
        around = [tf.tile(tf.constant([part], tf.int32, (1, len(part))), [size, 1]) for part in (before, after)]
        ids = tf.concat([around[0], ids, around[1]], 1)
        mask = tf.sequence_mask(ids.row_lengths(), length, tf.int32)
        token_ids = ids.to_tensor(padding_id, shape=(None, length))
        return {"token_ids": token_ids, "padding_mask": mask, "segment_ids": tf.zeros_like(mask)}

    def _check_parity(self, tokenizer) -> None:
        texts = [*HARD_STRINGS, " ".join(HARD_STRINGS), *(f"{token}x{token}" for token in self._added)]
        wanted = tokenizer.encode(texts, sequence_length=self._frame.sequence_length)
        found = self(tf.constant(texts))
        for name, value in found.items():
            differs = (value.numpy() != getattr(wanted, name)).any(1)
            if differs.any():
                text = texts[int(np.flatnonzero(differs)[0])]
                raise ValueError(
                    f"The graph would not be exact: {differs.sum()} of {len(texts)} test strings come out differently, "
                    f"the first is {text!r:.80}. Tokenize with the Tokenizer itself, before training or in a generator."
                )


def _check_kind(tokenizer, parts: dict) -> None:
    """Raises ValueError for all but BERT's WordPiece: TensorFlow's operations for others are not exact."""
    found = [tokenizer.kind, *((parts.get(name) or {}).get("type") for name in ("normalizer", "pre_tokenizer"))]
    if found != ["WordPiece", "BertNormalizer", "BertPreTokenizer"]:
        raise ValueError(
            f"A graph can be exact for WordPiece with BERT's normalizer and pre-tokenizer; this tokenizer is {found}. "
            "TensorFlow's operations for Unigram and BPE differ from it on some texts: tokenize with the Tokenizer "
            "itself, before training (data.prepare_records) or in a generator."
        )
    if tokenizer.truncation_side != "right":
        raise ValueError("A graph cuts texts at their end; this tokenizer cuts them at their beginning.")
    if parts["model"].get("continuing_subword_prefix", "##") != "##":
        raise ValueError("A graph needs the prefix ## of continuing pieces.")


def _added_tokens(parts: dict) -> list[str]:
    """Tokens that are found in the raw text before anything else."""
    tokens = [token["content"] for token in parts.get("added_tokens", [])]
    for token in parts.get("added_tokens", []):
        if any(token.get(flag) for flag in ("single_word", "lstrip", "rstrip", "normalized")):
            raise ValueError(f"The added token {token['content']!r} is matched by rules that a graph does not have.")
    for one in tokens:
        for other in tokens:
            tails = (one[-size:] for size in range(1, len(one) + (one != other)))
            if (one != other and one in other) or any(other.startswith(tail) and tail != other for tail in tails):
                raise ValueError(f"The added tokens {one!r} and {other!r} can overlap: a graph cannot tell them apart.")
    return tokens


def _frame(tokenizer, backend: tokenizers.Tokenizer, sequence_length: int) -> Frame:
    """How a text is framed, found by framing one."""
    if tokenizer.padding_id is None:
        raise ValueError("A graph needs a padding token: its batches have one length.")
    framed = backend.encode("a")
    own = [index for index, sequence in enumerate(framed.sequence_ids) if sequence is not None]  # not the frame's
    frame = Frame(framed.ids[: own[0]], framed.ids[own[-1] + 1 :], tokenizer.padding_id, sequence_length)
    room = sequence_length - len(frame.before) - len(frame.after)
    if room < 1:
        raise ValueError(
            f"A sequence length of {sequence_length} leaves room for {room} tokens besides the special ones."
        )
    return frame


def _pieces(tokenizer, parts: dict, added: list[str], longest: int):
    """FastWordpiece over the vocabulary, in which each added token is the character that stands for it."""
    needs("A tokenizer in the graph", "tensorflow_text")
    import tensorflow_text

    names = {token: chr(_STAND_INS + index) for index, token in enumerate(added)}
    vocabulary = tokenizer.vocabulary()
    stand_ins = [token for token in vocabulary if re.search(f"[{chr(_STAND_INS)}-{chr(_OTHER)}]", token)]
    if stand_ins:
        raise ValueError(f"The vocabulary has private use characters, which stand for added tokens: {stand_ins[:3]}.")
    unknown = parts["model"]["unk_token"]
    return tensorflow_text.FastWordpieceTokenizer(
        [names.get(token, token) for token in vocabulary],
        max_bytes_per_word=4 * longest,  # longer ones by characters are replaced before
        token_out_type=tf.int32,
        unknown_token=names.get(unknown, unknown),
        no_pretokenization=True,
    )
