"""Text from the .tflite file of a causal language model, with ai-edge-litert alone (no Keras, no TensorFlow).

Shape letters: S tokens of a call, T slots of the cache, V vocabulary.
"""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from tfxformer.arguments.keywords import checked
from tfxformer.arguments.plain_values import is_whole_number
from tfxformer.runtime import decoding
from tfxformer.runtime.interpreters import of_this_process, thread_count
from tfxformer.runtime.model_file import Place, open_file
from tfxformer.runtime.quiet import quiet_runtime
from tfxformer.runtime.sampling import Sampler
from tfxformer.text import Tokenizer
from tfxformer.text.generation.settings import GenerationConfig
from tfxformer.text.generation.stopping import read_stops
from tfxformer.text.generation.streaming import Writer
from tfxformer.text.generation.token_rules import Rows, require_finite
from tfxformer.text.inputs import as_texts, check_one_prompt, prompt_ids

STREAM_OPTIONS = ("temperature", "top_k", "top_p", "min_p", "seed", "stop")


class LiteRTGenerator:
    """A file written by `export_litert` from a causal language model: prompts in, text out, token by token.

    The keys and values of the tokens so far stay in buffers that each call reads and writes in place. Each text has
    buffers of its own, so that texts may take turns and threads share one object; their calls wait for each other,
    since one call has all the threads (`_Runtime` says what was measured). Pickled, it is its path.

    Args:
        path: the file, or a .litertlm bundle of it.
        num_threads: int; None takes the machine's cores, at most 4. More threads than free cores are slower than
            one: they wait for each other at every operator.

    Attributes:
        tokenizer: `text.Tokenizer` or None.
        cache_length: int T, prompt and answer together.
        prefill_lengths: tuple of int, how many tokens of a prompt one call reads.
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
        caches = [tensor for tensor in found[decoding.DECODE].inputs if tensor.name.startswith(decoding.CACHE)]
        self.cache_length = caches[0].shape[2]  # keys [1, G, T, H]
        self.tokenizer = file.tokenizer
        settings = GenerationConfig.from_dict(own.get("generation_config") or {}, str(path))
        if not settings.eos_token_id:  # the tokenizer's
            settings = replace(settings, eos_token_id=tuple(own.get("stop_ids") or ()))
        self.generation_config = settings
        self._vocabulary_size = _output(found[decoding.DECODE], "logits").shape[-1]
        self._num_threads = num_threads
        threads, content = thread_count(num_threads), file.content if file.bundled else None
        place = file.place
        self._make_runtime = lambda: _Runtime(place, content, found, threads)
        self._runtimes = {}
        of_this_process(self._runtimes, self._make_runtime)

    def __reduce__(self):
        return type(self), (self.path.absolute(), self._num_threads)

    @checked(to="stream")
    def generate(self, prompt, max_new_tokens: int | None = None, **options) -> str:
        """What the model goes on with; arguments as in `stream`."""
        return "".join(self.stream(prompt, max_new_tokens, **options))

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
        ids = prompt_ids(self._tokenizer(), prompt) if isinstance(prompt, str) else prompt
        return self._stream(ids, max_new_tokens, stop, **options)

    def _stream(self, ids, max_new_tokens, stop=(), chat: bool = False, **sampling) -> Iterator[str]:
        tokenizer = self._tokenizer()
        sampler = Sampler(**sampling)
        ends = self.generation_config.ends_in(self._vocabulary_size)
        if chat and tokenizer.eos_id is not None:  # a turn ends with it, whatever else ends a text
            ends = (*ends, tokenizer.eos_id)
        stops = read_stops(tokenizer, stop, ends, self.generation_config.stop_strings)
        return self._pieces(self._checked(ids, max_new_tokens), max_new_tokens, sampler, stops)

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

    def score(self, texts: Iterable[str]) -> np.ndarray:
        """The mean log-likelihood of each text's tokens, in nats a token: float64 [texts]; see `CausalLM.score`.

        Raises:
            ValueError: for a text of fewer than two tokens, or of more than the cache holds.
        """
        rows = self.tokenizer.ids(as_texts(texts))
        for index, row in enumerate(rows):
            if not 2 <= len(row) <= self.cache_length + 1:
                raise ValueError(
                    f"texts[{index}] has {len(row)} tokens; a file with {self.cache_length} slots scores texts of 2 to "
                    f"{self.cache_length + 1}: cut it, or export with a longer cache_length."
                )
        return np.array([self._log_likelihood(row) for row in rows])

    def _log_likelihood(self, ids: list[int]) -> float:
        steps, likelihoods = self.steps(), []
        for token, following in itertools.pairwise(ids):
            logits = steps.decode(token).astype(np.float64)
            require_finite(np.isfinite(logits).all())
            likelihoods.append(logits[following] - np.logaddexp.reduce(logits))
        return float(np.mean(likelihoods))

    def steps(self) -> decoding.DecodingSession:
        """The calls of a new text, on buffers of its own, for one's own loop."""
        text = of_this_process(self._runtimes, self._make_runtime).text()
        steps = decoding.DecodingSession(text.run, self.prefill_lengths, self.cache_length, self._slots)
        weakref.finalize(steps, text.release).atexit = False
        return steps

    def _checked(self, ids, max_new_tokens) -> list[int]:
        ids = self._whole_ids(ids)
        if not ids:
            raise ValueError("The prompt is empty: give a text of one token at least.")
        if len(ids) > self.cache_length:
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
        wrong = next((i for i in ids if not is_whole_number(i) or not 0 <= i < self._vocabulary_size), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r} is no token id: they are integers from 0 to {self._vocabulary_size - 1}.")
        return [int(index) for index in ids]

    def _tokens(self, ids: list[int], max_new_tokens, sampler, stop_ids) -> Iterator[int]:
        # The last token is chosen but need not be written: one more than there are free slots.
        room, settings = self.cache_length - len(ids) + 1, self.generation_config
        if max_new_tokens is None:
            max_new_tokens = settings.new_tokens(len(ids), room, room)
        rules, written = settings.rules, list(ids)
        end = len(ids) + min(room, max_new_tokens)
        steps = self.steps()
        steps.prefill(ids[:-1])
        while len(written) < end:
            logits = steps.decode(written[-1])
            require_finite(np.isfinite(logits).all())
            if not rules.change_nothing:
                rows = Rows(np.array([written], np.int32), len(written), np.zeros(1, np.int32), len(ids), end)
                logits = rules.apply(logits[None], rows)[0]
            token = sampler(logits)
            if token in stop_ids:
                return
            written.append(token)
            yield token

    def _pieces(self, ids, max_new_tokens, sampler, stops) -> Iterator[str]:
        tokens = self._tokens(ids, max_new_tokens, sampler, stops.ids)
        return Writer(self.tokenizer, ids, stops).written([token] for token in tokens)


