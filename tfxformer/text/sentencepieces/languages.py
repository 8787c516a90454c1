"""Tokenizers of many languages: which codes there are, and where the code of a text's language stands.

Source: the tokenizer classes of transformers 5.24 by the names below.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import tokenizers
from tokenizers import processors

from tfxformer.text.sentencepieces.rules import SETTINGS

BEFORE, BEHIND, IN_TEXT = "before", "behind", "in the text"  # the end token stands behind the text in all of them
_SHOWN = 6  # codes that a message names


class _Kind(NamedTuple):
    """How a tokenizer class speaks of languages: its tokens, of which the first group is the code, and a place."""

    token: str
    place: str
    default: str | None = None  # the language of texts where nothing says it


_KINDS = {
    "MBartTokenizer": _Kind(r"([a-z]{2}_[A-Z]{2})", BEHIND, "en_XX"),
    "MBart50Tokenizer": _Kind(r"([a-z]{2}_[A-Z]{2})", BEFORE, "en_XX"),
    "PLBartTokenizer": _Kind(r"__([A-Za-z_]+)__", BEHIND),
    "M2M100Tokenizer": _Kind(r"__([a-z]{2,3})__", BEFORE, "en"),
    "NllbTokenizer": _Kind(r"([a-z]{3}_[A-Z][a-z]{3})", BEFORE, "eng_Latn"),
    "MarianTokenizer": _Kind(r">>([^<>]+)<<", IN_TEXT),
}
CLASSES = tuple(_KINDS)


class Languages:
    """The languages of one tokenizer; empty for those that know none.

    Attributes:
        ids: of the languages' tokens, by their codes.
        place: where the code of a source stands: `BEFORE` it, `BEHIND` its end token, or `IN_TEXT`, as the first word
            of a source, where it says the language of the target.
        targets: the same of targets, which only older settings of NLLB have elsewhere.
        stated: the code of sources that the settings state, or None.
    """

    def __init__(self, backend: tokenizers.Tokenizer, config: Mapping[str, Any], end: str | None):
        name = (config.get(SETTINGS) or {}).get("class") or config.get("tokenizer_class") or ""
        kind = _KINDS.get(name.removesuffix("Fast")) if isinstance(name, str) else None
        self.ids, self.place, self.targets, self.stated = {}, BEFORE, BEFORE, None
        self._tokens, self._end, self._default = {}, end, None
        self._end_id = None if end is None else backend.token_to_id(end)
        if kind is None or end is None:
            return
        self.targets = kind.place
        self.place = BEHIND if config.get("legacy_behaviour") else kind.place
        for index, token in sorted(backend.get_added_tokens_decoder().items()):
            if found := re.fullmatch(kind.token, token.content):
                self.ids[found[1]], self._tokens[found[1]] = index, token.content
        stated = config.get("src_lang")
        self.stated = self._code(stated) if isinstance(stated, str) else None
        self._default = self.stated or (kind.default if kind.default in self.ids else None)

    def __bool__(self) -> bool:
        return bool(self.ids)

    def _code(self, language: str) -> str | None:
        return language if language in self.ids else {token: code for code, token in self._tokens.items()}.get(language)

    def checked(self, language: str) -> str:
        """A code as it is known here; a token's whole text means its code.

        Raises:
            ValueError: for one that is not known, or a tokenizer of one language.
        """
        if not self.ids:
            raise ValueError(f"This tokenizer has no language codes, so {language!r} says nothing to it: leave it out.")
        code = self._code(language) if isinstance(language, str) else None
        if code is None:
            more = f" and {len(self.ids) - _SHOWN} others" if len(self.ids) > _SHOWN else ""
            raise ValueError(
                f"{language!r} is no language of this tokenizer, which knows {', '.join([*self.ids][:_SHOWN])}{more}."
            )
        return code

    def told(self, language: str) -> tuple[str, int]:
        """The token of a code, and its id."""
        code = self.checked(language)
        return self._tokens[code], self.ids[code]

    @property
    def must_be_told(self) -> bool:
        """Whether the language of sources has to be said: they are marked with one, and no settings state it."""
        return self._default is not None and self.stated is None

    def code_of(self, index: int | None) -> str | None:
        """The code whose token has an id, or None."""
        return next((code for code, known in self.ids.items() if known == index), None)

    @contextmanager
    def spoken(self, backend: tokenizers.Tokenizer, language: str | None) -> Iterator[None]:
        """Inside, a backend marks texts as written in a language; None for that of the settings.

        Raises:
            ValueError: for a code that is not known, and a tokenizer that marks no texts.
        """
        if language is None:
            yield
            return
        template, before = self.template(language), backend.post_processor
        if template is not None:
            backend.post_processor = template
        try:
            yield
        finally:
            backend.post_processor = before

    def template(self, language: str | None) -> processors.TemplateProcessing | None:
        """What stands around texts of a language, None for that of the settings; None where the backend knows it."""
        language = self._default if language is None else self.checked(language)
        if not self.ids or self.place == IN_TEXT or language is None:
            return None
        token = self._tokens[language]
        around = [[token], [self._end]] if self.place == BEFORE else [[], [self._end, token]]
        return processors.TemplateProcessing(
            single=[*around[0], "$A", *around[1]],
            pair=[*around[0], "$A", "$B", *around[1]],
            special_tokens=[(token, self.ids[language]), (self._end, self._end_id)],
        )
