"""Text from the .tflite file of a causal language model, with ai-edge-litert alone (no Keras, no TensorFlow).

Shape letters: S tokens of a call, T slots of the cache, V vocabulary.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from tfxformer.export import decoding
from tfxformer.export.interpreters import of_this_process, thread_count
from tfxformer.export.model_file import Place, open_file
from tfxformer.export.quiet import quiet_runtime
from tfxformer.export.sampling import Sampler
from tfxformer.text.inputs import as_texts
from tfxformer.text.stopping import StopStrings
from tfxformer.text.streaming import TextStream


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
        self._stop_ids = frozenset(own.get("stop_ids") or ())
        self._vocabulary_size = _output(found[decoding.DECODE], "logits").shape[-1]
        self._num_threads = num_threads
        threads, content = thread_count(num_threads), file.content if file.bundled else None
        place = file.place
        self._make_runtime = lambda: _Runtime(place, content, found, threads)
        self._runtimes = {}
        of_this_process(self._runtimes, self._make_runtime)

    def __reduce__(self):
        return type(self), (self.path.absolute(), self._num_threads)

    def generate(self, prompt, max_new_tokens: int | None = None, **options) -> str:
        """What the model goes on with; arguments as in `stream`."""
        return "".join(self.stream(prompt, max_new_tokens, **options))

    def chat(self, messages: Iterable[Mapping[str, str]], max_new_tokens: int | None = None, **options) -> str:
        """The answer to a conversation: dicts with "role" and "content"; other arguments as in `stream`."""
        return self.generate(list(messages), max_new_tokens, **options)

    def stream(
        self,
        prompt: str | list[Mapping[str, str]],
        max_new_tokens: int | None = None,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = None,
        stop: str | Iterable[str] = (),
    ) -> Iterator[str]:
        """Pieces of text as they become certain; together they are the text.

        Args:
            prompt: a text, or the messages of a conversation, for the model's chat template.
            max_new_tokens: int, or None to go on until an end token or the end of the cache.
            temperature, top_k, top_p, min_p, seed: how tokens are chosen; see `sampling.Sampler`. The default is the
                most likely token.
            stop: texts before which the answer ends.

        Raises:
            ValueError: an empty prompt, one longer than the cache, or arguments out of their range.
        """
        if self.tokenizer is None:
            raise ValueError(f"{self.path} carries no tokenizer: call generate_ids(ids) with token ids.")
        ids = self._prompt_ids(prompt)
        sampler = Sampler(temperature, top_k, top_p, min_p, seed)
        stops = [stop] if isinstance(stop, str) else list(stop)
        if any(not isinstance(text, str) or not text for text in stops):
            raise ValueError(f"stop={stop!r}: stop texts are not empty.")
        return self._pieces(self._checked(ids, max_new_tokens), max_new_tokens, sampler, StopStrings(stops))

    def generate_ids(self, ids, max_new_tokens: int | None = None, sampler: Sampler | None = None) -> list[int]:
        """The tokens that follow the ids of a prompt, the end token left out."""
        return list(self._tokens(self._checked(ids, max_new_tokens), max_new_tokens, sampler or Sampler()))

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
            likelihoods.append(logits[following] - np.logaddexp.reduce(logits))
        return float(np.mean(likelihoods))

    def steps(self) -> decoding.Steps:
        """The calls of a new text, on buffers of its own, for one's own loop."""
        text = of_this_process(self._runtimes, self._make_runtime).text()
        steps = decoding.Steps(text.run, self.prefill_lengths, self.cache_length, self._slots)
        weakref.finalize(steps, text.release).atexit = False
        return steps

    def _prompt_ids(self, prompt) -> list[int]:
        if isinstance(prompt, str):
            (ids,) = self.tokenizer.ids([prompt])
            if len(ids) > 1 and ids[-1] == self.tokenizer.eos_id:
                ids = ids[:-1]  # of a tokenizer that ends every text: there is nothing to say after the end
            begin = self.tokenizer.bos_id
            return [begin] if not ids and begin is not None else ids
        return self.tokenizer.ids([self.tokenizer.apply_chat_template(prompt)], special_tokens=False)[0]

    def _checked(self, ids, max_new_tokens) -> list[int]:
        ids = self._whole_ids(ids)
        if not ids:
            raise ValueError("The prompt is empty: give a text of one token at least.")
        if len(ids) > self.cache_length:
            raise ValueError(
                f"The prompt has {len(ids)} tokens, the file's cache {self.cache_length} slots: shorten it, or "
                "export with a longer cache_length."
            )
        if max_new_tokens is not None and not (_is_whole(max_new_tokens) and max_new_tokens >= 1):
            raise ValueError(f"max_new_tokens={max_new_tokens!r} must be a positive integer, or None.")
        return ids

    def _whole_ids(self, ids) -> list[int]:
        """Token ids as int; LiteRT would stop at those that its table does not have, or read another row."""
        ids = list(ids)
        wrong = next((i for i in ids if not _is_whole(i) or not 0 <= i < self._vocabulary_size), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r} is no token id: they are integers from 0 to {self._vocabulary_size - 1}.")
        return [int(index) for index in ids]

    def _tokens(self, ids: list[int], max_new_tokens, sampler) -> Iterator[int]:
        # The last token is chosen but need not be written: one more than there are free slots.
        room = self.cache_length - len(ids) + 1
        steps = self.steps()
        steps.prefill(ids[:-1])
        token = ids[-1]
        for _ in range(min(room, max_new_tokens or room)):
            token = sampler(steps.decode(token))
            if token in self._stop_ids:
                return
            yield token

    def _pieces(self, ids, max_new_tokens, sampler, stops) -> Iterator[str]:
        text = TextStream(self.tokenizer)
        for token in self._tokens(ids, max_new_tokens, sampler):
            yield from filter(None, [stops.feed(text.feed(token))])
            if stops.stopped:
                return
        yield from filter(None, [stops.feed(text.end()) + stops.end()])


