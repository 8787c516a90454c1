"""More texts out of those there are: words left out, swapped, or others in their place."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np

KINDS = ("deletion", "swap", "synonyms", "masked")
_MARKS = ".,;:!?\"'()[]"  # around a word, which its synonyms know nothing of


def augment(
    texts: Sequence[str],
    kind: str = "deletion",
    *,
    share: float = 0.1,
    copies: int = 1,
    seed: int = 0,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    model=None,
) -> list[str]:
    """Changed copies of texts, in which a share of the words (what stands between spaces) is another.

    Args:
        texts: list of str.
        kind: "deletion" leaves each word out with the probability `share`, but never all; "swap" exchanges two words
            as many times as `share` says; "synonyms" puts a synonym in the place of words that have one; "masked" puts
            there what a masked language model proposes, one of its five best by their probabilities.
        share: float, of the words; at least one word is changed, but for a deletion.
        copies: int, how many of each text.
        seed: int; the same seed gives the same texts.
        synonyms: word in lower case -> words, as `samples.wordnet_synonyms()` has them; for "synonyms".
        model: `tasks.MaskedLM`; for "masked".

    Returns:
        list of str: all copies of the first text, then those of the next: `[label for label in labels for _ in
        range(copies)]` are their labels.

    Raises:
        TypeError: for a single text.
        ValueError: for an unknown kind, a share or a number of copies that cannot be, and without what the kind needs.

    Source: Wei and Zou, 2019 (arXiv:1901.11196); "masked": Wu et al., 2018 (arXiv:1812.06705), without their labels.
    """
    if isinstance(texts, str):
        raise TypeError("augment takes a list of texts, and this is one text: [text].")
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown; known: {', '.join(KINDS)}.")
    if not 0.0 < share < 1.0 or copies < 1:
        raise ValueError(f"share={share!r}, copies={copies!r}: wanted a share above 0 and below 1, and 1 copy or more.")
    if kind == "synonyms" and not synonyms:
        raise ValueError('kind="synonyms" needs words: augment(..., synonyms=samples.wordnet_synonyms()).')
    if kind == "masked" and getattr(getattr(model, "tokenizer", None), "mask_id", None) is None:
        raise ValueError('kind="masked" needs a masked language model: augment(..., model=tasks.MaskedLM...).')
    generator = random.Random(seed)
    rows = [text.split() for text in texts for _ in range(copies)]
    if kind == "masked":
        return _masked(rows, share, model, generator)
    change = {"deletion": _deletion, "swap": _swap, "synonyms": _synonyms}[kind]
    return [" ".join(change(words, share, generator, synonyms)) for words in rows]


def _count(words: list[str], share: float) -> int:
    return max(1, round(share * len(words)))


def _deletion(words, share, generator, synonyms) -> list[str]:
    kept = [word for word in words if generator.random() >= share]
    return kept or words[:1]


def _swap(words, share, generator, synonyms) -> list[str]:
    words = list(words)
    for _ in range(_count(words, share) if len(words) > 1 else 0):
        first, second = generator.sample(range(len(words)), 2)
        words[first], words[second] = words[second], words[first]
    return words


def _synonyms(words, share, generator, synonyms) -> list[str]:
    words = list(words)
    known = [index for index, word in enumerate(words) if word.strip(_MARKS).lower() in synonyms]
    for index in generator.sample(known, min(len(known), _count(words, share))):
        core = words[index].strip(_MARKS)
        other = generator.choice(list(synonyms[core.lower()]))
        words[index] = words[index].replace(core, other.capitalize() if core[:1].isupper() else other)
    return words


def _masked(rows: list[list[str]], share: float, model, generator: random.Random) -> list[str]:
    mask, rows = model.tokenizer.vocabulary()[model.tokenizer.mask_id], [list(words) for words in rows]
    places = [sorted(generator.sample(range(len(words)), _count(words, share))) if words else [] for words in rows]
    hidden = []
    for words, chosen in zip(rows, places, strict=True):
        hidden.append(" ".join(mask if index in chosen else word for index, word in enumerate(words)))
    asked = [index for index, chosen in enumerate(places) if chosen]
    answers = model.predict([hidden[index] for index in asked], top_k=5, verbose=0) if asked else []
    for index, fillings in zip(asked, answers, strict=True):
        # A mask beyond the model's length was cut off, and its word stays.
        for place, filling in zip(places[index], fillings, strict=False):
            rows[index][place] = _drawn(filling, rows[index][place], generator)
    return [" ".join(words) for words in rows]


def _drawn(fillings, word: str, generator: random.Random) -> str:
    """One of the proposed whole words, by their probabilities; the word itself where there is none."""
    proposed = [one for one in fillings if one.token.strip().isalpha() and one.token.strip() != word.lower()]
    if not proposed:
        return word
    chances = np.array([one.probability for one in proposed])
    return generator.choices([one.token.strip() for one in proposed], weights=chances.tolist())[0]