def _output(info, name: str):
    return next(tensor for tensor in info.outputs if tensor.name == name)


class _Runtime:
    """The compiled signatures of a file, and the buffers of its texts.

    Texts take turns under a lock: a call waits for the weights to come from memory, and all threads share that.
    Measured against a model of one thread for each caller (benchmarks/threads.py, six layers, int8): those wrote no
    more tokens a second, and held 115 MB where one model with the buffers of 8 texts held 40 MB.
    """

    def __init__(self, place: Place, content: bytes | None, signatures: dict, num_threads: int):
        from ai_edge_litert.compiled_model import CompiledModel, CpuOptions, Options

        self.lock = threading.Lock()
        self.place, self._content, self._signatures = place if content is None else None, content, signatures
        self.vocabulary_size = _output(signatures[decoding.DECODE], "logits").shape[-1]
        self.free = []  # buffers whose texts are finished
        # Signatures share the weights as XNNPACK packs them: else each holds them in memory once more.
        shared = ":memory" if sys.platform == "linux" else ""
        options = Options(cpu_options=CpuOptions(num_threads=num_threads, xnnpack_weight_cache_path=shared))
        with quiet_runtime():
            try:
                if content is None:
                    self.model = CompiledModel.from_file(place.path, options=options)
                else:
                    self.model = CompiledModel.from_buffer(content, options=options)
            except (RuntimeError, ValueError) as error:
                raise ValueError(f"LiteRT does not open {place.path}: {error}") from error
            if self.place is not None and Place.of(place.path) != place:
                raise ValueError(f"{place.path} is no longer the file that was checked: open it again.")
            self.free.append(self._buffers())

    def __del__(self):
        if not sys.is_finalizing():
            with quiet_runtime():  # an environment that goes says so
                self.model = self.free = None

    def _buffers(self) -> dict:
        """{signature: (inputs, outputs)} for one text, each buffer of its cache both read and written."""
        decode = self._signatures[decoding.DECODE]
        cache = {}
        for tensor in decode.inputs:
            if tensor.name.startswith(decoding.CACHE):
                cache[tensor.name] = self.model.create_input_buffer_by_name(decode.name, tensor.name)
                cache[tensor.name].write(np.zeros(tensor.shape, tensor.dtype))  # not NaN by chance: 0 * NaN is NaN
        return {name: self._bind(info, cache) for name, info in self._signatures.items()}

    def _bind(self, info, cache: dict) -> tuple[dict, dict]:
        make_input, make_output = self.model.create_input_buffer_by_name, self.model.create_output_buffer_by_name
        inputs = {t.name: cache.get(t.name) or make_input(info.name, t.name) for t in info.inputs}
        outputs = {t.name: cache.get(t.name) or make_output(info.name, t.name) for t in info.outputs}
        return inputs, outputs

    def is_idle(self) -> bool:
        """Whether no call is running."""
        if not self.lock.acquire(blocking=False):
            return False
        self.lock.release()
        return True

    def text(self) -> _Text:
        """What runs a new text."""
        with self.lock:
            return _Text(self, self.free.pop() if self.free else self._buffers())


class _Text:
    """One text in the buffers of a runtime."""

    def __init__(self, runtime: _Runtime, buffers: dict):
        self._runtime, self._buffers = runtime, buffers

    def release(self) -> None:
        """Lets another text have the buffers."""
        self._runtime.free.append(self._buffers)
        self._buffers = None

    def run(self, signature: str, tokens, positions):
        """One call; see `decoding.DecodingSession`."""
        runtime = self._runtime
        if tokens.max() >= runtime.vocabulary_size:  # LiteRT stops, or reads another row
            raise ValueError(f"{tokens.max()} is no token id: they are below {runtime.vocabulary_size}.")
        inputs, outputs = self._buffers[signature]
        with runtime.lock:
            if runtime.place is not None:
                runtime.place.is_there()
            inputs["tokens"].write(tokens)
            inputs["input_pos"].write(positions)
            runtime.model.run_by_name(signature, inputs, outputs)
            return outputs["logits"].read(runtime.vocabulary_size, np.float32) if "logits" in outputs else None