def _is_whole(value) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _output(info, name: str):
    return next(tensor for tensor in info.outputs if tensor.name == name)


class _Runtime:
    """The compiled signatures of a file, and the buffers of its texts.

    A decoder waits for its weights to come from memory, which several threads in one call share: a lock around one
    model, with as many threads as there are cores, was measured against a model for each thread, which holds the packed
    weights once more (benchmarks/threads.py has the figures).
    """

    def __init__(self, place: Place, content: bytes | None, signatures: dict, num_threads: int):
        from ai_edge_litert.compiled_model import CompiledModel, CpuOptions, Options

        self.process, self.lock = os.getpid(), threading.Lock()
        self.place, self._content, self._signatures = place if content is None else None, content, signatures
        self.vocabulary_size = _output(signatures[decoding.DECODE], "logits").shape[-1]
        self.free = []  # buffers of texts that are over
        # Signatures share the weights as XNNPACK packs them: else each holds them in memory once more.
        shared = ":memory" if sys.platform == "linux" else ""
        options = Options(cpu_options=CpuOptions(num_threads=num_threads, xnnpack_weight_cache_path=shared))
        with quiet_runtime():
            try:
                if content is None:
                    self.model = CompiledModel.from_file(str(place.path), options=options)
                else:
                    self.model = CompiledModel.from_buffer(content, options=options)
            except (RuntimeError, ValueError) as error:
                raise ValueError(f"LiteRT does not open {place.path}: {error}") from error
            if self.place is not None and Place.of(place.path) != place:
                raise ValueError(f"{place.path} is no longer the file that was checked: open it again.")
            self.free.append(self._buffers())

    def _buffers(self) -> dict:
        """{signature: (inputs, outputs)} for one text, each buffer of its cache both read and written."""
        decode = self._signatures[decoding.DECODE]
        cache = {}
        for tensor in decode.inputs:
            if tensor.name.startswith(decoding.CACHE):
                cache[tensor.name] = self.model.create_input_buffer_by_name(decode.name, tensor.name)
                cache[tensor.name].write(np.zeros(tensor.shape, tensor.dtype))  # 0 * NaN would be NaN
        return {name: self._bind(info, cache) for name, info in self._signatures.items()}

    def _bind(self, info, cache: dict) -> tuple[dict, dict]:
        make_input, make_output = self.model.create_input_buffer_by_name, self.model.create_output_buffer_by_name
        inputs = {t.name: cache.get(t.name) or make_input(info.name, t.name) for t in info.inputs}
        outputs = {t.name: cache.get(t.name) or make_output(info.name, t.name) for t in info.outputs}
        return inputs, outputs

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

    def run(self, signature: str, tokens, positions):
        """One call; see `decoding.Steps`."""
        runtime = self._runtime
        if runtime.process != os.getpid():
            raise RuntimeError("This text was begun in the parent process, whose threads are not here: begin it anew.")
        inputs, outputs = self._buffers[signature]
        with runtime.lock:
            if runtime.place is not None:
                runtime.place.is_there()
            inputs["tokens"].write(tokens)
            inputs["input_pos"].write(positions)
            runtime.model.run_by_name(signature, inputs, outputs)
            return outputs["logits"].read(runtime.vocabulary_size, np.float32) if "logits" in outputs else None
