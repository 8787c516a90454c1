"""What SentencePiece does with a text and no `tokenizers` backend can: done before a backend and after it.

A tokenizer.json that was made of a model file says so in its settings (`SETTINGS` in tokenizer_config.json):
  "class": the tokenizer class of transformers whose ids it has.
  "charsmap": true where the rules of its normalizer are applied here, as SentencePiece applies them.
  "whole": pieces that stay as they are wherever a text has them.
  "rows": where ids end; those from there on are pieces that have no row, which are unknown.
  "characters", "runs": the characters that are pieces. Several others in a row are one unknown token, or the token of
      `runs` that they are; one alone is what the vocabulary has for it.
  "strip": true where decoded texts lose the spaces at both ends.
  "target": another tokenizer, of targets: {"tokenizer", "config"}.
"""

from __future__ import annotations

import base64
import functools
import json
import re
from typing import Any

import numpy as np
import tokenizers
from tokenizers import normalizers

from tfxformer.text.inputs import check_unicode
from tfxformer.text.sentencepieces.charsmap import Charsmap

_UNKNOWN = "\uffff"  # no character, so no piece
_FIRST = 0xFDD0  # 32 numbers from here on are no characters: they stand for those that the names of tokens begin with
SETTINGS = "tfxformer"  # our own in tokenizer_config.json; other readers pass over it


class SentencePieceRules:
    """The rules of one tokenizer.

    Attributes:
        rows: where ids end, or None.
    """

    def __init__(self, backend: tokenizers.Tokenizer, config: dict[str, Any]):
        """Of a backend, which loses the part of its normalizer that is done here.

        Raises:
            ValueError: for settings in a wrong form.
        """
        settings = config.get(SETTINGS) or {}
        if not isinstance(settings, dict):
            raise ValueError(f"tokenizer_config.json says {SETTINGS}={settings!r}: wanted an object.")
        self.rows, self._strips = settings.get("rows"), settings.get("strip", False)
        self._charsmap, self._unknown, self._runs = None, None, frozenset(settings.get("runs") or ())
        if not settings:
            return
        if settings.get("characters"):
            self._unknown = re.compile(f"[^ {re.escape(settings['characters'])}]{{2,}}")
        tokens = sorted((token.content for token in backend.get_added_tokens_decoder().values()), key=len, reverse=True)
        self._tokens = _any_of(tokens)
        self._kept = _any_of(sorted({*tokens, *(settings.get("whole") or ())}, key=len, reverse=True))
        self._first = {first: chr(_FIRST + i) for i, first in enumerate(sorted({token[0] for token in tokens}))}
        if settings.get("charsmap"):
            first, *rest = json.loads(backend.normalizer.__getstate__())["normalizers"]
            self._charsmap = Charsmap(base64.b64decode(first["precompiled_charsmap"]))
            begins = [normalizers.Replace(mark, first) for first, mark in self._first.items()]
            backend.normalizer = normalizers.Sequence([*begins, *(_step(step) for step in rest)])

    def texts(self, inputs: list) -> list:
        """Texts, or lists and tuples of them, as a backend takes them.

        Raises:
            ValueError: for a text with lone surrogates.
        """
        if self._charsmap is None and self._unknown is None:
            return inputs
        try:
            return self._normalized(inputs)
        except UnicodeEncodeError:
            check_unicode(inputs)
            raise

    def trace(self, arrays: dict[str, np.ndarray], inputs: list, samples: list[int], paired: bool) -> None:
        """Makes offsets in texts as a backend took them those in the texts that were given, in place.

        Args:
            arrays: offsets, word_ids and sequence_ids as `Encoding` has them; nothing is done without them.
            inputs: the texts, pairs, or lists of words that were given.
            samples: of which of them each row is.
            paired: whether they are pairs.

        Raises:
            ValueError: where several characters have become one unknown token.
        """
        if "offsets" not in arrays or (self._charsmap is None and self._unknown is None):
            return
        spans = functools.cache(self._spans)
        for row, sample in enumerate(samples):
            for column in np.flatnonzero(arrays["sequence_ids"][row] >= 0):
                text = inputs[sample][arrays["sequence_ids"][row, column]] if paired else inputs[sample]
                text = text if isinstance(text, str) else text[arrays["word_ids"][row, column]]
                first, last = arrays["offsets"][row, column]
                if last > first and (origins := spans(text)) is not None:
                    arrays["offsets"][row, column] = origins[first][0], origins[last - 1][1]

    def _spans(self, text: str) -> list[tuple[int, int]] | None:
        """Where in a text each character that a backend takes comes from; None for a text that is taken as it is."""
        if self._normalized(text) == text:
            return None
        if self._unknown is not None:
            raise ValueError(f"{text!r:.80}: offsets are not known in texts with characters that Marian's models lack.")
        spans, place = [], 0
        for index, part in enumerate(self._kept.split(text)):
            found = [(at, at + 1) for at in range(len(part))] if index % 2 else self._charsmap.aligned(part)[1]
            spans += [(first + place, last + place) for first, last in found]
            place += len(part)
        return spans

    def _normalized(self, value):
        if not isinstance(value, str):
            return type(value)(map(self._normalized, value))
        parts = self._kept.split(value)
        return "".join(part if index % 2 else self._part(part) for index, part in enumerate(parts))

    def _part(self, text: str) -> str:
        """What stands between tokens; what is made to look like a token there is none."""
        written = text if self._charsmap is None else self._charsmap(text)
        for mark in self._first.values():
            written = written.replace(mark, _UNKNOWN)
        if written != text:
            written = self._tokens.sub(lambda found: self._first[found.group()[0]] + found.group()[1:], written)
        return written if self._unknown is None else self._unknown.sub(self._run, written)

    def _run(self, found: re.Match) -> str:
        return found.group() if found.group() in self._runs else _UNKNOWN

    def ids(self, ids, unknown_id: int):
        """A backend's ids, an array or a list, as rows of the model's table."""
        if self.rows is None:
            return ids
        if isinstance(ids, np.ndarray):
            return np.where(ids < self.rows, ids, np.int32(unknown_id))
        return [index if index < self.rows else unknown_id for index in ids]

    def decoded(self, text: str) -> str:
        """A text that a backend has decoded, as it is to be read."""
        return text.strip() if self._strips else text


def _any_of(texts: list[str]) -> re.Pattern:
    return re.compile(f"({'|'.join(map(re.escape, texts)) or '(?!)'})")


def _step(state: dict[str, Any]) -> normalizers.Normalizer:
    """A step of a normalizer from its JSON."""
    made = normalizers.Sequence([])
    made.__setstate__(json.dumps({"type": "Sequence", "normalizers": [state]}).encode())
    return made
