"""Text from the .tflite file of a model that writes, with ai-edge-litert alone (no Keras, no TensorFlow).

Shape letters: S tokens of a call, T slots of the cache, V vocabulary.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from tfxformer.arguments.keywords import checked
from tfxformer.arguments.plain_values import is_whole_number
from tfxformer.runtime.generation import beam_search, decoding
from tfxformer.runtime.generation.sampling import Sampler
from tfxformer.runtime.generation.text_buffers import SOURCE_INPUTS, Runtime, Text, output_of
from tfxformer.runtime.interpreters import of_this_process, thread_count
from tfxformer.runtime.model_file import open_file
from tfxformer.text import Tokenizer
from tfxformer.text.generation.settings import GenerationConfig
from tfxformer.text.generation.stopping import read_stops
from tfxformer.text.generation.streaming import Writer
from tfxformer.text.generation.token_rules import Rows, require_finite
from tfxformer.text.inputs import as_texts, check_one_prompt, prompt_ids

STREAM_OPTIONS = ("temperature", "top_k", "top_p", "min_p", "seed", "stop")


class LiteRTGenerator:
    """A file written by `export_litert` from a `CausalLM` or a `Seq2SeqLM`: text in, text out, token by token.

    Of a `CausalLM` the text goes on from a prompt, of a `Seq2SeqLM` it is the target of a source, which its encoder
    reads at once; "prompt" is said for both.

    The keys and values of the tokens so far stay in buffers that each call reads and writes in place. Each text has
    buffers of its own, so that texts may take turns and threads share one object; their calls wait for each other,
    since one call has all the threads (`text_buffers.Runtime` says what was measured). Pickled, it is its path.

    Args:
        path: the file, or a .litertlm bundle of it.
        num_threads: int; None takes the machine's cores, at most 4. More threads than free cores are slower than
            one: they wait for each other at every operator.

    Attributes:
        tokenizer: `text.Tokenizer` or None.
        cache_length: int T, prompt and answer together; of a model with an encoder, the target alone.
        prefill_lengths: tuple of int, how many tokens of a prompt one call reads.
        source_lengths: tuple of int, the most tokens of a source for each signature that reads one; () without an
            encoder.
        quantization: str or None.
        generation_config: `text.generation_config.GenerationConfig`, what the checkpoint says of its texts; assign
            another one (`dataclasses.replace`) to change it.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is no file of a causal language model, or a damaged
            one.
    """

    def __init__(self, path: str | Path, num_threads: int | None = None):
        file = open_file(path)
        own, found = file.own, file.signatures
        if decoding.DECODE not in found:
            raise ValueError(
                f"{path} has no signature decode, only {', '.join(found)}: it is no language model that writes; "
                "LiteRTModel runs it."
            )
        self.path = file.path
        self.quantization = own.get("quantization")
        self.prefill_lengths = decoding.numbers(found, decoding.PREFILL)
        self._slots = decoding.numbers(found, decoding.DECODE_FIRST)
        inputs = found[decoding.DECODE].inputs
        self.cache_length, _ = decoding.cache_slots(own, inputs)
        self._has_states = any(tensor.name.startswith(decoding.STATE) for tensor in inputs)
        self.tokenizer = file.tokenizer
        settings = GenerationConfig.from_dict(own.get("generation_config") or {}, str(path))
        if not settings.eos_token_id:  # the tokenizer's
            settings = replace(settings, eos_token_id=tuple(own.get("stop_ids") or ()))
        self.generation_config = settings
        self.source_lengths = decoding.numbers(found, decoding.ENCODE)
        self._start, self._told = own.get("decoder_start_token_id") or 0, own.get("sources") or {}
        self._around = {"first": [], "last": [], **(own.get("targets") or {})}  # ids of a target's language
        self._vocabulary_size = output_of(found[decoding.DECODE], "logits").shape[-1]
        # Sources may have a vocabulary of their own; the file says how many ids it has.
        self._read_size = (own.get("limits") or {}).get(SOURCE_INPUTS[0], self._vocabulary_size)
        self._num_threads = num_threads
        threads, content = thread_count(num_threads), file.content if file.bundled else None
        place = file.place
        limits = {"tokens": self._vocabulary_size, SOURCE_INPUTS[0]: self._read_size}
        self._make_runtime = lambda: Runtime(place, content, found, limits, threads)
        self._runtimes = {}
        of_this_process(self._runtimes, self._make_runtime)

    def __reduce__(self):
        return type(self), (self.path.absolute(), self._num_threads)

    @checked(to="stream")
    def generate(self, prompt, max_new_tokens: int | None = None, *, num_beams=None, **options) -> str | list[str]:
        """What the model goes on with, or the target of a source; of a list of texts, a list of them.

        Args:
            prompt: as in `stream`, or a list of texts.
            num_beams: int, look for the target with the highest score by so many beams, with the checkpoint's
                length_penalty and early_stopping; of a model with an encoder. None or 1 for the most likely tokens.
            others: as in `stream`.
        """
        if isinstance(prompt, (list, tuple)) and prompt and all(isinstance(one, str) for one in prompt):
            return [self.generate(one, max_new_tokens, num_beams=num_beams, **options) for one in prompt]
        if num_beams in (None, 1):
            return "".join(self.stream(prompt, max_new_tokens, **options))
        return self._best(prompt, max_new_tokens, num_beams, **options)

    def chat(self, messages: Iterable[Mapping[str, str]], max_new_tokens: int | None = None, **options) -> str:
        """The answer to a conversation.

        Args:
            messages: dicts with "role" and "content".
            options: as `stream` has them; all others are those of `chat_prompt`.
        """
        template = {name: options.pop(name) for name in list(options) if name not in STREAM_OPTIONS}
        ids = self.chat_prompt(messages, **template)
        return "".join(self._stream(ids, max_new_tokens, chat=True, **options))

    def chat_prompt(self, messages: Iterable[Mapping[str, str]], **variables) -> list[int]:
        """The ids after which the answer to a conversation comes; `stream(messages)` streams it.

        Args:
            messages: dicts with "role" and "content".
            variables: template, tools, documents, and what else the template reads (`enable_thinking=False`); see
                `text.Tokenizer.apply_chat_template`.
        """
        rendered = self._tokenizer().apply_chat_template(messages, **variables)
        return self._tokenizer().ids([rendered], special_tokens=False)[0]

    def default_sampling(self) -> dict:
        """How the checkpoint wants tokens drawn: `generate(prompt, **generator.default_sampling())`.

        Nothing where it draws none by chance, which is the default here too.

        Raises:
            ValueError: for a way to draw that there is none for here.
        """
        settings = self.generation_config
        values = settings.sampling() if settings.do_sample and settings.temperature != 0 else {}
        if settings.num_beams != 1 or "typical_p" in values:
            raise ValueError(
                f"The checkpoint generates by num_beams={settings.num_beams}, typical_p={settings.typical_p}, which a "
                "file does not: name temperature, top_k, top_p or min_p yourself."
            )
        return values

    @checked
    def stream(
        self,
        prompt: str | list[int] | list[Mapping[str, str]],
        max_new_tokens: int | None = None,
        *,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = None,
        stop: str | int | Iterable[str | int] = (),
    ) -> Iterator[str]:
        """Pieces of text as they become certain; together they are the text.

        What the checkpoint says in `generation_config` counts, but for how tokens are drawn: see `default_sampling`.

        Args:
            prompt: a text, ids of tokens, or the messages of a conversation, for the model's chat template.
            max_new_tokens: int; None for what the checkpoint says, else until an end token or the end of the cache.
            temperature, top_k, top_p, min_p: draw tokens by chance, the limits in this order; temperature 1 where a
                limit alone is given. None of them takes the most probable token, as temperature 0 does.
            seed: int, or None for another text each time.
            stop: texts before which the answer ends, or ids of tokens; besides the checkpoint's.

        Raises:
            TypeError, ValueError: an empty prompt, one longer than the cache, several, or arguments out of their range.
        """
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed}
        if isinstance(prompt, (list, tuple)) and prompt and isinstance(prompt[0], Mapping):
            return self._stream(self.chat_prompt(prompt), max_new_tokens, stop, chat=True, **options)
        check_one_prompt(prompt)
        return self._stream(self._ids_of(prompt), max_new_tokens, stop, **options)

    def _ids_of(self, prompt) -> list[int]:
        """The ids of a prompt, or of a source with its end."""
        if not isinstance(prompt, str):
            return prompt
        if self.source_lengths:
            if not prompt.strip():
                return []
            texts = [self._told.get("word", "") + text for text in as_texts([prompt], "sources")]
            found = self._tokenizer().encode(texts, language=self._told.get("language"))
            return found.token_ids[0][found.padding_mask[0] > 0].tolist()
        return prompt_ids(self._tokenizer(), prompt)

    def _stream(self, ids, max_new_tokens, stop=(), chat: bool = False, **sampling) -> Iterator[str]:
        sampler, stops = Sampler(**sampling), self._stops(stop, chat)
        return self._pieces(self._checked(ids, max_new_tokens), max_new_tokens, sampler, stops)

    def _stops(self, stop, chat: bool = False):
        tokenizer, ends = self._tokenizer().of_targets, self.generation_config.ends_in(self._vocabulary_size)
        if chat and tokenizer.eos_id is not None:  # a turn ends with it, whatever else ends a text
            ends = (*ends, tokenizer.eos_id)
        return read_stops(tokenizer, stop, ends, self.generation_config.stop_strings)

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ValueError(f"{self.path} carries no tokenizer: call generate_ids(ids) with token ids.")
        return self.tokenizer

    @checked(to=Sampler)
    def generate_ids(self, ids, max_new_tokens: int | None = None, **drawing) -> list[int]:
        """The tokens that follow the ids of a prompt, the end token left out.

        Args:
            ids, max_new_tokens: as in `stream`.
            drawing: its temperature, top_k, top_p, min_p and seed.
        """
        ids = self._checked(ids, max_new_tokens)
        ends = self.generation_config.ends_in(self._vocabulary_size)
        return list(self._tokens(ids, max_new_tokens, Sampler(**drawing), ends))

    def score(self, texts: Iterable[str], targets: Iterable[str] | None = None) -> np.ndarray:
        """The mean log-likelihood of each text's tokens, in nats a token: float64 [texts]; see `CausalLM.score`.

        Args:
            texts: of a model with an encoder, sources.
            targets: theirs, whose likelihood is asked for, the end among its tokens; see `Seq2SeqLM.score`.

        Raises:
            ValueError: for a text of fewer than two tokens, or of more than the cache holds.
        """
        texts = as_texts(texts, "sources" if self.source_lengths else "texts")
        if not self.source_lengths:
            if targets is not None:
                raise ValueError(f"{self.path} is of a model without an encoder: score(texts).")
            return np.array([self._likelihood_of(index, row) for index, row in enumerate(self.tokenizer.ids(texts))])
        targets = as_texts(() if targets is None else targets, "targets")
        if len(targets) != len(texts):
            raise ValueError(f"{len(texts)} sources but {len(targets)} targets: give each source its target.")
        tokenizer, likelihoods = self._tokenizer().of_targets, []
        end = tokenizer.eos_id
        for index, row in enumerate(tokenizer.ids(targets, special_tokens=False)):
            steps = self._begin(self._checked(self._ids_of(texts[index]), None))
            row = [*self._around["first"], *row, *([] if row[-1:] == [end] else [end]), *self._around["last"]]
            likelihoods.append(self._likelihood_of(index, [self._start, *row], steps))
        return np.array(likelihoods)

    def _likelihood_of(self, index: int, ids: list[int], steps=None) -> float:
        most = self.cache_length + 1
        if not 2 <= len(ids) <= most:
            what = "targets" if self.source_lengths else "texts"
            raise ValueError(
                f"{what}[{index}] has {len(ids)} tokens; a file with {self.cache_length} slots scores texts of 2 to "
                f"{most}: cut it, or export with a longer cache_length."
            )
        steps, likelihoods = self.steps() if steps is None else steps, []
        for token, following in itertools.pairwise(ids):
            logits = steps.decode(token).astype(np.float64)
            require_finite(np.isfinite(logits).all())
            likelihoods.append(logits[following] - np.logaddexp.reduce(logits))
        return float(np.mean(likelihoods))

    def steps(self) -> decoding.DecodingSession:
        """The calls of a new text, on buffers of its own, for one's own loop; `encode(ids)` first, with an encoder."""
        text = of_this_process(self._runtimes, self._make_runtime).text()
        steps = _Steps(text, self)
        weakref.finalize(steps, text.release).atexit = False
        return steps

    def _begin(self, ids: list[int]) -> decoding.DecodingSession:
        """The calls of a new text that have read its source, or its prompt but for the last token."""
        steps = self.steps()
        if self.source_lengths:
            steps.encode(ids)
        else:
            steps.prefill(ids[:-1])
        return steps

    def _checked(self, ids, max_new_tokens) -> list[int]:
        ids = self._whole_ids(ids)
        if not ids:
            what = "source" if self.source_lengths else "prompt"
            raise ValueError(f"The {what} is empty: give a text of one token at least.")
        if self.source_lengths and len(ids) > self.source_lengths[-1]:
            raise ValueError(
                f"The source has {len(ids)} tokens, the file reads {self.source_lengths[-1]}: shorten it, or export "
                "with a longer sequence_length."
            )
        if not self.source_lengths and len(ids) > self.cache_length:
            raise ValueError(
                f"The prompt has {len(ids)} tokens, the file's cache {self.cache_length} slots: shorten it, or "
                "export with a longer cache_length."
            )
        if max_new_tokens is not None and not (is_whole_number(max_new_tokens) and max_new_tokens >= 1):
            raise ValueError(f"max_new_tokens={max_new_tokens!r} must be a positive integer, or None.")
        return ids

    def _whole_ids(self, ids) -> list[int]:
        """Token ids as int; LiteRT would stop at those that its table does not have, or read another row."""
        ids = list(ids)
        size = self._read_size if self.source_lengths else self._vocabulary_size
        wrong = next((i for i in ids if not is_whole_number(i) or not 0 <= i < size), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r} is no token id: they are integers from 0 to {size - 1}.")
        return [int(index) for index in ids]

    def _room(self, written: list[int], max_new_tokens: int | None) -> int:
        """The slot at which a text ends unfinished."""
        # The last token is chosen but need not be written: one more than there are free slots.
        room = self.cache_length - len(written) + 1
        if max_new_tokens is None:
            max_new_tokens = self.generation_config.new_tokens(len(written), room, room)
        return len(written) + min(room, max_new_tokens)

    def _tokens(self, ids: list[int], max_new_tokens, sampler, stop_ids) -> Iterator[int]:
        rules, written = self.generation_config.rules, self._written(ids)
        first, end, steps = len(written), self._room(written, max_new_tokens), self._begin(ids)
        while len(written) < end:
            logits = steps.decode(written[-1])
            require_finite(np.isfinite(logits).all())
            if not rules.change_nothing:
                rows = Rows(np.array([written], np.int32), len(written), np.zeros(1, np.int32), first, end)
                logits = rules.apply(logits[None], rows)[0]
            token = sampler(logits)
            if token in stop_ids:
                return
            written.append(token)
            yield token

    def _written(self, ids: list[int]) -> list[int]:
        """What the decoder goes on from: the prompt, or the token with which a target begins."""
        return [self._start] if self.source_lengths else list(ids)

    def _pieces(self, ids, max_new_tokens, sampler, stops) -> Iterator[str]:
        tokens = self._tokens(ids, max_new_tokens, sampler, stops.ids)
        return Writer(self._tokenizer().of_targets, self._written(ids), stops).written([token] for token in tokens)

    def _best(self, prompt, max_new_tokens, num_beams, stop=(), **options) -> str:
        """The text of the best of several beams."""
        if not self.source_lengths or options:
            reason = f"it leaves no place for {', '.join(options)}" if options else "the file has no encoder"
            raise ValueError(f"num_beams={num_beams} searches for the target with the highest score: {reason}.")
        check_one_prompt(prompt)
        ids, stops = self._checked(self._ids_of(prompt), max_new_tokens), self._stops(stop)
        settings, written = self.generation_config, self._written(ids)
        search = beam_search.BeamSearch(num_beams, settings.length_penalty, settings.early_stopping, settings.rules)
        end = self._room(written, max_new_tokens)
        steps = self._begin(ids)
        found = search.run([steps, *(self.steps() for _ in range(num_beams - 1))], written, end, stops.ids)
        return "".join(Writer(self._tokenizer().of_targets, written, stops).written([token] for token in found[0].ids))


class _Steps(decoding.DecodingSession):
    """The state of one text in its buffers; beams take each other's."""

    def __init__(self, text: Text, generator: LiteRTGenerator):
        lengths, has_states = generator.prefill_lengths, generator._has_states
        super().__init__(text.run, lengths, generator.cache_length, generator._slots, has_states)
        self._text, self._source_lengths = text, generator.source_lengths

    def encode(self, ids: list[int]) -> None:
        """Reads a source, by the shortest signature that holds it."""
        self._text.encode(ids, next(length for length in self._source_lengths if len(ids) <= length))

    def copy(self, other: _Steps, source: bool = False) -> None:
        """Stands where another text stands; with `source`, reads the source that it reads, too."""
        self._text.copy(other._text, source)
        self.position = other.position
