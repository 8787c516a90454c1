"""What SentencePiece does with a text and no `tokenizers` backend can: done before a backend and after it.

A tokenizer.json that was made of a model file says so in its settings (`SETTINGS` in tokenizer_config.json):
  "class": the tokenizer class of transformers whose ids it has.
  "charsmap": true where the rules of its normalizer are applied here, as SentencePiece applies them.
  "whole": pieces that stay as they are wherever a text has them.
  "rows": where ids end; those from there on are pieces that have no row, which are unknown.
  "target": another tokenizer, of targets: {"tokenizer", "config"}.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import tokenizers
from tokenizers import normalizers

from tfxformer.text.inputs import check_unicode
from tfxformer.text.sentencepieces.charsmap import Charsmap

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
        self.rows = settings.get("rows")
        self._charsmap = None
        if settings.get("charsmap"):
            added = [token.content for token in backend.get_added_tokens_decoder().values()]
            first, *rest = json.loads(backend.normalizer.__getstate__())["normalizers"]
            compiled = base64.b64decode(first["precompiled_charsmap"])
            self._charsmap = Charsmap(compiled, added, settings.get("whole") or ())
            backend.normalizer = normalizers.Sequence([_step(step) for step in rest])

    def texts(self, inputs: list, unchanged: bool = False) -> list:
        """Texts, or lists and tuples of them, as a backend takes them.

        Raises:
            ValueError: for a text with lone surrogates, and for one that changes where it must stay `unchanged`.
        """
        if self._charsmap is None:
            return inputs
        try:
            texts = self._normalized(inputs)
        except UnicodeEncodeError:
            check_unicode(inputs)
            raise
        if unchanged and texts != inputs:
            raise ValueError(
                "Offsets would count in normalized texts: return_offsets is for texts that stay as they are."
            )
        return texts

    def _normalized(self, value):
        return self._charsmap(value) if isinstance(value, str) else type(value)(map(self._normalized, value))

    def ids(self, ids, unknown_id: int):
        """A backend's ids, an array or a list, as rows of the model's table."""
        if self.rows is None:
            return ids
        if isinstance(ids, np.ndarray):
            return np.where(ids < self.rows, ids, np.int32(unknown_id))
        return [index if index < self.rows else unknown_id for index in ids]


def _step(state: dict[str, Any]) -> normalizers.Normalizer:
    """A step of a normalizer from its JSON."""
    made = normalizers.Sequence([])
    made.__setstate__(json.dumps({"type": "Sequence", "normalizers": [state]}).encode())
    return made
