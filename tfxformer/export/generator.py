"""Text from the .tflite file of a causal language model, with ai-edge-litert alone (no Keras, no TensorFlow).

Shape letters: S tokens of a call, T slots of the cache, V vocabulary.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from tfxformer.export import decoding, flatbuffer, metadata
from tfxformer.export.quiet import quiet
from tfxformer.export.sampling import Sampler
from tfxformer.text import Tokenizer
from tfxformer.text.inputs import as_texts
from tfxformer.text.stopping import StopStrings
from tfxformer.text.streaming import TextStream


class LiteRTGenerator:
    """A file written by `export_litert` from a causal language model: prompts in, text out, token by token.

    The keys and values of the tokens so far stay in buffers that each call reads and writes in place; a new prompt
    begins anew. One object serves one text at a time.

    Args:
        path: the file.
        num_threads: int; None takes the machine's cores, at most 4. More threads than free cores are slower than
            one: they wait for each other at every operator.

    Attributes:
        tokenizer: `text.Tokenizer` or None.
        cache_length: int T, prompt and answer together.
        prefill_lengths: tuple of int, how many tokens of a prompt one call reads.
        quantization: str or None.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is no file of a causal language model.
    """

    def __init__(self, path: str | Path, num_threads: int | None = None):
        content = Path(path).read_bytes()
        model = flatbuffer.read(content)
        own = json.loads(flatbuffer.get_metadata(model, metadata.OWN_ENTRY) or b"{}")
        found = flatbuffer.signatures(model)
        if decoding.DECODE not in found:
            raise ValueError(f"{path} has no signature decode, only {', '.join(found)}: it is no language model.")
        self.path = Path(path)
        self.quantization = own.get("quantization")
        self.prefill_lengths = decoding.numbers(found, decoding.PREFILL)
        self._slots = decoding.numbers(found, decoding.DECODE_FIRST)
        caches = [tensor for tensor in found[decoding.DECODE].inputs if tensor.name.startswith(decoding.CACHE)]
        self.cache_length = caches[0].shape[2]  # keys [1, G, T, H]
        files = metadata.associated_files(content)
        self.tokenizer = None
        if metadata.TOKENIZER in files:
            self.tokenizer = Tokenizer.from_json(files[metadata.TOKENIZER].decode("utf-8"))
        self._stop_ids = frozenset(own.get("stop_ids") or ())
        self._runtime = _Runtime(path, found, num_threads or min(4, os.cpu_count() or 1))

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
        """The calls of a new text on the file's buffers, for one's own loop; another text's are then over."""
        return decoding.Steps(self._runtime.run, self.prefill_lengths, self.cache_length, self._slots)

    def _prompt_ids(self, prompt) -> list[int]:
        if isinstance(prompt, str):
            (ids,) = self.tokenizer.ids([prompt])
            if len(ids) > 1 and ids[-1] == self.tokenizer.eos_id:
                ids = ids[:-1]  # of a tokenizer that ends every text: there is nothing to say after the end
            begin = self.tokenizer.bos_id
            return [begin] if not ids and begin is not None else ids
        return self.tokenizer.ids([self.tokenizer.apply_chat_template(prompt)], special_tokens=False)[0]

    def _checked(self, ids, max_new_tokens) -> list[int]:
        ids = [int(index) for index in ids]
        if not ids:
            raise ValueError("The prompt is empty: give a text of one token at least.")
        if len(ids) > self.cache_length:
            raise ValueError(
                f"The prompt has {len(ids)} tokens, the file's cache {self.cache_length} slots: shorten it, or "
                "export with a longer cache_length."
            )
        if max_new_tokens is not None and max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens!r} must be positive, or None.")
        return ids

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


class _Runtime:
    """The compiled signatures of a file on buffers made once, each cache buffer both read and written."""

    def __init__(self, path, signatures: dict, num_threads: int):
        from ai_edge_litert.compiled_model import CompiledModel, CpuOptions, Options

        with quiet():
            # Signatures share the weights as XNNPACK packs them: else each holds them in memory once more.
            shared = ":memory" if sys.platform == "linux" else ""
            options = Options(cpu_options=CpuOptions(num_threads=num_threads, xnnpack_weight_cache_path=shared))
            self._model = CompiledModel.from_file(str(path), options=options)
            cache = {}
            for tensor in signatures[decoding.DECODE].inputs:
                if tensor.name.startswith(decoding.CACHE):
                    cache[tensor.name] = self._model.create_input_buffer_by_name(decoding.DECODE, tensor.name)
                    cache[tensor.name].write(np.zeros(tensor.shape, tensor.dtype))  # 0 * NaN would be NaN
            self._buffers = {name: self._bind(info, cache) for name, info in signatures.items()}
        logits = next(tensor for tensor in signatures[decoding.DECODE].outputs if tensor.name == "logits")
        self._vocabulary_size = logits.shape[-1]

    def _bind(self, info, cache: dict) -> tuple[dict, dict]:
        make_input, make_output = self._model.create_input_buffer_by_name, self._model.create_output_buffer_by_name
        inputs = {t.name: cache.get(t.name) or make_input(info.name, t.name) for t in info.inputs}
        outputs = {t.name: cache.get(t.name) or make_output(info.name, t.name) for t in info.outputs}
        return inputs, outputs

    def run(self, signature: str, tokens, positions):
        """One call; see `decoding.Steps`."""
        inputs, outputs = self._buffers[signature]
        inputs["tokens"].write(tokens)
        inputs["input_pos"].write(positions)
        self._model.run_by_name(signature, inputs, outputs)
        return outputs["logits"].read(self._vocabulary_size, np.float32) if "logits" in outputs else None
