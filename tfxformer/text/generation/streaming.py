"""Text out of token ids as they come, without ever showing half a character."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tfxformer.text.generation.stopping import Stops, StopStrings

_INCOMPLETE = "\ufffd"  # what a decoder writes for bytes that are no character, or not yet


class TextStream:
    """Decodes ids one after the other: the pieces together are the text of all ids.

    A character may be spread over several tokens, and a token's space hang on the one before it. So the last tokens
    that gave text are decoded again with the new ones, and text that ends in an unfinished character waits.
    """

    def __init__(self, tokenizer, skip_special_tokens: bool = True):
        """For a `Tokenizer`; special tokens are left out unless `skip_special_tokens` is False."""
        self._tokenizer, self._skip = tokenizer, skip_special_tokens
        self._ids: list[int] = []
        self._context = 0  # ids whose text is out; they stay for the spaces of what follows
        self._shown = 0  # characters of the text of all kept ids that are out

    def feed(self, ids: int | Iterable[int]) -> str:
        """The text that one more id (or several) made certain; often "" within a character."""
        self._ids += [int(ids)] if not isinstance(ids, Iterable) else [int(index) for index in ids]
        text = self._text(self._ids)
        if text.endswith(_INCOMPLETE):
            return self._show(text.rstrip(_INCOMPLETE))
        piece = self._show(text)
        if piece:
            self._ids = self._ids[self._context :]
            self._context, self._shown = len(self._ids), len(self._text(self._ids))
        return piece

    def end(self) -> str:
        """The rest: an unfinished character as the replacement character. The stream is empty afterwards."""
        piece = self._show(self._text(self._ids))
        self._ids, self._context, self._shown = [], 0, 0
        return piece

    def _show(self, text: str) -> str:
        piece = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return piece

    def _text(self, ids: list[int]) -> str:
        return self._tokenizer.decode([ids], skip_special_tokens=self._skip)[0]


class Writer:
    """The text of one row of new ids, piece by piece: no half characters, and nothing from a stop on.

    Attributes:
        stopped: whether the row has come to a stop.
    """

    def __init__(self, tokenizer, prompt: Sequence[int], stops: Stops):
        self._stream, self._strings = TextStream(tokenizer), StopStrings(stops.strings)
        self._ids = frozenset(stops.ids)
        self._stream.feed(prompt)  # so that a first token keeps the space before it
        self.stopped = False

    def feed(self, ids: Sequence[int]) -> str:
        """The text that new ids made certain."""
        ids = list(ids)
        ended = bool(ids) and ids[-1] in self._ids
        piece = self._strings.feed(self._stream.feed(ids[:-1] if ended else ids))
        self.stopped = self.stopped or ended or self._strings.stopped
        return piece

    def end(self) -> str:
        """What is left, once no more ids will come."""
        return self._strings.feed(self._stream.end()) + self._strings.end()

    def written(self, pieces: Iterable[Sequence[int]]) -> Iterator[str]:
        """The text of pieces of new ids as they come, none of it empty, up to a stop."""
        for ids in pieces:
            if text := self.feed(ids):
                yield text
            if self.stopped:
                break
        if rest := self.end():
            yield rest
