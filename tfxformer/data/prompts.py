"""Prompts: what stands in front of every text that an embedder reads, chosen by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tfxformer.text import Tokenizer

POOLED_MASK = "pooled_mask"  # the input that leaves a prompt's tokens out of the vector
UNSTATED = {"query": "", "document": ""}  # names that every embedder of sentence-transformers has


@dataclass(frozen=True)
class Prompts:
    """The prompts of an embedder.

    Attributes:
        texts: name -> what stands in front of a text.
        default: the name of the one that is taken where none is asked for, or None.
        pooled: whether its tokens are part of the vector; else they are only seen by the others.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    pooled: bool = True

    def __post_init__(self):
        texts = {**UNSTATED, **self.texts}
        if not all(isinstance(part, str) for pair in texts.items() for part in pair):
            raise ValueError(f"prompts must be texts by name, not {dict(self.texts)!r}.")
        object.__setattr__(self, "texts", texts)
        if self.default is not None:
            self.choose(self.default)

    def choose(self, name: str | None = None, prompt: str | None = None) -> str:
        """The prompt that is given itself or by its name; without either the default one, "" where there is none.

        Raises:
            ValueError: for a name that there is not, and for both a name and a prompt.
        """
        if prompt is not None:
            if name is not None:
                raise ValueError(f"Give prompt_name={name!r} or prompt={prompt!r}, not both.")
            if not isinstance(prompt, str):
                raise ValueError(f"prompt must be a text, not {prompt!r}; its name goes to prompt_name.")
            return prompt
        name = self.default if name is None else name
        if name is None:
            return ""
        if name not in self.texts:
            raise ValueError(f"There is no prompt {name!r}; there are {', '.join(map(repr, self.texts))}.")
        return self.texts[name]

    def pooled_mask(self, padding_mask: np.ndarray, tokenizer: Tokenizer, prompt: str) -> np.ndarray:
        """Which tokens are part of the vector: 0 at those of the prompt, int32 [B, S].

        As sentence-transformers counts them: the tokens of the prompt alone, but for a special one at its end.
        """
        mask = np.array(padding_mask, "int32")
        if prompt:
            (ids,) = tokenizer.ids([prompt])
            length = len(ids) - (ids[-1] in tokenizer.special_ids)
            mask[:, : min(length, mask.shape[1])] = 0
        return mask


def in_front(prompt: str, texts: Sequence[str]) -> list[str]:
    """Each text with a prompt in front."""
    return [prompt + text for text in texts] if prompt else list(texts)
