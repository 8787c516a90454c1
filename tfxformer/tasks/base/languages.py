"""Models of many languages: which one sources are in, and which one targets are written in, of a task or of a call."""

from __future__ import annotations

import dataclasses
import re
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from tfxformer.arguments.keywords import checked
from tfxformer.text import Tokenizer
from tfxformer.text.sentencepieces.languages import BEHIND, IN_TEXT, Languages

_OF_CALL: ContextVar[tuple[str | None, str | None]] = ContextVar("languages of a call", default=(None, None))


class Spoken(NamedTuple):
    """How the languages of a call are told to the model.

    Attributes:
        source: the code that the tokenizer marks sources with, or None for its own.
        word: what is put in front of a source.
        start: the id that the decoder begins with, or None for the task's.
        first: the id of the first token of a target, or None.
        last: the ids behind the end token of a target.
    """

    source: str | None = None
    word: str = ""
    start: int | None = None
    first: int | None = None
    last: tuple[int, ...] = ()


def check_languages(tokenizer: Tokenizer | None, source: str | None, target: str | None) -> None:
    """Refuses codes that a tokenizer does not know.

    Raises:
        ValueError: naming some that it knows; for a tokenizer of one language; and for the language of sources where
            only that of targets is told.
    """
    for name, code in (("source_language", source), ("target_language", target)):
        if code is None:
            continue
        if tokenizer is None:
            raise ValueError(f"{name}={code!r} is told by a tokenizer, and this model has none.")
        if name == "source_language" and _languages(tokenizer).targets == IN_TEXT:
            raise ValueError("This tokenizer is told the language of targets only: leave source_language out.")
        _languages(tokenizer).checked(code)


def _languages(tokenizer: Tokenizer) -> Languages:
    return tokenizer.known_languages


class LanguageMethods:
    """A part of `Seq2SeqLM`: languages by their codes.

    Attributes:
        source_language: code of the sources, or None for what the tokenizer's settings state.
        target_language: code of the targets, or None for the one that the checkpoint always begins with.
    """

    @checked
    def generate(self, prompts, max_new_tokens=None, *, source_language=None, target_language=None, **options):
        """The targets of sources.

        Args:
            prompts: list of sources: texts, or lists of ids as they are.
            source_language, target_language: codes of `tokenizer.languages` in place of the task's own.
            max_new_tokens, options: see `GenerationMethods.generate`.
        """
        with self._speaking(source_language, target_language):
            return super().generate(prompts, max_new_tokens, **options)

    @checked
    def stream(self, prompt, max_new_tokens=None, *, source_language=None, target_language=None, **options):
        """The target of one source, piece by piece; arguments as `generate` has them."""
        with self._speaking(source_language, target_language):  # both are read before the first piece
            return super().stream(prompt, max_new_tokens, **options)

    @contextmanager
    def _speaking(self, source: str | None, target: str | None):
        check_languages(self.tokenizer, source, target)
        before = _OF_CALL.set((source, target))
        try:
            yield
        finally:
            _OF_CALL.reset(before)

    def settings_of_call(self, settings):
        first = self.spoken().first
        return settings if first is None else dataclasses.replace(settings, forced_bos_token_id=first)

    def spoken(self, sources: bool = False, targets: bool = False) -> Spoken:
        """How the languages in force are told.

        Args:
            sources, targets: whether there are texts of them, whose language must then be known.

        Raises:
            ValueError: for a language that nothing says, or that the tokenizer does not know.
        """
        given = _OF_CALL.get()
        source, target = given[0] or self.source_language, given[1] or self.target_language
        check_languages(self.tokenizer, source, target)
        if self.tokenizer is None or not self.tokenizer.languages:
            return Spoken()
        languages = _languages(self.tokenizer)
        if languages.targets != IN_TEXT and target is None:
            target = languages.code_of(self.generation_config.forced_bos_token_id)
            target = target or languages.code_of(self.decoder_start_token_id)
        for wanted, code, name in (
            (sources and languages.must_be_told, source, "source_language"),
            (targets and languages.targets != IN_TEXT, target, "target_language"),
        ):
            if wanted and code is None:
                known = ", ".join(self.tokenizer.languages[:3])
                raise ValueError(f"This model knows {len(languages.ids)} languages: say {name}= ({known}, ...).")
        if target is None:
            return Spoken(source)
        token, index = languages.told(target)
        if languages.targets == IN_TEXT:
            return Spoken(word=f"{token} ")
        if languages.targets == BEHIND:
            return Spoken(source, start=index, last=(index,))
        return Spoken(source, first=index)

    def told_sources(self, texts: list[str], spoken: Spoken) -> list[str]:
        """Sources with the word that says the language of their targets, where the model is told so.

        Raises:
            ValueError: for a source that says none, of a model that writes several, and one that nobody knows.
        """
        languages = _languages(self._tokenizer())
        if languages.targets != IN_TEXT or not languages:
            return texts
        for index, text in enumerate(texts if not spoken.word else ()):
            word = re.match(r">>[^<>]*<<", text)
            if word is None and len(languages.ids) > 1:
                known = ", ".join(self.tokenizer.languages[:3])
                raise ValueError(
                    f"sources[{index}] does not say into which language: say target_language= ({known}, ...), or begin "
                    f"it with its word, as in {languages.told(self.tokenizer.languages[0])[0]}."
                )
            if word is not None:
                languages.checked(word[0])
        return [spoken.word + text for text in texts]
