"""Further tokens for a tokenizer: found in texts before anything else, numbered behind its own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tfxformer.text.inputs import as_texts


def added_parts(
    content: str, config: dict[str, Any], vocabulary: list[str], tokens: Iterable[str]
) -> tuple[str, dict[str, Any]]:
    """The text of a tokenizer.json and the settings of a tokenizer with further tokens; those it has are left out.

    Raises:
        TypeError: for what is no text. ValueError: for an empty token.
    """
    tokens = as_texts([tokens] if isinstance(tokens, str) else tokens, "tokens")
    if not all(token.strip() for token in tokens):
        raise ValueError(f"tokens={tokens!r}: a token of no letters cannot be found in texts.")
    known = set(vocabulary)
    new = [token for token in dict.fromkeys(tokens) if token not in known]
    parts, config = json.loads(content), json.loads(json.dumps(config))
    for index, token in enumerate(new, start=len(vocabulary)):
        rules = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        parts["added_tokens"] = [*(parts.get("added_tokens") or []), {"id": index, "content": token, **rules}]
        if "added_tokens_decoder" in config:
            config["added_tokens_decoder"][str(index)] = {"content": token, **rules}
    return json.dumps(parts, ensure_ascii=False), config
