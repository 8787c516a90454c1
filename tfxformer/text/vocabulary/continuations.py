"""Which tokens of a vocabulary continue the word before them."""

from __future__ import annotations

import numpy as np
import tokenizers


def continuations(backend: tokenizers.Tokenizer, tokens: list[str], special_ids: tuple[int, ...]) -> np.ndarray:
    """See `Tokenizer.continuations`; of all `tokens` by their ids."""
    if isinstance(backend.model, tokenizers.models.WordPiece):
        found = [token.startswith(backend.model.continuing_subword_prefix) for token in tokens]
    else:
        mark = next((mark for mark in ("Ġ", "▁") if any(token.startswith(mark) for token in tokens)), None)
        found = [mark is not None and not token.startswith(mark) for token in tokens]
    found = np.array(found)
    added = [index for index in backend.get_added_tokens_decoder() if index < len(found)]
    found[[*special_ids, *added]] = False
    return found
