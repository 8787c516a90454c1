"""The text side of generation: prompts to ids, new ids to text, and where a text stops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tfxformer import generation
from tfxformer.text import StopStrings, TextStream, Tokenizer
from tfxformer.text.inputs import as_list

PIECE = 4  # tokens between two looks at the text


class Stops(NamedTuple):
    """What ends a text: ids of tokens, and strings that may be made of several."""

    ids: tuple[int, ...]
    strings: tuple[str, ...]


def read_prompts(tokenizer: Tokenizer | None, prompts) -> list[list[int]]:
    """Prompts (texts, or lists of ids as they are) as lists of ids.

    A text gets the begin token where the tokenizer writes one; an empty text is the begin token alone.

    Raises:
        TypeError, ValueError: for a single text, and for an empty text where there is no begin token.
    """
    rows = []
    for index, prompt in enumerate(as_list(prompts, "prompts")):
        if not isinstance(prompt, str):
            rows.append(prompt)
            continue
        if tokenizer is None:
            raise ValueError("This model has no tokenizer, so it cannot read texts: give lists of ids.")
        (ids,) = tokenizer.ids([prompt])
        if len(ids) > 1 and ids[-1] == tokenizer.eos_id:
            ids = ids[:-1]  # of a tokenizer that ends every text: there is nothing to say after the end
        if not ids and tokenizer.bos_id is not None:
            ids = [tokenizer.bos_id]
        if not ids:
            raise ValueError(f"prompts[{index}] is empty, and the tokenizer has no begin token: give it some text.")
        rows.append(ids)
    return rows


def read_stops(tokenizer: Tokenizer | None, stop: Iterable[str | int] | str | int | None) -> Stops:
    """The end token, where there is one, and what the caller wants to stop at: strings, or ids of tokens.

    Raises:
        TypeError, ValueError: for an empty string, one that the tokenizer cannot write, and what is neither.
    """
    ids = [] if tokenizer is None or tokenizer.eos_id is None else [tokenizer.eos_id]
    strings = []
    for one in [stop] if isinstance(stop, (str, int)) else stop or ():
        if isinstance(one, int):
            ids.append(one)
        elif not isinstance(one, str):
            raise TypeError(f"stop holds {one!r}: wanted strings, or ids of tokens.")
        elif tokenizer is None:
            raise ValueError("This model has no tokenizer, so it cannot stop at strings: give ids of tokens.")
        else:
            token = _special_token(tokenizer, one)
            strings.extend([one] if token is None else [])
            ids.extend([] if token is None else [token])
    return Stops(tuple(dict.fromkeys(ids)), tuple(strings))


def _special_token(tokenizer: Tokenizer, stop: str) -> int | None:
    """The id of a stop that is one special token, which no text shows."""
    (ids,) = tokenizer.ids([stop], special_tokens=False)
    if not stop or not ids:
        raise ValueError("A stop string is empty: every text would stop before its first character.")
    written, shown = (tokenizer.decode([ids], skip_special_tokens=skip)[0] for skip in (False, True))
    if stop.strip() not in written or tokenizer.unknown_id in ids:
        raise ValueError(
            f"The stop {stop!r} is unknown to the tokenizer, which would write it as {written!r}: no text could ever "
            "stop there."
        )
    return ids[0] if len(ids) == 1 and not shown else None


class Writer:
    """The text of one row of new ids, piece by piece: no half characters, and nothing from a stop on.

    Attributes:
        stopped: whether the row has come to a stop.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], stops: Stops):
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


def generate(model, prompts, max_new_tokens: int, stop, num_return_sequences: int, **options) -> list[str]:
    """See `CausalLM.generate`; `options` are those of `generation.generate`."""
    tokenizer = model._tokenizer()
    rows, stops = read_prompts(tokenizer, prompts), read_stops(tokenizer, stop)
    writers = [Writer(tokenizer, row, stops) for row in rows for _ in range(num_return_sequences)]
    shared = {"stop_ids": stops.ids, "num_return_sequences": num_return_sequences, **options}
    if stops.strings and "speculation" not in options and not isinstance(options.get("sampler"), generation.Beams):
        pieces = generation.stream(model, rows, max_new_tokens, **shared)  # may end as soon as all have stopped
    else:
        pieces = iter([generation.generate(model, rows, max_new_tokens, **shared)])
    texts = [""] * len(writers)
    for piece in pieces:
        for index, (writer, ids) in enumerate(zip(writers, piece, strict=True)):
            texts[index] += writer.feed(ids)
        if all(writer.stopped for writer in writers):
            break
    return [text + writer.end() for text, writer in zip(texts, writers, strict=True)]


def stream(model, prompt, max_new_tokens: int, stop, **options) -> Iterator[str]:
    """See `CausalLM.stream`; `options` are those of `generation.stream`."""
    tokenizer = model._tokenizer()
    (row,), stops = read_prompts(tokenizer, [prompt]), read_stops(tokenizer, stop)
    pieces = generation.stream(model, [row], max_new_tokens, stop_ids=stops.ids, **{"stride": PIECE, **options})
    return _texts(Writer(tokenizer, row, stops), pieces)


def _texts(writer: Writer, pieces) -> Iterator[str]:
    for (ids,) in pieces:
        text = writer.feed(ids)
        if text:
            yield text
        if writer.stopped:
            break
    rest = writer.end()
    if rest:
        yield rest
